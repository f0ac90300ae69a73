"""What the kernel-facing tests share: the real command line, a client, and faults at exact system calls."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from napctl.attach.attach_options import AttachOptions
from napctl.attach.attach_target import attach_target
from napctl.attach.inspect_target import examine
from napctl.attach.judge_target import judge
from napctl.change.journal import Journal
from napctl.kernel import epoll, processes, sockets
from napctl.kernel.links import links
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.kernel.open_files import open_files as descriptors_of
from napctl.lab.bed import End, Lab
from napctl.lab.servers import Server, serve
from napctl.model.change import Transaction
from napctl.model.machine import Machine
from napctl.model.settings import EpollParams, NapiSettings, SocketPolling
from napctl.model.suspension import Suspension
from napctl.observe.machine import take_machine
from tests.watchdog import shows

PROGRAM = Path(sys.executable).with_name("napctl")
Step = tuple[str, int]
"""A system call of napctl: its name, and how manieth of that name it is."""
Sampled = Callable[[list[Step], int], list[Step]]
"""The fixture `sampled`, of steps."""
STEPS = (
    "pwrite64", "fdatasync", "fsync", "unlink", "sendto", "ioctl", "pidfd_getfd", "io_uring_register", "setpriority",
    "sched_setaffinity", "exit_group",
)  # fmt: skip
"""System calls by which napctl changes or records something, and its end."""


PREFERS = EpollParams(busy_poll_usecs=0, busy_poll_budget=64, prefer_busy_poll=True)
UNSET = EpollParams(busy_poll_usecs=0, busy_poll_budget=0, prefer_busy_poll=False)
QUICKLY = AttachOptions(suspension=Suspension(), timer_ns=200_000)
SUSPENDED = {"defer_hard_irqs": 100, "gro_flush_timeout_ns": 200_000, "irq_suspend_timeout_ns": 20_000_000}


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    status: int
    """As the shell has it for a normal end; -9 if it was killed by signal 9."""
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        assert self.status in (0, 1, 5), self
        return json.loads(self.stdout)

    def failed_with(self, status: int, *words: str) -> bool:
        """One clear line with all of `words`, that exit status, no output but what fits instead of suspension."""
        lines = [each for each in self.stderr.splitlines() if not each.startswith("trying ")]  # what takes long
        assert self.status == status, self
        assert len(lines) == 1, self
        assert lines[0].startswith("napctl: "), self
        assert not self.stdout or self.stdout.startswith("what fits instead of suspension"), self
        assert all(word in lines[0] for word in words), (words, self)
        return True


@dataclass(frozen=True)
class Napctl:
    """The real command line, with a state directory of its own."""

    state: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "NAPCTL_STATE_DIR": str(self.state)}

    def __call__(self, *arguments: object, under: Sequence[str] = (), timeout_s: float = 60, **environment: str) -> Ran:
        """Run it to its end, `under` another program if asked."""
        done = subprocess.run(
            [*under, str(PROGRAM), *map(str, arguments)],
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def start(
        self, *arguments: object, under: Sequence[str] = (), stdout: int = subprocess.PIPE
    ) -> subprocess.Popen[str]:
        """Start it; the caller ends it."""
        return subprocess.Popen(
            [*under, str(PROGRAM), *map(str, arguments)],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )

    def machine(self, netns: object) -> Any:
        """What `status --json` says of the network namespace of a process (pid) or of a lab's end; without what it
        could not read of the machine's other processes, which come and go."""
        path = f"/proc/{os.getpid()}/fd/{netns.namespace.fd}" if isinstance(netns, End) else f"pid:{netns}"
        return self("status", "--json", "--netns", path).json | {"lacks": []}

    def live(self) -> list[Transaction]:
        """What the journal holds."""
        with Journal(self.state) as journal:
            return journal.live()

    def guards(self) -> list[int]:
        """Pids of those that wait to restore something in this state directory."""
        found = []
        for each in processes.named("napctl-guard"):
            with suppress(OSError):  # it has gone meanwhile
                if shows(Path(f"/proc/{each.pid}"), f"NAPCTL_STATE_DIR={self.state}"):
                    found.append(each.pid)
        return found

    def attach_quickly(self, pid: int) -> Transaction:
        """As `napctl attach`, in this process."""
        found = processes.process(pid)
        assert found is not None
        with Journal(self.state) as journal:
            target = judge(examine(found.name, [found]), QUICKLY)  # no look at how it waits
            return attach_target(journal, target, QUICKLY, print).transaction

    def steps(self, trace: Path, *arguments: object) -> list[tuple[str, int]]:
        """Run it once: its system calls of STEPS from the moment it opens the journal, as (name, how manieth)."""
        under = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", str(trace), "-e", f"trace={','.join(STEPS)},openat"]
        done = self(*arguments, under=under)
        assert done.status == 0, done
        return _thinned(steps_in(trace, f"{self.state}/lock"))


