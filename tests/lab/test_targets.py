"""Which processes are meant: by pid, name, unit, control group, container and port, on the running kernel."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from secrets import token_hex

import pytest

from napctl.attach.target import complete, find_attachments, parse, resolve
from napctl.kernel import capabilities, cgroups, processes
from napctl.kernel.listeners import listeners
from napctl.kernel.processtree import descendants
from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from napctl.model.change import EpollChange, Transaction
from napctl.model.errors import BadInput
from tests.lab.helpers import UNSET, another_memcached, ask, free_pid, until, without

pytestmark = pytest.mark.lab

LISTEN = """
import os, socket, sys, time
kind, address, port, forks, name, forked = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:]
def called(name):
    with open("/proc/self/comm", "w") as comm:
        comm.write(name)
called(name)
family = socket.AF_INET6 if ":" in address else socket.AF_INET
waiting = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
waiting.bind((address, port))
if kind == "tcp":
    waiting.listen()
for _ in range(forks):
    if os.fork() == 0:
        called(forked)
        break
time.sleep(60)
"""


def pids_of(text: object) -> list[int]:
    return [process.pid for process in resolve(parse(str(text)))]


def refusal(text: object) -> str:
    """Why that target is refused: one line for a person."""
    with pytest.raises(BadInput) as refused:
        resolve(parse(str(text)))
    line = str(refused.value)
    assert line.isprintable()
    return line


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def running(*command: str, count: int = 1) -> Iterator[list[int]]:
    """A command, once it is a tree of `count` processes: their pids, parents first. All are killed at the end."""
    started = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:

        def tree() -> list[int]:
            return [started.pid, *(process.pid for process in descendants([started.pid]))]

        yield until(lambda: tree() if len(tree()) == count else [], f"{count} processes")
    finally:
        kill(tree())
        started.wait()


def kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def shell(tmp_path: Path) -> str:
    """A copy of the shell with a name that no other process has, of 15 characters: all that the kernel keeps."""
    found = shutil.which("dash") or shutil.which("sh")
    assert found is not None
    copy = tmp_path / f"napctl-{token_hex(4)}"
    shutil.copy(found, copy)
    return str(copy)


def family(shell: str) -> tuple[str, str, str]:
    """A command that becomes: itself, a shell of that name and a sleep, and a sleep below that shell."""
    return shell, "-c", f'{shell} -c "sleep 60; true" & sleep 60 & wait'


@pytest.fixture
def port() -> int:
    """One on which nothing listens, in no network namespace."""
    taken = {each.port for each in listeners()}
    return next(number for number in range(20_000 + os.getpid() % 10_000, 32_000) if number not in taken)


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
    assert processes.state(pid) is None


def test_a_zombie_is_told_from_a_process_that_has_vanished() -> None:
    ended = subprocess.Popen(["true"])
    until(lambda: processes.state(ended.pid) == "Z", "a zombie")

    why = refusal(ended.pid)
    ended.wait()

    assert f"({ended.pid}): it has ended and waits for its parent (zombie)" in why
    assert refusal(ended.pid) == f"{ended.pid}: no such process"


def test_a_name_that_only_a_zombie_has_is_refused_as_such(shell: str) -> None:
    ended = subprocess.Popen([shell, "-c", "true"])
    until(lambda: processes.state(ended.pid) == "Z", "a zombie")
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
        until(lambda: processes.state(pid) == "Z", "the end of its first thread")

        assert "first thread has ended" in refusal(pid)


def test_a_kernel_thread_is_refused(lab: Lab) -> None:
    (napi,) = lab.server.napis()
    assert napi.thread_pid is not None
    seen = processes.process(napi.thread_pid)
    assert seen is not None

    for target in (seen.pid, f"name:{seen.name}"):
        assert f"{seen.name} ({seen.pid}): a kernel thread" in refusal(target)
    assert processes.is_kernel_thread(seen.pid)
    assert not processes.is_kernel_thread(os.getpid())


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
        assert first.name.isprintable()
        assert first.name != "sh"
        assert processes.parent(child) == pid


def test_what_looks_like_a_containers_id_is_a_name_if_a_process_has_it(shell: str) -> None:
    name = f"a1{token_hex(5)}"
    copy = str(Path(shell).with_name(name))
    shutil.copy(shell, copy)
    assert parse(name).kind == "container"
    with running(copy, "-c", "sleep 60; true", count=2) as tree:
        assert pids_of(name) == tree


# Control groups


def hierarchies() -> list[cgroups.Hierarchy]:
    """Those in which a test may make groups: not those of controllers, which would count its processes elsewhere."""
    whole = [each for each in cgroups.telling() if each.root.strip("/.") == ""]
    return [each for each in whole if each.version == 2 or cgroups.SYSTEMD in each.controllers] or whole


class Groups:
    """Makes control groups in one hierarchy, with processes in them."""

    def __init__(self, hierarchy: cgroups.Hierarchy, undo: ExitStack):
        self.hierarchy = hierarchy
        self._undo = undo

    def make(self, name: str) -> Path:
        directory = self.hierarchy.mount / name
        directory.mkdir()
        self._undo.callback(lambda: until(lambda: removed(directory), f"{directory} to be empty"))
        return directory

    def sleeper(self, directory: Path) -> int:
        """The pid of a process in that group."""
        (pid,) = self._undo.enter_context(running("sleep", "60"))
        (directory / "cgroup.procs").write_text(str(pid))
        return pid


def removed(directory: Path) -> bool:
    with suppress(OSError):  # a process that was killed is in its group until it has gone
        directory.rmdir()
    return not directory.exists()


@pytest.fixture
def every() -> Iterator[list[Groups]]:
    """Makers of groups, one for each hierarchy that can be written. Skipped if none can, but never silently in CI."""
    with ExitStack() as undo:
        usable = []
        for hierarchy in hierarchies():
            with suppress(OSError):
                trial = hierarchy.mount / f"napctl-test-{token_hex(8)}"
                trial.mkdir()
                trial.rmdir()
                usable.append(Groups(hierarchy, undo))
        if not usable and os.environ.get("CI") == "true":
            pytest.fail("control groups must be writable in CI")
        if not usable:
            pytest.skip("no hierarchy of control groups can be written here")
        yield usable


@pytest.fixture
def groups(every: list[Groups]) -> Groups:
    return every[0]


def unit_name() -> str:
    return f"napctl-test-{token_hex(6)}.scope"


def test_a_unit_means_every_process_in_it_and_below_in_each_hierarchy(every: list[Groups]) -> None:
    for groups in every:
        unit = unit_name()
        top = groups.make(unit)
        below = groups.make(f"{unit}/below")
        inside = {groups.sleeper(top), groups.sleeper(below)}
        directory = str(top)

        for target in (unit, f"unit:{unit}", f"/{unit}", f"cgroup:/{unit}", directory):
            assert set(pids_of(target)) == inside, target
        assert set(cgroups.processes_in(below)) < inside
        assert {cgroups.cgroup_of(pid) for pid in inside} == {f"/{unit}", f"/{unit}/below"}
        assert f"unit:{unit}" in complete("unit:napctl-test-")


def test_a_group_that_several_hierarchies_have_is_found_once_and_where_its_processes_are(every: list[Groups]) -> None:
    unit = unit_name()
    made = [groups.make(unit) for groups in every]
    pid = every[-1].sleeper(made[-1])

    assert cgroups.find(lambda name: name == unit) == [made[-1]]
    assert pids_of(unit) == [pid]


def test_a_unit_whose_tree_is_in_it_gives_parents_first(groups: Groups, shell: str) -> None:
    unit = unit_name()
    top = groups.make(unit)
    with running(*family(shell), count=4) as (root, *below):
        for pid in (*below, root):
            (top / "cgroup.procs").write_text(str(pid))

        found = pids_of(unit)

        assert found[0] == root
        assert set(found) == {root, *below}


def test_a_unit_without_processes_is_refused(groups: Groups) -> None:
    unit = unit_name()
    groups.make(unit)

    for target in (unit, f"/{unit}"):
        assert refusal(target) == f"{target}: no process runs in it"


def test_a_unit_that_holds_nothing_but_a_zombie_is_refused(groups: Groups) -> None:
    unit = unit_name()
    top = groups.make(unit)
    ended = subprocess.Popen(["sh", "-c", f"echo $$ > {top}/cgroup.procs"])
    until(lambda: processes.state(ended.pid) == "Z", "a zombie")

    try:
        assert refusal(unit) == f"{unit}: no process runs in it"
    finally:
        ended.wait()


def test_units_groups_and_containers_that_are_not_there_are_refused() -> None:
    for target in ("no-such.service", "/no/such/group", "container:" + "0f" * 32, "/sys/fs/cgroup/no-such"):
        assert refusal(target).startswith(f"{target}: no ")


def test_a_unit_of_several_users_is_refused_and_its_groups_are_listed(groups: Groups) -> None:
    unit = unit_name()
    paths = []
    for user in ("napctl-test-one", "napctl-test-two"):
        outer = f"{user}-{token_hex(4)}"
        groups.make(outer)
        groups.sleeper(groups.make(f"{outer}/{unit}"))
        paths.append(f"/{outer}/{unit}")

    why = refusal(unit)

    assert "2 units have that name" in why
    assert all(f"cgroup:{path}" in why for path in paths)
    assert len(pids_of(paths[0])) == 1


def test_a_container_is_known_by_the_beginning_of_its_id(groups: Groups) -> None:
    identity = f"a1{token_hex(31)}"
    outer = groups.make(f"napctl-test-{token_hex(4)}.slice")
    top = groups.make(f"{outer.name}/docker-{identity}.scope")
    monitor = groups.make(f"{outer.name}/libpod-conmon-{identity}.scope")
    pid, _ = groups.sleeper(top), groups.sleeper(monitor)

    for target in (identity, identity[:12], f"container:{identity[:9]}", f"container:{identity.upper()}"):
        assert pids_of(target) == [pid], target

    other = groups.sleeper(groups.make(f"{outer.name}/{identity[:60]}{'0' if identity[60] != '0' else '1'}abc"))
    why = refusal(f"container:{identity[:12]}")
    assert "2 containers" in why
    assert identity in why
    assert pids_of(identity) == [pid]
    assert set(pids_of(outer.name)) > {pid, other}


def test_a_group_does_not_include_napctl_itself(groups: Groups) -> None:
    unit = unit_name()
    top = groups.make(unit)
    pid = groups.sleeper(top)
    napctl = f"from napctl.attach.target import *; print(*(each.pid for each in resolve(parse('{unit}'))))"
    join = f'echo $$ > {top}/cgroup.procs; exec "{sys.executable}" -c "{napctl}"'
    done = subprocess.run(["sh", "-c", join], check=True, capture_output=True, text=True)

    assert done.stdout.split() == [str(pid)]


# Ports


@contextmanager
def listening(
    lab: Lab,
    port: int,
    kind: str = "tcp",
    address: str = "0.0.0.0",
    *,
    forks: int = 0,
    names: tuple[str, str] = ("listener", "listener"),
    at_client: bool = False,
) -> Iterator[int]:
    """A process in one of the lab's namespaces that waits on a port, with forks that share its socket: its pid."""
    end = lab.client if at_client else lab.server
    command = (sys.executable, "-c", LISTEN, kind, address, str(port), str(forks), *names)
    with end.namespace.entered(), running(*command, count=1 + forks) as (pid, *_):
        until(lambda: [each for each in listeners(port) if each.netns == end.namespace.inode], "it to listen")
        until(lambda: [name_of(each) for each in (pid, *children(pid))] == [names[0], *names[1:] * forks], "its names")
        yield pid


