"""What fits beside suspension, and which of it is the best: every rule, without a kernel."""

from dataclasses import replace as but

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from napctl.attach.attach_options import AttachOptions, in_mode, options_of
from napctl.attach.attachment import planned
from napctl.attach.inspect_target import Examination
from napctl.attach.judge_target import Choice, JudgedTarget
from napctl.attach.next_best import MOST_CPU, fed_napis, misfit, offers_of, with_best
from napctl.attach.switch_way import in_way
from napctl.attach.thread_places import ThreadPlace, spin_misfit, thread_places
from napctl.model.change import NapiChange, SocketChange, ThreadChange
from napctl.model.errors import BadInput
from napctl.model.machine import EpollPoller
from napctl.model.modes import OF_INSTANCES, Mode, mode_of, satisfies
from napctl.model.next_best import NextBest, Offer, Price
from napctl.model.settings import BUSY_POLL, NapiSettings, ThreadSettings
from napctl.model.suspension import Suspension
from napctl.model.timer_choice import WORTH
from tests.unit.attach.targets import ABLE, NETNS, UNSET, examination, instance, judged, plain_socket, waits

ROUNDS = 6
SOFTIRQ = ThreadSettings(threaded="disabled", nice=0, cpus="0-3")
NOISE = (1.0, 1.01, 0.99, 1.02, 0.98, 1.0)


def with_threads(found: Examination, thread: ThreadSettings = SOFTIRQ) -> Examination:
    """As a kernel with a thread for each instance shows it."""
    located = {
        napi_id: but(each, napi=replace(each.napi, thread=thread, cpus="2")) for napi_id, each in found.napis.items()
    }
    return but(found, napis=located)


GO = with_threads(examination(instance(5, {300: 3, 301: 2}), queues=4))
"""One epoll instance over several queues."""


def in_mode_of_instances(found: Examination, mode: Mode, *, spins: bool = False) -> JudgedTarget:
    napis = fed_napis(found)
    places = thread_places(napis, {1}, range(4), {}) if mode == "thread" else ()
    ids = tuple(each.napi.napi_id for each in napis)
    return but(judged(found), choice=Choice((), (), (), ids, mode, places, spins))


def price(cpu_us: float, read_us: float | None = None) -> Price:
    return Price(
        cpu_share=0.1, packets_per_second=1e4, polls_per_second=1e4, wait_p50_us=1.0, read_p50_us=read_us,
        cpu_us_per_packet=tuple(cpu_us * each for each in NOISE),
        read_us=() if read_us is None else tuple(read_us * each for each in reversed(NOISE)),
    )  # fmt: skip


def offer(mode: Mode, found: Price | None, *, spins: bool = False) -> Offer:
    return Offer(mode=mode, spins=spins, fits=found is not None, why="", price=found)


def best_of(base: Price, *offers: Offer) -> NextBest:
    return with_best(NextBest(offers=offers, gro_flush_timeout_ns=200_000, as_it_is=base))


# What fits.


def test_threads_and_deferral_are_of_exactly_the_instances_that_feed_it() -> None:
    assert [each.napi.napi_id for each in fed_napis(GO)] == [300, 301]
    threads = planned(in_mode_of_instances(GO, "thread"), Suspension())
    assert [(type(each), each.napi_id) for each in threads if isinstance(each, ThreadChange)] == [
        (ThreadChange, 300),
        (ThreadChange, 301),
    ]
    deferral = in_mode(AttachOptions(suspension=Suspension()), "defer").suspension
    changes = planned(in_mode_of_instances(GO, "defer"), in_way(deferral, 50_000))
    wanted = NapiSettings(defer_hard_irqs=100, gro_flush_timeout_ns=50_000, irq_suspend_timeout_ns=0)
    assert [(each.napi_id, each.after) for each in changes if isinstance(each, NapiChange)] == [
        (300, wanted), (301, wanted),
    ]  # fmt: skip
    assert len(changes) == 2


