"""What the tests of steering and of staying attached share: HTTP connections, queues of workers, `attach --stay`."""

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from napctl.attach.inspect_target import examine
from napctl.kernel import processes
from napctl.lab.bed import Lab
from napctl.lab.servers import Server, memcached
from napctl.model.machine import Machine
from napctl.model.settings import NapiSettings
from napctl.observe.window import Observer
from tests.lab.helpers import UNSET, Napctl, ask, ending, in_namespace, machine_of, params_of, until
from tests.lab.other_servers import echoed

REQUEST = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n"
LAST = b"hello\n"
"""How the replies of all of them end."""
PAGE = 4096
"""Bytes, the least that a pipe takes."""
Ids = frozenset[int]


def get(lab: Lab, server: Server, patience_s: float = 20) -> socket.socket:
    """A connection over which one HTTP request was answered. Raises OSError."""
    with lab.client.namespace.entered():
        connection = socket.create_connection((server.address, server.port), timeout=patience_s)
    try:
        get_again(connection)
    except OSError:
        connection.close()
        raise
    return connection


def get_again(connection: socket.socket) -> None:
    """One more request. Raises OSError if it is not answered."""
    connection.sendall(REQUEST)
    reply = b""
    while not reply.endswith(LAST):
        if not (more := connection.recv(1000)):
            raise ConnectionError("the server closed it")
        reply += more
    assert reply.startswith(b"HTTP/1.1 200"), reply


@contextmanager
def connections(lab: Lab, server: Server, count: int) -> Iterator[list[socket.socket]]:
    """Open connections, each of which has had an answer."""
    with ExitStack() as stack:
        yield [stack.enter_context(get(lab, server)) for _ in range(count)]


def queues_of(*pids: int) -> dict[int, Ids]:
    """NAPI ids of the sockets of each of these processes' epoll instances; those without any are left out."""
    running = [process for pid in pids if (process := processes.process(pid)) is not None]
    ids = {each.process.pid: frozenset(each.sockets_by_napi) for each in examine("test", running).instances}
    return {pid: each for pid, each in ids.items() if each}


def queues_of_datagrams(lab: Lab, server: Server, datagrams: int) -> dict[int, Ids]:
    """By worker: the NAPI instances over which datagrams came to it, one by one.

    The worker is the one that slept anew; the kernel marks its socket with the NAPI id of its first datagram only
    (sk_mark_napi_id_once() in include/net/busy_poll.h).
    """
    found: dict[int, set[int]] = defaultdict(set)
    ours = {napi.napi_id for napi in lab.server.napis()}
    with Observer(lab.server.namespace, [lab.server.device]) as observer:
        for _ in range(datagrams):
            before = {pid: sleeps(pid) for pid in server.workers}
            observer.restart()
            assert echoed(lab, server, 1) == 1
            served = until(partial(slept_since, before), "the worker to sleep again")
            window = observer.window(refresh=False)
            fed = [napi.napi_id for napi in window.napis if napi.napi_id in ours and napi.polls.packets]
            if len(fed) == len(served) == 1:
                found[served[0]].add(fed[0])
    return {pid: frozenset(ids) for pid, ids in found.items()}


def slept_since(before: dict[int, int]) -> list[int]:
    """Which of these have gone to sleep since then."""
    return [pid for pid, count in before.items() if sleeps(pid) != count]


def sleeps(pid: int) -> int:
    """How often a process has gone to sleep of its own accord."""
    (count,) = re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    return int(count)


def steered(found: dict[int, Ids], workers: int) -> bool:
    """Whether that many workers serve one queue each, and no two the same."""
    return len(found) == workers == len({ids for ids in found.values() if len(ids) == 1})


def spread(found: dict[int, Ids]) -> bool:
    """Whether the kernel's hash is at work. (With 10 connections a worker has one queue of 4 once in 260,000 times.)"""
    return all(len(ids) > 1 for ids in found.values())


def new_connections_are_spread(lab: Lab, server: Server, count: int = 60) -> bool:
    """Whether connections of each worker come over several queues, once all are accepted; a worker may have got so few
    that more are needed to tell."""
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connections(lab, server, count))
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                if spread(queues_of(*server.workers)):
                    return True
                time.sleep(0.1)
        return False


