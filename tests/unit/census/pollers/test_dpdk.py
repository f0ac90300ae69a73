"""Promises about what DPDK's telemetry says: answers as its documentation and sources have them."""

import os
import socket
from pathlib import Path

import pytest

from napctl.census.pollers import dpdk
from napctl.census.pollers.detection import Statement
from napctl.census.pollers.dpdk import Port, Telemetry
from napctl.census.pollers.spinning import Spin
from napctl.census.pollers.suspects import Suspect
from napctl.census.pollers.telemetry import Unanswered
from napctl.kernel.processes import Process
from tests.unit.census.pollers.programs import dpdk as program
from tests.unit.census.pollers.programs import listening

ANSWERS = {
    "/eal/params": b'["testpmd","--vdev","net_af_packet0,iface=eth7","--vdev=net_af_xdp1,iface=eth8,start_queue=0"]',
    "/eal/lcore/list": b"[0,1]",
    "/ethdev/list": b"[0,1,2]",
    "/ethdev/info,0": b'{"name":"net_af_packet0","state":1}',
    "/ethdev/info,1": b'{"name":"net_af_xdp1","state":1}',
    "/ethdev/info,2": b'{"name":"0000:3b:00.0","state":1}',
    "/ethdev/stats,0": b'{"ipackets":10,"opackets":1,"imissed":5,"rx_nombuf":0,"q_ipackets":[10]}',
    "/ethdev/stats,1": b'{"ipackets":20,"opackets":2,"imissed":0,"rx_nombuf":0}',
    "/ethdev/stats,2": b'{"ipackets":30,"opackets":3,"imissed":0,"rx_nombuf":0}',
}
USAGE = b'{"lcore_ids":[1],"total_cycles":[1000],"busy_cycles":[100],"usage_ratio":["10.00%"]}'
WORKER = Spin(tid=9, name="dpdk-worker1", cpu=1, pinned=True, run_share=1.0)
MAIN = Spin(tid=7, name="testpmd", cpu=0, pinned=True, run_share=1.0)


def asked(tmp_path: Path, answers: dict[str, bytes]) -> tuple[Telemetry, Statement]:
    path = tmp_path / "dpdk_telemetry.v2"
    with listening(path, socket.SOCK_SEQPACKET, program(answers)):
        found = dpdk.open_telemetry(os.fspath(path), os.getpid(), ("testpmd", "dpdk-worker1"))
        return found, found.read()


def test_its_ports_are_named_by_their_devices(tmp_path: Path) -> None:
    found, reading = asked(tmp_path, ANSWERS)
    assert found.version == "DPDK 24.11.3"
    assert found.ports == (
        Port("net_af_packet0", "eth7", copies=True),
        Port("net_af_xdp1", "eth8", includes=True),
        Port("0000:3b:00.0", "0000:3b:00.0", of_kernel=False),
    )
    assert (reading.received, reading.sent, reading.lost, reading.troubles) == (60, 6, 5, ())


def test_its_cycles_are_those_of_the_thread_of_that_core(tmp_path: Path) -> None:
    found, reading = asked(tmp_path, ANSWERS | {"/eal/lcore/usage": USAGE})
    assert reading.cycles == {"1": (100, 1000)}
    assert (found.key(WORKER, 7), found.key(MAIN, 7), found.source) == ("1", "0", "DPDK telemetry /eal/lcore/usage")


def test_its_cores_are_asked_one_by_one_where_it_knows_no_usage(tmp_path: Path) -> None:
    info = {"/eal/lcore/info,1": b'{"lcore_id":1,"total_cycles":1000,"busy_cycles":100}'}
    found, reading = asked(tmp_path, ANSWERS | info | {"/eal/lcore/info,0": b'{"lcore_id":0,"cpuset":[0]}'})
    assert (reading.cycles, found.source) == ({"1": (100, 1000)}, "DPDK telemetry /eal/lcore/info")


def test_a_program_that_registers_no_cycles_tells_packets_alone(tmp_path: Path) -> None:
    _, reading = asked(tmp_path, ANSWERS | {"/eal/lcore/usage": b'{"lcore_ids":[],"total_cycles":[]}'})
    assert (reading.received, dict(reading.cycles)) == (60, {})


