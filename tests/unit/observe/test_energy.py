"""The meter over whole trees of sources: which is taken, what is added, and what is said where there is no figure."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from napctl.model.energy import Energy, EnergyEstimate, above_idle, estimate
from napctl.model.value import from_json, to_json
from napctl.observe.energy import EnergyMeter, metrics_of
from tests.tries import in_one_of
from tests.unit.energy_trees import DCMI, GUEST, INTEL, Tree, break_with_eio

pytestmark = pytest.mark.heavy


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path)
    tree.cpu(INTEL)
    return tree


def measured(tree: Tree, meanwhile: Callable[[], object]) -> Energy:
    with EnergyMeter(tree.roots) as meter:
        beginning = meter.begin()
        meanwhile()
        return meter.since(beginning)


def joules(energy: Energy) -> dict[str, float | None]:
    return {kind.kind: kind.joules for kind in energy.kinds}


def test_packages_are_summed_and_no_kind_is_added_to_another(tree: Tree) -> None:
    tree.zone("intel-rapl:0", "package-0", 1_000_000)
    tree.zone("intel-rapl:0:0", "core", 100)
    tree.zone("intel-rapl:0:1", "dram", 5_000_000)
    tree.zone("intel-rapl:1", "package-1", 262_143_000_000)
    tree.zone("intel-rapl:1:0", "dram", 7_000_000)
    tree.zone("intel-rapl:2", "psys", 1)

    def use() -> None:
        tree.zone("intel-rapl:0", "package-0", 4_000_000)
        tree.zone("intel-rapl:0:0", "core", 1_000_100)
        tree.zone("intel-rapl:0:1", "dram", 5_500_000)
        tree.zone("intel-rapl:1", "package-1", 1_671_150 - 61)  # it wraps, one unit of 61 µJ behind its range
        tree.zone("intel-rapl:1:0", "dram", 7_250_000)
        tree.zone("intel-rapl:2", "psys", 9_000_001)

    found = measured(tree, use)

    assert joules(found) == pytest.approx({"package": 3 + 2, "core": 1, "dram": 0.75, "psys": 9}, abs=2e-6)
    package = found.of("package")
    assert package is not None
    assert [zone.name for zone in package.zones] == ["package-0", "package-1"]
    assert package.source == "powercap"
    assert package.watts == pytest.approx(sum(zone.joules / zone.seconds for zone in package.zones if zone.joules))
    assert found.why == ""
    assert from_json(to_json(found), Energy) == found


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda file: file.unlink(), "package-1: it has vanished"),
        (break_with_eio, "package-1: reading energy_uj: Input/output error"),
    ],
    ids=["it vanishes", "EIO"],
)
def test_a_zone_that_fails_midway_leaves_no_sum_and_the_others_their_figures(
    tree: Tree, fault: Callable[[Path], object], words: str
) -> None:
    tree.zone("intel-rapl:0", "package-0", 1_000_000)
    file = tree.zone("intel-rapl:1", "package-1", 1_000_000)
    tree.zone("intel-rapl:2", "psys", 1_000_000)

    def use() -> None:
        for zone, name in (("intel-rapl:0", "package-0"), ("intel-rapl:2", "psys"), ("intel-rapl:1", "package-1")):
            tree.zone(zone, name, 2_000_000)
        fault(file)

    found = measured(tree, use)

    assert joules(found) == {"package": None, "psys": 1.0}
    package = found.of("package")
    assert package is not None
    assert [zone.joules for zone in package.zones] == [1.0, None]
    assert package.why == words
    assert metrics_of(found)[0].keys() == {"platform_watts"}


def test_a_zone_that_fails_for_a_moment_between_the_ends_of_a_span_is_a_gap(tree: Tree) -> None:
    """Whoever takes a failed reading for 0 sees a wrap behind it."""

    def attempt() -> None:
        file = tree.zone("intel-rapl:0", "package-0", 1_000_000, range_uj=10**9)  # read 6 times a second

        def use() -> None:
            file.unlink()
            time.sleep(1)
            tree.zone("intel-rapl:0", "package-0", 2_000_000, range_uj=10**9)

        found = measured(tree, use).of("package")

        assert found is not None
        assert (found.joules, found.why) == (None, "package-0: it has vanished")

    in_one_of(attempt)


def test_counters_that_stand_still_give_no_figure(tree: Tree) -> None:
    """As under a hypervisor that has the registers, and leaves 0 in them."""
    tree.zone("intel-rapl:0", "package-0", 0)
    found = measured(tree, lambda: None).of("package")
    assert found is not None
    assert found.joules is None
    assert "did not move" in found.why


def test_wraps_within_a_span_are_not_missed(tree: Tree) -> None:
    """A real thread reads a counter that wraps each second while it is written; late on a busy machine, it says so."""
    most = 10**9
    found = None
    for _ in range(5):
        tree.zone("intel-rapl:0", "package-0", 0, range_uj=most)

        def use() -> None:
            for step in range(1, 26):
                time.sleep(0.1)
                tree.zone("intel-rapl:0", "package-0", step * 10**8 % most, range_uj=most)

        found = measured(tree, use).of("package")
        assert found is not None
        if found.joules is not None:
            assert found.joules == pytest.approx(2500)
            return
        assert found.why
    pytest.skip("the machine is too busy for a counter that wraps twice a second")


def test_one_source_is_taken_for_each_kind_the_best_of_which_all_can_be_read(tree: Tree) -> None:
    tree.zone("intel-rapl:0", "package-0", 1)
    unreadable = tree.zone("intel-rapl:1", "package-1", 1)
    tree.zone("intel-rapl:0:0", "dram", 1)
    tree.hwmon(0, "amd_energy", energy1_label="Esocket0", energy1_input=10, energy2_label="Ecore000", energy2_input=10)
    tree.hwmon(1, "power_meter", power1_average=10)
    tree.bmc(f"cat <<END{DCMI.format(watts=300, state='activated')}END")
    with EnergyMeter(tree.roots) as meter:
        assert meter.sources == {"package": "powercap", "core": "hwmon", "dram": "powercap", "platform": "hwmon"}

    break_with_eio(unreadable)
    tree.hwmon(1, "power_meter", power1_average=0)
    with EnergyMeter(tree.roots) as meter:
        assert meter.sources == {"package": "hwmon", "core": "hwmon", "dram": "powercap", "platform": "IPMI"}
        assert "powercap: package-1: reading energy_uj: Input/output error" in meter.lacks
        assert "hwmon: power_meter hwmon1: it reads 0 W" in meter.lacks


def test_two_meters_of_a_whole_machine_are_shown_and_not_added(tree: Tree) -> None:
    tree.hwmon(0, "power_meter", power1_average=100_000_000)
    tree.hwmon(1, "power_meter", power1_average=300_000_000)

    found = measured(tree, lambda: time.sleep(0.1)).of("platform")

    assert found is not None
    assert found.joules is None
    assert "may overlap" in found.why
    assert [zone.watts for zone in found.zones] == pytest.approx([100, 300])


def test_power_is_integrated_over_samples_taken_meanwhile(tree: Tree) -> None:
    tree.hwmon(0, "power_meter", power1_average=100_000_000)

    def use() -> None:
        time.sleep(0.5)
        tree.hwmon(0, "power_meter", power1_average=200_000_000)
        time.sleep(1.0)
        tree.hwmon(0, "power_meter", power1_average=100_000_000)

    found = measured(tree, use)
    platform = found.of("platform")

    assert platform is not None
    assert platform.joules is not None
    assert 100 * found.seconds < platform.joules < 200 * found.seconds  # the ends alone would give 100 W
    assert platform.zones[0].resolution_uj is None


def test_a_slow_bmc_makes_nothing_else_wait_within_a_span(tree: Tree) -> None:
    tree.bmc(f"sleep 0.4; cat <<END{DCMI.format(watts=216, state='activated')}END")
    apart = []
    for number in range(10):  # on a busy machine the zone is read once more, as now and then, before the span is told
        tree.zone("intel-rapl:0", "package-0", 1_000_000 * number)
        found = measured(tree, lambda: tree.zone("intel-rapl:0", "package-0", 5_000_000))

        platform, package = found.of("platform"), found.of("package")

        assert platform is not None
        assert package is not None
        apart.append(platform.zones[0].seconds - package.zones[0].seconds)
        if apart[-1] > 0.35:
            break
    assert apart[-1] > 0.35, apart
    assert platform is not None
    assert platform.source == "IPMI"
    assert platform.watts == pytest.approx(216)
    assert platform.zones[0].resolution_uw == 1_000_000


def test_where_nothing_measures_it_is_said_and_why(tree: Tree) -> None:
    tree.cpu(GUEST)
    found = measured(tree, lambda: None)

    assert (found.kinds, metrics_of(found)) == ((), ({}, {}))
    assert found.why == "not measurable here: this is a virtual machine, and its hypervisor shows it no energy counter"
    assert [lack.partition(":")[0] for lack in found.lacks] == ["powercap", "perf", "hwmon", "IPMI"]


def test_counters_that_cannot_be_read_are_told_from_counters_that_are_not_there(tree: Tree) -> None:
    break_with_eio(tree.zone("intel-rapl:0", "package-0", 5))
    found = measured(tree, lambda: None)
    assert found.why == "not measurable here: there are counters, but none can be read"
    assert found.lacks[-1] == "powercap: package-0: reading energy_uj: Input/output error"


def test_the_energy_above_idle_is_what_a_baseline_of_the_same_source_leaves(tree: Tree) -> None:
    tree.zone("intel-rapl:0", "package-0", 0)
    tree.hwmon(0, "power_meter", power1_average=50_000_000)

    def spend(seconds: float, uj: int) -> None:
        time.sleep(seconds)
        tree.zone("intel-rapl:0", "package-0", uj)

    with EnergyMeter(tree.roots) as meter:
        idle = meter.idle(0.2, sleep=lambda seconds: spend(seconds, 2_000_000))
        beginning = meter.begin()
        spend(0.3, 10_000_000)
        used = meter.since(beginning)
    above = above_idle(used, idle)
    package = idle.of("package")

    assert package is not None
    assert package.watts is not None
    assert above["package"] == pytest.approx(8 - package.watts * used.seconds, rel=0.05)
    assert above["platform"] == pytest.approx(0, abs=0.01)
    assert above_idle(used, Energy(seconds=1, cpu_share=0, kinds=())) == {}


def test_an_estimate_is_a_straight_line_in_the_cpu_share() -> None:
    used = Energy(seconds=10, cpu_share=0.25, kinds=())
    assert estimate(used, 40, 120) == EnergyEstimate(
        idle_watts=40, busy_watts=120, cpu_share=0.25, watts=60, joules=600
    )
    assert estimate(Energy(seconds=0.01, cpu_share=None, kinds=()), 40, 120) is None


def test_the_cpu_share_is_told_only_where_the_span_is_long_enough(tree: Tree) -> None:
    assert None in [measured(tree, lambda: None).cpu_share for _ in range(10)], "a moment may last"
    share = measured(tree, lambda: time.sleep(0.3)).cpu_share
    assert share is not None
    assert 0 <= share <= 1


def test_the_platform_of_an_experiment_is_the_machines_meter_before_the_processors(tree: Tree) -> None:
    tree.zone("intel-rapl:0", "package-0", 0)
    tree.zone("intel-rapl:1", "psys", 0)

    def use() -> None:
        tree.zone("intel-rapl:0", "package-0", 1_000_000)
        tree.zone("intel-rapl:1", "psys", 2_000_000)

    metrics, sources = metrics_of(measured(tree, use))
    assert metrics.keys() == {"package_watts", "platform_watts"}
    assert sources == {"package_watts": "powercap", "platform_watts": "powercap (psys)"}
    tree.hwmon(0, "power_meter", power1_average=75_000_000)
    metrics, sources = metrics_of(measured(tree, lambda: time.sleep(0.05)))
    assert metrics == pytest.approx({"platform_watts": 75})
    assert sources == {"platform_watts": "hwmon"}


def test_the_threads_end_with_the_meter(tree: Tree) -> None:
    tree.zone("intel-rapl:0", "package-0", 0)
    before = set(threading.enumerate())
    with EnergyMeter(tree.roots):
        (own,) = set(threading.enumerate()) - before
    assert not own.is_alive()
