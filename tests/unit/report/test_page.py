"""Promises of a report's page: all that it has to hold, well-formed, escaped, self-contained, and with contrast."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

import napctl
from napctl.model.experiment import (
    NOTHING,
    Cell,
    Comparison,
    Estimate,
    Judgement,
    RunConfig,
    SavingsBound,
    Summary,
    saved_metric,
)
from napctl.model.metrics import ALL
from napctl.report.answers import answers
from napctl.report.matrix import SIGNS, matrix
from napctl.report.page.page import page_of
from napctl.report.page.svg import SeriesStyle, scale
from napctl.report.summary import Run
from tests.strategies import examples
from tests.unit import runs

RUN = runs.run()
HTML = page_of([RUN])
VOID = {"meta", "link", "br"}


class Page(HTMLParser):
    """The page as a list of elements; any tag that is not closed where it has to be fails."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice in {tag}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"{tag} closed, but not open"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "title"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def points(self) -> list[dict[str, str | None]]:
        return [each for each in self.all("g") if "point" in (each.get("class") or "")]


def checked(html: str) -> Page:
    """Well-formed, with what every page needs, and nothing from elsewhere."""
    found = Page(html)
    assert html.startswith("<!DOCTYPE html>")
    assert found.all("html")[0]["lang"] == "en"
    assert not found.all("script")
    assert not [each for _, each in found.elements if any(name.startswith("on") for name in each)]
    for _, each in found.elements:
        for name in ("src", "href", "xlink:href", "action"):
            assert (each.get(name) or "#").startswith(("#", "data:,")), each
    assert not re.search(r"url\(|@import|https?:", html.partition("</style>")[0])
    ids = [each["id"] for _, each in found.elements if "id" in each]
    assert len(set(ids)) == len(ids)
    targets = {(each.get("href") or "")[1:] for each in found.all("a")}
    assert targets <= set(ids)
    levels = [int(name[1]) for name, _ in found.elements if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels
    assert all(each.get("aria-label") and each.get("tabindex") == "0" for each in found.points)
    assert all(each.get("scope") for each in found.all("th"))
    assert not re.search(r"\b(nan|inf)\b", " ".join(re.findall(r' (?:d|x|y|cx|cy|transform)="([^"]*)"', html)))
    return found


def test_it_is_one_well_formed_page_that_needs_nothing_else() -> None:
    checked(HTML)
    assert "default-src 'none'" in HTML


def test_what_may_be_said_comes_first_and_how_it_was_measured_last() -> None:
    order = re.findall(r'<h2 id="([a-z]+)"', HTML)
    assert order == ["verdict", "bound", "load", "plane", "polls", "energy", "tables", "warnings", "how"]
    said = checked(HTML).text
    assert all(" ".join(sentence.split()) in said for sentence in RUN.summary.sentences)
    assert said.index(RUN.summary.sentences[0]) < said.index("What could be saved at most")


def test_the_demo_begins_with_its_answer_then_the_matrix_and_names_its_ways_in_words() -> None:
    demo = runs.demo()
    found = checked(page_of([demo]))
    told = answers(demo)
    assert len(told) == 3
    places = [found.text.index(" ".join(each.split())) for each in told]
    assert places == sorted(places)
    assert places[-1] < found.text.index("Load 20,000/s") < found.text.index("Every comparison in words")
    assert found.text.startswith(f"Skip to the verdict demo Verdict {told[0][:20]}")
    assert not re.search(r"(suspend|defer):\d|fullbusy|\bbase\b", found.text)
    kinds = [entry.kind for load in matrix(demo) for line in load.lines for entry in line.entries if entry.found]
    cells = [each for each in found.all("td") if (each.get("class") or "").startswith("is-") and each.get("title")]
    assert sum("95 % interval" in (each["title"] or "") for each in cells) == len(kinds)
    for kind in ("better", "worse", "none"):
        assert sum(each["class"] == f"is-{kind}" for each in cells) == kinds.count(kind) > 0
        assert SIGNS[kind] in found.text


def test_a_saving_that_was_not_found_is_said_to_be_within_the_noise() -> None:
    judged = {(each.load, each.treatment, each.metric): each.judgement for each in RUN.summary.comparisons}
    savings: list[str] = [
        judged[bound.load, name, saved_metric(bound.load)] for bound in RUN.summary.bounds for name in bound.saved_share
    ]
    assert 0 < savings.count(NOTHING) < len(savings), "the run has both"
    assert HTML.count("within the noise: no significant difference") == savings.count(NOTHING)


def test_it_holds_every_estimate_every_comparison_and_every_warning() -> None:
    found = checked(HTML)
    metrics = {each.metric for each in RUN.summary.estimates}
    assert all(metric.title in found.text for metric in ALL if metric.name in metrics)
    assert (
        sum(found.text.count(words) for words in ("no significant difference", "better", "worse"))
        > len(runs.RATES) * 10
    )
    assert all(warning in found.text for warning in RUN.summary.warnings)
    assert f"{runs.FAILED} failed in 6 of 6 rounds: {runs.WHY}" in found.text
    rows = HTML.partition("<h3>Comparisons</h3>")[2].partition("<h3>Every metric</h3>")[0]
    assert rows.count('<td class="judged') == len(RUN.summary.comparisons) + len(RUN.summary.between)


def test_it_says_how_it_was_measured() -> None:
    said = checked(HTML).text.partition("How it was measured Conditions")[2]
    asked = RUN.config
    for told in (str(asked.seed), asked.load, asked.target, "napctl apply nic.toml", "AMD EPYC 7662", "RAPL package-0"):
        assert told in said, told
    first = next(cell for cell in RUN.cells if cell.position == 1)
    assert f"{first.treatment} {first.load} ·" in said


def test_each_chart_has_its_points_and_a_table_of_the_same() -> None:
    found = checked(HTML)
    figures = len(found.all("figure"))
    measured, loads = 4, 3
    assert figures == 3 + loads + (measured - 1) * loads + 2
    assert HTML.count("The same as a table") == figures
    bins = 9
    energy = 2 * (measured - 1) * loads
    assert len(found.points) == 3 * measured * loads + measured * loads + (measured - 1) * loads * bins + energy


def test_a_run_without_energy_says_so() -> None:
    without = runs.run(energy=False)
    assert "Energy was not measured" in checked(page_of([without])).text


def test_two_runs_have_the_same_treatments_side_by_side_and_what_differs() -> None:
    other = runs.run("today", slower=1.3)
    other = replace(other, machine=other.machine | {"kernel": "6.19.0"})
    found = checked(page_of([RUN, other]))
    labels = [each["aria-label"] or "" for each in found.points]
    at = labels.index(next(label for label in labels if label.startswith("base · memcached, 20,000/s")))
    assert any(label.startswith("base · today, 20,000/s") for label in labels[at:])
    differing = found.text.partition("What differs besides")[2].partition("What could be saved")[0]
    assert "machine: kernel 6.18.3 6.19.0" in differing
    assert "today against memcached, load max" in found.text
    assert "overlap" in found.text


def test_runs_of_one_name_are_told_apart() -> None:
    assert "memcached (1) against memcached (2)" in checked(page_of([RUN, RUN])).text


def test_series_differ_in_more_than_colour() -> None:
    looks = [SeriesStyle.of(number) for number in range(24)]
    assert len({(look.marker, look.dash) for look in looks[:8]}) == 8
    assert len({(look.colour, look.marker) for look in looks}) == len(looks)
    pair = [SeriesStyle.of(1, variant=variant) for variant in (0, 1)]
    assert pair[0].dash != pair[1].dash
    assert pair[0].hollow != pair[1].hollow


# Contrast, as WCAG 2.2 has it: 4.5 for text, 3 for what is drawn

STYLE = (Path(napctl.__file__).parent / "report" / "page" / "style.css").read_text()


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def palettes() -> Iterator[dict[str, str]]:
    for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL):
        yield dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6})", block))