def name_of(pid: int) -> str:
    found = processes.process(pid)
    return found.name if found is not None else ""


def test_a_port_means_the_process_that_listens_on_it_in_whatever_network_namespace(lab: Lab, port: int) -> None:
    with another_memcached(lab, port) as server, ask(lab, server):
        for target in (f":{port}", f"port:{port}"):
            assert pids_of(target) == [server.pid]
        (listener,) = listeners(port)
        assert (listener.protocol, listener.address) == ("tcp", "0.0.0.0")
        assert listener.netns == lab.server.namespace.inode
        assert f"port:{port}" in complete("port:")
        assert f":{port}" in complete(f":{port}"[:3])
        (held,) = processes.holders_of_sockets([listener.inode]).values()
        assert [pid for pid, _ in held] == [server.pid]
    assert "nothing listens" in refusal(f":{port}")


@pytest.mark.parametrize(("kind", "address"), [("tcp", "::"), ("udp", "127.0.0.1"), ("udp", "::")])
def test_a_port_of_any_protocol_is_found(kind: str, address: str, lab: Lab, port: int) -> None:
    with listening(lab, port, kind, address) as pid:
        assert pids_of(f":{port}") == [pid]
        assert [(each.protocol, each.address) for each in listeners(port)] == [(kind, address)]