def test_lists_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    usage = b'{"lcore_ids":[1,2],"total_cycles":[1000],"busy_cycles":[100]}'
    _, reading = asked(tmp_path, ANSWERS | {"/eal/lcore/usage": usage})
    assert reading == Statement(troubles=("DPDK telemetry: /eal/lcore/usage has lists of different lengths",))


def test_what_found_no_place_is_lost_and_so_is_what_its_driver_alone_counts(tmp_path: Path) -> None:
    lost = b'{"ipackets":20,"opackets":2,"imissed":3,"rx_nombuf":4}'
    driver = b'{"rx_good_packets":9,"rx_q0_drop_total":5,"rx_out_of_buffer":6,"tx_drop":7,"rx_q0_errors":8}'
    none = {"/ethdev/xstats,0": b"{}", "/ethdev/xstats,1": b'{"rx_good_packets":9}'}
    _, reading = asked(tmp_path, ANSWERS | none | {"/ethdev/stats,1": lost, "/ethdev/xstats,2": driver})
    assert (reading.lost, reading.short) == (5 + 3 + 4, 5 + 6)


@pytest.mark.parametrize("answer", [b"null", b'{"rx_drops":"many"}', b"["], ids=["refused", "no count", "garbled"])
def test_what_its_drivers_do_not_tell_is_not_known_and_takes_nothing_else(answer: bytes, tmp_path: Path) -> None:
    told = {f"/ethdev/xstats,{port}": b"{}" for port in range(3)}
    _, reading = asked(tmp_path, ANSWERS | {"/eal/lcore/usage": USAGE} | told | {"/ethdev/xstats,1": answer})
    assert (reading.received, reading.lost, reading.cycles) == (60, 5, {"1": (100, 1000)})
    assert reading.short is None


def test_a_port_that_counts_no_losses_has_not_lost_none(tmp_path: Path) -> None:
    _, reading = asked(tmp_path, ANSWERS | {"/ethdev/stats,1": b'{"ipackets":20,"opackets":2,"imissed":0}'})
    assert (reading.received, reading.lost) == (60, None)


def test_where_a_port_has_gone_meanwhile_a_sum_of_the_others_is_none(tmp_path: Path) -> None:
    _, reading = asked(tmp_path, ANSWERS | {"/ethdev/stats,2": b"null"})
    assert (reading.received, reading.sent, reading.troubles) == (None, None, ())


def test_one_that_has_ended_says_why_there_is_nothing(tmp_path: Path) -> None:
    found, _ = asked(tmp_path, ANSWERS)
    assert found.read().troubles == ("DPDK telemetry: nobody listens there: its process has ended",)


def test_a_number_that_is_no_count_is_not_read(tmp_path: Path) -> None:
    huge = b'{"ipackets":1%s,"opackets":0}' % (b"0" * 400)
    _, reading = asked(tmp_path, ANSWERS | {"/ethdev/stats,1": huge})
    assert reading.received is None
    assert "cannot be read" in reading.troubles[0]


def test_of_many_sockets_some_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def hangs(path: str, pid: int, threads: object) -> Telemetry:
        tried.append(path)
        raise Unanswered("it hangs")

    monkeypatch.setattr(dpdk, "open_telemetry", hangs)
    paths = tuple(f"/tmp/{number}/dpdk_telemetry.v2" for number in range(1000))
    suspect = Suspect(process=Process(2**22 + 1, "server", 1), mapped=frozenset(), listens=paths)
    account, evidence, troubles = dpdk.telemetry_of(suspect)
    assert (account, len(evidence), len(troubles), len(tried)) == (None, 1, 4, 4)


def test_of_more_ports_than_are_asked_there_is_no_sum(tmp_path: Path) -> None:
    ports = b"[%s]" % b",".join(b"%d" % number for number in range(65))
    statistics = {f"/ethdev/stats,{number}": ANSWERS["/ethdev/stats,0"] for number in range(65)}
    found, reading = asked(tmp_path, ANSWERS | statistics | {"/ethdev/list": ports})
    assert (len(found.ports), reading.received) == (64, None)