@pytest.mark.parametrize("colours", list(palettes()), ids=["light", "dark", "print"])
def test_contrast_is_enough_in_light_dark_and_print(colours: dict[str, str]) -> None:
    for name in ("ink", "soft", "link", "better", "worse"):
        for ground in ("paper", "alert", "shade"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    for name in ("ring", *(f"c{number}" for number in range(8))):
        assert contrast(colours[name], colours["paper"]) >= 3, name


def test_there_are_three_palettes_with_the_same_names() -> None:
    names = [set(each) for each in palettes()]
    assert len(names) == 3
    assert names[0] == names[1] == names[2]


# Whatever it is given

ODD = st.text(max_size=12) | st.sampled_from(
    [
        "<script>alert(1)</script>",
        '" onfocus="x',
        "</style>",
        "a\0b",
        "\x1b[31m",
        "{{ 7 * 7 }}",
        "--",
        "\u202e",
        "x" * 300,
        "&amp;",
    ]
)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
POSITIVE = st.floats(0, 1e12)
JUDGEMENTS: tuple[Judgement, ...] = get_args(Judgement)
SOME = st.sampled_from([metric.name for metric in ALL] + ["novel_metric"])


@st.composite
def odd_runs(draw: st.DrawFn) -> Run:
    treatments = tuple(draw(st.lists(ODD, max_size=4, unique=True)))
    loads = draw(st.lists(ODD, max_size=3, unique=True))
    asked = RunConfig(
        napctl=draw(ODD), name=draw(ODD), made_unix_ns=draw(st.integers(-(2**63), 2**63 - 1)), treatments=treatments,
        hooks={name: (draw(ODD), draw(ODD)) for name in treatments[:1]}, target=draw(ODD), load=draw(ODD),
        adapter=draw(ODD), rates=tuple(draw(st.lists(POSITIVE, max_size=2))), rounds=draw(st.integers(0, 9)),
        seconds=draw(POSITIVE), warmup_seconds=0, settle_seconds=0, seed=draw(st.integers(0, 2**32)),
    )  # fmt: skip
    pairs = [(treatment, load) for treatment in treatments for load in loads]
    cells = tuple(
        Cell(
            treatment=treatment, load=load, asked_per_second=draw(st.none() | POSITIVE), round=number, position=number,
            started_unix_ns=0, seconds=draw(POSITIVE), failed=draw(st.just("") | ODD),
            metrics=draw(st.dictionaries(SOME, NUMBER, max_size=3)),
            sources=draw(st.dictionaries(SOME, ODD, max_size=2)),
            polls=draw(st.dictionaries(ODD, st.lists(st.integers(0, 10**9), max_size=70).map(tuple), max_size=2)),
            warnings=tuple(draw(st.lists(ODD, max_size=2))),
        )
        for number, (treatment, load) in enumerate(pairs)
    )  # fmt: skip
    estimates = tuple(
        Estimate(treatment=treatment, load=load, metric=metric, low=low, median=median, high=high, rounds=1)
        for treatment, load in pairs
        for metric in draw(st.lists(SOME, max_size=4, unique=True))
        for low, median, high in [sorted(draw(st.tuples(NUMBER, NUMBER, NUMBER)))]
    )
    comparisons = tuple(
        Comparison(
            treatment=treatment, reference="base", load=load, metric=draw(SOME), ratio=draw(POSITIVE),
            low=draw(POSITIVE),
            high=draw(POSITIVE), judgement=draw(st.sampled_from(JUDGEMENTS)),
            smallest=draw(POSITIVE), blocks=1, stand_in=draw(st.none() | POSITIVE),
        )
        for treatment, load in pairs
    )  # fmt: skip
    bounds = tuple(
        SavingsBound(load=load, network_cpu_share=draw(NUMBER), saved_share={name: draw(NUMBER) for name in treatments})
        for load in loads
    )
    words = tuple(draw(st.lists(ODD, max_size=2)))
    found = Summary(estimates=estimates, comparisons=comparisons, bounds=bounds, warnings=words, sentences=words)
    machine: Any = draw(
        st.none() | ODD | st.dictionaries(ODD, ODD | st.lists(ODD | st.dictionaries(ODD, ODD, max_size=1)))
    )
    return Run(config=asked, machine=machine, cells=cells, summary=found)


@settings(max_examples=examples(10, 60), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(odd_runs(), min_size=1, max_size=2))
def test_whatever_the_names_and_figures_the_page_is_well_formed_and_escaped(odd: list[Run]) -> None:
    html = page_of(odd)
    checked(html)
    html.encode()
    assert "\0" not in html
    assert "49" not in re.findall(r"<h1>(.*?)</h1>", html)


def test_names_are_shown_as_they_are() -> None:
    name = '<script>alert("1")</script>'
    found = checked(page_of([replace(RUN, config=replace(RUN.config, name=name))]))
    assert name in found.text


@given(st.lists(NUMBER, max_size=6), st.booleans())
def test_any_values_have_a_scale_with_some_ticks_and_no_thicket(values: list[float], zero: bool) -> None:
    axis = scale(values, 0, 100, zero=zero)
    assert 1 <= len(axis.ticks()) <= 16
    assert all(-0.1 <= axis(value) <= 100.1 for value in values)
