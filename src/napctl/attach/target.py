"""From what the user wrote to the processes that are meant."""

import os
import posixpath
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from napctl.attach.units_and_containers import container_names, in_group, is_container, is_unit, unit_names
from napctl.kernel import capabilities, processes
from napctl.kernel.listeners import listeners
from napctl.kernel.open_files import open_files
from napctl.kernel.process_tree import ancestors, in_order, parents, tops, with_descendants
from napctl.kernel.processes import Process, Seen
from napctl.model.change import PollerChange, Transaction
from napctl.model.errors import BadInput, NotPermitted, NotRunning

__all__ = ["KINDS", "Ambiguous", "Target", "attached_of", "complete", "find_attachments", "parse", "resolve"]


Kind = Literal["pid", "name", "unit", "cgroup", "container", "port"]
KINDS: tuple[Kind, ...] = ("pid", "name", "unit", "cgroup", "container", "port")
MOST_PIDS = 4194304
"""PID_MAX_LIMIT: include/linux/threads.h."""
LISTED = 8
"""How many processes a message names."""
UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]+")
"""VALID_CHARS_WITH_AT in src/basic/unit-name.c of systemd."""
NO_PROCESSES = (".socket", ".timer", ".target", ".path", ".device", ".mount", ".automount", ".swap")
CONTAINER = re.compile(r"(?=.*[a-f])(?=.*[0-9])(?:[0-9a-f]{12}|[0-9a-f]{64})")
"""What is taken for a container's id without being called one: as `docker ps` prints it, or all of it."""


class Ambiguous(BadInput):
    """A target that means several processes which have nothing to do with each other."""


@dataclass(frozen=True)
class Target:
    """What the user means, not yet looked for. `text`: as it was written, for messages; `value`: without its kind."""

    text: str
    kind: Kind
    value: str
    """pid and port: digits; unit: with its ending; cgroup: as in /proc/PID/cgroup, or a directory; else as written."""


def parse(text: str) -> Target:
    """What is meant by "1234", "nginx", "nginx.service", "/system.slice/…", ":8080", "kind:value" or a container's id.

    Raises BadInput for what can mean nothing.
    """
    if not text.isprintable():
        raise BadInput(f"{text!a}: a target has no control characters")
    kind, value = _kind_and_value(text)
    if not value.strip():
        raise BadInput(f"'{text}': give a pid, a name, or one of {', '.join(f'{kind}:' for kind in KINDS[2:])}")
    check = {"pid": _pid, "unit": _unit, "cgroup": _cgroup, "container": _container, "port": _port}.get(kind)
    return Target(text=text, kind=kind, value=check(text, value) if check else value)


def _kind_and_value(text: str) -> tuple[Kind, str]:
    for kind in KINDS:
        if text.startswith(f"{kind}:"):
            return kind, text.removeprefix(f"{kind}:")
    if text.startswith(":"):
        return "port", text[1:]
    return _kind_of_bare(text), text


def _kind_of_bare(text: str) -> Kind:
    if is_pid(text):
        return "pid"
    if text.startswith("/"):
        return "cgroup"
    if is_unit(text):
        return "unit"
    return "container" if CONTAINER.fullmatch(text) and not processes.named(text) else "name"


def is_pid(target: str) -> bool:
    """Whether the user wrote a number."""
    return target.isascii() and target.isdigit()


def _pid(text: str, value: str) -> str:
    number = _number(value, MOST_PIDS)
    if number is None:
        raise BadInput(f"{text}: no such process: a pid is a number from 1 to {MOST_PIDS}")
    return str(number)


def _port(text: str, value: str) -> str:
    number = _number(value, 65535)
    if number is None:
        raise BadInput(f"{text}: a port is a number from 1 to 65535")
    return str(number)


def _number(value: str, most: int) -> int | None:
    digits = value.lstrip("0")
    return int(value) if is_pid(value) and 0 < len(digits) <= len(str(most)) and int(digits) <= most else None


def _unit(text: str, value: str) -> str:
    if value.endswith(NO_PROCESSES):
        raise BadInput(f"{text}: no server runs in such a unit; name its service")
    unit = value if is_unit(value) else f"{value}.service"  # as systemctl(1) has it
    if not UNIT.fullmatch(unit) or unit.startswith(".") or len(unit) > 255:
        raise BadInput(f"{text}: a unit has no such name")
    return unit


def _cgroup(text: str, value: str) -> str:
    if not value.startswith("/") or ".." in value.split("/"):
        raise BadInput(f"{text}: a control group is a path that begins with '/', as in /proc/PID/cgroup")
    return posixpath.normpath("/" + value.lstrip("/"))


def _container(text: str, value: str) -> str:
    if not is_container(value):
        raise BadInput(
            f"{text}: a container is named by its name, POD/NAME, image=IMAGE, or the beginning of its id, 1 to 64 "
            "hexadecimal digits"
        )
    return value


