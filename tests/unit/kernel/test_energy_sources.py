"""What each energy source is read as, and what is said where it cannot be read."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from napctl.kernel.energy.hwmon import hwmon_zones
from napctl.kernel.energy.ipmi import ipmi_zones, power_uw
from napctl.kernel.energy.perf import perf_zones
from napctl.kernel.energy.powercap import powercap_zones
from napctl.kernel.energy.sources import all_sources, why_nothing
from napctl.kernel.energy.zones import Found, Unreadable
from tests.unit.energy_trees import AMD, DCMI, GUEST, INTEL, RAPL_RANGE_UJ, Tree, break_with_eio


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def names(found: Found) -> dict[str, str]:
    return {zone.name: zone.kind for zone in found.zones}


def powercap(tree: Tree, *, amd: bool = False) -> Found:
    return powercap_zones(tree.roots.sys, amd=amd)


def why(found: Found) -> str:
    (zone,) = found.zones
    with pytest.raises(Unreadable) as caught:
        zone.read()
    return str(caught.value)


def test_each_rapl_zone_has_its_kind_and_parts_carry_the_name_of_their_package(tree: Tree) -> None:
    tree.zone("intel-rapl:0", "package-0", 1)
    tree.zone("intel-rapl:0:0", "core", 2)
    tree.zone("intel-rapl:0:1", "uncore", 3)
    tree.zone("intel-rapl:0:2", "dram", 4)
    tree.zone("intel-rapl:1", "package-1-die-0", 5)
    tree.zone("intel-rapl:1:0", "dram", 6)
    tree.zone("intel-rapl:2", "psys", 7)

    found = powercap(tree)

    assert [(zone.name, zone.kind, zone.read()) for zone in found.zones] == [
        ("package-0", "package", 1),
        ("package-0/core", "core", 2),
        ("package-0/uncore", "uncore", 3),
        ("package-0/dram", "dram", 4),
        ("package-1-die-0", "package", 5),
        ("package-1-die-0/dram", "dram", 6),
        ("psys", "psys", 7),
    ]
    assert found.lacks == ()


def test_a_package_that_two_control_types_tell_counts_once(tree: Tree) -> None:
    tree.zone("intel-rapl-mmio:0", "package-0", 111)
    tree.zone("intel-rapl:0", "package-0", 222)

    (zone,) = powercap(tree).zones

    assert zone.read() == 222


def test_on_amd_the_zone_core_is_left_out_as_it_counts_one_core_only(tree: Tree) -> None:
    tree.cpu(AMD)
    tree.zone("intel-rapl:0", "package-0", 1)
    tree.zone("intel-rapl:0:0", "core", 2)

    found = all_sources(tree.roots)[0]

    assert names(found) == {"package-0": "package"}
    assert "counts one core of each package" in " ".join(found.lacks)
    tree.cpu(INTEL)
    assert "package-0/core" in names(all_sources(tree.roots)[0])


def test_what_an_energy_model_computes_is_no_source(tree: Tree) -> None:
    tree.zone("dtpm:0", "package", 1)
    tree.zone("intel-rapl:0", "gpu", 1)

    found = powercap(tree)

    assert found.zones == ()
    assert found.lacks == ("the zone 'gpu' is left out: nobody says what it covers",)


def test_zones_that_a_container_hides_are_told_apart_from_zones_that_are_not_there(tree: Tree) -> None:
    assert "no /sys/class/powercap" in powercap(tree).lacks[0]
    (tree.root / "sys/class/powercap").mkdir(parents=True)
    assert "no RAPL zones" in powercap(tree).lacks[0]
    (tree.root / "sys/class/powercap/intel-rapl:0").symlink_to("../../devices/virtual/powercap/intel-rapl/intel-rapl:0")
    assert "hidden" in powercap(tree).lacks[0]


@pytest.mark.parametrize("exponent", range(10, 21))
def test_the_wrap_is_the_one_of_the_register_behind_whatever_its_unit(tree: Tree, exponent: int) -> None:
    """rapl_unit_xlate() in drivers/powercap/intel_rapl_common.c, with the unit of rapl_check_unit_core(), in nJ."""
    unit = 1000 * 1_000_000 // 2**exponent
    tree.zone("intel-rapl:0", "package-0", 0, range_uj=(2**32 - 1) * unit // 1000)

    (zone,) = powercap(tree).zones

    assert zone.wrap_uj == pytest.approx(2**32 * unit / 1000, abs=2)
    assert zone.resolution == max(1, round(unit / 1000))


def test_a_zone_without_a_range_does_not_wrap(tree: Tree) -> None:
    tree.zone("intel-rapl:0", "package-0", 0, range_uj=None)
    (zone,) = powercap(tree).zones
    assert (zone.wrap_uj, zone.resolution) == (None, None)


def test_a_reading_that_fails_is_never_a_number(tree: Tree) -> None:
    file = tree.zone("intel-rapl:0", "package-0", 5)
    found = powercap(tree)
    assert found.zones[0].read() == 5

    break_with_eio(file)
    assert why(found) == f"reading energy_uj: {os.strerror(5)}"
    file.unlink()
    assert why(found) == "it has vanished"
    file.mkdir()
    assert why(found) == "reading energy_uj: Is a directory"
    file.rmdir()
    file.write_text("")
    assert why(found) == "energy_uj holds no number"


def as_nobody(code: str) -> str:
    """Run it in a process that has dropped root after its imports."""
    begin = """
