"""Promises of the summary of an experiment: no difference is claimed that the spread could have made."""

from hypothesis import given
from hypothesis import strategies as st

from napctl.cli.demo import short
from napctl.measure.experiment import LoadLevel, schedule
from napctl.measure.plainwords import sentences
from napctl.measure.summary import Cell, Row, Spread, compare, summarise
from napctl.measure.treatment import BUSY_POLLING, INTERRUPTS, SUSPENSION

figures = st.lists(st.floats(0, 1e6), min_size=4, max_size=8)


def row(*values: float, treatment: str = "suspension") -> Row:
    spread = Spread(median=sorted(values)[len(values) // 2], least=min(values), most=max(values))
    return Row(treatment=treatment, load="heavy", rounds=len(values), metrics={"p99_us": spread})


def cell(treatment: str, load: str, number: int, p99_us: float | None = 100.0, cpu: float = 0.5) -> Cell:
    return Cell(
        treatment=treatment,
        load=load,
        round=number,
        asked_per_second=1000,
        requests_per_second=1000,
        p50_us=p99_us,
        p99_us=p99_us,
        server_cpu_share=cpu,
        cpu_us_per_request=None if p99_us is None else cpu * 1000,
        net_rx_softirqs_per_second=None,
        kernel_polls_per_second=None,
        server_poll_share=0.94,
        generator_busy_share=0.5,
        generator_late_share=0.0,
    )


@given(figures, figures)
def test_a_difference_is_claimed_only_when_no_round_overlaps(first: list[float], second: list[float]) -> None:
    verdict = compare(row(*first), row(*second), "p99_us")
    assert (verdict == "lower") == (max(first) < min(second))
    assert (verdict == "higher") == (min(first) > max(second))


def test_of_few_rounds_no_difference_is_claimed() -> None:
    assert compare(row(1, 2, 3), row(7, 8, 9), "p99_us") == "no different"


def test_what_was_not_measured_is_not_compared() -> None:
    assert compare(row(1), row(2), "server_poll_share") is None


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=9))
def test_a_row_holds_the_median_and_the_extremes_of_its_cells(values: list[float]) -> None:
    (found,) = summarise([cell("suspension", "heavy", number, value) for number, value in enumerate(values)])
    spread = found.metrics["p99_us"]
    assert spread.least == min(values)
    assert spread.most == max(values)
    assert spread.least <= spread.median <= spread.most
    assert "net_rx_softirqs_per_second" not in found.metrics


@given(st.integers(1, 6), st.integers())
def test_every_round_holds_every_cell_once_and_a_seed_fixes_the_order(rounds: int, seed: int) -> None:
    levels = [LoadLevel(name=name, rate_per_second=1) for name in ("rest", "light")]
    treatments = [INTERRUPTS, BUSY_POLLING, SUSPENSION]
    order = list(schedule(treatments, levels, rounds, seed))
    assert order == list(schedule(treatments, levels, rounds, seed))
    for number in range(rounds):
        block = order[number * 6 : number * 6 + 6]
        assert {each[0] for each in block} == {number + 1}
        assert len({(level.name, treatment.name) for _, level, treatment in block}) == 6


def all_cells(p99_of_suspension: float) -> list[Cell]:
    cells = []
    for number in (1, 2, 3, 4):
        for load in ("heavy", "light", "rest"):
            cells += [
                cell("interrupts", load, number, None if load == "rest" else 100.0 + number, cpu=0.4),
                cell("busy polling", load, number, None if load == "rest" else 10.0, cpu=1.0),
                cell("suspension", load, number, None if load == "rest" else p99_of_suspension, cpu=0.3),
            ]
    return cells


def test_the_plain_words_say_lower_higher_or_no_different_and_give_both_medians() -> None:
    lower = sentences(summarise(all_cells(50.0)), heavy="heavy", light="light", rest="rest")
    assert "the p99 is lower (50.0 against 102 µs)" in lower[0]
    assert "memcached made 94.0 % of the polls itself" in lower[0]
    assert "the p50 is higher (50.0 against 10.0 µs), and the CPU use lower (30 against 100 %)" in lower[1]
    assert "30.0 % of a CPU with suspension, 40.0 % with interrupts, 100.0 % with busy polling" in lower[2]
    same = sentences(summarise(all_cells(102.0)), heavy="heavy", light="light", rest="rest")
    assert "the p99 is no different beyond the spread (102 against 102 µs)" in same[0]


@given(st.floats(0, 9e6))
def test_a_short_number_fits_its_column_and_is_off_by_at_most_a_twentieth(value: float) -> None:
    text = short(value)
    assert len(text) <= 4
    scale = {"k": 1e3, "M": 1e6}.get(text[-1], 1)
    read = float(text.rstrip("kM")) * scale
    assert abs(read - value) <= max(0.0051, 0.0501 * value)