def closed(server: Server, pids: list[int]) -> None:
    """Wait until none of these workers has a connection."""
    until(lambda: not queues_of(*pids), "the workers to close their connections")


def settings_of(lab: Lab) -> list[NapiSettings]:
    """Of the server's NAPI instances, in the order of their ids."""
    return [napi.settings for napi in lab.server.napis()]


def attached(settings: NapiSettings) -> bool:
    return settings.irq_suspend_timeout_ns == 20_000_000 and bool(settings.defer_hard_irqs)


def attached_in_kernel(lab: Lab, server: Server) -> bool:
    """Both halves of it."""
    return all(map(attached, settings_of(lab))) and any(
        each.prefer_busy_poll for each in params_of(server.pid).values()
    )


def assert_no_mixture(lab: Lab, server: Server, napctl: Napctl, before: Machine) -> bool:
    """After a kill: wait until what was interrupted is undone. All is attached then, or nothing; which."""
    until(lambda: {each.state for each in napctl.live()} <= {"attached"}, "what was interrupted to be undone")
    (settings,), live = settings_of(lab), napctl.live()
    polls = any(each.prefer_busy_poll for each in params_of(server.pid).values())
    assert (attached(settings), polls) == (bool(live), bool(live)), (settings, polls)
    if not live:
        assert machine_of(lab.server) == before
    return bool(live)


@dataclass(frozen=True)
class Served:
    """A lab with a server that has a connection."""

    lab: Lab
    server: Server


@contextmanager
def served() -> Iterator[Served]:
    with Lab.build() as lab, ending(memcached(lab)) as server, ask(lab, server):
        yield Served(lab, server)


def all_unset(*pids: int) -> bool:
    """Whether none of the epoll instances of these processes is attached."""
    return {params for pid in pids for params in params_of(pid).values()} <= {UNSET}


def without_ids(machine: dict[str, Any]) -> Any:
    """What `status --json` says, but for what a reset renumbers, and where the lab had put NAPI threads."""
    devices = [
        device
        | {"napis": [napi | {"napi_id": 0, "thread_pid": 0, "thread": None, "cpus": ""} for napi in device["napis"]]}
        | {"queues": [queue | {"napi_id": 0} for queue in device["queues"]]}
        for device in machine["devices"]
    ]
    return machine | {"devices": devices, "pollers": [], "lacks": []}


def flap(lab: Lab, down_s: float = 0) -> None:
    """The server's device goes down and comes up again."""
    in_namespace(lab.server.namespace, "ip", "link", "set", lab.server.device, "down")
    time.sleep(down_s)
    in_namespace(lab.server.namespace, "ip", "link", "set", lab.server.device, "up")


def set_channels(lab: Lab, count: int) -> None:
    in_namespace(lab.server.namespace, "ethtool", "-L", lab.server.device, "rx", str(count), "tx", str(count))


@dataclass(frozen=True)
class Event:
    """One line of `attach --stay --json`, or of a service's log."""

    seconds: float
    """After the epoch."""
    text: str