def test_a_thread_is_set_as_a_whole_and_its_former_state_is_kept() -> None:
    (first, _) = planned(in_mode_of_instances(GO, "thread", spins=True), Suspension())
    assert isinstance(first, ThreadChange)
    assert first.before == SOFTIRQ
    assert first.after == ThreadSettings(threaded=BUSY_POLL, nice=0, cpus="2")


@pytest.mark.parametrize(
    ("found", "mode", "words"),
    [
        (GO, "thread", ""),
        (GO, "defer", ""),
        (examination(instance(5)), "thread", "no NAPI instance feeds it"),
        (examination(instance(5)), "defer", "no NAPI instance feeds it"),
        (examination(instance(5, {300: 1}), settings=replace(ABLE, threaded=None)), "thread", "Linux 6.17"),
        (examination(instance(5, {300: 1}), settings=NapiSettings(threaded="disabled")), "defer", "Linux 6.13"),
        (examination(instance(5, {300: 1}), settings=NapiSettings(threaded="disabled")), "thread", ""),
    ],
)
def test_what_a_kernel_or_a_target_lacks_is_said(found: Examination, mode: Mode, words: str) -> None:
    said = misfit(mode, found)
    assert bool(said) == bool(words)
    assert words in said
    (made,) = (
        each for each in offers_of(found, (), 1, unpollable="no", cpus=4) if (each.mode, each.spins) == (mode, 0)
    )
    assert (made.fits, made.why == said) == (not words, bool(words))


def test_an_instance_that_somebody_else_polls_is_left_to_him() -> None:
    other = EpollPoller(pid=77, name="haproxy", epoll_fd=9, params=UNSET, napi_ids=(301,))
    for mode in OF_INSTANCES:
        assert "NAPI 301 is polled by haproxy (77)" in misfit(mode, but(GO, others=(other,)))


def test_threads_that_spin_leave_a_cpu_to_the_rest() -> None:
    places = tuple(ThreadPlace(netns=NETNS, napi_id=300 + each, cpu=each, shared=False) for each in range(2))

    def spinning(cpus: int) -> Offer:
        (found,) = (each for each in offers_of(GO, places, 1, unpollable="", cpus=cpus) if each.spins)
        return found

    assert (spinning(3).fits, spinning(3).why) == (True, "2 cores, also at rest, on CPUs 0-1")
    assert (spinning(2).fits, spinning(2).why) == (False, "2 threads would spin, on 2 of 2 CPUs")
    assert spin_misfit([replace(places[0], cpu=1), places[1]], 8) == "2 threads would spin, on 1 of 8 CPUs"


def test_each_price_in_principle_is_told_with_its_figures() -> None:
    places = (ThreadPlace(netns=NETNS, napi_id=300, cpu=3, shared=True),)
    told = {each.name: each.why for each in offers_of(GO, places, 200_000, unpollable="", cpus=4)}
    assert told["thread"] == "a wake-up for each interrupt, on CPU 3, where the target runs as well"
    assert told["thread --spin"] == "a core, also at rest, on CPU 3, where the target runs as well"
    assert told["defer"] == "packets wait up to 200us for their poll"
    assert "200us" in told["poll"]


# Which is the best.


def test_the_one_that_saves_the_most_cpu_time_beyond_the_noise_is_the_best() -> None:
    found = best_of(price(10), offer("thread", price(12)), offer("defer", price(5)), offer("poll", price(8)))
    assert found.best is not None
    assert found.best.mode == "defer"
    assert found.why.startswith("50 % less CPU time for each packet (")
    assert "5.00 instead of 10.00 µs" in found.why


def test_what_saves_less_than_a_tenth_or_less_than_the_noise_is_none() -> None:
    assert best_of(price(10), offer("defer", price(9.5))).best is None
    noisy = replace(price(8), cpu_us_per_packet=(2.0, 14.0, 3.0, 13.0, 2.0, 14.0))
    found = best_of(price(10), offer("defer", noisy))
    assert found.best is None
    assert "beyond the noise" in found.why