def resolve(target: Target) -> tuple[Process, ...]:
    """The processes that are meant, parents before children, never this one.

    Raises BadInput with one line: there are none; several that have nothing to do with each other; init, a kernel
    thread, a zombie, or napctl itself. Raises NotPermitted if a port's holder cannot be seen for lack of a capability,
    Unsupported if no control groups are mounted.
    """
    match target.kind:
        case "pid":
            seen = processes.look_at_all()
            root = _checked_pid(target, seen)
            pids = with_descendants([root], parents(seen))
        case "name":
            seen = processes.look_at_all()
            pids = _tree_of_name(target, seen)
        case "port":
            held = _held_by(target)
            seen = processes.look_at_all()
            pids = _tree_at_port(target, held, seen)
        case _:
            pids = in_group(target.text, target.kind, target.value)
            seen = processes.look_at_all()
            if 1 in pids:
                raise BadInput(f"{target.text}: init runs in it; name the server itself")
    fit = [pid for pid in pids if pid in seen and obstacle(seen[pid]) is None]
    if not fit and os.getpid() in pids:
        raise BadInput(f"{target.text}: nothing but napctl itself runs in it")
    if not fit and target.kind in ("pid", "name", "port"):
        raise NotRunning(f"{target.text}: it ended meanwhile")
    if not fit:
        raise NotRunning(f"{target.text}: no process runs in it")
    return tuple(seen[pid].process for pid in in_order(fit, seen))


def obstacle(seen: Seen) -> str | None:
    """Why nothing can be attached to such a process, as a clause; None if nothing speaks against it."""
    pid = seen.process.pid
    if pid == os.getpid():
        return "that is napctl itself"
    if pid == 1:
        return "that is init; name the server itself"
    if seen.is_kernel_thread:
        return "a kernel thread, which has no epoll instance"
    if seen.ended and seen.threads > 1:
        return "its first thread has ended, so its descriptors cannot be read"
    return "it has ended and waits for its parent (zombie)" if seen.ended else None


def _refuse_if_unfit(target: Target, seen: Seen) -> None:
    why = obstacle(seen)
    if why is not None:
        of = "" if target.kind == "pid" else f"{target.text}: "
        raise BadInput(f"{of}{_who(seen)}: {why}")


def _checked_pid(target: Target, seen: Mapping[int, Seen]) -> int:
    pid = int(target.value)
    process = processes.process_of_thread(pid)
    if process is not None and process != pid:
        raise BadInput(f"{target.text}: a thread of process {process}; give that pid")
    if process is None or pid not in seen:
        raise NotRunning(f"{target.text}: no such process")
    _refuse_if_unfit(target, seen[pid])
    return pid


def _tree_of_name(target: Target, seen: Mapping[int, Seen]) -> list[int]:
    having = [pid for pid, each in seen.items() if processes.has_name(each.process, target.value)]
    if not having:
        raise NotRunning(f"{target.text}: no process has that name")
    live = [pid for pid in having if not seen[pid].ended and not seen[pid].is_kernel_thread and pid != os.getpid()]
    if not live:
        _refuse_if_unfit(target, seen[having[0]])
    roots = tops(live, parents(seen))
    if len(roots) > 1:
        what = "processes" if len(roots) == len(live) else "unrelated process trees"
        raise Ambiguous(f"{target.text}: {len(roots)} {what} have that name ({_listed(map(str, roots))}); give a pid")
    _refuse_if_unfit(target, seen[roots[0]])
    return with_descendants(roots, parents(seen))


def _held_by(target: Target) -> dict[int, set[tuple[str, int]]]:
    """Who holds the sockets on a port: {pid: {(protocol, network namespace)}}."""
    found = {each.inode: each for each in listeners(int(target.value))}
    if not found:
        _refuse_if_blind(target, "it cannot be seen who listens on that port")
        raise NotRunning(f"{target.text}: nothing listens on that port in any network namespace that a process is in")
    held: dict[int, set[tuple[str, int]]] = {}
    for inode, holders in processes.holders_of_sockets(found).items():
        for pid, _ in holders:
            held.setdefault(pid, set()).add((found[inode].protocol, found[inode].netns))
    if not held:
        _refuse_if_blind(target, "it cannot be seen whose socket that is")
        raise BadInput(f"{target.text}: no process that napctl can see holds its socket; name the server itself")
    return held


def _refuse_if_blind(target: Target, what: str) -> None:
    mine = capabilities.held()
    if "CAP_SYS_PTRACE" not in mine or not mine & {"CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"}:
        why = capabilities.why_refused(mine, everywhere=capabilities.in_initial_user_namespace())
        raise NotPermitted(f"{target.text}: {what}: {why}")


def _tree_at_port(target: Target, held: Mapping[int, set[tuple[str, int]]], seen: Mapping[int, Seen]) -> list[int]:
    holding = [pid for pid in held if pid in seen and not seen[pid].ended and pid != os.getpid()]
    # A manager holds what it passed to its service (systemd.socket(5)); so its tree is not what is meant.
    servers = [pid for pid in holding if pid != 1 and seen[pid].process.name != "systemd"] or holding
    if not servers and os.getpid() in held:
        _refuse_if_unfit(target, seen[os.getpid()])
    roots = tops(servers, parents(seen))
    if len(roots) > 1 and not _siblings(roots, seen):
        raise Ambiguous(f"{target.text}: {_unrelated(roots, held, seen)}; give a pid")
    for root in roots:
        _refuse_if_unfit(target, seen[root])
    return with_descendants(roots, parents(seen))


