"""Asking the service, over its real socket."""

import os
import resource
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from napctl.model.errors import BadInput, NapctlError
from napctl.service.control import FILE, MOST_BYTES, Answer, ControlServer, Request, ask_service


@contextmanager
def serving(directory: Path, answered: Callable[[Request], Answer], times: int = 1) -> Iterator[None]:
    with ControlServer(directory) as server:

        def serve() -> None:
            for _ in range(times):
                server_waits(server)
                server.answer(answered)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def server_waits(server: ControlServer) -> None:
    assert select.select([server], [], [], 10)[0]


def test_a_request_arrives_and_so_does_its_answer(tmp_path: Path) -> None:
    asked = []

    def answered(request: Request) -> Answer:
        asked.append(request)
        return Answer(lines=("eth0: nothing",))

    with serving(tmp_path, answered):
        assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
        assert ask_service(tmp_path, Request(what="pause", seconds=60)) == Answer(lines=("eth0: nothing",))
    assert asked == [Request(what="pause", seconds=60)]
    assert not (tmp_path / FILE).exists()


def test_without_a_service_there_is_no_answer(tmp_path: Path) -> None:
    assert ask_service(tmp_path, Request(what="status")) is None
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(tmp_path / FILE))
    assert ask_service(tmp_path, Request(what="status")) is None, "left by one that was killed"
    with serving(tmp_path, lambda _: Answer(lines=("up",))):
        assert ask_service(tmp_path, Request(what="status")) == Answer(lines=("up",))


def test_an_error_of_the_service_is_its_answer(tmp_path: Path) -> None:
    def fails(request: Request) -> Answer:
        raise BadInput(f"{request.about}: no such target")

    with serving(tmp_path, fails):
        assert ask_service(tmp_path, Request(what="why", about="x")) == Answer(error="x: no such target")


def test_nonsense_silence_and_who_goes_away_do_not_end_the_service(tmp_path: Path) -> None:
    def knock(said: bytes | None, waits: bool) -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.settimeout(10)
            client.connect(str(tmp_path / FILE))
            if said is not None:
                client.send(said)
            return client.recv(MOST_BYTES) if waits else b""

    with serving(tmp_path, lambda _: Answer(), times=4):
        assert b"does not know that request" in knock(b'{"what": "dance"}', True)
        assert knock(None, True) == b""
        knock(b'{"what": "status"}', False)
        assert ask_service(tmp_path, Request(what="status")) == Answer()


def test_who_asks_when_no_descriptor_is_left_is_hung_up_on_and_wakes_nobody_again(
    tmp_path: Path, stack: ExitStack
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
    server = stack.enter_context(ControlServer(tmp_path))
    for _ in range(2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(str(tmp_path / FILE))
            server_waits(server)
            with Path(os.devnull).open() as lowest:
                free = lowest.fileno()
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
            server.answer(lambda _: Answer())
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            assert select.select([server], [], [], 0)[0] == []
            assert client.recv(100) == b""


def test_an_answer_of_another_version_is_said_to_be(tmp_path: Path) -> None:
    class Odd(Answer, frozen=True, kw_only=True):
        more: int = 0

    with serving(tmp_path, lambda _: Odd(more=1)), pytest.raises(NapctlError, match="of another version"):
        ask_service(tmp_path, Request(what="status"))


def test_a_path_too_long_for_a_socket_is_one_line(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    with pytest.raises(BadInput, match="107 bytes"):
        ControlServer(long)
    with pytest.raises(BadInput, match="107 bytes"):
        ask_service(long, Request(what="status"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be somebody else")
def test_nobody_but_root_is_answered(stack: ExitStack) -> None:
    directory = Path(stack.enter_context(TemporaryDirectory(dir="/tmp")))
    directory.chmod(0o755)
    with ControlServer(directory) as server:
        (directory / FILE).chmod(0o666)
        pid = os.fork()
        if pid == 0:
            os.setuid(65534)
            try:
                client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                client.connect(str(directory / FILE))
                client.send(b'{"what": "status"}')
                os._exit(0 if client.recv(100) == b"" else 1)
            except (BrokenPipeError, ConnectionResetError):  # hung up before anything was said, or read
                os._exit(0)
            except OSError:
                os._exit(2)
        server_waits(server)
        server.answer(lambda _: Answer(lines=("secret",)))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
