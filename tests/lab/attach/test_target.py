"""Which processes are meant: by pid and by name, on the running kernel."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex

import pytest

from napctl.attach.target import parse, resolve
from napctl.kernel import capabilities, processes
from napctl.lab.bed import Lab
from napctl.lab.servers import Server, children
from napctl.model.errors import BadInput
from napctl.model.text import printable
from tests.lab.helpers import state_of_process, until
from tests.lab.targets import family, pids_of, refusal, running

pytestmark = pytest.mark.lab


# Pids


def test_a_pid_means_the_process_and_all_its_descendants_parents_first(shell: str) -> None:
    with running(*family(shell), count=4) as (root, *below):
        found = pids_of(root)

        assert found[0] == root
        assert set(found) == {root, *below}
        inner = next(pid for pid in below if children(pid))
        assert pids_of(inner) == [inner, *children(inner)]
        assert found.index(inner) < found.index(children(inner)[0])


def test_a_process_that_vanishes_between_parsing_and_resolving_is_no_process() -> None:
    with running("sleep", "60") as (pid,):
        target = parse(str(pid))
    with pytest.raises(BadInput, match=f"^{pid}: no such process$"):
        resolve(target)
    assert state_of_process(pid) is None


def test_a_zombie_is_told_from_a_process_that_has_vanished() -> None:
    ended = subprocess.Popen(["true"])
    until(lambda: state_of_process(ended.pid) == "Z", "a zombie")

    why = refusal(ended.pid)
    ended.wait()

    assert f"({ended.pid}): it has ended and waits for its parent (zombie)" in why
    assert refusal(ended.pid) == f"{ended.pid}: no such process"


def test_a_name_that_only_a_zombie_has_is_refused_as_such(shell: str) -> None:
    ended = subprocess.Popen([shell, "-c", "true"])
    until(lambda: state_of_process(ended.pid) == "Z", "a zombie")
    try:
        assert "zombie" in refusal(Path(shell).name)
        with running(*family(shell), count=4) as (root, *_):
            assert pids_of(Path(shell).name)[0] == root, "a live one counts alone"
    finally:
        ended.wait()


def test_a_process_whose_first_thread_has_ended_is_refused_as_such() -> None:
    ending = "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(60,)).start();"
    with running(sys.executable, "-c", f"{ending} ctypes.CDLL(None).syscall(60 if '{os.uname().machine}' == 'x86_64'"
                 " else 93, 0)") as (pid,):  # fmt: skip
        until(lambda: state_of_process(pid) == "Z", "the end of its first thread")

        assert "first thread has ended" in refusal(pid)


def test_a_kernel_thread_is_refused(lab: Lab) -> None:
    (napi,) = lab.server.napis()
    assert napi.thread_pid is not None
    seen = processes.process(napi.thread_pid)
    assert seen is not None

    for target in (seen.pid, f"name:{seen.name}"):
        assert f"{seen.name} ({seen.pid}): a kernel thread" in refusal(target)


def test_init_is_refused_however_it_is_named_and_its_descendants_are_not_taken() -> None:
    init = processes.process(1)
    assert init is not None
    for target in (1, "pid:1"):
        assert refusal(target) == f"{init.name} (1): that is init; name the server itself"
    assert refusal("cgroup:/")


def test_napctl_itself_is_refused_however_it_is_named(port: int) -> None:
    own = os.getpid()
    with ExitStack() as undo:
        stop = threading.Event()
        undo.callback(stop.set)
        thread = threading.Thread(target=stop.wait)
        thread.start()
        undo.enter_context(socket.create_server(("127.0.0.1", port)))
        tid = thread.native_id

        assert f"({own}): that is napctl itself" in refusal(own)
        assert f"({own}): that is napctl itself" in refusal(f":{port}")
        assert refusal(tid) == f"{tid}: a thread of process {own}; give that pid"


def test_a_target_in_which_napctl_runs_does_not_include_it(shell: str) -> None:
    """As from a script, or by the shell in which it was typed."""
    napctl = "from napctl.attach.target import *; import os; found = resolve(parse(str(os.getppid())));"
    show = "print(os.getppid(), os.getpid(), *(each.pid for each in found))"
    done = subprocess.run(
        [shell, "-c", f'sleep 60 & "{sys.executable}" -c "{napctl} {show}"; kill $!'],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    parent, own, *found = map(int, done.stdout.split())

    assert found[0] == parent
    assert own not in found
    assert len(found) == 2, "the shell and its sleep"


def test_a_thread_of_another_process_is_refused_and_its_process_is_named(server: Server) -> None:
    tid = processes.threads(server.pid)[-1]
    assert tid != server.pid

    assert refusal(tid) == f"{tid}: a thread of process {server.pid}; give that pid"


# Names


def test_a_name_whose_processes_are_one_tree_means_all_of_it(shell: str) -> None:
    with running(*family(shell), count=4) as (root, *below):
        found = pids_of(Path(shell).name)

        assert found[0] == root
        assert set(found) == {root, *below}, "also those of other names"


def test_a_name_of_unrelated_processes_is_refused_and_their_pids_are_listed(shell: str) -> None:
    name = Path(shell).name
    with running(shell, "-c", "sleep 60; true", count=2) as (one, _):
        with running(shell, "-c", "sleep 60; true", count=2) as (two, _):
            pids = ", ".join(map(str, sorted((one, two))))
            assert refusal(name) == f"{name}: 2 processes have that name ({pids}); give a pid"
            with running(*family(shell), count=4) as (three, *_):
                why = refusal(name)
                assert "3 unrelated process trees" in why
                assert all(str(pid) in why for pid in (one, two, three))
        assert pids_of(name)[0] == one


def test_a_name_longer_than_the_kernel_keeps_is_the_name_of_the_program(shell: str) -> None:
    longer = f"{shell}-and-more"
    shutil.copy(shell, longer)
    with running(longer, "-c", "sleep 60; true", count=2) as tree:
        assert pids_of(Path(longer).name) == tree


def test_a_name_that_no_process_has_is_refused() -> None:
    assert refusal("no-such-process") == "no-such-process: no process has that name"


@pytest.mark.parametrize("name", [r"a\nb", r"\033[2J", r"\377x", "a) S 1 ("])
def test_a_process_with_an_odd_name_harms_nobody_and_is_told_in_one_line(name: str) -> None:
    with running("sh", "-c", f"printf '{name}' > /proc/self/comm; sleep 60; true", count=2) as (pid, child):
        (first, _) = resolve(parse(str(pid)))
        assert first.pid == pid
        assert printable(first.name).isprintable()
        assert first.name != "sh"
        assert processes.parent(child) == pid


def test_what_looks_like_a_containers_id_is_a_name_if_a_process_has_it(shell: str) -> None:
    name = f"a1{token_hex(5)}"
    copy = str(Path(shell).with_name(name))
    shutil.copy(shell, copy)
    assert parse(name).kind == "container"
    with running(copy, "-c", "sleep 60; true", count=2) as tree:
        assert pids_of(name) == tree


# What tells why a process cannot be had


def test_whether_napctl_is_in_the_initial_user_namespace_is_told() -> None:
    own = Path("/proc/self/ns/user").stat().st_ino
    assert capabilities.in_initial_user_namespace() == (own == capabilities.PROC_USER_INIT_INO)


def test_parents_and_states_are_told_of_live_processes_only() -> None:
    with running("sleep", "60") as (pid,):
        assert processes.parent(pid) == os.getpid()
        assert until(lambda: state_of_process(pid) == "S", "it to sleep")
    assert (processes.parent(pid), state_of_process(pid)) == (None, None)


def test_sockets_that_nobody_holds_are_not_among_the_holders() -> None:
    assert processes.holders_of_sockets([]) == {}
    assert processes.holders_of_sockets([2**60]) == {}
    with socket.socket() as one:
        inode = os.fstat(one.fileno()).st_ino
        assert processes.holders_of_sockets({inode, 2**60}) == {inode: [(os.getpid(), one.fileno())]}