class Following:
    """A running `napctl attach --stay --json`, or what tells its lines like it."""

    def __init__(self, process: "subprocess.Popen[str]", *, traced: bool = False):
        self.process, self._traced = process, traced
        self.events: list[Event] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            told = json.loads(line)
            about = f"{told['about']}: " if told.get("about") else ""  # of a service
            self.events.append(Event(told["unix_ns"] / 1e9, told.get("event") or f"{about}{told['text']}"))

    def since(self, moment: float = 0) -> list[str]:
        """What it told since then."""
        return [each.text for each in list(self.events) if each.seconds >= moment]

    def told(self, words: str, since: float = 0, patience_s: float = 60) -> Event:
        """Wait for an event that begins with or contains `words`; the first since that moment."""

        def look() -> Event | None:
            return next((each for each in list(self.events) if each.seconds >= since and words in each.text), None)

        def found() -> Event | None:
            event = look()
            assert event or self.process.poll() is None or look(), self.since()
            return event

        try:
            event = until(found, f"'{words}'", patience_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; it has told {self.since()}") from None
        assert event is not None
        return event

    def end(self, number: signal.Signals = signal.SIGINT, patience_s: float = 60) -> int:
        """Ask it to end; its exit status."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)
        return self.ended(patience_s)

    @property
    def pid(self) -> int:
        """napctl's, also where it was started under a tracer, which keeps signals to itself."""
        seen = processes.look_at_all().values()
        children = [each.process for each in seen if each.parent == self.process.pid and each.process.name == "napctl"]
        return children[0].pid if children and self._traced else self.process.pid

    def ended(self, patience_s: float = 60) -> int:
        """Wait for its end; its exit status, its last words are in `errors` then."""
        status = self.process.wait(patience_s)
        self._reader.join()
        assert self.process.stderr is not None
        self.errors = self.process.stderr.read()
        return status


@contextmanager
def ended_by(number: signal.Signals, it: Following) -> Iterator[Following]:
    """It, which is ended so if it still runs."""
    try:
        yield it
    finally:
        if it.process.poll() is None:
            it.end(number)
        assert it.process.stdout is not None
        assert it.process.stderr is not None
        it.process.stdout.close()
        it.process.stderr.close()


@contextmanager
def following(napctl: Napctl, *arguments: object, under: Sequence[str] = ()) -> Iterator[Following]:
    """`attach --stay` with these arguments; killed at the end if it still runs, when its guard puts everything back."""
    it = Following(napctl.start("attach", *arguments, "--stay", "--json", under=under), traced=bool(under))
    with ended_by(signal.SIGTERM, it):
        yield it


@contextmanager
def unread(napctl: Napctl, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """That command, into a pipe that is full already; who begins to read it gets its end as `stdout`."""
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, PAGE)
    nothing = b'{"unix_ns":0,"event":"-"}'.ljust(63) + b"\n"
    os.write(theirs, nothing * (PAGE // len(nothing)))
    process = napctl.start(*arguments, stdout=theirs)
    os.close(theirs)
    process.stdout = os.fdopen(ours)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
        assert process.stderr is not None
        process.stderr.close()


def killed(it: Following) -> None:
    """By SIGKILL; it has not told why it ended."""
    it.end(signal.SIGKILL)
    assert it.errors == ""


def guards(napctl: Napctl) -> list[int]:
    """Process ids of the guards of what is in force."""
    return [each.guard.pid for each in napctl.live() if each.guard is not None]


class Clients:
    """A bounded load of clients that ask one after the other and reconnect now and then. Use as a context manager."""

    def __init__(self, lab: Lab, server: Server, *, count: int = 8, requests: int = 40):
        self._lab, self._server, self._count, self._requests = lab, server, count, requests
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answered = 0
        self.dropped = 0
        """Connections that were established and then failed."""
        self._turns = 0

    def __enter__(self) -> "Clients":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def all_asked(self) -> None:
        """Wait until each has asked several times from now on, or has tried to: what broke one shows by then."""
        wanted = self._turns + 3 * self._count
        until(lambda: self._turns >= wanted, "requests of each client")

    def _run(self) -> None:
        open_: dict[int, tuple[socket.socket, int]] = {}
        number = 0
        while not self._over.wait(0.002):
            number = (number + 1) % self._count
            connection, left = open_.pop(number, (None, 0))
            try:
                if connection is None:
                    open_[number] = get(self._lab, self._server), self._requests
                else:
                    get_again(connection)
                    if left > 1:
                        open_[number] = connection, left - 1
                    else:
                        connection.close()
                self.answered += 1
            except OSError:
                if connection is not None:
                    self.dropped += 1
                    connection.close()
            self._turns += 1
        for connection, _ in open_.values():
            connection.close()


def tells_later_what_it_has_mended(lab: Lab, server: Server, process: "subprocess.Popen[str]") -> list[str]:
    """One whose output is unread() attaches, and again after a reset of the device; all that it has told by its end."""
    until(lambda: attached_in_kernel(lab, server), "the attachment")
    flap(lab)
    until(lambda: attached_in_kernel(lab, server), "the settings to be back")
    with ended_by(signal.SIGTERM, Following(process)) as it:
        it.told("attached memcached")
        it.told("attached NAPI")
        assert it.end(signal.SIGTERM) == 0
        return it.since()