def test_a_port_whose_socket_a_tree_shares_means_the_tree(lab: Lab, port: int) -> None:
    with listening(lab, port, forks=2) as pid:
        assert pids_of(f":{port}") == [pid, *children(pid)]


def test_without_the_right_to_look_into_processes_a_port_names_the_capability(lab: Lab, port: int) -> None:
    with listening(lab, port):
        code = f"from napctl.attach.target import *; resolve(parse(':{port}'))"
        command = [*without("sys_ptrace"), sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False)

        assert re.search(rf"NotPermitted: :{port}: .*CAP_SYS_PTRACE is missing$", done.stderr), done.stderr


def test_a_port_of_unrelated_processes_is_refused_and_they_are_named(lab: Lab, port: int) -> None:
    with listening(lab, port, "tcp") as one, listening(lab, port, "udp") as two:
        why = refusal(f":{port}")

        assert "2 unrelated processes" in why
        assert f"({one}) on tcp" in why
        assert f"({two}) on udp" in why
        assert "network namespaces" not in why


def test_a_port_of_unrelated_processes_in_two_network_namespaces_is_refused_and_says_so(lab: Lab, port: int) -> None:
    with listening(lab, port) as one, listening(lab, port, at_client=True) as two:
        why = refusal(f":{port}")

    assert "in 2 network namespaces" in why
    assert f"({one}) on tcp in net:[{lab.server.namespace.inode}]" in why
    assert f"({two}) on tcp in net:[{lab.client.namespace.inode}]" in why