def _siblings(pids: list[int], seen: Mapping[int, Seen]) -> bool:
    """Whether they are workers of one master that holds no socket itself: same name and parent, which is neither init
    nor the shell from which napctl was started."""
    masters = {seen[pid].parent for pid in pids}
    ours = {0, 1, os.getpid(), *ancestors(os.getpid(), parents(seen))}
    return len(masters) == 1 and not masters & ours and len({seen[pid].process.name for pid in pids}) == 1


def _unrelated(roots: list[int], held: Mapping[int, set[tuple[str, int]]], seen: Mapping[int, Seen]) -> str:
    namespaces = {netns for root in roots for _, netns in held[root]}
    named = []
    for root in roots:
        protocols = "+".join(sorted({protocol for protocol, _ in held[root]}))
        where = " and ".join(f"net:[{netns}]" for netns in sorted({netns for _, netns in held[root]}))
        named.append(f"{_who(seen[root])} on {protocols}" + (f" in {where}" if len(namespaces) > 1 else ""))
    within = f" in {len(namespaces)} network namespaces" if len(namespaces) > 1 else ""
    return f"{len(roots)} unrelated processes wait on that port{within} ({_listed(named)})"


def _who(seen: Seen) -> str:
    return f"{seen.process.name} ({seen.process.pid})"


def _listed(texts: Iterable[str]) -> str:
    some = list(texts)
    more = f" and {len(some) - LISTED} more" if len(some) > LISTED else ""
    return ", ".join(some[:LISTED]) + more


def find_attachments(target: str, recorded: list[Transaction]) -> list[Transaction]:
    """Which of these attachments are meant by a target as `attach` takes it, whether or not the process still lives.

    Raises BadInput if none is, and exactly where resolve() refuses a target because it means several; for what is named
    neither by its pid nor by its name, as it is known only while it runs, all that resolve() raises.
    """
    meant = parse(target)
    if meant.kind == "pid":
        pid = int(meant.value)
        found = [each for each in recorded if each.pid == pid]
        found = found or [each for each in recorded if pid in {member for member, _ in _members(each)}]
    else:
        ours = attached_of(_running(meant), recorded)
        name = meant.value[:15] if meant.kind == "name" else None
        found = [each for each in recorded if each.name == name or each in ours]
    if not found:
        raise BadInput(f"{target}: nothing is attached to it")
    return found


def attached_of(running: Iterable[Process], recorded: Iterable[Transaction]) -> list[Transaction]:
    """Which of these attachments have one of these processes as a member."""
    ours = {(process.pid, process.started_ticks) for process in running}
    return [each for each in recorded if ours & _members(each)]


def _running(meant: Target) -> tuple[Process, ...]:
    """The processes that are meant; of a name none, if none has it any more."""
    try:
        return resolve(meant)
    except Ambiguous:
        raise
    except BadInput:
        if meant.kind != "name":
            raise
        return ()


def _members(transaction: Transaction) -> set[tuple[int, int]]:
    """Its processes, as (pid, start)."""
    changed = (each for each in transaction.changes if isinstance(each, PollerChange))
    others = {(each.pid, each.started_ticks) for each in changed}
    others |= {(each.pid, each.started_ticks) for each in transaction.also}
    return {(transaction.pid, transaction.started_ticks)} | others


def complete(prefix: str) -> list[str]:
    """Targets that begin so: names of processes with an epoll or io_uring instance, unit:…, container:…, port:…, :….

    What cannot be read is left out, and names that are not fit for a terminal; nothing is raised.
    """
    found: list[str] = []
    with suppress(OSError, BadInput):
        found += sorted(_names(prefix))
    if _may_be("unit:", prefix):
        with suppress(OSError, BadInput):
            found += [f"unit:{unit}" for unit in unit_names()]
    if _may_be("container:", prefix):
        with suppress(OSError, BadInput):
            found += [f"container:{name}" for name in container_names()]
    before = ":" if prefix.startswith(":") else "port:"
    if _may_be(before, prefix):
        with suppress(OSError):
            found += [f"{before}{port}" for port in sorted({each.port for each in listeners()})]
    return [each for each in found if each.startswith(prefix) and each.isprintable()]


def _may_be(beginning: str, prefix: str) -> bool:
    return beginning.startswith(prefix) or prefix.startswith(beginning)


def _names(prefix: str) -> set[str]:
    found: set[str] = set()
    for process in processes.processes():
        if process.name.startswith(prefix) and process.name not in found and process.pid != os.getpid():
            with suppress(OSError):  # gone meanwhile, or not ours to read
                files = open_files(process.pid)
                if files.epolls or files.rings:
                    found.add(process.name)
    return found
