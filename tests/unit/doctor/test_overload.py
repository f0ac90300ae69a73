"""Promises of the rules about overload: found while it is, named before it comes, with remedies that fit the device."""

from typing import Any

import pytest
from msgspec.structs import replace

from napctl.doctor.rules import unjudged
from napctl.model.finding import Checkup
from napctl.model.machine import Napi
from napctl.model.overload import CpuLoad, NamespaceDrops, PacketLoad
from tests.unit.doctor.checkups import NETNS, SUSPENDED, by, checkup, device, idle_cpus, napi, process, row, rules, told


def load(*shares: float | None, late: float = 0.0, waited: float | None = 0.9, idle: float = 0.0) -> PacketLoad:
    """That share of each CPU in packet work."""
    return PacketLoad(
        seconds=1.0,
        cpus=tuple(
            CpuLoad(
                cpu=cpu,
                packet_share=share,
                idle_share=idle,
                waited_share=waited,
                packets_per_second=9000.0,
                backlog_drops_per_second=0.0,
            )
            for cpu, share in enumerate(shares)
        ),
        drops=(NamespaceDrops(netns=NETNS, late={"udp_buffer": late}, ring={"eth0": 7.0}),),
        lacks=("how long threads wait for a CPU: …",) if waited is None else (),
    )


def loaded(found: PacketLoad | None, *napis: Napi, share: float = 0.5, polls: Any = None) -> Checkup:
    """Busy instances, the first of which feeds a server on CPU 0; packets take CPUs as `found` says."""
    own = napis or (napi(),)
    rows = [row(each, **(polls or {"softirq": {2: 500}})) for each in own]
    return checkup(*rows, on=device(*own), processes=(process(share=share, feeds=own[0]),), load=found)


def overloaded(late: float = 5000.0, **changes: Any) -> Checkup:
    return loaded(load(0.97, 0.1, late=late, **changes))


def test_overload_is_told_with_its_figures_and_what_helps() -> None:
    found = by("overload", overloaded())
    assert found.title == (
        "CPU 0 overloaded: packets take 97 %, threads waited 90 % of the time, 5,000/s dropped after the stack worked "
        "on them, 7/s dropped in the ring, before it"
    )
    assert (found.severity, found.certainty) == ("danger", "certain")
    assert "took 97.0 % of CPU 0 [/proc/stat" in told(found)
    assert "5,000/s at UDP sockets that were full [/proc/net/snmp" in told(found)
    assert found.commands[0] == "napctl attach 7"
    assert found.commands[1:] == ("echo 1 > /sys/class/net/eth0/threaded", "renice -n 19 -p $(pgrep '^napi/eth0-')")


def test_where_waiting_is_not_told_the_finding_says_so() -> None:
    found = by("overload", overloaded(waited=None))
    assert found.certainty == "likely"
    assert "not known: how long threads wait" in told(found)


def test_threads_that_there_are_come_last() -> None:
    threaded = napi(thread_pid=99, irq=None)
    found = by("overload", loaded(load(0.97, 0.1, late=5000.0), threaded, polls={"thread": {2: 500}}))
    assert found.commands == ("napctl attach 7", "renice -n 19 -p 99")


def test_a_crowded_cpu_is_a_finding_without_late_drops() -> None:
    found = by("overload", overloaded(late=0.0))
    assert "CPU 0 crowded" in found.title
    assert "dropped late" not in told(found)


BESIDE = "packets-beside-their-server"


@pytest.mark.parametrize(("share", "found"), [(0.44, False), (0.45, True), (0.89, True), (None, False)])
def test_a_cpu_that_twice_the_packets_would_take_is_a_risk(share: float | None, found: bool) -> None:
    assert rules(loaded(load(share, 0.1, idle=0.2))) == [BESIDE] * found


def test_what_is_protected_already_is_no_risk() -> None:
    half = load(0.5, 0.1, idle=0.2)
    suspended, threaded = napi(settings=SUSPENDED), napi(thread_pid=99)
    assert BESIDE not in rules(loaded(half, suspended))
    assert rules(loaded(half, threaded, polls={"thread": {2: 500}})) == []
    assert rules(loaded(half, share=0.01)) == []
    assert rules(loaded(half, napi(cpus="0-1"))) == []
    assert rules(loaded(load(0.1, 0.5, idle=0.2))) == []


def everywhere(*shares: float | None) -> Checkup:
    own = (napi(), napi(1))
    seen = loaded(load(*shares, idle=0.2), *own, share=0.0)
    return replace(seen, cpus=idle_cpus(cpu0=0.6, cpu1=0.6))


@pytest.mark.parametrize(("shares", "found"), [((0.5, 0.45), True), ((0.5, 0.44), False), ((0.5, None), False)])
def test_a_machine_all_of_whose_cpus_a_flood_would_take_is_at_risk(
    shares: tuple[float | None, ...], found: bool
) -> None:
    assert rules(everywhere(*shares)) == ["no-cpu-left-by-a-flood"] * found


def test_one_cpu_without_queues_is_left() -> None:
    assert rules(loaded(load(0.5, 0.5, idle=0.2), share=0.0)) == []


def test_without_the_load_of_cpus_none_of_them_judges() -> None:
    for found in (None, load(None, None)):
        (lack,) = (each for each in unjudged(loaded(found)) if "what packets take" in each.why)
        assert lack.rules == ("overload", BESIDE, "no-cpu-left-by-a-flood")
