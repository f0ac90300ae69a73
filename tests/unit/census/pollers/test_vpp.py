"""Promises about VPP: from what its documentation prints. It was never looked at live."""

import os
import socket
from pathlib import Path

import pytest

from napctl.census.pollers import vpp
from napctl.census.pollers.detection import Statement
from napctl.census.pollers.spinning import Spin
from napctl.census.pollers.vpp import ShowRuntime, show_runtime
from tests.unit.census.pollers.programs import listening
from tests.unit.census.pollers.trees import Trees, trees_fixture  # noqa: F401

RUNTIME = """\
Thread 0 vpp_main (lcore 1)
Time 48.9, 10 sec internal node vector rate 0.00 loops/sec 6188602.79
  vector rates in 0.0000e0, out 0.0000e0, drop 0.0000e0, punt 0.0000e0
   Name   State   Calls   Vectors   Suspends   Clocks   Vectors/Call
api-rx-from-ring   any wait   0   0   4   1.92e5   0.00
unix-epoll-input   polling   66736407   0   0   1.32e3   0.00
---------------
Thread 1 vpp_wk_0 (lcore 2)
Time 50.0, 10 sec internal node vector rate 12.50 loops/sec 1188602.79
  vector rates in 2.0000e4, out 2.0000e4, drop 0.0000e0, punt 0.0000e0
   Name   State   Calls   Vectors   Suspends   Clocks   Vectors/Call
dpdk-input   polling   1000000   1000000   0   6.00e2   1.00
ethernet-input   active   500000   1000000   0   1.00e2   2.00
ip4-lookup   active   500000   1000000   0   1.00e2   2.00
"""
"""In the form of `show runtime` (src/vlib/node_cli.c), with figures that are easily added up."""
IAC, SB, SE, TTYPE = 255, 250, 240, 24
WORKER = Spin(tid=9, name="vpp_wk_0", cpu=2, pinned=True, run_share=1.0)


def serve(peer: socket.socket) -> None:
    """As src/vlib/unix/cli.c: asks for the terminal's type first, and ends its answer with a NUL."""
    peer.sendall(bytes((IAC, 253, TTYPE, IAC, SB, TTYPE, 1, IAC, SE)))
    said = b""
    while not said.endswith(b"\n\0"):
        said += peer.recv(1024)
    assert said == bytes((IAC, SB, TTYPE, 0)) + b"vppctl" + bytes((IAC, SE)) + b"show runtime\n\0"
    peer.sendall(RUNTIME.replace("\n", "\r\n").encode() + b"\0")


def test_the_work_is_that_of_the_nodes_that_do_not_poll() -> None:
    found = show_runtime(RUNTIME)
    assert found.keys() == {"vpp_main", "vpp_wk_0"}
    worker = found["vpp_wk_0"]
    assert worker.work_share == pytest.approx(2 / 8)
    assert (worker.vector_rate, worker.received) == (12.5, 1_000_000)
    assert found["vpp_main"].work_share == 0


def test_a_vpp_without_workers_is_its_main_thread() -> None:
    text = "\n".join(RUNTIME.splitlines()[1:6])
    assert show_runtime(text).keys() == {"vpp_main"}


def test_other_text_tells_nothing() -> None:
    for text in ("", "show runtime: unknown input", "Time x, 10 sec\n", RUNTIME.replace("Time ", "time ")):
        assert show_runtime(text) == {}


def test_packets_are_those_of_the_nodes_and_not_of_a_mean_of_days() -> None:
    found = show_runtime(RUNTIME.replace("vector rates in 2.0000e4", "vector rates in 1.0000e0"))
    assert found["vpp_wk_0"].received == 1_000_000


def test_nodes_that_cannot_be_read_count_no_packets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = RUNTIME.replace("e2 ", " ? ").replace("e3 ", " ? ").replace("e5 ", " ? ")
    monkeypatch.setattr(vpp, "ask_cli", lambda *_: text)
    assert ShowRuntime("/run/vpp/cli.sock", 7).read() == Statement()


def test_its_cli_is_asked_as_vppctl_does(tmp_path: Path) -> None:
    with listening(tmp_path / "cli.sock", socket.SOCK_STREAM, serve) as path:
        account = ShowRuntime(path, os.getpid())
        reading = account.read()
    share, source = reading.shares["vpp_wk_0"]
    assert share == pytest.approx(0.25)
    assert (reading.received, reading.troubles) == (1_000_000, ())
    assert source == "VPP show runtime, mean of 50 s, vector rate 12.50 of 256"
    assert account.key(WORKER, 7) == "vpp_wk_0"


def test_one_that_does_not_answer_says_why(tmp_path: Path) -> None:
    assert ShowRuntime(os.fspath(tmp_path / "none"), os.getpid()).read() == Statement(
        troubles=("VPP's CLI: No such file or directory",)
    )


def test_it_is_known_by_its_library_or_its_threads(trees: Trees) -> None:
    trees.process(
        7, maps=("/usr/lib/libvlib.so.24.02",), fds=("socket:[55]", "/dev/vfio/3"), unix=((55, "/run/vpp/cli.sock"),)
    )
    trees.vfio(3, "0000:3b:00.0")
    trees.pci("0000:3b:00.0", "0x020000")
    found = vpp.detect(trees.seen(7, "vpp_main", "vpp_wk_0"))
    assert found is not None
    assert (found.kind, found.devices, found.of_kernel, found.troubles) == ("VPP", ("0000:3b:00.0",), False, ())
    assert found.evidence == (
        "libvlib.so.24.02 in its maps", "a thread named vpp_main", "it listens on /run/vpp/cli.sock"
    )  # fmt: skip
    trees.process(8)
    without = vpp.detect(trees.seen(8, "vpp_main"))
    assert without is not None
    assert (without.account, without.troubles) == (None, ("its CLI's socket was not found",))


@pytest.mark.parametrize("number", ["9" * 5000, "9" * 400, "9e99"])
def test_numbers_that_are_none_end_nothing(number: str) -> None:
    for then in ("50.0", "2.0000e4", "1000000 ", "6.00e2", "1.00e2"):
        found = show_runtime(RUNTIME.replace(then, f"{number} "))
        assert all(each.work_share is None or 0 <= each.work_share <= 1 for each in found.values())
        assert all(each.received < 2**64 for each in found.values())


def test_a_line_of_spaces_is_no_work() -> None:
    """Tried in all ways in which these can be divided it would take minutes."""
    assert show_runtime(f"{RUNTIME}a b{' ' * 100_000}\n") == show_runtime(RUNTIME)