def test_without_a_saving_the_one_that_lets_packets_be_read_sooner_is_the_best_if_it_is_affordable() -> None:
    cheap = offer("thread", price(15, read_us=20))
    dear = offer("thread", price(10 * MOST_CPU + 1, read_us=5), spins=True)
    found = best_of(price(10, read_us=100), cheap, dear)
    assert found.best is not None
    assert (found.best.mode, found.best.spins) == ("thread", False)
    assert found.why.startswith("packets are read 80 % sooner")
    assert best_of(price(10, read_us=100), dear).best is None
    assert best_of(price(10, read_us=100), offer("defer", price(15, read_us=80))).best is None, "it is not worth it"


def test_what_was_not_measured_or_does_not_fit_is_never_the_best() -> None:
    nothing = NextBest(offers=(offer("defer", None),), gro_flush_timeout_ns=1, unmeasured="why")
    assert with_best(nothing) == nothing
    unfit = replace(offer("defer", price(1)), fits=False)
    assert best_of(price(10), unfit, offer("thread", price(12))).best is None


PRICES = st.builds(price, st.floats(0.01, 1e3), st.none() | st.floats(0.01, 1e4))
OFFERS = st.lists(
    st.builds(offer, st.sampled_from(["poll", "thread", "defer"]), st.none() | PRICES, spins=st.booleans()), max_size=4
)


@given(PRICES, OFFERS)
def test_the_best_fits_and_is_better_than_what_is_there(base: Price, offers: list[Offer]) -> None:
    found = best_of(base, *offers)
    assert [each.name for each in found.offers] == [each.name for each in offers]
    if found.best is None:
        return
    assert found.best.fits
    assert found.best in found.offers
    saves = [each for each in (found.best.cpu_saved, found.best.time_saved) if each and each.share >= WORTH]
    assert any(each.least > 0 for each in saves)
    assert found.best.price is not None
    assert found.best.price.cpu_us <= MOST_CPU * base.cpu_us
    for each in found.offers:
        if each.cpu_saved is not None and each.cpu_saved.share >= WORTH and each.cpu_saved.least > 0:
            assert found.best.cpu_saved is not None
            assert found.best.cpu_saved.share >= each.cpu_saved.share


# Modes, and options beside them.


def test_the_mode_is_read_off_the_changes() -> None:
    def made(mode: Mode) -> Mode:
        return mode_of(planned(in_mode_of_instances(GO, mode), in_way(deferral, 200_000)))

    deferral = in_mode(AttachOptions(suspension=Suspension()), "defer").suspension
    assert made("thread") == "thread"
    assert made("defer") == "defer"
    assert mode_of(planned(judged(examination(instance(5, {300: 3}))), Suspension())) == "suspend"
    read = examination(plain_sockets=(plain_socket(threads=(waits(call="recv", fd=9),)),))
    changes = planned(judged(read), Suspension())
    assert [type(each) for each in changes] == [NapiChange, SocketChange]
    assert mode_of(changes) == "poll"
    assert mode_of(()) == "suspend"


def test_suspension_is_satisfied_by_the_busy_polling_that_it_brings_along_and_auto_by_all() -> None:
    assert [each for each in ("suspend", "poll", "thread", "defer") if satisfies(each, "suspend")] == [
        "suspend",
        "poll",
    ]
    assert all(satisfies(each, "auto") for each in ("suspend", "poll", "thread", "defer"))
    assert not satisfies("suspend", "thread")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"spin": True}, "--spin"),
        ({"spin": True, "mode": "defer"}, "--spin"),
        ({"steer": True, "mode": "thread"}, "--steer"),
        ({"mode": "defer", "latency_budget_ns": 10**5}, "--latency-budget"),
        ({"mode": "auto", "latency_budget_ns": 10**5}, "--latency-budget"),
        ({"mode": "thread", "timer_ns": 50_000}, "--defer-us"),
    ],
)
def test_options_without_a_meaning_in_a_mode_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=f"^{words}: "):
        options_of(values, stays=True)


@given(st.sampled_from(["poll", "thread", "defer"]), st.booleans())
def test_no_mode_but_suspension_suspends(mode: Mode, stays: bool) -> None:
    options = options_of({"mode": mode}, stays=stays)
    assert options.mode == mode
    assert options.suspension.irq_suspend_timeout_ns == 0
    assert options.suspension.prefer_busy_poll == (mode == "poll")
