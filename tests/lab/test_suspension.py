"""`napctl.suspension` in programs of their own, run as nobody: what they set, who polls then, what status() says."""

import pwd
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from napctl.model.settings import EpollParams, NapiSettings
from napctl.model.suspension import Suspension
from napctl.model.window import Window, own_polls
from napctl.observe.window import Observer
from napctl.suspension import CAN_BE_ACTIVE, CANNOT_TELL, MISSING, NO_NAPI, SEVERAL, Status, suspended
from tests.lab.helpers import PREFERS, UNSET, Napctl, ending, params_of, set_napi, set_params, until

pytestmark = pytest.mark.lab

PORT = 8080
CONNECTIONS, REQUESTS = 16, 800
AS_NOBODY = (
    *("setpriv", "--reuid=nobody", f"--regid={pwd.getpwnam('nobody').pw_gid}", "--clear-groups", "--pdeathsig=KILL"),
    *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
)
"""To run a program under. It may read what root may, as the interpreter can be in root's home, and nothing else."""
READS_ALL = 1 << 2
EXAMPLE = Path(__file__).parents[2] / "examples" / "asyncio_server.py"
REQUEST, ANSWER = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n"

LOOPS = """
import asyncio, sys
from napctl.suspension import suspended

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(data)
        if data == b"leave":
            loop.stop()

if sys.argv[1] == "uvloop":
    import uvloop
    loop = uvloop.new_event_loop()
else:
    loop = asyncio.new_event_loop()
loop.run_until_complete(loop.create_server(Echo, "0.0.0.0", 8080))
with suspended(loop):
    loop.run_forever()
loop.run_forever()
"""
SELECTORS = """
import select, selectors, socket, sys
from napctl.suspension import suspended

listener = socket.create_server(("0.0.0.0", 8080))
files = {listener.fileno(): listener}
if sys.argv[1] == "select.epoll":
    waiting = select.epoll()
    add = lambda file: waiting.register(file, select.EPOLLIN)
    remove = waiting.unregister
    ready = lambda: [fd for fd, _ in waiting.poll()]
else:
    waiting = selectors.EpollSelector()
    add = lambda file: waiting.register(file, selectors.EVENT_READ)
    remove = waiting.unregister
    ready = lambda: [key.fd for key, _ in waiting.select()]
add(listener)

def serve():
    while True:
        for fd in ready():
            if fd == listener.fileno():
                file, _ = listener.accept()
                files[file.fileno()] = file
                add(file)
            elif data := files[fd].recv(4096):
                files[fd].sendall(data)
                if data == b"leave":
                    return
            else:
                remove(files[fd])
                files.pop(fd).close()

with suspended(waiting):
    serve()
serve()
"""
PROGRAMS = {"asyncio": LOOPS, "uvloop": LOOPS, "selectors.EpollSelector": SELECTORS, "select.epoll": SELECTORS}


def connected(lab: Lab) -> socket.socket:
    with lab.client.namespace.entered():
        return socket.create_connection((lab.server.address, PORT), timeout=60)


def talk(connection: socket.socket, words: bytes, answer: bytes | None = None) -> None:
    """One request and its answer, by default the same."""
    connection.sendall(words)
    hear(connection, answer or words)


def hear(connection: socket.socket, expected: bytes) -> None:
    received = b""
    while len(received) < len(expected):
        received += connection.recv(4096)
    assert received == expected


def talk_to(here: socket.socket, there: socket.socket) -> None:
    """Let a packet come."""
    there.sendall(b"x")
    assert here.recv(1) == b"x"


@contextmanager
def served(lab: Lab, *arguments: str, output: Path) -> Iterator[Server]:
    """A Python program as nobody in the server namespace, which accepts connections."""
    with output.open("wb") as words:
        process = lab.server.start([*AS_NOBODY, sys.executable, *arguments], stdout=words, stderr=words)
        with ending(Server(process, lab.server.address, PORT)) as server:

            def accepts() -> bool:
                assert process.poll() is None, output.read_text()
                try:
                    connected(lab).close()
                except OSError:
                    return False
                return True

            until(accepts, "a connection")
            status = Path(f"/proc/{server.pid}/status").read_text()
            assert int(status.split("\nCapEff:", 1)[1].split()[0], 16) == READS_ALL
            assert int(status.split("\nUid:", 1)[1].split()[0]) == pwd.getpwnam("nobody").pw_uid
            yield server


def set_device_half(lab: Lab) -> None:
    for napi in lab.server.napis():
        set_napi(lab, napi.napi_id, Suspension().napi)