import os, sys
from pathlib import Path
from napctl.kernel.energy import perf, powercap, hwmon, ipmi
from napctl.kernel.energy.zones import Unreadable
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
def told(found):
    for zone in found.zones:
        try:
            print(zone.read())
        except Unreadable as error:
            print(error)
"""
    return subprocess.run([sys.executable, "-c", begin + code], check=True, capture_output=True, text=True).stdout


def test_permission_denied_names_what_is_missing(tree: Tree) -> None:
    for directory in (tree.root, *tree.root.parents):
        if directory.stat().st_uid == os.geteuid() and len(directory.parts) > 2:
            directory.chmod(0o755)
    tree.zone("intel-rapl:0", "package-0", 5).chmod(0o000 if os.geteuid() else 0o400)
    (tree.hwmon(0, "amd_energy", energy1_label="Esocket0", energy1_input=1) / "energy1_input").chmod(
        0o000 if os.geteuid() else 0o440
    )
    sysfs = str(tree.roots.sys)

    rapl, sensor = as_nobody(
        f"told(powercap.powercap_zones(Path({sysfs!r}), amd=False)); told(hwmon.hwmon_zones(Path({sysfs!r})))"
    ).splitlines()

    assert all(word in rapl for word in ("permission denied", "root", "CAP_DAC_READ_SEARCH", "5.10"))
    assert all(word in sensor for word in ("permission denied", "CAP_DAC_READ_SEARCH"))


def test_an_energy_event_that_is_refused_names_the_capability_and_the_setting(tree: Tree) -> None:
    if int(Path("/proc/sys/kernel/perf_event_paranoid").read_text()) < 1:
        pytest.skip("here everybody may count for a whole CPU")
    for directory in (tree.root, *tree.root.parents):
        if directory.stat().st_uid == os.geteuid() and len(directory.parts) > 2:
            directory.chmod(0o755)
    tree.event("energy-pkg", "event=0x00", scale="1e-9")

    said = as_nobody(f"told(perf.perf_zones(Path({str(tree.roots.sys)!r})))")

    assert "CAP_PERFMON" in said
    assert "perf_event_paranoid" in said


def test_an_energy_event_is_read_from_the_kernel_with_its_scale(tree: Tree) -> None:
    """The CPU clock (PERF_COUNT_SW_CPU_CLOCK) in place of a counter: it counts ns, here of 1 nJ each."""
    tree.event("energy-pkg", "event=0x00", scale="1e-9", cpus="0")
    (zone,) = perf_zones(tree.roots.sys).zones
    try:
        if "permission denied" in _text(zone):
            pytest.skip("we may not count for a whole CPU")
        began, first = time.monotonic(), zone.read()
        time.sleep(0.2)
        last, seconds = zone.read(), time.monotonic() - began
    finally:
        zone.close()

    assert (zone.name, zone.kind, zone.wrap_uj) == ("energy-pkg on CPU 0", "package", None)
    assert 0.2e6 * 0.99 <= last - first <= seconds * 1e6 * 1.01


def _text(zone: object) -> str:
    try:
        return str(zone.read())  # type: ignore[attr-defined]  # any zone
    except Unreadable as error:
        return str(error)


def test_each_cpu_of_the_mask_is_a_zone_and_a_unit_that_is_not_joules_is_left_out(tree: Tree) -> None:
    online = os.sysconf("SC_NPROCESSORS_ONLN")
    tree.event("energy-cores", "event=0x00", scale="1e-9", cpus=f"0-{online - 1}")
    tree.event("energy-ram", "event=0x00", scale="1e-9", cpus=f"0-{online - 1}", unit="Watts")
    tree.event("energy-psys", "event=0x00,umask=1", scale="1e-9", cpus=f"0-{online - 1}")
    found = perf_zones(tree.roots.sys)
    for zone in found.zones:
        zone.close()

    assert [zone.kind for zone in found.zones] == ["core"] * online
    assert [lack.split()[2] for lack in found.lacks] == ["energy-ram", "energy-psys"]


def test_an_event_that_the_kernel_does_not_know_is_told_not_counted(tree: Tree) -> None:
    tree.event("energy-pkg", "event=0x02", scale="1e-9", pmu=4_000_000)
    assert why(perf_zones(tree.roots.sys)).startswith("opening the event: ")


def test_hwmon_is_read_in_its_units_and_only_where_it_is_known_what_it_covers(tree: Tree) -> None:
    tree.hwmon(0, "nvme", power1_input=5_000_000)
    tree.hwmon(1, "amd_energy", energy1_label="Ecore000", energy1_input=7, energy2_label="Esocket0", energy2_input=9)
    tree.hwmon(2, "power_meter", power1_average=212_000_000, power1_input=1)

    found = hwmon_zones(tree.roots.sys)

    assert [(zone.name, zone.kind, zone.is_power, zone.read()) for zone in found.zones] == [
        ("amd_energy Ecore000", "core", False, 7),
        ("amd_energy Esocket0", "package", False, 9),
        ("power_meter hwmon2", "platform", True, 212_000_000),
    ]
    assert all(zone.wrap_uj is None for zone in found.zones)
    assert found.lacks == ("sensors left out, as it is not known what they cover: nvme",)


def test_the_rails_of_one_module_are_told_apart_by_the_text_of_the_firmware(tree: Tree) -> None:
    rails = ("Module Power Socket 0", "Grace Power Socket 0", "CPU Power Socket 0", "SysIO Power Socket 0")
    for number, rail in enumerate(rails):  # an old driver has its attributes one directory further down
        tree.hwmon(number, "power_meter")
        tree.put(f"sys/class/hwmon/hwmon{number}/device/power1_average", 1_000_000)
        tree.put(f"sys/class/hwmon/hwmon{number}/device/power1_oem_info", rail)

    found = hwmon_zones(tree.roots.sys)

    assert [zone.kind for zone in found.zones] == ["package", "core"]
    assert "Module Power Socket 0, power_meter SysIO" in found.lacks[0]


def test_sockets_that_a_driver_shows_once_for_each_numa_node_are_not_taken(tree: Tree) -> None:
    for cpu in range(4):
        tree.put(f"sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id", cpu // 2)
    sensors = {"energy1_label": "Esocket0", "energy1_input": 1, "energy2_label": "Esocket1", "energy2_input": 1}
    tree.hwmon(0, "amd_energy", **sensors)
    assert len(hwmon_zones(tree.roots.sys).zones) == 2

    tree.hwmon(0, "amd_energy", **sensors, energy3_label="Esocket2", energy3_input=1)

    found = hwmon_zones(tree.roots.sys)
    assert found.zones == ()
    assert found.lacks == ("amd_energy is left out: it shows 3 sockets where there are 2",)


def bmc(tree: Tree) -> Found:
    return ipmi_zones(tree.roots.dev, tree.roots.ipmitool)


def test_the_bmc_tells_whole_watts(tree: Tree) -> None:
    tree.bmc(f'[ "$*" = "dcmi power reading" ] || exit 9\ncat <<END{DCMI.format(watts=216, state="activated")}END')
    (zone,) = bmc(tree).zones
    assert (zone.kind, zone.is_power, zone.read(), zone.resolution) == ("platform", True, 216_000_000, 1_000_000)


def test_all_ones_of_a_bmc_are_no_reading(tree: Tree) -> None:
    with pytest.raises(Unreadable, match="65,535 W"):
        power_uw(DCMI.format(watts=65535, state="activated"))
    assert power_uw(DCMI.format(watts=65534, state="activated")) == 65_534_000_000


def test_a_bmc_that_does_not_measure_gives_no_figure(tree: Tree) -> None:
    with pytest.raises(Unreadable, match="its state is 'deactivated'"):
        power_uw(DCMI.format(watts=0, state="deactivated"))
    tree.bmc("echo 'DCMI request failed because: Invalid command (c1)' >&2; exit 1")
    assert why(bmc(tree)) == "the BMC tells no power: ipmitool says 'DCMI request failed because: Invalid command (c1)'"
    (tree.root / "bin/ipmitool").write_text("#!/nowhere\n")
    assert "No such file" in why(bmc(tree))


def test_a_bmc_without_the_tool_and_a_machine_without_a_bmc_are_told_apart(tree: Tree) -> None:
    assert bmc(tree).lacks == ("no BMC (/dev/ipmi0)",)
    tree.bmc("").unlink()
    assert bmc(tree).lacks == ("there is a BMC, but ipmitool is not installed",)


@pytest.mark.parametrize(
    ("cpuinfo", "words"),
    [(GUEST, "virtual machine"), (INTEL, "intel_rapl_msr"), ("Features : fp asimd\n", "no source")],
    ids=["guest", "Intel", "Arm"],
)
def test_why_there_is_nothing_is_said_as_far_as_it_is_known(tree: Tree, cpuinfo: str, words: str) -> None:
    tree.cpu(cpuinfo)
    assert words in why_nothing(tree.roots, all_sources(tree.roots))


def test_the_range_of_the_trees_is_the_one_that_intel_has() -> None:
    assert RAPL_RANGE_UJ == (2**32 - 1) * 61035 // 1000
