"""What can be done for a target that suspension does not fit, and which of it is the best. Pure.

Each mode is judged by what it needs alone: whether it is worth its price, only the traffic that is there can tell.
"""

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from napctl.attach.inspect_target import Examination, LocatedNapi
from napctl.attach.napi_trouble import NO_DEFERRAL, why_not_ours, why_polled
from napctl.attach.thread_places import ThreadPlace, spin_misfit, thread_words
from napctl.model.modes import Mode
from napctl.model.next_best import NextBest, Offer, Price, Saved
from napctl.model.timer_choice import WORTH
from napctl.model.units import duration_text
from napctl.stats.saving import saved

__all__ = ["MOST_CPU", "fed_napis", "misfit", "offers_of", "with_best"]


ALPHA = 0.05
"""How often, at most, noise is taken for a mode that saves something."""
MOST_CPU = 2.0
"""Times the CPU time of what is there: what saves none, but time until packets are read, may cost so much."""
UNFED = "no NAPI instance feeds it yet: it has no connection, or none that came over a device that has them"
TOGETHER = "this kernel has NAPI threads for all instances of a device or for none (Linux 6.17 has them for one)"


def fed_napis(found: Examination) -> tuple[LocatedNapi, ...]:
    """The NAPI instances that feed the target, in the order of their ids; one that belongs to no device is left out."""
    return tuple(found.napis[napi_id] for napi_id in sorted({napi_id for _, napi_id in found.feeding}))


def misfit(mode: Mode, found: Examination) -> str:
    """Why a mode of NAPI instances cannot be had for those that feed a target, in a clause; empty: it can."""
    napis = fed_napis(found)
    if not napis:
        return UNFED
    ids = [each.napi.napi_id for each in napis]
    if bad := next(filter(None, (why_not_ours(napi_id, found.napis) for napi_id in ids)), ""):
        return bad
    if mode == "thread" and any(each.napi.settings.threaded is None for each in napis):
        return TOGETHER
    if mode == "defer" and any(each.napi.settings.gro_flush_timeout_ns is None for each in napis):
        return NO_DEFERRAL
    return next(filter(None, (why_polled(napi_id, found.others) for napi_id in ids)), "")


def offers_of(
    found: Examination, places: Sequence[ThreadPlace], timer_ns: int, *, unpollable: str, cpus: int
) -> tuple[Offer, ...]:
    """All modes beside suspension. `places`: where threads would run; `timer_ns`: of deferral; `unpollable`: why
    nothing of it could busy poll without epoll, empty if something can; `cpus`: so many there are."""
    return (_poll(timer_ns, unpollable), *_threads(found, places, cpus), _defer(found, timer_ns))


def _poll(timer_ns: int, bad: str) -> Offer:
    price = f"reads spin a while for packets; while nobody reads, they wait up to {duration_text(timer_ns)}"
    return Offer(mode="poll", fits=not bad, why=bad or price)


def _threads(found: Examination, places: Sequence[ThreadPlace], cpus: int) -> Iterator[Offer]:
    bad = misfit("thread", found)
    yield Offer(mode="thread", fits=not bad, why=bad or f"a wake-up for each interrupt, {thread_words(places)}")
    bad = bad or spin_misfit(places, cpus)
    spins = f"{'a core' if len(places) == 1 else f'{len(places)} cores'}, also at rest, {thread_words(places)}"
    yield Offer(mode="thread", spins=True, fits=not bad, why=bad or spins)


def _defer(found: Examination, timer_ns: int) -> Offer:
    bad = misfit("defer", found)
    return Offer(mode="defer", fits=not bad, why=bad or f"packets wait up to {duration_text(timer_ns)} for their poll")


def with_best(found: NextBest) -> NextBest:
    """From the prices: what each mode saves, and which is the best.

    That is what saves the most CPU time for each packet, at least a tenth and beyond the noise. If none does: what
    saves the most time until packets are read, by the same rule, if that shrinks by more than the CPU time grows, which
    may double at most.
    """
    base = found.as_it_is
    measured = [each for each in found.offers if each.fits and each.price is not None]
    if base is None:
        return found
    if not measured:
        return replace(found, why="none of them can be had")
    offers = tuple(_compared(each, base, ALPHA / (2 * len(measured))) for each in found.offers)
    cheap = [(each.cpu_saved.share, each) for each in offers if _is_worth(each.cpu_saved)]  # type: ignore[union-attr]
    quick = [
        (each.time_saved.share, each)  # type: ignore[union-attr]
        for each in offers
        if _is_worth(each.time_saved) and _is_affordable(each, base)
    ]
    best = max(cheap or quick, key=lambda each: each[0])[1] if cheap or quick else None
    return replace(found, offers=offers, best=best, why=_why(best, base, cheap=bool(cheap)))


def _compared(offer: Offer, base: Price, alpha: float) -> Offer:
    if not offer.fits or offer.price is None:
        return offer
    return replace(
        offer,
        cpu_saved=saved(base.cpu_us_per_packet, offer.price.cpu_us_per_packet, alpha),
        time_saved=saved(base.read_us, offer.price.read_us, alpha),
    )


def _is_worth(found: Saved | None) -> bool:
    return found is not None and found.share >= WORTH and found.least > 0


def _is_affordable(offer: Offer, base: Price) -> bool:
    if offer.price is None or offer.time_saved is None:
        return False
    dearer = offer.price.cpu_us / base.cpu_us
    return dearer <= MOST_CPU and dearer * (1 - offer.time_saved.share) < 1


def _why(best: Offer | None, base: Price, *, cheap: bool) -> str:
    found = None if best is None else best.cpu_saved if cheap else best.time_saved
    if best is None or best.price is None or found is None:
        return (
            f"none of them saves {100 * WORTH:.0f} % of the CPU time for each packet, or of the time until packets are "
            "read, beyond the noise"
        )
    noise = f"{100 * found.least:.0f} to {100 * found.most:.0f} % within the noise"
    cpu = f"{best.price.cpu_us:.2f} instead of {base.cpu_us:.2f} µs"
    if cheap:
        return f"{100 * found.share:.0f} % less CPU time for each packet ({noise}): {cpu}"
    return f"packets are read {100 * found.share:.0f} % sooner ({noise}), at a CPU time for each packet of {cpu}"
