"""What the user may write for a target, and whose tree a process belongs to: without a kernel."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.attach.target import KINDS, Target, find_attachments, parse, resolve
from napctl.kernel import cgroups
from napctl.kernel.cgroups import Hierarchy, hierarchy
from napctl.kernel.listeners import ListeningSocket, read_table
from napctl.kernel.process_tree import ancestors, children_map, in_order, parents, tops, with_descendants
from napctl.kernel.processes import Process, Seen
from napctl.model.change import EpollChange, Transaction
from napctl.model.errors import BadInput, Unsupported
from napctl.model.settings import EpollParams

CONTAINER = "0123456789ab"


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("1234", "pid", "1234"),
        ("pid:1234", "pid", "1234"),
        ("0042", "pid", "42"),
        ("nginx", "name", "nginx"),
        ("name:1234", "name", "1234"),
        ("nginx: worker", "name", "nginx: worker"),
        ("name:a.service", "name", "a.service"),
        ("nginx.service", "unit", "nginx.service"),
        ("unit:nginx", "unit", "nginx.service"),
        ("unit:web@1", "unit", "web@1.service"),
        ("run-3.scope", "unit", "run-3.scope"),
        ("user-0.slice", "unit", "user-0.slice"),
        ("/system.slice/nginx.service", "cgroup", "/system.slice/nginx.service"),
        ("cgroup:/a//b/", "cgroup", "/a/b"),
        ("cgroup:/", "cgroup", "/"),
        (CONTAINER, "container", CONTAINER),
        (f"{CONTAINER * 5}abcd", "container", f"{CONTAINER * 5}abcd"),
        ("container:AB", "container", "AB"),
        ("container:web", "container", "web"),
        ("container:shop/web-7d4b9/web", "container", "shop/web-7d4b9/web"),
        ("container:image=docker.io/library/nginx:1.27", "container", "image=docker.io/library/nginx:1.27"),
        ("abcdefabcdef", "name", "abcdefabcdef"),
        ("0123456789a", "name", "0123456789a"),
        ("0123456789AB", "name", "0123456789AB"),
        ("port:8080", "port", "8080"),
        (":8080", "port", "8080"),
        (":00080", "port", "80"),
        ("port:65535", "port", "65535"),
    ],
)
def test_a_target_is_known_by_how_it_is_written(text: str, kind: str, value: str) -> None:
    target = parse(text)

    assert (target.text, target.kind, target.value) == (text, kind, value)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "name:", "unit:", "cgroup:", "container:", "port:", "pid:", ":", "0", "00", "pid:0", "pid:x", "pid:-1",
        "port:http", "port:0", ":0", "port:65536", "port:-1", "port: 80", "port:8080/tcp", ":http", "port:٣", "4194305",
        "9" * 5000, ":" + "9" * 5000, "unit:nginx.socket", "unit:a/b", ".service", "a/b.service", "unit:a b",
        "web@*.service", "cgroup:system.slice", "/a/../b", "/..", "container:-x", "container:a b", "container:a/b/c/d",
        "container:/x", "container:image=", "container:image=-x",
        "container:" + "a" * 600, "container:x;y", "container:é",
        "a\nb", "a\0b", "\x1b[2J", "\udc80",
    ],
)  # fmt: skip
def test_a_malformed_target_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(BadInput) as refused:
        parse(text)

    assert str(refused.value).isprintable()


@given(st.text() | st.from_regex(r"(pid|name|unit|cgroup|container|port)?:?[0-9a-f./@-]*", fullmatch=True))
def test_any_text_is_a_target_or_is_refused_in_one_line(text: str) -> None:
    try:
        target, refusal = parse(text), ""
    except BadInput as refused:
        target, refusal = None, str(refused)
    assert refusal.isprintable()
    if target is not None:
        assert target.text == text
        assert target.value
        assert target.value.isprintable()


@given(st.text())
def test_a_target_written_with_its_kind_means_the_same(text: str) -> None:
    try:
        target = parse(text)
    except BadInput:
        return
    again = parse(f"{target.kind}:{target.value}")
    assert (again.kind, again.value) == (target.kind, target.value)


@given(st.integers(min_value=1, max_value=4194304), st.integers(min_value=1, max_value=65535))
def test_every_pid_and_every_port_is_taken(pid: int, port: int) -> None:
    assert parse(str(pid)) == Target(str(pid), "pid", str(pid))
    assert parse(f":{port}") == Target(f":{port}", "port", str(port))


def test_the_refusal_of_nothing_names_the_kinds() -> None:
    with pytest.raises(BadInput, match=r"unit:.*cgroup:.*container:.*port:"):
        parse("")
    assert set(KINDS) == {"pid", "name", "unit", "cgroup", "container", "port"}


#       1
#     2   3
#    4 5    6
#    7
TREE = {1: 0, 2: 1, 3: 1, 4: 2, 5: 2, 6: 3, 7: 4}


def test_a_tree_is_told_from_unrelated_processes() -> None:
    assert tops([4, 7, 2, 5], TREE) == [2]
    assert tops([7, 2], TREE) == [2], "also across one that is not among them"
    assert tops([4, 5], TREE) == [4, 5]
    assert tops([6, 7], TREE) == [6, 7]
    assert tops([], TREE) == []


def test_descendants_are_all_below_and_nothing_beside() -> None:
    assert with_descendants([2], TREE) == [2, 4, 5, 7]
    assert with_descendants([4, 3, 7], TREE) == [3, 4, 6, 7]
    assert with_descendants([7], TREE) == [7]
    assert list(ancestors(7, TREE)) == [4, 2, 1]
    assert children_map(TREE)[2] == [4, 5]


@st.composite
def forests(draw: st.DrawFn) -> dict[int, int]:
    """Pids in any order: the parent of each is one drawn before it, or one that is not there."""
    pids = draw(st.lists(st.integers(1, 100), unique=True, min_size=1, max_size=30))
    return {pid: draw(st.sampled_from([0, 1000, *pids[:place]])) for place, pid in enumerate(pids)}


def seen_of(parent_of: dict[int, int]) -> dict[int, Seen]:
    return {
        pid: Seen(Process(pid, "x", started_ticks=7), "S", parent, is_kernel_thread=False, threads=1, run_ticks=0)
        for pid, parent in parent_of.items()
    }


@given(forests(), st.data())
def test_a_target_is_its_top_and_what_descends_from_it(parent_of: dict[int, int], data: st.DataObject) -> None:
    chosen = data.draw(st.sets(st.sampled_from(sorted(parent_of))))

    found = with_descendants(chosen, parent_of)

    assert set(found) == {pid for pid in parent_of if pid in chosen or chosen & set(ancestors(pid, parent_of))}
    assert len(found) == len(set(found))
    assert set(tops(chosen, parent_of)) == set(tops(found, parent_of))


@given(forests(), st.data())
def test_parents_stand_before_children_whatever_lies_between(parent_of: dict[int, int], data: st.DataObject) -> None:
    chosen = data.draw(st.sets(st.sampled_from(sorted(parent_of))))
    seen = seen_of(parent_of)

    order = in_order(chosen, seen)

    assert sorted(order) == sorted(chosen)
    assert parents(seen) == parent_of
    for place, pid in enumerate(order):
        assert not set(order[place:]) & set(ancestors(pid, parent_of))


@given(st.dictionaries(st.integers(1, 8), st.integers(0, 8)))
def test_a_pass_over_proc_that_saw_a_circle_still_comes_to_an_end(parent_of: dict[int, int]) -> None:
    assert set(tops(parent_of, parent_of)) <= set(parent_of)
    assert set(with_descendants(parent_of, parent_of)) <= set(parent_of)
    assert sorted(in_order(parent_of, seen_of(parent_of))) == sorted(parent_of)


HYBRID = r"""
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
42 31 0:38 /web /srv/web\040root/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate
""".strip()


def test_of_the_hierarchies_only_version_2_is_looked_at_by_the_mount_that_shows_most() -> None:
    assert hierarchy(HYBRID) == Hierarchy(Path("/sys/fs/cgroup/unified"), "/")


def test_a_mount_that_shows_part_of_the_hierarchy_shows_no_group_outside_of_it() -> None:
    part = hierarchy(HYBRID.splitlines()[-1])

    assert part is not None
    assert str(part.mount) == "/srv/web root/cgroup"
    assert part.directory("/web/a") == part.mount / "a"
    assert part.path(part.mount / "a") == "/web/a"
    assert part.directory("/web") == part.mount
    assert part.directory("/other") is None


@pytest.mark.parametrize("target", ["web.service", "unit:web", "/system.slice", "container:" + "0f" * 32])
def test_where_there_are_no_control_groups_of_version_2_a_group_as_target_says_that_it_needs_them(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_version_1 = "\n".join(HYBRID.splitlines()[:4])
    monkeypatch.setattr(cgroups, "hierarchy", lambda: hierarchy(of_version_1))

    with pytest.raises(Unsupported, match="needs control groups v2"):
        resolve(parse(target))


def test_the_group_of_a_directory_leads_back_to_it() -> None:
    for line in HYBRID.splitlines()[-2:]:
        each = hierarchy(line)
        assert each is not None
        assert each.directory(each.path(each.mount / "a/b")) == each.mount / "a/b"


def words(*numbers: int) -> str:
    """An address as the kernel writes it: words in the machine's byte order, here given in the network's."""
    return "".join(f"{int.from_bytes(number.to_bytes(4, 'big'), sys.byteorder):08X}" for number in numbers)


def row(local: str, remote: str, state: str, inode: int) -> str:
    return f"   0: {local} {remote} {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0000 100 0"


def test_sockets_that_listen_are_read_and_connections_are_not() -> None:
    any4, any6 = words(0), words(0, 0, 0, 0)
    here = words(0x7F000001)
    rows = [
        "  sl  local_address rem_address   st",
        row(f"{here}:1F90", f"{any4}:0000", "0A", 11),
        row(f"{any4}:0050", f"{any4}:0000", "0A", 12),
        row(f"{here}:1F90", f"{here}:9000", "01", 13),
    ]
    assert list(read_table(iter(rows), "tcp", 5)) == [
        ListeningSocket(11, 8080, "tcp", 5, "127.0.0.1"),
        ListeningSocket(12, 80, "tcp", 5, "0.0.0.0"),
    ]
    assert [each.inode for each in read_table(iter(rows), "tcp", 5, 80)] == [12]
    local = words(0x20010DB8, 0, 0, 1)
    rows = ["head", row(f"{local}:0035", f"{any6}:0000", "07", 21), row(f"{local}:0035", f"{local}:0001", "01", 22)]
    assert list(read_table(iter(rows), "udp", 5)) == [ListeningSocket(21, 53, "udp", 5, "2001:db8::1")]


def attached(pid: int, name: str, *workers: int) -> Transaction:
    params = EpollParams(busy_poll_usecs=0, busy_poll_budget=0, prefer_busy_poll=False)
    return Transaction(
        boot_id="b",
        made_unix_ns=1,
        name=name,
        pid=pid,
        started_ticks=1,
        changes=tuple(
            EpollChange(pid=each, name=name, started_ticks=1, epoll_fd=3, before=params, after=params)
            for each in (pid, *workers)
        ),
    )


@pytest.mark.parametrize("target", ["4194300", "pid:4194300", "gone-server", "name:gone-server", "4194301"])
def test_what_is_attached_is_found_after_its_process_has_gone(target: str) -> None:
    one, other = attached(4194300, "gone-server", 4194301), attached(4194302, "other-server")

    assert find_attachments(target, [one, other]) == [one]


@pytest.mark.parametrize("target", ["4194303", "no-such-process", "name:no-such-process", ":http", "unit:none-such"])
def test_what_is_not_attached_is_refused(target: str) -> None:
    with pytest.raises(BadInput):
        find_attachments(target, [attached(4194300, "gone-server")])