def steps_in(trace: Path, begins: str, calls: Sequence[str] = STEPS) -> list[tuple[str, int]]:
    """From what strace has written: such calls from the first line with these words on, as (name, how manieth)."""
    counts: Counter[str] = Counter()
    found, begun = [], False
    for line in trace.read_text().splitlines():
        begun = begun or begins in line
        call = re.match(r"\d+ +(\w+)\(", line)
        if call is None or call[1] not in calls:
            continue
        if call[1] == "ioctl" and not re.search(r"0x8a, 0x|EPIOC", line):
            continue  # not of an epoll instance: how many there are depends on the machine's namespaces
        counts[call[1]] += 1
        if begun:
            found.append((call[1], counts[call[1]]))
    return found


def _thinned(steps: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Without the inner ones of a long row of calls that only look: between its ends nothing else happens."""
    kept = []
    for place, step in enumerate(steps):
        row = {name for name, _ in steps[max(0, place - 1) : place + 2]}
        if step[0] != "pidfd_getfd" or row != {"pidfd_getfd"}:
            kept.append(step)
    return kept


def at(step: tuple[str, int], fault: str, *, log: Path = Path("/dev/null")) -> list[str]:
    """To run a program under: that fault (see `inject` in strace(1)) as it enters that system call."""
    name, number = step
    inject = f"inject={name}:{fault}:when={number}"
    only = ["-P", "anon_inode:[eventpoll]"] if name == "ioctl" else []
    # Not with --seccomp-bpf: strace 6.1 then injects no signals.
    return ["strace", "-f", "-qq", "-o", str(log), *only, "-e", f"trace={name}", "-e", inject]


def victims(napctl: Napctl, steps: Sequence[Step]) -> Iterator[tuple[Step, Napctl]]:
    """Each step, and one that is to be disturbed at it: with a journal of its own, as the steps are those of the first
    command, which also makes the journal."""
    for number, step in enumerate(steps):
        yield step, Napctl(napctl.state / str(number))


def without(*capabilities: str) -> list[str]:
    """To run a program under: without these capabilities."""
    dropped = ",".join(f"-{capability}" for capability in capabilities)
    return ["setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}"]


def in_mounts(commands: str) -> list[str]:
    """To run a program under: a mount namespace of its own, changed by these shell commands."""
    return ["unshare", "--mount", "sh", "-ec", f'{commands}\nexec "$@"', "sh"]


def bpftrace_command(script: str) -> list[str]:
    """bpftrace with a tracefs, which is not mounted everywhere."""
    mount = "mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing"
    return [*in_mounts(mount), "bpftrace", "-e", script]


@contextmanager
def bpftrace(napi_id: int) -> Iterator[Callable[[], Counter[int]]]:
    """bpftrace's one-liner on one NAPI instance, counting; calling it ends it: {packets: polls}."""
    script = f"""BEGIN {{ printf("ready\\n"); }} tracepoint:napi:napi_poll
        /((struct napi_struct *)args->napi)->napi_id == {napi_id}/ {{ @[args->work] = count(); }}"""
    with subprocess.Popen(bpftrace_command(script), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        output = process.stdout

        def end() -> Counter[int]:
            process.send_signal(signal.SIGINT)
            return Counter({int(work): int(polls) for work, polls in re.findall(r"@\[(\d+)\]: (\d+)", output.read())})

        try:
            while output.readline() != "ready\n":
                assert process.poll() is None
            yield end
        finally:
            process.kill()


def in_namespace(netns: NetworkNamespace, *command: str) -> str:
    """Run a tool in a network namespace; its output."""
    with netns.entered():
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def at_server(lab: Lab) -> tuple[str, str]:
    """To look into the server's namespace."""
    return "--netns", f"/proc/{os.getpid()}/fd/{lab.server.namespace.fd}"


def machine_of(end: End) -> Machine:
    """As `napctl status`, in this process; without what could not be read of the machine's other processes, which come
    and go."""
    return replace(take_machine(end.namespace), lacks=())


def state_of(end: End) -> object:
    """All of that which can be set there."""
    machine = machine_of(end)
    return machine.devices, machine.pollers, machine.ring_pollers


def ask(lab: Lab, server: Server, *, inside: NetworkNamespace | None = None, address: str = "") -> socket.socket:
    """A connection over which one request was answered. `inside`: from that namespace instead of the client's."""
    with (inside or lab.client.namespace).entered():
        connection = socket.create_connection((address or server.address, server.port), timeout=60)
    connection.sendall(b"version\r\n")
    assert connection.recv(100).startswith(b"VERSION")
    return connection


def answers(connection: socket.socket) -> bool:
    """Whether the server still answers over this connection."""
    connection.sendall(b"version\r\n")
    return connection.recv(100).startswith(b"VERSION")


T = TypeVar("T")


def until(condition: Callable[[], T], what: str, patience_s: float = 60) -> T:
    """Wait until a condition holds; what it gave then. One that takes long is asked less often, lest it takes the CPU
    of what it waits for."""
    deadline = time.monotonic() + patience_s
    while True:
        began = time.monotonic()
        if found := condition():
            return found
        now = time.monotonic()
        assert now < deadline, f"waited in vain for: {what}"
        time.sleep(min(0.05, max(0.002, 2 * (now - began))))


def wait_for_packets(lab: Lab, count: int) -> None:
    """Until the server's device has received so many more."""

    def received() -> int:
        return next(each.rx_packets for each in links(lab.server.namespace) if each.name == lab.server.device)

    wanted = received() + count
    until(lambda: received() >= wanted, f"{count} packets")


def silence(server: Server, *, but: int = 0) -> None:
    """Wait until the server has closed its connections, all but so many: no packet comes any more."""
    ended = ("0A", "06")  # TCP_LISTEN, TCP_TIME_WAIT in include/net/tcp_states.h

    def open_connections() -> int:
        lines = Path(f"/proc/{server.pid}/net/tcp").read_text().splitlines()[1:]
        return sum(line.split()[3] not in ended for line in lines)

    until(lambda: open_connections() <= but, "the end of the connections")


def all_shown(terminal: int) -> bytes:
    """What is written to a pseudo-terminal until the other side closes it; closes this one."""
    shown = b""
    with suppress(OSError):  # EIO: the other side is closed
        while chunk := os.read(terminal, 65536):
            shown += chunk
    os.close(terminal)
    return shown


def on_a_terminal(command: Sequence[str], environment: dict[str, str]) -> Ran:
    """What a command writes to a terminal of its own, all of it as its standard output."""
    main, sub = pty.openpty()
    with subprocess.Popen(command, env=environment, stdin=sub, stdout=sub, stderr=sub) as running:
        os.close(sub)
        shown = all_shown(main)
    return Ran(running.returncode, shown.decode(), "")


def open_files(pid: int) -> set[str]:
    """What the descriptors of a process are: paths, "anon_inode:bpf_link", …"""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(FileNotFoundError):  # closed meanwhile
            found.add(str(entry.readlink()))
    return found


@contextmanager
def ending(server: Server) -> Iterator[Server]:
    """End it at once: asked kindly, memcached takes a second."""
    with server:
        try:
            yield server
        finally:
            server.process.kill()


def state_of_process(pid: int) -> str | None:
    """The letter of its state, "Z" for a zombie; None if it has vanished."""
    found = processes.look(pid)
    return None if found is None else found.state


def free_pid() -> int:
    """A pid that no process has."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    return ended.pid


@contextmanager
def another_memcached(
    lab: Lab, port: int, *, program: str = "memcached", options: tuple[str, ...] = ()
) -> Iterator[Server]:
    """One more in the server namespace, reachable over the wire unless `options` say otherwise."""
    command = [program, "-t", "1", "-u", "root", "-l", "0.0.0.0", "-p", str(port), "-U", "0", *options]
    with ending(serve(lab, command, port)) as server:
        yield server


def params_of(pid: int) -> dict[int, EpollParams]:
    """Parameters of each epoll instance of a process, by descriptor."""
    with processes.Handle(pid) as handle:
        found = {}
        for fd in descriptors_of(pid).epolls:
            with handle.copy_of(fd) as copy:
                found[fd] = epoll.params(copy)
        return found


def polling_of(pid: int) -> dict[int, SocketPolling]:
    """How each socket of a process busy polls, by descriptor."""
    with processes.Handle(pid) as handle:
        found = {}
        for fd in descriptors_of(pid).sockets:
            with handle.copy_of(fd) as copy:
                found[fd] = sockets.polling(copy)
        return found


def set_params(pid: int, fd: int, wanted: EpollParams) -> None:
    with processes.Handle(pid) as handle, handle.copy_of(fd) as copy:
        epoll.set_params(copy, wanted)


def set_napi(lab: Lab, napi_id: int, settings: NapiSettings) -> None:
    with Netdev(lab.server.namespace) as netdev:
        netdev.set_napi(napi_id, settings)
