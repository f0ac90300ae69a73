"""attach to what vanishes, is refused, or is not what it seems: one clear line, the right status, nothing half-done."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from napctl.attach.attach_options import AttachOptions
from napctl.attach.attach_target import attach_target
from napctl.attach.inspect_target import Examination, examine
from napctl.attach.judge_target import judge
from napctl.change.journal import Journal
from napctl.kernel import processes
from napctl.kernel.open_files import open_files
from napctl.kernel.processes import Process
from napctl.lab.bed import Lab
from napctl.lab.servers import MEMCACHED_PORT, Server, memcached, serve
from napctl.model.errors import BadInput, NapctlError
from napctl.model.fitness import Fitness
from napctl.model.settings import SocketPolling
from napctl.model.suspension import Suspension
from napctl.model.value import from_json
from tests.lab.held import is_held, let_go_on
from tests.lab.helpers import (
    PREFERS,
    PROGRAM,
    UNSET,
    Napctl,
    Ran,
    Sampled,
    answers,
    ask,
    at,
    ending,
    in_mounts,
    machine_of,
    params_of,
    polling_of,
    state_of,
    state_of_process,
    until,
)
from tests.lab.other_servers import echo, echoed, python_server

pytestmark = pytest.mark.lab

QUICKLY = ("--window", 0, "--defer-us", 200)
OPTIONS = AttachOptions(suspension=Suspension(), timer_ns=200_000)
IN_USER_NAMESPACE = ["unshare", "--user", "--map-root-user"]
MANY = 3000


def process(pid: int) -> Process:
    found = processes.process(pid)
    assert found is not None
    return found


# What vanishes


def killed_at(step: tuple[str, int], napctl: Napctl, server: Server, log: Path) -> Ran:
    """attach, held as it enters that system call until its server was killed.

    It makes fewer calls where other processes, which it looks at as well, have ended: then it is over before.
    """
    with napctl.start("attach", server.pid, *QUICKLY, under=at(step, "signal=SIGSTOP", log=log)) as running:
        held = is_held(running, log)
        server.process.kill()
        server.process.wait()
        if held:
            let_go_on(running)
        output, errors = running.communicate(timeout=60)
    return Ran(running.returncode, output, errors)


@pytest.mark.trials
@pytest.mark.timeout(600)
def test_a_server_that_is_killed_at_any_step_is_named_and_nothing_stays_changed(
    lab: Lab, tmp_path: Path, sampled: Sampled
) -> None:
    with ending(memcached(lab)) as server, ask(lab, server):
        trial = Napctl(tmp_path / "trial")
        before = state_of(lab.server)
        found = trial.steps(tmp_path / "trace", "attach", server.pid, *QUICKLY)
        assert trial("detach", server.pid).status == 0
    steps = [step for step in found if step[0] in ("pidfd_getfd", "sendto", "ioctl")]
    assert {name for name, _ in steps} == {"pidfd_getfd", "sendto", "ioctl"}
    before = state_of(lab.server)

    for number, step in enumerate(sampled(steps, 3)):
        napctl = Napctl(tmp_path / f"state-{number}")
        with ending(memcached(lab)) as server, ask(lab, server):
            done = killed_at(step, napctl, server, tmp_path / f"log-{number}")
            pid = server.pid
        if done.status == 0:  # all had been made by then
            assert "attached memcached" in done.stdout, step
            assert napctl("recover").status == 0
        else:
            assert done.status in (2, 3, 6), (step, done)
            assert done.failed_with(done.status, f"memcached ({pid})"), step
        assert napctl.live() == [], step
        assert state_of(lab.server) == before, step


def test_a_pid_that_means_another_process_by_now_is_not_attached(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    before = state_of(lab.server)
    former = Process(server.pid, "memcached", process(server.pid).started_ticks - 1)

    with pytest.raises(BadInput, match=rf"^memcached \({server.pid}\): it ended meanwhile$"):
        examine("memcached", [former])
    found = examine("memcached", [process(server.pid)])
    instances = tuple(replace(each, process=former) for each in found.instances)
    stale = replace(found, processes=(former,), instances=instances)
    with Journal(napctl.state) as journal, pytest.raises(NapctlError, match="gone meanwhile"):
        attach_target(journal, judge(stale, OPTIONS), OPTIONS, print)
    assert set(params_of(server.pid).values()) == {UNSET}
    assert napctl.live() == []
    assert state_of(lab.server) == before


def devices_of(lab: Lab) -> object:
    return machine_of(lab.server).devices


CLOSES = """
    import os, select, signal, socket, sys, time
    waiting = socket.create_server((sys.argv[1], int(sys.argv[2])))
    held = []
    def close(*_):
        epoll.close()
    signal.signal(signal.SIGUSR1, close)
    epoll = select.epoll()
    while True:
        connection, _ = waiting.accept()
        if data := connection.recv(100):
            connection.sendall(b"VERSION\\r\\n")
            held.append(connection)
            epoll.register(connection, select.EPOLLIN)
