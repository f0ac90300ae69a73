"""Which timer is chosen from trials, and why: every rule, without a kernel."""

from hypothesis import given
from hypothesis import strategies as st

from napctl.model.timer import FALLBACK_NS, TIMERS_NS, WORTH, TimerChoice, Trial, chosen, within
from napctl.model.value import from_json, to_json

BUDGETS = st.none() | st.integers(1, 10**10)
CPU = st.floats(0, 8, allow_nan=False)
RATE = st.floats(1, 1e7)


def trial(timer_ns: int, cpu_share: float | None, packets_per_second: float | None = 10_000) -> Trial:
    return Trial(
        gro_flush_timeout_ns=timer_ns, cpu_share=cpu_share, packets_per_second=packets_per_second, wait_p50_us=None
    )


@st.composite
def trials(draw: st.DrawFn) -> list[Trial]:
    return [trial(each, draw(CPU), draw(RATE)) for each in within(draw(BUDGETS))]


@given(BUDGETS)
def test_no_timer_beyond_the_latency_budget_is_ever_tried(budget_ns: int | None) -> None:
    timers = within(budget_ns)

    assert timers
    assert list(timers) == sorted(set(timers))
    assert budget_ns is None or max(timers) <= budget_ns
    assert set(timers) <= set(TIMERS_NS) or timers == (budget_ns,)


def test_without_a_budget_all_are_tried_and_a_budget_below_all_is_the_timer() -> None:
    assert within(None) == TIMERS_NS == (20_000, 50_000, 200_000)
    assert within(60_000) == (20_000, 50_000)
    assert within(50_000) == (20_000, 50_000)
    assert within(5_000) == (5_000,)


@given(trials())
def test_the_choice_is_one_of_the_trials_and_says_why(seen: list[Trial]) -> None:
    choice = chosen(seen, None)

    assert choice.gro_flush_timeout_ns in {each.gro_flush_timeout_ns for each in seen}
    assert choice.trials == tuple(seen)
    assert choice.why
    assert "\n" not in choice.why
    assert from_json(to_json(choice), TimerChoice) == choice


@given(trials())
def test_a_longer_timer_is_chosen_only_for_the_cpu_time_that_it_saves(seen: list[Trial]) -> None:
    choice = chosen(seen, None)
    cost = {each.gro_flush_timeout_ns: each.cpu_us_per_packet for each in seen}
    first, mine = seen[0], cost[choice.gro_flush_timeout_ns]
    first_cost = first.cpu_us_per_packet
    assert mine is not None
    assert first_cost is not None

    if choice.gro_flush_timeout_ns == first.gro_flush_timeout_ns:
        return
    for timer, other in cost.items():
        assert other is not None
        if timer < choice.gro_flush_timeout_ns:
            assert mine < other
    assert mine < (1 - WORTH) * first_cost


@given(trials())
def test_no_timer_that_was_passed_over_saves_enough(seen: list[Trial]) -> None:
    choice = chosen(seen, None)
    mine = next(each for each in seen if each.gro_flush_timeout_ns == choice.gro_flush_timeout_ns).cpu_us_per_packet
    assert mine is not None

    for each in seen:
        if each.gro_flush_timeout_ns > choice.gro_flush_timeout_ns and mine > 0:
            assert each.cpu_us_per_packet is not None
            assert each.cpu_us_per_packet >= (1 - WORTH) * mine


@given(BUDGETS, st.integers(0, 2))
def test_without_traffic_the_longest_timer_within_the_budget_is_taken_and_that_is_said(
    budget_ns: int | None, untold: int
) -> None:
    timers = within(budget_ns)
    seen = [trial(each, None if number == untold % len(timers) else 0.5) for number, each in enumerate(timers)]

    choice = chosen(seen, budget_ns)

    assert choice.gro_flush_timeout_ns == timers[-1]
    assert "too little traffic" in choice.why
    assert budget_ns is not None or choice.gro_flush_timeout_ns == FALLBACK_NS


def test_the_cpu_time_of_a_packet_is_not_known_without_packets() -> None:
    assert trial(20_000, 0.5, 10_000).cpu_us_per_packet == 50
    assert trial(20_000, None).cpu_us_per_packet is None
    assert trial(20_000, 0.5, 0).cpu_us_per_packet is None
    assert trial(20_000, 0.5, None).cpu_us_per_packet is None


def test_cpu_time_too_short_to_be_measured_favours_no_longer_timer() -> None:
    assert chosen([trial(20_000, 0), trial(50_000, 0), trial(200_000, 0)], None).gro_flush_timeout_ns == 20_000


def test_the_words_tell_which_rule_decided() -> None:
    even = [trial(20_000, 0.50), trial(50_000, 0.48), trial(200_000, 0.46)]
    assert (chosen(even, None).gro_flush_timeout_ns, chosen(even, None).why) == (
        20_000, "no longer one saves 10% of the CPU time for each packet",
    )  # fmt: skip
    saving = [trial(20_000, 0.50), trial(50_000, 0.40), trial(200_000, 0.30)]
    assert (chosen(saving, None).gro_flush_timeout_ns, "it saves 40%" in chosen(saving, None).why) == (200_000, True)
    assert chosen(saving[:1], 20_000).why == "the only one within the latency budget"
    # 50 µs is worth it, and 200 µs is not worth it beyond that.
    assert chosen([trial(20_000, 0.50), trial(50_000, 0.40), trial(200_000, 0.38)], None).gro_flush_timeout_ns == 50_000
