"""The next best for a target that suspension does not fit: each mode that does, tried under its traffic."""

from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Self

from msgspec.structs import replace

from napctl.attach.attach_options import AttachOptions, in_mode
from napctl.attach.follow_step import NapiKey
from napctl.attach.inspect_process import Key
from napctl.attach.inspect_target import LocatedNapi
from napctl.attach.judge_target import NONE, JudgedTarget, judge, unfit_words
from napctl.attach.next_best import fed_napis, offers_of, with_best
from napctl.attach.packet_cost import CostProbe, cost_between
from napctl.attach.placement import cpus_online_count
from napctl.attach.switch_way import in_way
from napctl.attach.timer_choice import whole_rounds, within
from napctl.attach.timer_sweep import (
    CHANGING_SECONDS,
    SETTLE_SECONDS,
    Locked,
    has_traffic,
    on_trial,
    swept_at_once,
)
from napctl.change.journal import Journal
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.model.change import Guard
from napctl.model.errors import BadInput, NapctlError, NotPermitted, RolledBack, Unsupported
from napctl.model.next_best import NextBest, Offer, Price, PriceWindow
from napctl.model.suspension import Suspension
from napctl.observe.server_latency import LatencyMeter
from napctl.probe import ProbeUnavailable
from napctl.probe.napi import Probe

__all__ = ["ROUNDS_TO_CHOOSE", "ROUNDS_TO_TELL", "ModeSweep", "mode_sweep", "next_best", "offered", "options_for"]


WINDOW_SECONDS = 0.3
ROUNDS_TO_TELL, ROUNDS_TO_CHOOSE = 2, 6
"""Each mode is tried that often, in turn: few windows show what it costs, and do not tell a saving from the noise."""
TOO_LITTLE = "too little traffic to try them on"
ModeSweep = Generator[float, None, NextBest]
"""As a Sweep of timer_sweep.py."""
_Trial = tuple[JudgedTarget, Suspension]


def next_best(
    journal: Journal, target: JudgedTarget, options: AttachOptions, *, rounds: int, progress: Callable[[str], None]
) -> NextBest:
    """A whole sweep at once. While it measures, the journal is free for others. Raises what mode_sweep() does."""
    return swept_at_once(journal, lambda locked: mode_sweep(locked, target, options, rounds=rounds, progress=progress))


def offered(target: JudgedTarget, options: AttachOptions, refused: Mapping[Key, str] = NONE) -> NextBest:
    """What fits beside suspension, without prices. Changes nothing. `refused`: as of judge()."""
    timer_ns = options.timer_ns or within(options.budget_ns)[-1]
    threads = judge(target.found, in_mode(options, "thread")).choice.threads
    by_polling = judge(target.found, in_mode(options, "poll"), refused=refused)
    unpollable = unfit_words(by_polling) if by_polling.choice.empty else ""
    offers = offers_of(target.found, threads, timer_ns, unpollable=unpollable, cpus=cpus_online_count())
    return NextBest(offers=offers, gro_flush_timeout_ns=timer_ns)


def options_for(options: AttachOptions, offer: Offer) -> AttachOptions:
    """To attach in the mode that is offered."""
    return in_mode(options, offer.mode, spins=offer.spins)


def mode_sweep(
    locked: Locked,
    target: JudgedTarget,
    options: AttachOptions,
    *,
    rounds: int,
    progress: Callable[[str], None],
    guard: Callable[[], Guard | None] = lambda: None,
    refused_before: Mapping[Key, str] = NONE,
) -> ModeSweep:
    """Attach in one mode after the other, and not at all, measure, and let go again; with the best of them, if there
    were rounds enough to tell.

    Nothing is left attached: as of timer_sweep(), which it raises the same as. What the kernel refuses, or somebody
    else holds, does not fit; nor does what was `refused_before`, as of judge().
    """
    found = offered(target, options, refused_before)
    if not any(each.fits for each in found.offers):
        return replace(found, unmeasured="nothing else fits")
    try:
        with CostProbe({each.pid for each in target.found.processes}) as cost:
            keys = {_key(each) for each in fed_napis(target.found)}
            if not (yield from has_traffic(cost, keys, WINDOW_SECONDS)):
                return replace(found, unmeasured=TOO_LITTLE)
        with _Windows(target) as windows:
            trials = dict(_trials(target, options, found, refused_before))
            ways = list(trials)
            seconds = (WINDOW_SECONDS + SETTLE_SECONDS + CHANGING_SECONDS) * rounds * len(ways)
            progress(f"trying what fits instead of suspension for about {seconds:.0f} s")
            counted: dict[Offer | None, list[PriceWindow]] = {each: [] for each in ways}
            refused: dict[Offer, str] = {}
            for turn in range(rounds):
                for way in ways[:: 1 if turn % 2 else -1]:
                    if way in refused:
                        continue
                    try:
                        counted[way].append((yield from _tried(locked, trials[way], guard(), windows)))
                    except NapctlError as error:
                        if way is None or not _is_refusal(error):
                            raise
                        refused[way] = str(error)
    except ProbeUnavailable as error:
        return replace(found, unmeasured=f"they could not be tried: {error.reason}")
    whole = whole_rounds({way: each for way, each in counted.items() if way not in refused})
    if whole is None:
        return replace(found, unmeasured=TOO_LITTLE)
    offers = [_priced(each, whole.get(each, ()), refused.get(each, "")) for each in found.offers]
    priced = replace(found, offers=tuple(offers), as_it_is=Price.of(whole[None]))
    return with_best(priced) if rounds >= ROUNDS_TO_CHOOSE else priced


