"""How threads wait for packets is seen as they do it, on the running kernel."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from napctl.kernel.processes import threads
from napctl.kernel.syscall_numbers import syscall_numbers
from napctl.kernel.waiting import current_wait
from napctl.model.value import from_json
from napctl.model.waits import ThreadWaits, Waits
from napctl.observe.waiting_threads import observe_waits
from napctl.probe.waits import WaitProbe
from tests.lab.helpers import free_pid, until, without
from tests.lab.probe.waiting_programs import ECHO, blocked, only, running
from tests.tries import in_one_of

pytestmark = pytest.mark.lab


def of_call(waits: Waits, call: str) -> ThreadWaits:
    return only(tuple(entry for entry in waits.threads if entry.call == call))


def test_an_epoll_loop_that_blocks_is_told_from_one_that_spins() -> None:
    in_one_of(one_blocks_and_one_spins, 5)  # it may take long to load the probe, or to send


def one_blocks_and_one_spins() -> None:
    with running(ECHO.replace("TIMEOUT", "")) as lazy, running(ECHO.replace("TIMEOUT", "0")) as busy:
        for program in (lazy, busy):
            threading.Timer(0.1, program.go).start()
        seen = observe_waits([lazy.pid, busy.pid], 0.5)
    (waits,) = (entry for entry in seen.threads if entry.pid == lazy.pid and entry.call == "epoll")
    (spins,) = (entry for entry in seen.threads if entry.pid == busy.pid and entry.call == "epoll")

    assert (seen.source, seen.lacks) == ("bpf", ())
    assert seen.seconds == pytest.approx(0.5, abs=0.2)
    assert (waits.fd, spins.fd) == (lazy.facts[0], busy.facts[0])
    assert waits.tid != lazy.pid
    assert 50 <= waits.calls <= 100
    assert (waits.fruitful, waits.nonblocking) == (waits.calls, 0)
    assert (waits.blocked_now, waits.timeout_ms) == (True, -1)
    assert spins.calls > 1000
    assert spins.nonblocking == spins.calls
    assert 20 <= spins.fruitful <= 100  # on a busy machine a turn finds several


def test_a_thread_that_only_sleeps_in_a_call_has_made_none() -> None:
    with running("ready()\nselect.epoll().poll(60)") as program:
        blocked(program.pid)
        seen = only(observe_waits([program.pid], 0.1).threads)

    assert (seen.tid, seen.calls, seen.blocked_now) == (program.pid, 0, True)
    assert seen.timeout_ms == pytest.approx(60_000, abs=1)


def test_a_call_that_began_before_the_watch_counts_when_it_returns() -> None:
    with running(ECHO.replace("TIMEOUT", "")) as program:
        until(lambda: len(threads(program.pid)) == 2, "the second thread")
        blocked(program.pid, threads(program.pid)[1])
        with WaitProbe.load([program.pid]) as probe:
            program.do()
            epoll = only(tuple(entry for entry in probe.read() if entry.call == "epoll"))

    assert epoll.calls == epoll.fruitful


@pytest.mark.parametrize(
    ("setup", "call", "timeout_ms"),
    [
        ("p = select.poll(); p.register(receiver, select.POLLIN); wait = p.poll", "poll", -1),
        ("p = select.poll(); p.register(receiver, select.POLLIN); wait = lambda: p.poll(50000)", "poll", 50_000),
        ("wait = lambda: select.select([receiver], [], [])", "select", -1),
        ("wait = lambda: select.select([receiver], [], [], 50)", "select", None),
        ("wait = lambda: receiver.recv(9)", "recv", None),
        ("wait = lambda: receiver.recvmsg(9)", "recv", None),
        ("wait = lambda: os.read(receiver.fileno(), 9)", "recv", None),
    ],
)
def test_what_a_thread_is_blocked_in_is_told(setup: str, call: str, timeout_ms: int | None) -> None:
    with running(f"receiver, _ = udp()\n{setup}\nready(receiver.fileno())\nwait()") as program:
        found = blocked(program.pid)
        seen = only(observe_waits([program.pid], 0.05).threads)
    fd = program.facts[0] if call == "recv" else -1

    assert found.call == call
    assert (found.fd, seen.fd, seen.call, seen.blocked_now) == (fd, fd, call, True)
    assert seen.timeout_ms == found.timeout_ms
    assert timeout_ms == (found.timeout_ms if timeout_ms is None or timeout_ms < 0 else pytest.approx(50_000, abs=1))


def test_sleeps_and_reads_from_files_are_no_waits_for_packets() -> None:
    code = """
        ready()
        on_word()
        for _ in range(10):
            select.select([], [], [], 0)
            select.poll().poll(0)
            open("/proc/self/stat").read()
        ready("done")
        select.poll().poll(60000)
    """
    with running(code) as program, WaitProbe.load([program.pid]) as probe:
        program.do()
        counted = probe.read()
        time.sleep(0.05)
        assert current_wait(program.pid, program.pid) is None

    assert counted == ()


RAW = {
    "epoll_wait": "epoll, events, 8, ms",
    "epoll_pwait": "epoll, events, 8, ms, None, 8",
    "epoll_pwait2": "epoll, events, 8, timespec, None, 8",
    "poll": "pollfd, 1, ms",
    "ppoll": "pollfd, 1, timespec, None, 8",
    "select": "receiver.fileno() + 1, None, None, None, timespec",
    "pselect6": "receiver.fileno() + 1, None, None, None, timespec, None",
}


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("name", [name for name in RAW if name in syscall_numbers()])
def test_every_system_call_is_counted_exactly_and_a_timeout_of_zero_is_seen(name: str, zero: bool) -> None:
    code = f"""
        receiver, _ = udp()
        poller = select.epoll()
        epoll, events, pollfd = poller.fileno(), ctypes.create_string_buffer(96), struct.pack("=ihh", 3, 1, 0)
        ms = {0 if zero else 1}
        ready(epoll)
        on_word()
        for _ in range(100):
            # The kernel writes what is left.
            timespec = struct.pack("=qq", 0, {0 if zero else 1})
            libc.syscall({syscall_numbers()[name]}, {RAW[name]})
        ready("done")
    """
    with running(code) as program, WaitProbe.load([program.pid]) as probe:
        program.do()
        seen = only(probe.read())

    assert seen.call == {"e": "epoll", "p": "poll", "s": "select"}[name.replace("ps", "s").replace("pp", "p")[0]]
    assert seen.fd == (program.facts[0] if seen.call == "epoll" else -1)
    assert (seen.calls, seen.nonblocking, seen.fruitful) == (100, 100 if zero else 0, 0)


@pytest.mark.parametrize(
    ("call", "cannot_wait"),
    [
        ("receiver.recv(9)", False),
        ("receiver.recvmsg(9)", False),
        ("os.read(receiver.fileno(), 9)", False),
        ("receiver.recv(9, socket.MSG_DONTWAIT)", True),
        ("receiver.recvmsg(9, 0, socket.MSG_DONTWAIT)", True),
        ("receiver.setblocking(False); receiver.recv(9)", True),
        ("receiver.setblocking(False); os.read(receiver.fileno(), 9)", True),
    ],
)
def test_receiving_is_told_by_socket_and_whether_it_could_wait(call: str, cannot_wait: bool) -> None:
    code = f"""
        receiver, sender = udp()
        ready(receiver.fileno())
        on_word()
        for _ in range(50):
            sender.send(b"napctl")
            {call}
        ready("done")
    """
    with running(code) as program, WaitProbe.load([program.pid]) as probe:
        program.do()
        seen = only(probe.read())

    assert (seen.call, seen.fd) == ("recv", program.facts[0])
    assert (seen.calls, seen.nonblocking, seen.fruitful) == (50, 50 if cannot_wait else 0, 50)


def test_a_ring_is_seen() -> None:
    code = """
        params = ctypes.create_string_buffer(120)
        ring = libc.syscall(425, 8, params)
        ready(ring)
        on_word()
        for _ in range(10):
            libc.syscall(426, ring, 0, 0, 1, None, 0)
        ready("done")
        libc.syscall(426, ring, 0, 1, 1, None, 0)
    """
    with running(code) as program:
        if program.facts[0] < 0:
            pytest.skip("io_uring is not allowed here")
        with WaitProbe.load([program.pid]) as probe:
            program.do()
            counted = only(probe.read())
        found = blocked(program.pid)

    assert (counted.call, counted.fd, counted.calls, counted.nonblocking) == ("io_uring", program.facts[0], 10, 10)
    assert found == ("io_uring", program.facts[0], None)


def test_two_threads_that_share_an_epoll_instance_are_told_apart() -> None:
    code = """
        receiver, sender = udp()
        epoll = select.epoll()
        epoll.register(receiver, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        def loop():
            while True:
                epoll.poll()
                try:
                    receiver.recv(9, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    pass
        for _ in range(2):
            threading.Thread(target=loop, daemon=True).start()
        ready(epoll.fileno())
        on_word()
        for _ in range(200):
            sender.send(b"napctl")
            time.sleep(0.001)
        ready("done")
        time.sleep(60)
    """

    def attempt() -> None:
        with running(code) as program:
            threading.Timer(0.05, program.go).start()
            seen = observe_waits([program.pid], 0.6)
        epolls = [entry for entry in seen.threads if entry.call == "epoll"]

        assert len({entry.tid for entry in epolls}) == len(epolls) == 2
        assert {entry.fd for entry in epolls} == {program.facts[0]}
        assert all(entry.blocked_now for entry in epolls)
        assert sum(entry.calls for entry in epolls) >= 100

    in_one_of(attempt, 5)


def test_a_process_can_be_added_while_it_runs() -> None:
    spin = "epoll = select.epoll()\nready(epoll.fileno())\nwhile True: epoll.poll(0)"
    with running(spin) as first, WaitProbe.load([first.pid]) as probe, running(spin) as second:
        before = until(probe.read, "calls of the first")
        probe.add(second.pid)
        until(lambda: len(probe.read()) == 2, "calls of the second")
        after = probe.read()

    assert {entry.pid for entry in before} == {first.pid}
    assert {entry.pid for entry in after} == {first.pid, second.pid}
    assert all(entry.nonblocking == entry.calls > 0 for entry in after)


def test_processes_that_are_gone_are_no_error_and_keep_what_they_did() -> None:
    def attempt() -> None:
        with running("epoll = select.epoll()\nready()\nwhile True: epoll.poll(0)") as program:
            threading.Timer(0.6, program.end).start()  # by then the probe is there
            seen = observe_waits([free_pid(), program.pid], 0.8)

        assert only(seen.threads).calls > 0
        assert not only(seen.threads).blocked_now
        assert seen.lacks == ()

    in_one_of(attempt, 5)


def test_more_sockets_than_the_table_has_places_for_are_told_and_leave_epoll_its_place() -> None:
    code = """
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
        receiver, sender = udp()
        receiver.setblocking(False)
        fds = [os.dup(receiver.fileno()) for _ in range(12000)]
        ready()
        on_word()
        for fd in fds:
            libc.recv(fd, None, 0, 0)
        select.epoll().poll(0)
        ready("done")
    """
    with running(code) as program, WaitProbe.load([program.pid]) as probe:
        program.do()
        counted, lost = probe.read(), probe.lost

    assert lost >= 12_000 - 8192
    assert sum(entry.calls for entry in counted if entry.call == "recv") + lost == 12_000
    assert sum(entry.calls for entry in counted if entry.call == "epoll") == 1


def test_loading_reading_and_looking_at_a_thousand_threads_take_little_time() -> None:
    code = """
        epoll = select.epoll()
        threading.stack_size(64 << 10)
        for _ in range(1000):
            threading.Thread(target=epoll.poll, daemon=True).start()
        ready()
        time.sleep(60)
    """
    with running(code) as program:
        for tid in threads(program.pid)[1:]:
            blocked(program.pid, tid)
        began = time.process_time()
        seen = observe_waits([program.pid], 0.1)
        taken = time.process_time() - began

    assert len(seen.threads) == 1000
    assert all(entry.blocked_now for entry in seen.threads)
    assert taken < 0.8  # 0.15 s on a machine that does nothing else


OBSERVE = """
import sys
from napctl.model.value import to_json
from napctl.observe.waiting_threads import observe_waits
print(to_json(observe_waits([int(pid) for pid in sys.argv[1:]], 0.3)).decode())
"""


def observed_under(wrapper: list[str], *pids: int) -> Waits:
    command = [*wrapper, sys.executable, "-c", OBSERVE, *map(str, pids)]
    return from_json(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout, Waits)


def test_without_bpf_samples_tell_what_is_blocked_and_that_they_count_nothing() -> None:
    with running(ECHO.replace("TIMEOUT", "")) as program:
        seen = observed_under(without("bpf", "sys_admin"), program.pid, free_pid())
    epoll = of_call(seen, "epoll")

    assert seen.source == "proc"
    assert (epoll.fd, epoll.calls, epoll.blocked_now, epoll.timeout_ms) == (program.facts[0], 0, True, -1)
    assert "CAP_BPF is missing" in seen.lacks[-1]
    assert "how often" in seen.lacks[-1]


def test_in_a_pid_namespace_of_its_own_it_takes_samples() -> None:
    script = f"sleep 5 & exec {sys.executable} -c '{OBSERVE}' $!"
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script],
        check=True,
        capture_output=True,
        timeout=60,
    )
    seen = from_json(done.stdout, Waits)

    assert (seen.source, seen.threads) == ("proc", ())
    assert "initial PID namespace" in seen.lacks[-1]


def test_processes_that_may_not_be_looked_into_are_named() -> None:
    with running("epoll = select.epoll()\nready()\nwhile True: epoll.poll(0.01)") as program:
        seen = observed_under(without("sys_ptrace"), program.pid)
        assert Path(f"/proc/{program.pid}").exists()

    assert seen.source == "bpf"
    assert only(seen.threads).calls
    assert seen.lacks == (f"what threads of process {program.pid} are blocked in: CAP_SYS_PTRACE is missing",)
