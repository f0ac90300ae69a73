"""Promises about asking programs of others: bounded, strict, one line for each way of not answering."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from napctl.census.pollers import telemetry
from napctl.census.pollers.telemetry import Unanswered, ask_cli, ask_unixctl, dpdk_conversation, listener
from tests.unit.census.pollers.programs import GREETING, Serve, always, dpdk, listening

US = os.getpid()
SEQPACKET, STREAM = socket.SOCK_SEQPACKET, socket.SOCK_STREAM


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others may have the CPU while an answer comes."""
    monkeypatch.setattr(telemetry, "PATIENCE_SECONDS", 20)


@pytest.fixture
def _hasty(_patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """For those who never answer."""
    monkeypatch.setattr(telemetry, "PATIENCE_SECONDS", 0.08)


def ask_dpdk(path: str) -> object:
    with dpdk_conversation(path, US) as talk:
        return talk.ask("/ethdev/list", list[int])


def ask_ovs(path: str) -> object:
    return ask_unixctl(path, US, "dpif-netdev/pmd-stats-show")


def ask_vpp(path: str) -> object:
    return ask_cli(path, US, "show runtime")


ASKS: dict[str, tuple[socket.SocketKind, Callable[[str], object]]] = {
    "dpdk": (SEQPACKET, ask_dpdk),
    "ovs": (STREAM, ask_ovs),
    "vpp": (STREAM, ask_vpp),
}


def why(tmp_path: Path, program: str, serve: Serve) -> str:
    """Why a program that behaves so gives no answer."""
    kind, ask = ASKS[program]
    with listening(tmp_path / "socket", kind, serve) as path, pytest.raises(Unanswered) as refusal:
        ask(path)
    words = str(refusal.value)
    assert "\n" not in words
    return words


def test_dpdk_answers_and_knows_no_other_question(tmp_path: Path) -> None:
    serve = dpdk({"/ethdev/list": b"[0,1]"})
    with listening(tmp_path / "socket", SEQPACKET, serve) as path, dpdk_conversation(path, US) as talk:
        assert talk.greeting.version == "DPDK 24.11.3"
        assert talk.ask("/ethdev/list", list[int]) == [0, 1]
        assert talk.ask("/eal/lcore/usage", dict[str, int]) is None


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize("program", ASKS)
def test_one_that_hangs_is_given_up(tmp_path: Path, program: str) -> None:
    assert "it hangs" in why(tmp_path, program, always(b""))


@pytest.mark.usefixtures("_hasty")
def test_one_that_greets_and_hangs_then_is_given_up(tmp_path: Path) -> None:
    assert "it hangs" in why(tmp_path, "dpdk", always(GREETING))


@pytest.mark.usefixtures("_hasty")
def test_one_that_takes_no_connection_is_given_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, SEQPACKET) as asleep, socket.socket(socket.AF_UNIX, SEQPACKET) as waits:
        path = os.fspath(tmp_path / "socket")
        asleep.bind(path)
        asleep.listen(0)
        waits.connect(path)
        with pytest.raises(Unanswered, match=r"takes no connection \(it hangs\)"):
            ask_dpdk(path)


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize("program", ASKS)
@pytest.mark.parametrize(
    "garbage", [b"\x1b[2Jhello\nworld", b"[" * 100_000, b'{"version":7}', b'{"a":"\xff\xfe"}', b"{}", b"\0" * 50]
)
def test_garbage_is_one_line(tmp_path: Path, program: str, garbage: bytes) -> None:
    words = why(tmp_path, program, always(garbage))
    assert words.isprintable()


def test_a_stream_that_never_ends_is_cut_off(tmp_path: Path) -> None:
    def serve(peer: socket.socket) -> None:
        while True:
            peer.sendall(b'{"result":' + b" " * (1 << 16))

    assert "does not end" in why(tmp_path, "ovs", serve)


@pytest.mark.usefixtures("_hasty")
def test_one_that_answers_byte_by_byte_is_given_up(tmp_path: Path) -> None:
    def serve(peer: socket.socket) -> None:
        for _ in range(1000):
            peer.sendall(b"{")
            time.sleep(0.01)

    assert "it hangs" in why(tmp_path, "ovs", serve)


def test_one_that_hangs_up_says_so(tmp_path: Path) -> None:
    def serve(peer: socket.socket) -> None:
        peer.recv(1000)

    assert "hangs up" in why(tmp_path, "ovs", serve)


def test_an_answer_to_another_question_counts_for_nothing(tmp_path: Path) -> None:
    def serve(peer: socket.socket) -> None:
        peer.send(GREETING)
        peer.recv(1000)
        peer.send(b'{"/ethdev/stats":[0]}')

    assert "another question" in why(tmp_path, "dpdk", serve)


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    assert "cannot be read" in why(tmp_path, "dpdk", dpdk({"/ethdev/list": b'["0"]'}))


def test_what_another_process_says_is_not_heard(tmp_path: Path) -> None:
    asked = []

    def serve(peer: socket.socket) -> None:
        asked.append(peer.recv(100))

    who = f"process {US} of user {os.geteuid()} listens there, and not this one"
    with listening(tmp_path / "socket", STREAM, serve) as path, pytest.raises(Unanswered, match=who):
        ask_unixctl(path, os.getppid(), "version")
    assert asked in ([], [b""])


def test_the_socket_of_a_dead_process_is_named_so(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, SEQPACKET) as left:
        left.bind(os.fspath(path))
    with pytest.raises(Unanswered, match="nobody listens there: its process has ended"):
        ask_dpdk(os.fspath(path))
    with pytest.raises(Unanswered, match="nobody listens there"):
        listener(os.fspath(path))


def test_who_listens_is_the_kernels_word(tmp_path: Path) -> None:
    with listening(tmp_path / "socket", SEQPACKET, always(GREETING)) as path:
        assert listener(path) == US


def test_a_path_longer_than_an_address_is_reached(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d" * 50] * 4)
    deep.mkdir(parents=True)
    (deep / "there").symlink_to(tmp_path)
    with listening(tmp_path / "socket", SEQPACKET, dpdk({"/ethdev/list": b"[]"})):
        assert ask_dpdk(os.fspath(deep / "there" / "socket")) == []


def test_open_vswitch_answers_and_refuses(tmp_path: Path) -> None:
    def serve(peer: socket.socket) -> None:
        asked = peer.recv(1000)
        assert asked == b'{"id": 0, "method": "dpif-netdev/pmd-stats-show", "params": []}'
        peer.sendall(b'{"error":null,"id":0,"result":"pmd thread')
        peer.sendall(b' {}"}')

    with listening(tmp_path / "socket", STREAM, serve) as path:
        assert ask_ovs(path) == "pmd thread {}"

    def refuse(peer: socket.socket) -> None:
        peer.recv(1000)
        peer.sendall(b'{"error":"\\"x\\" is not a valid command","id":0,"result":null}')

    (tmp_path / "socket").unlink()
    assert "refuses dpif-netdev/pmd-stats-show" in why(tmp_path, "ovs", refuse)