"""


def test_an_epoll_instance_that_is_closed_before_it_could_be_changed_is_named_and_the_device_put_back(
    lab: Lab, napctl: Napctl
) -> None:
    with ending(python_server(lab, CLOSES)) as server, ask(lab, server):
        found = until(lambda: fed(server), "a connection in its epoll instance")
        assert found is not None
        before = devices_of(lab)
        target = judge(found, OPTIONS)
        os.kill(server.pid, signal.SIGUSR1)
        until(lambda: not open_files(server.pid).epolls, "it to be closed")

        (instance,) = target.choice.instances
        words = rf"epoll {instance.fd} of .* \({server.pid}\): gone meanwhile; what had been changed was put"
        with Journal(napctl.state) as journal, pytest.raises(NapctlError, match=words) as refused:
            attach_target(journal, target, OPTIONS, print)

        assert refused.value.exit_status == 6
        assert napctl.live() == []
        assert devices_of(lab) == before


def fed(server: Server) -> Examination | None:
    """Its examination, once an epoll instance of it has a socket of a NAPI instance."""
    found = examine("server", [process(server.pid)])
    return found if any(each.sockets_by_napi for each in found.instances) else None


# What cannot be a target


def test_what_cannot_be_a_target_is_refused_in_one_line(lab: Lab, napctl: Napctl) -> None:
    (napi,) = lab.server.napis()
    assert napi.thread_pid is not None
    assert napctl("attach", napi.thread_pid).failed_with(2, f"({napi.thread_pid})", "kernel thread")
    assert napctl("attach", 1).failed_with(2, "(1)", "init")
    with subprocess.Popen(["true"]) as ended:
        until(lambda: state_of_process(ended.pid) == "Z", "a zombie")
        assert napctl("attach", ended.pid).failed_with(2, f"({ended.pid})", "zombie")
        assert napctl("attach", ended.pid, "--dry-run").failed_with(2, "zombie")
    assert not napctl.state.exists()


def in_shell(napctl: Napctl, script: str) -> Ran:
    done = subprocess.run(
        ["sh", "-c", script, str(PROGRAM)],
        env=napctl.environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return Ran(done.returncode, done.stdout, done.stderr)


def test_napctl_does_not_attach_itself_and_its_shell_is_a_process_like_any_other(napctl: Napctl) -> None:
    assert in_shell(napctl, 'exec "$0" attach $$').failed_with(2, "napctl itself")
    assert in_shell(napctl, '"$0" attach $$; exit $?').failed_with(3, "sh (", "no epoll instance")
    assert napctl.live() == []


def test_a_server_in_a_user_namespace_is_attached_from_outside(lab: Lab, napctl: Napctl) -> None:
    command = ["memcached", "-t", "1", "-u", "root", "-l", lab.server.address, "-U", "0"]
    with ending(serve(lab, [*IN_USER_NAMESPACE, *command], MEMCACHED_PORT)) as server, ask(lab, server) as client:
        assert Path(f"/proc/{server.pid}/ns/user").stat().st_ino != Path("/proc/self/ns/user").stat().st_ino
        before = state_of(lab.server)

        assert napctl("attach", server.pid, *QUICKLY).status == 0
        assert PREFERS in params_of(server.pid).values()
        assert answers(client)
        assert napctl("detach", server.pid).status == 0
        assert state_of(lab.server) == before


@pytest.mark.parametrize("command", ["attach", "detach"])
def test_in_a_user_namespace_of_its_own_napctl_says_what_it_lacks(
    command: str, lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    if command == "detach":
        napctl.attach_quickly(server.pid)
    before = state_of(lab.server)

    done = napctl(command, server.pid, under=IN_USER_NAMESPACE)

    assert done.failed_with(4, f"memcached ({server.pid})", "CAP_SYS_PTRACE is held in our user namespace only")
    assert state_of(lab.server) == before


# What is refused


@contextmanager
def unchanged_but_for_the_refusal(lab: Lab, napctl: Napctl) -> Iterator[None]:
    before = state_of(lab.server)
    yield
    assert state_of(lab.server) == before
    assert napctl.live() == []


REFUSE = """
import ctypes, os, struct, sys
call, offset, value, error = map(int, sys.argv[1:5])
LOAD, EQUAL, RETURN, ALLOW, ERRNO = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050000
program = [(LOAD, 0, 0, 0), (EQUAL, 0, 2, call), (LOAD, 0, 0, offset), (EQUAL, 1, 0, value),
           (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, ERRNO | error)]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in program))
