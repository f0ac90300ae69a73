"""Promises about Open vSwitch's account of its PMD threads; tests/lab/census has the live one."""

import os
import socket
from pathlib import Path

from napctl.census.pollers import open_vswitch
from napctl.census.pollers.open_vswitch import PmdStats, cycles_by_core
from napctl.census.pollers.spinning import Spin
from tests.unit.census.pollers.programs import listening
from tests.unit.census.pollers.trees import Trees, trees_fixture  # noqa: F401

STATISTICS = """\
pmd thread numa_id 0 core_id 1:
  packets received: 50000
  packet recirculations: 0
  avg. datapath passes per packet: 1.00
  phwol hits: 0
  emc hits: 49990
  megaflow hits: 0
  avg. subtable lookups per megaflow hit: 0.00
  miss with success upcall: 10
  avg. packets per output batch: 1.00
  idle cycles: 7750 (77.50%)
  processing cycles: 2250 (22.50%)
  avg cycles per packet: 0.20 (10000/50000)
  avg processing cycles per packet: 0.04 (2250/50000)
pmd thread numa_id 0 core_id 12:
  packets received: 0
main thread:
  packets received: 0
  idle cycles: 1 (50.00%)
  processing cycles: 1 (50.00%)
"""
PMD = Spin(tid=9, name="pmd-c01/id:7", cpu=1, pinned=True, run_share=1.0)


def test_the_cycles_are_those_of_each_pmd_thread_and_not_of_the_main_thread() -> None:
    assert cycles_by_core(STATISTICS) == {"1": (2250, 10_000)}


def test_other_text_tells_nothing() -> None:
    for text in ("", "unknown command", "pmd thread numa_id 0 core_id 1:\n  idle cycles: x\n", STATISTICS[20:]):
        assert cycles_by_core(text) == {}


def test_it_is_asked_and_its_threads_are_found(tmp_path: Path) -> None:
    def serve(peer: socket.socket) -> None:
        peer.recv(1000)
        text = STATISTICS.replace("\n", "\\n")
        peer.sendall(f'{{"error":null,"id":0,"result":"{text}"}}'.encode())

    with listening(tmp_path / "ovs-vswitchd.7.ctl", socket.SOCK_STREAM, serve) as path:
        account = PmdStats(path, os.getpid())
        assert account.read().cycles == {"1": (2250, 10_000)}
    assert account.key(PMD, 7) == "1"
    assert account.read().troubles == ("dpif-netdev/pmd-stats-show: nobody listens there: its process has ended",)


def test_it_is_known_by_its_pmd_threads_and_is_no_bypass_without(trees: Trees) -> None:
    trees.process(7, fds=("socket:[55]",), unix=((55, "/run/openvswitch/ovs-vswitchd.7.ctl"),))
    found = open_vswitch.detect(trees.seen(7, "ovs-vswitchd", "pmd-c01/id:7"))
    assert found is not None
    assert (found.kind, found.troubles) == ("Open vSwitch with DPDK", ())
    assert open_vswitch.detect(trees.seen(7, "ovs-vswitchd", "handler1")) is None
    trees.process(8)
    without = open_vswitch.detect(trees.seen(8, "ovs-vswitchd", "pmd-c01/id:7"))
    assert without is not None
    assert without.troubles == ("its control socket (ovs-vswitchd.PID.ctl) was not found",)


def test_a_number_that_is_none_is_not_told() -> None:
    text = f"pmd thread numa_id 0 core_id 1:\n  idle cycles: {'9' * 5000} (1%)\n  processing cycles: 5 (1%)\n"
    assert cycles_by_core(text) == {}