def _trials(
    target: JudgedTarget, options: AttachOptions, found: NextBest, refused: Mapping[Key, str]
) -> Iterator[tuple[Offer | None, _Trial | None]]:
    """What is attached for each offer that fits; None: nothing, as it is."""
    yield None, None
    for offer in found.offers:
        if offer.fits:
            meant = options_for(options, offer)
            wanted = in_way(meant.suspension, found.gro_flush_timeout_ns)
            yield offer, (judge(target.found, meant, refused=refused), wanted)


def _tried(
    locked: Locked, trial: _Trial | None, guard: Guard | None, windows: "_Windows"
) -> Generator[float, None, PriceWindow]:
    """One window of what is attached so; None: as it is."""
    if trial is None:
        return (yield from windows.one())
    with on_trial(locked, *trial, guard):
        yield SETTLE_SECONDS
        return (yield from windows.one())


def _is_refusal(error: NapctlError) -> bool:
    """Whether a mode cannot be had, of which nothing is left by now."""
    cause = error.because if isinstance(error, RolledBack) else error
    return isinstance(cause, Unsupported | BadInput | NotPermitted) and not error.leaves_changed


def _priced(offer: Offer, windows: Sequence[PriceWindow], refused: str) -> Offer:
    if refused:
        return replace(offer, fits=False, why=refused)
    return replace(offer, price=Price.of(windows)) if windows else offer


class _Windows:
    """Of what a target's packets cost, whoever polls for them. A context manager."""

    def __init__(self, target: JudgedTarget) -> None:
        self._napis = fed_napis(target.found)
        self._keys = {_key(each) for each in self._napis}
        self._servers = {each.pid for each in target.found.processes}

    def __enter__(self) -> Self:
        """Raises ProbeUnavailable."""
        with ExitStack() as undo:
            self._cost = undo.enter_context(CostProbe(self._servers))
            self._polls = undo.enter_context(Probe.load())
            self._latency = undo.enter_context(LatencyMeter(self._servers))
            self._open = undo.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    def one(self) -> Generator[float, None, PriceWindow]:
        """From now."""
        self._cost.follow(self._servers | set(_threads_of(self._napis)))
        polls, before = self._polls_made(), self._cost.read(self._keys)
        self._latency.restart()
        yield WINDOW_SECONDS
        cost, latency = cost_between(before, self._cost.read(self._keys)), self._latency.window().together
        read_ns = latency.until_read.percentile_ns(0.5) if latency is not None else None
        return PriceWindow(
            seconds=cost.seconds,
            cpu_seconds=cost.cpu_seconds,
            packets=cost.packets,
            polls=self._polls_made() - polls,
            wait_p50_us=cost.waits.wait_percentile_us(0.5) if cost.waits else None,
            read_p50_us=None if read_ns is None else read_ns / 1000,
        )

    def _polls_made(self) -> int:
        """By anybody, until now."""
        napis = (each for each in self._polls.read().napis if (each.netns, each.napi_id) in self._keys)
        return sum(part.polls for each in napis for part in (each.softirq, each.thread, each.busy_poll))


def _key(located: LocatedNapi) -> NapiKey:
    return located.netns, located.napi.napi_id


def _threads_of(napis: Collection[LocatedNapi]) -> Iterator[int]:
    """Pids of the threads that these instances have by now."""
    for inode in {each.netns for each in napis}:
        netns = NetworkNamespace.find(inode)
        if netns is not None:
            with netns, suppress(OSError), Netdev(netns) as netdev:
                told = (netdev.napi(each.napi.napi_id) for each in napis if each.netns == inode)
                yield from (each.thread_pid for each in told if each is not None and each.thread_pid)
