"""Numbers as load tools write them; outputs that are mangled, cut off or garbage."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napctl.load.tools import ADAPTERS
from napctl.load.tools.numbers import documents, histogram, microseconds, number, plain
from tests.figures import invented
from tests.strategies import examples
from tests.unit.load.recorded import TOLD, recorded, tool_of

DERIVED = ("sockperf", "iperf3")
"""Their requests/s are a quotient of two figures."""


UNITS = {"ns": -3, "us": 0, "µs": 0, "usec": 0, "ms": 3, "msec": 3, "s": 6, "sec": 6}
DECIMALS = st.decimals(0, 10**12, allow_nan=False, allow_infinity=False, places=3).map(lambda value: f"{value:f}")


@given(DECIMALS, st.sampled_from(sorted(UNITS)), st.sampled_from(("", " ")))
def test_a_time_is_what_is_written(digits: str, unit: str, space: str) -> None:
    wanted = float(Fraction(digits) * Fraction(10) ** UNITS[unit])
    assert microseconds(f"{digits}{space}{unit}") == microseconds(digits, unit) == pytest.approx(wanted, rel=1e-15)


@given(DECIMALS, st.sampled_from((("", 0), ("k", 3), ("K", 3), ("M", 6), ("G", 9))))
def test_a_rate_is_what_is_written(digits: str, unit: tuple[str, int]) -> None:
    assert plain(f"{digits}{unit[0]}") == pytest.approx(float(Fraction(digits) * 10 ** unit[1]), rel=1e-15)


@pytest.mark.parametrize("text", ["", "-", "nan", "inf", "-nan", "-1", "1,5", "0x10", "1e9999", "1.", ".5", "٣", "1 2"])
def test_what_is_no_number_is_refused(text: str) -> None:
    for read in (number, plain, lambda text: microseconds(text, "us")):
        with pytest.raises(ValueError, match="is no "):
            read(text)


@pytest.mark.parametrize("text", ["5", "5 parsecs", "5MS", "5 k", "ms", "5msms"])
def test_a_time_without_a_known_unit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no time with its unit"):
        microseconds(text)


def test_a_number_that_no_float_can_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="too large"):
        plain("1e999")


@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 1000)), max_size=20))
def test_a_cumulative_distribution_becomes_counts(steps: list[tuple[int, int]]) -> None:
    total, cumulative = 0, []
    for upper, (_, count) in enumerate(steps, 1):
        total += count
        cumulative.append((float(upper), total))
    made = histogram(cumulative)
    assert sum(count for _, count in made) == total
    assert all(count > 0 for _, count in made)


def test_json_among_other_lines_is_found_whole() -> None:
    text = 'note: {not json}\n{"a": 0.1,\n "b": {\n  "c": [1]\n }}\ntrailing\n[2]\n{"broken": \n{"n": NaN}\n'
    assert documents(text) == [{"a": 0.1, "b": {"c": [1]}}, [2]]


RECORDED = [recorded(name) for name in TOLD]
JUNK = st.text('0123456789.:%=<>-()[]{}",usmkM \t\r\n\x1b', max_size=12)


@st.composite
def mangled(draw: st.DrawFn) -> tuple[str, str]:
    """A tool, and a recorded output of it with pieces cut out, put in, moved and exchanged."""
    name = draw(st.sampled_from(sorted(TOLD)))
    text = recorded(name)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        length = draw(st.sampled_from((0, 1, 2, 10, 100)))
        piece = draw(JUNK | st.just(text[at : at + 60]) | st.sampled_from(RECORDED).map(lambda other: other[-300:]))
        text = text[:at] + piece + text[at + length :]
    return tool_of(name), draw(st.sampled_from((text, text[: draw(st.integers(0, len(text)))])))


@settings(max_examples=examples(150, 600))
@given(mangled())
def test_a_mangled_output_gives_an_error_or_figures_that_stand_in_it(case: tuple[str, str]) -> None:
    tool, text = case
    try:
        reading = ADAPTERS[tool].read(text)
    except ValueError:
        return
    assert reading.metrics(), "a reading without figures"
    assert not invented(reading, text, derived=("requests_per_second",) if tool in DERIVED else ())


@settings(max_examples=examples(75, 300))
@given(st.sampled_from(sorted(ADAPTERS)), st.text(max_size=300) | st.lists(JUNK, max_size=30).map("\n".join))
def test_garbage_gives_an_error(tool: str, text: str) -> None:
    with pytest.raises(ValueError, match=rf"^{tool}: .+$"):
        ADAPTERS[tool].read(text)


@given(st.sampled_from(sorted(TOLD)), st.data())
def test_an_output_that_was_cut_off_gives_an_error_or_what_the_whole_one_gives(name: str, data: st.DataObject) -> None:
    text = recorded(name)
    whole = ADAPTERS[tool_of(name)].read(text).metrics()
    cut = text[: data.draw(st.integers(0, len(text)))]
    try:
        told = ADAPTERS[tool_of(name)].read(cut).metrics()
    except ValueError:
        return
    assert told.items() <= whole.items()
