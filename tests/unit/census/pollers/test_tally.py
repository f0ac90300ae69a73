"""Promises about what is made of two readings: whether it really goes past the kernel, and what of its time is work."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from napctl.census.pollers.busiest_file import BusiestFiles
from napctl.census.pollers.busy_alone import Calls
from napctl.census.pollers.detection import Detected, Statement
from napctl.census.pollers.spinning import Spin, ThreadTimes
from napctl.census.pollers.suspects import Suspect
from napctl.census.pollers.tally import LOSES, NOT_COUNTED, NOT_YET, Moment, PollerTally
from napctl.kernel.links import Link
from napctl.kernel.processes import Process
from napctl.kernel.xdp_diag import BoundSocket
from napctl.kernel.xdp_rings import RingLosses
from napctl.model.census import Poller, PollerKind

PID = 2**22 + 1
"""Of no process."""
DPDK = Detected(kind="DPDK", evidence=("librte_eal.so.23 in its maps",), devices=("eth0",))


@dataclass
class Account:
    """One whose threads are their own keys."""

    source: str = "its own account"

    def read(self) -> Statement:
        raise AssertionError

    def key(self, thread: Spin, pid: int) -> str | None:
        return thread.name


def link(name: str, rx: int, tx: int = 0, *, loopback: bool = False) -> Link:
    ifindex = {"lo": 1, "eth0": 2, "eth1": 3}[name]
    return Link(
        name=name, alternative_names=(), ifindex=ifindex, up=True, carrier=True, loopback=loopback, virtual=False,
        kind=None, link=None, link_netnsid=None, master=None, rx_packets=rx, tx_packets=tx, rx_dropped=0, tx_dropped=0,
        rx_missed=0, rx_overrun=0,
    )  # fmt: skip


def moment(at: float, told: Statement, *links: Link, ran: bool = True) -> Moment:
    times = ThreadTimes(tid=9, name="worker", ran_ns=int(at * 1e9) if ran else 0, waited_ns=0, sleeps=0, cpus="1")
    return Moment(at=at, threads={9: times}, told=told, links=links)


def poller(
    tmp_path: Path, detected: Detected, before: Statement, after: Statement, *links: tuple[Link, Link], ran: bool = True
) -> Poller:
    """Over a window of one second."""
    suspect = Suspect(process=Process(PID, "server", 1), mapped=frozenset())
    start, end = moment(1, before, *(then for then, _ in links)), moment(2, after, *(now for _, now in links), ran=ran)
    return PollerTally(suspect, detected, start, end).poller(BusiestFiles(tmp_path))


def statement(received: int, sent: int = 0, **cycles: tuple[int, int]) -> Statement:
    return Statement(received=received, sent=sent, cycles=cycles)


NOTHING = Statement()
ETH0 = (link("eth0", 100), link("eth0", 1100, 50))


def test_a_bifurcated_driver_counts_the_kernels_packets_alone(tmp_path: Path) -> None:
    found = poller(tmp_path, DPDK, statement(0), statement(9000), ETH0)
    assert found.really is not None
    assert (found.really.port_packets, found.really.kernel_packets, found.really.share) == (9000, 1000, 0.9)


def test_what_the_device_counts_for_the_port_is_not_the_kernels(tmp_path: Path) -> None:
    af_xdp = replace(DPDK, counts_include_port=True)
    found = poller(tmp_path, af_xdp, statement(0), statement(900), ETH0)
    assert found.really is not None
    assert (found.really.kernel_packets, found.really.share) == (100, 0.9)
    unknown = poller(tmp_path, af_xdp, NOTHING, NOTHING, ETH0)
    assert unknown.really is None


def test_copies_are_said_to_be_some(tmp_path: Path) -> None:
    found = poller(tmp_path, replace(DPDK, copies=True), statement(0), statement(1000), ETH0)
    assert found.really is not None
    assert (found.really.share, "copies" in found.really.source) == (0.0, True)


def test_a_nic_without_a_network_device_has_no_packets_by_the_kernel(tmp_path: Path) -> None:
    detected = replace(DPDK, devices=("0000:3b:00.0",), of_kernel=False)
    found = poller(tmp_path, detected, statement(0), statement(1000), ETH0)
    assert found.really is not None
    assert (found.really.kernel_packets, found.really.share) == (0, 1.0)


def test_an_idle_bypass_is_set_against_all_devices_but_loopback(tmp_path: Path) -> None:
    detected = Detected(kind="Onload", evidence=(), idle="it has no /dev/onload open", preloaded=True)
    lo, eth1 = (link("lo", 0, loopback=True), link("lo", 50, loopback=True)), (link("eth1", 0), link("eth1", 7))
    found = poller(tmp_path, detected, NOTHING, NOTHING, ETH0, eth1, lo, ran=False)
    assert found.really is not None
    assert (found.really.port_packets, found.really.kernel_packets, found.threads) == (0, 1007, ())
    linked = poller(tmp_path, replace(detected, preloaded=False), NOTHING, NOTHING, ETH0)
    assert linked.really is not None
    assert (linked.really.port_packets, linked.really.kernel_packets) == (0, None)
    assert linked.really.source == "it has no /dev/onload open"


def test_an_idle_bypass_that_computes_has_no_bound(tmp_path: Path) -> None:
    found = poller(tmp_path, replace(DPDK, devices=(), idle="it has no telemetry"), NOTHING, NOTHING, ETH0)
    assert only_thread(found) == {"work": None, "most": None, "source": ""}


@pytest.mark.parametrize("kind", ["RDMA", "VMA", "DPDK"])
def test_a_device_of_which_the_kernel_counts_not_all_bounds_nothing(tmp_path: Path, kind: PollerKind) -> None:
    found = poller(tmp_path, replace(DPDK, kind=kind), NOTHING, NOTHING, (link("eth0", 0), link("eth0", 0)))
    assert only_thread(found) == {"work": None, "most": None, "source": NOT_COUNTED}
    both = replace(DPDK, devices=("eth0", "0000:3b:00.0"), copies=True)
    assert only_thread(poller(tmp_path, both, NOTHING, NOTHING, ETH0))["source"] == NOT_COUNTED


def test_a_number_that_is_no_count_is_none(tmp_path: Path) -> None:
    found = poller(tmp_path, DPDK, statement(0), statement(10**400), ETH0)
    assert found.really is not None
    assert found.really.port_packets is None


def test_devices_that_were_read_over_another_time_are_told_by_the_second(tmp_path: Path) -> None:
    """Others that hang were asked in between."""
    suspect = Suspect(process=Process(PID, "server", 1), mapped=frozenset())
    start, end = moment(1, NOTHING, link("eth0", 0)), moment(2, NOTHING, link("eth0", 3 * 10**6))
    start, end = replace(start, links_at=1.0), replace(end, links_at=4.0)
    files = BusiestFiles(tmp_path)
    copies = replace(DPDK, copies=True)
    PollerTally(suspect, copies, start, end).poller(files)
    now = replace(end, links=(link("eth0", 100),), links_at=2.0)
    (thread,) = PollerTally(suspect, copies, start, now).poller(files).threads
    assert thread.most_work_share == pytest.approx(3e-4)


def test_a_packet_may_have_cost_the_time_of_all_threads(tmp_path: Path) -> None:
    """Also of one that sleeps now and then."""
    suspect = Suspect(process=Process(PID, "server", 1), mapped=frozenset())

    def with_sleeper(now: Moment) -> Moment:
        other = ThreadTimes(
            tid=10, name="other", ran_ns=int(now.at * 9e8), waited_ns=0, sleeps=int(now.at * 99), cpus="2"
        )
        return replace(now, threads=now.threads | {10: other})

    busy = [with_sleeper(moment(at, statement(packets))) for at, packets in ((1, 0), (2, 10**6))]
    rest = [with_sleeper(moment(at, statement(packets))) for at, packets in ((1, 0), (2, 1000))]
    for window in (busy, rest):
        (thread,) = PollerTally(suspect, DPDK, window[0], window[1]).poller(BusiestFiles(tmp_path)).threads
    assert thread.most_work_share == pytest.approx(0.0057)


def test_counters_that_were_set_back_are_a_gap(tmp_path: Path) -> None:
    found = poller(tmp_path, replace(DPDK, of_kernel=False, devices=()), statement(1000), statement(10))
    assert found.really is not None
    assert found.really.port_packets is None


def only_thread(found: Poller) -> Mapping[str, Any]:
    (thread,) = found.threads
    return {"work": thread.work_share, "most": thread.most_work_share, "source": thread.source}


def test_its_own_cycles_come_first(tmp_path: Path) -> None:
    detected = replace(DPDK, account=Account())
    found = poller(tmp_path, detected, statement(0, worker=(10, 100)), statement(5, worker=(60, 1100)), ETH0)
    assert only_thread(found) == {"work": pytest.approx(0.05), "most": None, "source": "its own account"}


def test_its_own_mean_comes_next(tmp_path: Path) -> None:
    after = Statement(shares={"worker": (0.25, "mean of 50 s")})
    found = poller(tmp_path, replace(DPDK, account=Account()), NOTHING, after, ETH0)
    assert only_thread(found) == {"work": pytest.approx(0.25), "most": None, "source": "mean of 50 s"}


def test_then_a_bound_once_it_was_busy_which_outlives_us(tmp_path: Path) -> None:
    few, many = (statement(0), statement(1000)), (statement(0), statement(10**6))
    before = poller(tmp_path, DPDK, *few, ETH0)
    assert only_thread(before) == {"work": None, "most": None, "source": NOT_YET}
    assert only_thread(poller(tmp_path, DPDK, *many, ETH0)) == {"work": None, "most": None, "source": NOT_YET}
    after = only_thread(poller(tmp_path, DPDK, *few, ETH0))
    assert after["most"] == pytest.approx(0.003)
    assert after["source"] == "1,000 packets/s at most 1.00 µs each: its busiest window"


def test_a_window_in_which_it_lost_what_the_device_counts_calibrates_nothing(tmp_path: Path) -> None:
    suspect = Suspect(process=Process(PID, "server", 1), mapped=frozenset())
    start, end = moment(1, NOTHING, link("eth0", 0)), moment(2, NOTHING, link("eth0", 10**6))
    files = BusiestFiles(tmp_path)
    copies = replace(DPDK, copies=True)
    PollerTally(suspect, copies, start, replace(end, behind=True)).poller(files)
    PollerTally(suspect, copies, start, replace(end, told=Statement(lost=1))).poller(files)
    assert list(tmp_path.iterdir()) == []
    PollerTally(suspect, copies, start, end).poller(files)
    assert len(list((tmp_path / "pollers").iterdir())) == 1


def test_a_window_in_which_its_ports_missed_packets_calibrates_nothing(tmp_path: Path) -> None:
    for lost in (5, 1):  # more; and set back meanwhile
        then = Statement(received=0, sent=0, lost=2 if lost == 1 else 0)
        poller(tmp_path, DPDK, then, Statement(received=10**6, sent=0, lost=lost), ETH0)
    assert list(tmp_path.iterdir()) == []


XDP = (BoundSocket(11, 2, 0, zero_copy=False),)


def with_rings(tmp_path: Path, losses: tuple[RingLosses | None, RingLosses | None]) -> Poller:
    """Over a second with a million packets."""
    suspect = Suspect(process=Process(PID, "server", 1), mapped=frozenset(), xdp=XDP)
    moments = (moment(1, statement(0)), moment(2, statement(10**6)))
    start, end = (replace(each, losses=told) for each, told in zip(moments, losses, strict=True))
    return PollerTally(suspect, replace(DPDK, counts_include_port=True), start, end).poller(BusiestFiles(tmp_path))


def rings(lost: int = 0, starved: int = 0) -> RingLosses:
    return RingLosses(lost=lost, starved=starved, zero_copy=False)


@pytest.mark.parametrize(
    ("losses", "lost"),
    [
        ((rings(1), rings(4)), 3),
        ((rings(starved=1), rings(starved=2)), 0),
        ((rings(4), rings(1)), None),
        ((None, rings()), None),
        ((rings(), None), None),
    ],
    ids=["ring full", "fill ring empty", "set back", "unread before", "unread after"],
)
def test_a_window_in_which_its_rings_may_have_had_no_place_calibrates_nothing(
    tmp_path: Path, losses: tuple[RingLosses | None, RingLosses | None], lost: int | None
) -> None:
    found = with_rings(tmp_path, losses)
    assert found.really is not None
    assert found.really.lost == lost
    assert only_thread(found) == {"work": None, "most": None, "source": LOSES}
    assert list(tmp_path.iterdir()) == []


def test_rings_that_have_a_place_for_all_calibrate(tmp_path: Path) -> None:
    found = with_rings(tmp_path, (rings(4, starved=2), rings(4, starved=2)))
    assert found.really is not None
    assert (found.really.lost, only_thread(found)["source"]) == (0, NOT_YET)
    assert len(list((tmp_path / "pollers").iterdir())) == 1


def test_what_its_driver_alone_counts_as_short_calibrates_nothing(tmp_path: Path) -> None:
    for then, now in ((0, 1), (2, 1)):  # more; and set back meanwhile
        short = Statement(received=10**6, sent=0, short=now)
        poller(tmp_path, DPDK, Statement(received=0, sent=0, short=then), short, ETH0)
    assert list(tmp_path.iterdir()) == []


def test_what_is_lost_is_told_once_whoever_counts_it(tmp_path: Path) -> None:
    suspect = Suspect(process=Process(PID, "server", 1), mapped=frozenset(), xdp=XDP)
    start, end = moment(1, Statement(received=0)), moment(2, Statement(received=9, lost=30))
    start, end = replace(start, losses=rings()), replace(end, losses=rings(40))
    really = PollerTally(suspect, DPDK, start, end).poller(BusiestFiles(tmp_path)).really
    assert really is not None
    assert really.lost == 40


def test_what_is_no_bypass_tells_what_it_asks_the_kernel_for(tmp_path: Path) -> None:
    suspect = Suspect(process=Process(PID, "server", 1), mapped=frozenset())
    start, end = moment(1, NOTHING), moment(2, NOTHING)
    start, end = replace(start, calls=Calls(1.0, 1.0, 0)), replace(end, calls=Calls(1.5, 1.5, 90_000))
    detected = Detected(kind="busy, no NIC", evidence=(), bypass=False)
    found = PollerTally(suspect, detected, start, end).poller(BusiestFiles(tmp_path))
    assert found.evidence[-1].startswith("50.0 % of its CPU time is the kernel's, 90,000 reads and writes a second")


def test_without_a_packet_count_there_is_no_bound(tmp_path: Path) -> None:
    found = poller(tmp_path, DPDK, NOTHING, NOTHING)
    assert only_thread(found) == {"work": None, "most": None, "source": NOT_COUNTED}


def test_what_is_no_bypass_has_no_bound(tmp_path: Path) -> None:
    found = poller(tmp_path, Detected(kind="busy, no NIC", evidence=(), bypass=False), NOTHING, NOTHING, ETH0)
    assert only_thread(found) == {"work": None, "most": None, "source": ""}
    assert found.really is None


def test_troubles_are_one_line_each_once(tmp_path: Path) -> None:
    detected = replace(DPDK, troubles=("one", "two"))
    found = poller(tmp_path, detected, NOTHING, Statement(troubles=("two", "three")), ETH0)
    assert found.trouble == "one; two; three"
