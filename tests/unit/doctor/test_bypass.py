"""Promises of the rules about programs that go past the kernel."""

from typing import Any

from msgspec.structs import replace

from napctl.doctor.rules import unjudged
from napctl.model.census import BypassShare, Poller, SpinningThread
from napctl.model.finding import Checkup
from tests.unit.doctor.checkups import checkup, only, row, rules, told


def spinning(**changes: Any) -> SpinningThread:
    made = SpinningThread(tid=71, name="dpdk-worker1", cpu=1, run_share=1.0, source="DPDK telemetry /eal/lcore/usage")
    return replace(made, **changes)


def with_poller(*threads: SpinningThread, **changes: Any) -> Checkup:
    """A dpdk-testpmd with these threads."""
    made = Poller(
        pid=70, started_ticks=1, name="dpdk-testpmd", kind="DPDK", evidence=("librte_eal.so.23 in its maps",),
        devices=("eth0",), threads=threads, remedy="Let it sleep.",
    )  # fmt: skip
    return replace(checkup(row()), pollers=(replace(made, **changes),))


def loaded(through: int | None, by_kernel: int | None) -> Checkup:
    """An Onload whose port brought so many packets, while the kernel took so many."""
    really = BypassShare(port_packets=through, kernel_packets=by_kernel, source="it has no /dev/onload open")
    return with_poller(kind="Onload", evidence=("libonload.so in its maps",), really=really)


def behind(lost: int | None) -> Checkup:
    """A testpmd with which so many packets found no place."""
    return with_poller(really=BypassShare(port_packets=90_000, kernel_packets=0, lost=lost))


def test_a_bypass_without_a_packet_is_named_with_those_that_the_kernel_took() -> None:
    found = only(loaded(0, 12_345))
    assert (found.rule, found.severity, found.certainty) == ("bypass-idle", "cost", "likely")
    assert found.title == "dpdk-testpmd (70) has Onload loaded, and no packet comes through it"
    assert "0 packets through it, 12,345 through the kernel [it has no /dev/onload open]" in told(found)


def test_a_bypass_is_not_idle_that_takes_packets_or_has_none_to_take_or_cannot_be_known() -> None:
    for through, by_kernel in ((1, 12_345), (0, 99), (None, 12_345), (0, None)):
        assert rules(loaded(through, by_kernel)) == []


def test_a_poller_that_does_not_keep_up_is_named_with_what_it_lost() -> None:
    found = only(behind(1234))
    assert (found.rule, found.severity, found.certainty) == ("poller-behind", "danger", "certain")
    assert found.title == "dpdk-testpmd (70) does not keep up: 1,234 packets found no place with it"
    assert "1,234 packets lost, and 90,000 came to it [its ports]" in told(found)
    assert rules(behind(0)) == []


def test_where_it_is_not_known_what_a_poller_loses_that_is_not_judged() -> None:
    def not_judged(seen: Checkup) -> list[tuple[tuple[str, ...], str]]:
        return [(each.devices, each.why) for each in unjudged(seen) if "poller-behind" in each.rules]

    assert rules(behind(None)) == []
    assert not_judged(behind(None)) == [(("dpdk-testpmd (70)",), "whether packets find a place with it is not known")]
    assert not_judged(behind(0)) == not_judged(loaded(None, 12_345)) == not_judged(loaded(0, 12_345)) == []


def test_a_poller_at_rest_is_named_with_its_work_and_its_own_remedy() -> None:
    found = only(with_poller(spinning(work_share=0.004)))
    assert (found.rule, found.certainty) == ("poller-at-rest", "certain")
    assert found.title == "dpdk-testpmd (70) polls at 100.0 % of a CPU; 0.4 % of that is work"
    assert found.remedy == "Let it sleep."
    assert "CPU 1 never sleeps" in found.consequence


def test_a_bound_is_told_as_one() -> None:
    found = only(with_poller(spinning(most_work_share=0.02)))
    assert (found.title, found.certainty) == (
        "dpdk-testpmd (70) polls at 100.0 % of a CPU; at most 2.0 % of that can be work",
        "likely",
    )


def test_a_mean_of_a_program_is_not_certain() -> None:
    mean = spinning(work_share=0.004, source="VPP show runtime, mean of 86400 s, vector rate 0.01 of 256")
    assert only(with_poller(mean)).certainty == "likely"


def test_of_several_threads_those_at_rest_are_counted() -> None:
    busy, idle = spinning(work_share=0.5), spinning(tid=72, cpu=2, work_share=0.0)
    found = only(with_poller(busy, idle))
    assert found.title == "dpdk-testpmd (70) polls at 100.0 % of a CPU; 0.0 % of that is work"
    assert "CPU 2 never sleeps" in found.consequence


def test_a_poller_that_works_or_tells_nothing_or_is_no_bypass_is_not_at_rest() -> None:
    assert rules(with_poller(spinning(work_share=0.051))) == []
    assert rules(with_poller(spinning())) == []
    assert rules(with_poller(spinning(most_work_share=0.0), kind="busy, no NIC")) == []


def test_open_vswitch_gets_its_command() -> None:
    (command,) = only(with_poller(spinning(work_share=0.0), kind="Open vSwitch with DPDK")).commands
    assert command == "ovs-vsctl set Open_vSwitch . other_config:pmd-sleep-max=50"
