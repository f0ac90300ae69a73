"""What napctl reads from the recorded outputs of load tools, and which adapter reads them."""

import pytest

from napctl.load.tools import ADAPTERS, Reading, adapter_for, adapter_named
from napctl.model.errors import BadInput
from napctl.model.metrics import BY_NAME
from tests.unit.load.recorded import LOADS, REFUSED, TOLD, recorded, tool_of


@pytest.mark.parametrize("name", TOLD)
def test_every_figure_is_the_one_that_the_tool_printed_and_what_it_did_not_print_is_none(name: str) -> None:
    reading, told = ADAPTERS[tool_of(name)].read(recorded(name)), TOLD[name]
    assert reading.metrics() == pytest.approx(told.metrics(), rel=1e-12)
    assert (reading.errors, reading.saturated, reading.warnings) == (told.errors, None, told.warnings)


@pytest.mark.parametrize("name", REFUSED)
def test_a_load_that_failed_is_an_error_in_one_line_and_never_a_figure(name: str) -> None:
    with pytest.raises(ValueError, match=REFUSED[name]) as caught:
        ADAPTERS[tool_of(name)].read(recorded(name))
    assert "\n" not in str(caught.value)


def test_every_recorded_output_is_in_a_test() -> None:
    assert {path.stem for path in LOADS.glob("*.txt")} == {*TOLD, *REFUSED, "openloop-rate"}


def test_every_figure_of_a_reading_is_a_metric() -> None:
    assert set(Reading(requests_per_second=1, bits_per_second=1, jitter_us=1).metrics()) <= set(BY_NAME)
    assert set(TOLD["wrk2-latency"].metrics()) <= set(BY_NAME)


def test_two_runs_in_one_output_are_refused() -> None:
    for name in TOLD:
        with pytest.raises(ValueError, match=tool_of(name)):
            ADAPTERS[tool_of(name)].read(recorded(name) * 2)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("wrk -t1 -c4 --latency http://server/", "wrk"),
        ("wrk -t1 -R{rate} http://server/", "wrk2"),
        ("/opt/wrk2/wrk -t1 --rate {rate} http://server/", "wrk2"),
        ("taskset -c 1 sockperf ul -i 10.0.0.1 --mps {rate}", "sockperf"),
        ("cd /tmp;h2load -D{seconds} http://server/|cat", "h2load"),
        ("ssh client 'sudo true' && valkey-benchmark -t get --csv", "redis-benchmark"),
        ("/var/cache/napctl/openloop-0123456789abcdef --rate={rate}", "openloop"),
        ("memtier_benchmark -s server", "memtier_benchmark"),
        ("./load.sh {rate}", None),
        ("echo 'unfinished", None),
        ("", None),
    ],
)
def test_the_adapter_is_found_by_the_program(command: str, name: str | None) -> None:
    found = adapter_for(command)
    assert (found.name if found else None) == name


class TestCustom:
    TEXT = 'warming up\nrps: 12.5k\np99=3.25 ms p50=80\nfailed 3\n{"end": {"sum": {"x": 7.5}, "p99.0": [1, 250]}}\n'
    TEXT += '{"twice": {"deeper": 1}, "twice": {"deeper": 1}}\nnothing: 0\n'

    def read(self, *specs: str) -> Reading:
        return adapter_named("\n".join(specs)).read(self.TEXT)

    def test_regular_expressions_and_paths_find_figures_with_their_units(self) -> None:
        reading = self.read(
            r"regex:requests_per_second=^rps: (\S+)$",
            r"regex:latency_p95_us=p99=(?P<value>[\d.]+) (?P<unit>\w+)",
            r"regex:latency_p50_us=p50=(\d+)",
            r"regex:latency_p99_us[ms]=p50=(\d+)",
            r"regex:errors=failed (\d+)",
            "json:bits_per_second[M]=.end.sum.x",
            'json:latency_p999_us[ms]=.end["p99.0"][-1]',
        )
        assert reading == Reading(
            requests_per_second=12_500,
            latency_p95_us=3250,
            latency_p50_us=80,
            latency_p99_us=80_000,
            latency_p999_us=250_000,
            bits_per_second=7_500_000,
            errors=3,
        )

    @pytest.mark.parametrize(
        ("spec", "why"),
        [
            ("regex:latency_p99_us=p42=(.*)", "found nothing"),
            (r"regex:latency_p99_us=p\d\d=([\d.]+)", "found 2 different values"),
            ("regex:latency_p99_us=(warming)", "no time with its unit"),
            (r"regex:latency_p99_us[us]=p99=([\d.]+ ms)", "no time with its unit"),
            ("json:latency_p99_us=.end.sum.y", "found nothing"),
            ("json:latency_p99_us=.end.sum", "is no number"),
            ('json:latency_p99_us=.end["p99.0"][2]', "found nothing"),
            ("json:errors=.end.sum.x", "is no count"),
            ("json:requests_per_second=.twice", "'twice' stands more than once in one object"),
            ("json:requests_per_second=.twice.deeper", "'twice' stands more than once in one object"),
            ("regex:requests_per_second=(0)$", "no request was answered"),
            ("regex:latency_p50_us=(0)$", "p50 is 0: nothing was measured, or in too coarse a unit"),
        ],
    )
    def test_what_is_not_found_or_not_clear_is_an_error(self, spec: str, why: str) -> None:
        with pytest.raises(ValueError, match=why):
            self.read(spec)

    @pytest.mark.parametrize(
        ("spec", "why"),
        [
            ("regex:throughput=(.*)", "'throughput' is no figure of a load"),
            ("regex:requests_per_second=(", "is no regular expression"),
            ("regex:requests_per_second[ms]=(.*)", "has no unit 'ms'"),
            ("regex:latency_p99_us=(?P<unit>ms)", "none for the value"),
            ("json:requests_per_second=end.sum", "is no JSON path"),
            ("json:requests_per_second", "is neither"),
            ("jmeter", "is no load tool that napctl can read"),
            ("json:errors=.a\njson:errors=.b", "more than once"),
        ],
    )
    def test_a_bad_request_is_refused_before_anything_is_measured(self, spec: str, why: str) -> None:
        with pytest.raises(BadInput, match=why):
            adapter_named(spec)

    def test_adapters_can_be_named(self) -> None:
        assert [adapter_named(name).name for name in ADAPTERS] == list(ADAPTERS)