rules = struct.pack("@HP", len(program), ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, rules, 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execv(sys.argv[5], sys.argv[5:])
"""
"""With a seccomp filter, as a container's runtime sets one: this call, if the 32 bits there (struct seccomp_data) are
this, fails with this error."""
NUMBERS = {
    "x86_64": {"ioctl": 16, "setsockopt": 54, "pidfd_getfd": 438},
    "aarch64": {"ioctl": 29, "setsockopt": 208, "pidfd_getfd": 438},
}
ARGUMENT = (16, 24, 32)
"""Where the first three arguments stand."""
EPIOCSPARAMS, EPIOCGPARAMS = 0x40088A01, 0x80088A02


def refusing(call: str, error: int, *, argument: int | None = None, value: int = 0) -> list[str]:
    """To run a program under: without that call; where `argument` (from 0) is given, only if it has that value."""
    number = NUMBERS.get(os.uname().machine, {}).get(call)
    if number is None:
        pytest.skip("system calls have other numbers here")
    where = (0, number) if argument is None else (ARGUMENT[argument], value)
    return [sys.executable, "-c", REFUSE, *map(str, (number, *where, error))]


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS, errno.EACCES])
def test_a_policy_that_refuses_copies_of_descriptors_is_told_in_one_line(
    error: int, lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    with unchanged_but_for_the_refusal(lab, napctl):
        for command in (("attach", *QUICKLY), ("attach", "--dry-run")):
            done = napctl(command[0], server.pid, *command[1:], under=refusing("pidfd_getfd", error))
            assert done.failed_with(3 if error == errno.ENOSYS else 4, f"memcached ({server.pid})")


@pytest.mark.parametrize("error", [errno.EPERM, errno.EACCES])
def test_who_may_not_look_into_the_server_is_not_told_that_it_is_inactive(
    error: int, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    napctl.attach_quickly(server.pid)

    shown = napctl("attached", "--interval", 0.1, "--json", under=refusing("pidfd_getfd", error))

    assert (shown.status, shown.stderr) == (0, "")
    assert [each["verdict"] for each in shown.json["attachments"]] == ["quiet"]


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS, errno.EINVAL])
def test_a_policy_that_refuses_the_parameters_of_an_epoll_instance_is_told_and_the_device_put_back(
    error: int, lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    with unchanged_but_for_the_refusal(lab, napctl):
        under = refusing("ioctl", error, argument=1, value=EPIOCSPARAMS)
        done = napctl("attach", server.pid, *QUICKLY, under=under)
        assert done.failed_with(6, "epoll", f"memcached ({server.pid})", "was put back")
        assert ("security module" in done.stderr) == (error == errno.EPERM), "no capability is missing"


def test_a_kernel_before_linux_6_9_is_told_as_such(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    with unchanged_but_for_the_refusal(lab, napctl):
        under = refusing("ioctl", errno.ENOTTY, argument=1, value=EPIOCGPARAMS)
        assert napctl("attach", server.pid, *QUICKLY, under=under).failed_with(3, "Linux 6.9")


@pytest.mark.parametrize("option", [46, 69, 70])
def test_a_policy_that_refuses_options_of_a_socket_is_told_and_the_device_put_back(
    option: int, lab: Lab, napctl: Napctl
) -> None:
    with echo(lab, wait_in="recv") as server:
        assert echoed(lab, server, 2) == 2
        with unchanged_but_for_the_refusal(lab, napctl):
            under = refusing("setsockopt", errno.EPERM, argument=2, value=option)
            done = napctl("attach", server.pid, *QUICKLY, under=under)
            if option == 69:  # the first of them
                assert done.failed_with(6, "socket", f"({server.pid})", "not permitted", "was put back")
            else:  # putting it back is refused like that, so it is left to recover
                assert done.failed_with(4, "socket", f"({server.pid})", "not permitted", "`napctl recover`")
                assert napctl("recover").status == 0
            assert list(polling_of(server.pid).values()) == [SocketPolling(busy_poll_usecs=0, prefer_busy_poll=False)]
        assert echoed(lab, server, 1) == 1


# What is too much


def test_more_napi_instances_than_epoll_instances_are_noted_and_nothing_is_attached(napctl: Napctl) -> None:
    with Lab.build(queues=2) as lab, ExitStack() as stack:
        server = stack.enter_context(ending(memcached(lab)))

        def both() -> bool:
            stack.enter_context(ask(lab, server))
            found = examine("memcached", [process(server.pid)])
            return any(len(each.sockets_by_napi) == 2 for each in found.instances)

        until(both, "connections over both queues")
        with unchanged_but_for_the_refusal(lab, napctl):
            explained = napctl("attach", server.pid, "--dry-run", "--json")
            notes = from_json(explained.stdout, Fitness).notes
            assert explained.status == 1
            assert any("more NAPI instances (2) feed it than epoll instances (1)" in note for note in notes)
            assert napctl("attach", server.pid).failed_with(3, "2 NAPI instances", "nothing was changed")


THOUSANDS = f"""
    import resource, select, socket, sys, time
    resource.setrlimit(resource.RLIMIT_NOFILE, (10_000, 10_000))
    waiting = socket.create_server((sys.argv[1], int(sys.argv[2])))
    epolls = []
    while True:
        connection, _ = waiting.accept()
        if not connection.recv(100):
            continue
        for _ in range({MANY}):
            epolls.append(select.epoll())
            epolls[-1].register(connection, select.EPOLLIN)
        connection.sendall(b"VERSION\\r\\n")
        time.sleep(300)
"""


def test_thousands_of_epoll_instances_are_attached_within_seconds_and_all_restored(lab: Lab, napctl: Napctl) -> None:
    with ending(python_server(lab, THOUSANDS)) as server, ask(lab, server):
        assert len(open_files(server.pid).epolls) == MANY
        before = state_of(lab.server)

        full = in_mounts(f"mkdir -p {napctl.state}; mount -t tmpfs -o size=256k,mode=700 tmpfs {napctl.state}")
        refused = napctl("attach", server.pid, *QUICKLY, under=full)
        assert refused.failed_with(6, str(napctl.state), "nothing was changed")
        assert set(params_of(server.pid).values()) == {UNSET}

        began = time.monotonic()
        report = napctl("attach", server.pid, *QUICKLY, "--json").json
        taken = time.monotonic() - began

        assert taken < 40  # 2 s on a machine that does nothing else
        assert report["attach_seconds"] < 40
        assert list(params_of(server.pid).values()) == [PREFERS] * MANY
        text = napctl("attach", server.pid, "--dry-run").stdout
        assert len(text.splitlines()) < 80, "not each of them"

        assert napctl("detach", server.pid).status == 0
        assert list(params_of(server.pid).values()) == [UNSET] * MANY
        assert state_of(lab.server) == before