def window_of_requests(lab: Lab, words: bytes, answer: bytes | None = None) -> Window:
    """Requests over several connections at once: while the server answers one, the packets of others come."""
    with ExitStack() as stack:
        connections = [stack.enter_context(connected(lab)) for _ in range(CONNECTIONS)]
        for connection in connections:
            talk(connection, words, answer)
        observer = stack.enter_context(Observer(lab.server.namespace))
        for _ in range(REQUESTS // CONNECTIONS):
            for connection in connections:
                connection.sendall(words)
            for connection in connections:
                hear(connection, answer or words)
        return observer.window()


def wait_until_it_polls_itself(lab: Lab, server: Server, words: bytes, answer: bytes | None = None) -> None:
    """Make requests until it has found packets by polls of its own: the NAPI thread is often first."""

    def polls() -> bool:
        own = own_polls(window_of_requests(lab, words, answer).napis, server.pid)
        return own.polls > 0 and own.packets > 0

    until(polls, "polls of its own that find packets")


# Programs.


@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_program_without_privileges_polls_its_packets_itself_until_it_leaves_the_block(
    lab: Lab, tmp_path: Path, kind: str
) -> None:
    if kind == "uvloop":
        pytest.importorskip("uvloop")
    set_device_half(lab)
    with served(lab, "-c", PROGRAMS[kind], kind, output=tmp_path / "output") as server, connected(lab) as connection:
        talk(connection, b"hello")
        inside = params_of(server.pid)
        wait_until_it_polls_itself(lab, server, b"hello")

        talk(connection, b"leave")
        until(lambda: PREFERS not in params_of(server.pid).values(), "the former parameters")
        outside, while_outside = params_of(server.pid), window_of_requests(lab, b"hello")

    assert list(inside.values()) == [PREFERS]
    assert outside == dict.fromkeys(inside, UNSET)
    assert own_polls(while_outside.napis, server.pid).polls == 0


@pytest.mark.parametrize("options", [(), ("--uvloop",)], ids=["asyncio", "uvloop"])
def test_the_example_server_polls_itself_and_says_after_the_first_packet_that_it_can(
    lab: Lab, tmp_path: Path, options: tuple[str, ...]
) -> None:
    if options:
        pytest.importorskip("uvloop")
    set_device_half(lab)
    output = tmp_path / "output"
    with served(lab, str(EXAMPLE), *options, output=output) as server, connected(lab) as connection:
        talk(connection, REQUEST, ANSWER)
        (napi,) = lab.server.napis()
        until(output.read_text, "words")
        wait_until_it_polls_itself(lab, server, REQUEST, ANSWER)
        during = params_of(server.pid)
        server.process.terminate()
        status = server.process.wait(60)

    assert output.read_text() == (
        f"suspension can be active: both halves are set for NAPI {napi.napi_id}; "
        "who polls is seen with `napctl watch`\n"
    )
    assert list(during.values()) == [PREFERS]
    assert status == 0


def test_what_the_example_server_advises_sets_the_device_half(lab: Lab, tmp_path: Path, napctl: Napctl) -> None:
    output = tmp_path / "output"
    with served(lab, str(EXAMPLE), output=output) as server, connected(lab) as connection:
        talk(connection, REQUEST, ANSWER)
        until(output.read_text, "words")
        words = output.read_text()
        advised = words.strip().rsplit("as root: napctl ", 1)[1].split()

        assert words.startswith("device half missing: NAPI ")
        assert advised == ["attach", str(server.pid)]
        assert napctl(*advised, "--window", "0s").status == 0
        (napi,) = lab.server.napis()
        assert napi.settings.defers
        wait_until_it_polls_itself(lab, server, REQUEST, ANSWER)
        assert napctl("detach", server.pid).status == 0
        assert list(params_of(server.pid).values()) == [PREFERS]  # the program's own half is left to the program


def test_parameters_that_somebody_changes_from_outside_are_left_at_the_end(lab: Lab, tmp_path: Path) -> None:
    other = EpollParams(busy_poll_usecs=3, busy_poll_budget=16, prefer_busy_poll=True)
    with (
        served(lab, "-c", LOOPS, "asyncio", output=tmp_path / "output") as server,
        connected(lab) as one,
        connected(lab) as two,
    ):
        talk(one, b"hello")
        (fd,) = params_of(server.pid)
        set_params(server.pid, fd, other)
        talk(one, b"leave")
        talk(two, b"hello")  # answered by the loop after the block
        assert params_of(server.pid) == {fd: other}


# What status() says, of an epoll instance of this process in the server's namespace.


@contextmanager
def watched(lab: Lab, connections: int = 1) -> Iterator[select.epoll]:
    """An epoll instance that watches this end of connections over which a packet has come."""
    with ExitStack() as stack, lab.server.namespace.entered():
        instance = stack.enter_context(select.epoll())
        listener = stack.enter_context(socket.create_server((lab.server.address, PORT)))
        for _ in range(connections):
            there = stack.enter_context(connected(lab))
            here = stack.enter_context(listener.accept()[0])
            talk_to(here, there)
            instance.register(here)
        yield instance


def test_status_says_that_the_device_half_is_missing_where_and_how_to_set_it(lab: Lab) -> None:
    (napi,) = lab.server.napis()
    with watched(lab) as instance, suspended(instance) as active:
        status = active.status()
        set_napi(lab, napi.napi_id, NapiSettings(defer_hard_irqs=100, gro_flush_timeout_ns=200_000))
        half = active.status()

    assert status.verdict == MISSING
    assert str(status).startswith(
        f"device half missing: NAPI {napi.napi_id}: defer-hard-irqs, gro-flush-timeout, irq-suspend-timeout not set; "
        "as root: napctl attach "
    )
    assert status.napis == {napi.napi_id: napi.settings}
    assert half.verdict == MISSING
    assert f"NAPI {napi.napi_id}: irq-suspend-timeout not set" in str(half)


def test_status_says_that_suspension_can_be_active_and_never_that_it_is(lab: Lab) -> None:
    set_device_half(lab)
    (napi,) = lab.server.napis()
    with watched(lab, 3) as instance, suspended(instance) as active:
        status = active.status()

    assert (status.verdict, status.can_be_active) == (CAN_BE_ACTIVE, True)
    assert (status.watched, status.sockets_by_napi) == (3, {napi.napi_id: 3})
    assert status.params == PREFERS
    assert "is active" not in str(status)


def test_status_warns_of_several_napi_ids() -> None:
    with Lab.build(queues=2) as lab:
        with watched(lab, 40) as instance, suspended(instance) as active:
            unset = active.status()
            set_device_half(lab)
            status = active.status()
        ids = {napi.napi_id for napi in lab.server.napis()}

    assert unset.verdict == MISSING
    assert any("sockets: " in reason for reason in unset.reasons)
    assert (status.verdict, status.can_be_active) == (SEVERAL, False)
    assert set(status.sockets_by_napi) == ids
    assert sum(status.sockets_by_napi.values()) == 40
    assert str(status).endswith("packets of the others may wait as long as 20 ms")


def test_status_says_over_loopback_and_before_the_first_connection_that_there_is_no_napi_id(lab: Lab) -> None:
    set_device_half(lab)

    def of(address: str) -> Status:
        with socket.create_server((address, PORT)) as listener, socket.create_connection((address, PORT)) as there:
            here, _ = listener.accept()
            with here, select.epoll() as instance, suspended(instance) as active:
                talk_to(here, there)
                instance.register(here)
                return active.status()

    with lab.server.namespace.entered():
        found = [of("127.0.0.1"), of(lab.server.address)]
        with select.epoll() as instance, suspended(instance) as active:
            found.append(active.status())

    assert [status.verdict for status in found] == [NO_NAPI] * 3
    assert [status.watched for status in found] == [1, 1, 0]


def test_status_does_not_claim_to_know_a_napi_instance_of_another_namespace(lab: Lab) -> None:
    set_device_half(lab)
    with watched(lab) as instance, suspended(instance) as active, lab.client.namespace.entered():
        status = active.status()

    assert status.verdict == CANNOT_TELL
    assert list(status.napis.values()) == [None]
    assert "belongs to no device of this network namespace" in str(status)


def test_status_says_what_it_cannot_read_where_netlink_is_forbidden(lab: Lab, tmp_path: Path) -> None:
    # As a service with RestrictAddressFamilies= that does not name AF_NETLINK.
    set_device_half(lab)
    output = tmp_path / "output"
    code = (
        "import runpy, socket, sys\n"
        "import napctl.kernel.netlink as netlink\n"
        "class Forbidden:\n"
        "    def __getattr__(self, name): return getattr(socket, name)\n"
        "    def socket(self, *_): raise OSError(97, 'Address family not supported by protocol')\n"
        "netlink.socket = Forbidden()\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    with served(lab, "-c", code, str(EXAMPLE), output=output), connected(lab) as connection:
        talk(connection, REQUEST, ANSWER)
        until(output.read_text, "words")
    assert output.read_text().startswith("cannot tell: the device half cannot be read: ")


def test_a_program_that_has_dropped_its_privileges_itself_can_still_ask(lab: Lab) -> None:
    # Such a process is not dumpable: its files in /proc belong to root (proc(5)).
    set_device_half(lab)
    code = """
import os, select, socket, sys
from napctl.suspension import suspended
here, instance = socket.socket(fileno=int(sys.argv[1])), select.epoll()
with suspended(instance) as active:
    print(active.status().verdict)
os.setgroups([]); os.setgid(65534); os.setuid(65534)
instance.register(here)
with suspended(instance) as active:
    print(active.status().verdict)
"""
    with ExitStack() as stack, lab.server.namespace.entered():
        listener = stack.enter_context(socket.create_server((lab.server.address, PORT)))
        there = stack.enter_context(connected(lab))
        here = stack.enter_context(listener.accept()[0])
        talk_to(here, there)
        done = subprocess.run(
            [sys.executable, "-c", code, str(here.fileno())],
            pass_fds=[here.fileno()],
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.stdout, done.stderr) == (f"{NO_NAPI}\n{CAN_BE_ACTIVE}\n", "")
