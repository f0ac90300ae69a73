"""Which processes are meant: by unit, control group and container, on the running kernel; and what is attached."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex

import pytest

from napctl.attach.target import complete, find_attachments
from napctl.kernel import cgroups, processes
from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from napctl.model.change import EpollChange, Transaction
from napctl.model.errors import BadInput
from tests.lab.helpers import UNSET, state_of_process, until
from tests.lab.targets import Groups, family, groups_here, listening, pids_of, refusal, running

pytestmark = pytest.mark.lab


@pytest.fixture
def groups() -> Iterator[Groups]:
    with ExitStack() as undo:
        yield Groups(groups_here(), undo)


def unit_name() -> str:
    return f"napctl-test-{token_hex(6)}.scope"


def test_a_unit_means_every_process_in_it_and_below(groups: Groups) -> None:
    unit = unit_name()
    top = groups.make(unit)
    below = groups.make(f"{unit}/below")
    inside = {groups.sleeper(top), groups.sleeper(below)}

    for target in (unit, f"unit:{unit}", f"/{unit}", f"cgroup:/{unit}", str(top)):
        assert set(pids_of(target)) == inside, target
    assert set(cgroups.processes_in(below)) < inside
    assert f"unit:{unit}" in complete("unit:napctl-test-")


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
    until(lambda: state_of_process(ended.pid) == "Z", "a zombie")

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