def test_a_socket_that_a_manager_passed_on_means_the_server(lab: Lab, port: int) -> None:
    """As with systemd.socket(5): who passed the socket holds it as well, and has many other children."""
    with listening(lab, port, forks=1, names=("systemd", "server")) as manager:
        assert pids_of(f":{port}") == children(manager)


def test_a_socket_that_only_managers_hold_means_them(lab: Lab, port: int) -> None:
    with listening(lab, port, forks=1, names=("systemd", "systemd")) as manager:
        assert pids_of(f":{port}") == [manager, *children(manager)]


# What the journal holds, and what a shell offers


def changed(pid: int) -> EpollChange:
    found = processes.process(pid)
    assert found is not None
    return EpollChange(
        pid=pid, name=found.name, started_ticks=found.started_ticks, epoll_fd=3, before=UNSET, after=UNSET
    )


def transaction(*pids: int) -> Transaction:
    changes = tuple(map(changed, pids))
    return Transaction(
        boot_id="b",
        made_unix_ns=1,
        name=changes[0].name,
        pid=changes[0].pid,
        started_ticks=changes[0].started_ticks,
        changes=changes,
    )


def test_what_is_attached_is_found_by_whatever_means_a_process_of_it(
    lab: Lab, port: int, shell: str, groups: Groups
) -> None:
    unit = unit_name()
    top = groups.make(unit)
    with running(*family(shell), count=4) as (root, *below), listening(lab, port) as other:
        (top / "cgroup.procs").write_text(str(below[-1]))
        one, two = transaction(root, *below), transaction(other)
        name = Path(shell).name

        for target in (str(root), str(below[0]), name, f"name:{name}", f"pid:{root}", unit):
            assert find_attachments(target, [one, two]) == [one], target
        assert find_attachments(f":{port}", [one, two]) == [two]
        with pytest.raises(BadInput, match="nothing is attached"):
            find_attachments(f":{port}", [one])
    assert find_attachments(name, [one, two]) == [one], "also after its processes have gone"
    assert find_attachments(str(root), [one, two]) == [one]


def test_the_names_that_a_shell_is_offered_are_those_of_servers(server: Server) -> None:
    assert "memcached" in complete("memc")
    assert complete("memcached-no-such") == []


# What tells why a process cannot be had


def test_a_process_in_a_user_namespace_of_its_own_is_told() -> None:
    assert processes.user_namespace(os.getpid()) == Path("/proc/self/ns/user").stat().st_ino
    with running("unshare", "--user", "sleep", "60") as (pid,):
        until(lambda: processes.user_namespace(pid) != processes.user_namespace(os.getpid()), "its user namespace")
    assert capabilities.in_initial_user_namespace() == (
        processes.user_namespace(os.getpid()) == capabilities.PROC_USER_INIT_INO
    )
    assert processes.user_namespace(free_pid()) is None


def test_parents_and_states_are_told_of_live_processes_only() -> None:
    with running("sleep", "60") as (pid,):
        assert processes.parent(pid) == os.getpid()
        assert until(lambda: processes.state(pid) == "S", "it to sleep")
    assert (processes.parent(pid), processes.state(pid)) == (None, None)
    assert not processes.is_kernel_thread(pid)


def test_sockets_that_nobody_holds_are_not_among_the_holders() -> None:
    assert processes.holders_of_sockets([]) == {}
    assert processes.holders_of_sockets([2**60]) == {}
    with socket.socket() as one:
        inode = os.fstat(one.fileno()).st_ino
        assert processes.holders_of_sockets({inode, 2**60}) == {inode: [(os.getpid(), one.fileno())]}
