"""Units of systemd and containers, known by names of control groups and by files; nobody is asked for them."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

from napctl.kernel import cgroups
from napctl.kernel.container_files import Containers
from napctl.model.errors import BadInput, NapctlError, NotPermitted, NotRunning, Unsupported

__all__ = ["container_names", "in_group", "is_container", "is_unit", "service_of", "unit_names"]


ENDINGS = (".service", ".scope", ".slice")
"""Of units that processes run in."""
CONTAINER = re.compile(r"(?:^|[-:])([0-9a-f]{64})(?:\.scope)?$")
"""docker-ID.scope, cri-containerd-ID.scope, crio-ID.scope, libpod-ID.scope; with the cgroupfs driver ID alone."""
MONITOR = "conmon"
"""libpod-conmon-ID.scope and crio-conmon-ID.scope hold the container's monitor, not the container."""
PART = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
NAME = re.compile(rf"{PART}(?:/{PART}){{0,2}}")
"""Of a container of Docker or podman (names.go in both), or of a pod of Kubernetes, with its pod and namespace."""
IMAGE = "image="
IMAGE_NAME = re.compile(rf"{IMAGE}[A-Za-z0-9][A-Za-z0-9_.:/@-]*")
MOST_CHARACTERS = 512
LISTED = 4
"""How many ids a message has."""


def is_unit(text: str) -> bool:
    """Whether it ends as a unit does that processes run in."""
    return text.endswith(ENDINGS)


def service_of(pid: int) -> str | None:
    """The service in whose control group a process is; None if it is in none."""
    name = (cgroups.group_of(pid) or "").rpartition("/")[2].removeprefix("_")
    return name if name.endswith(".service") else None


def in_group(text: str, kind: Literal["unit", "cgroup", "container"], value: str) -> list[int]:
    """Pids of the processes in it and in the groups below it; `text` is for messages.

    Raises BadInput if it is not there, if several are meant, or if no process is in it; Unsupported without control
    groups of version 2.
    """
    if cgroups.hierarchy() is None:
        raise Unsupported(f"{text}: needs control groups v2, which are not mounted here; give a pid or a name")
    find: Callable[[str, str], list[str]] = {"unit": _unit, "cgroup": _cgroup, "container": _container}[kind]
    try:
        pids = {pid for path in find(text, value) for pid in cgroups.processes_in(path)}
    except FileNotFoundError:  # between the two
        raise NotRunning(f"{text}: it ended meanwhile") from None
    if not pids:
        raise NotRunning(f"{text}: no process runs in it")
    return sorted(pids)


def _unit(text: str, unit: str) -> list[str]:
    # What would look like one of the kernel's own files has "_" before it: cg_escape() in systemd's cgroup-util.c.
    found = cgroups.find(lambda name: name in (unit, f"_{unit}"))
    if not found:
        raise NotRunning(f"{text}: no such unit, or it does not run: it has no control group")
    paths = [cgroups.path_of(each) for each in found]
    if len(paths) > 1:  # of several users
        ways = ", ".join(f"cgroup:{path}" for path in paths)
        raise BadInput(f"{text}: {len(paths)} units have that name; give one of {ways}")
    return paths


def _cgroup(text: str, path: str) -> list[str]:
    if cgroups.directory_of(path) is None:
        raise NotRunning(f"{text}: no such control group")
    return [path]


def _container(text: str, value: str) -> list[str]:
    """By its name or image, as its runtime has written it down, or by the beginning of its id."""
    running = _running()
    owners = {each: user for each, (user, _) in running.items()}
    known, meant = Containers.of({}), frozenset({value.lower()} & running.keys())
    # Homes may be far away, and another user's: nobody looks into them for what the system has.
    for users in (False, True) if any(owners.values()) else (False,):
        if not meant:
            known = Containers.of(owners, users=users)
            meant = _meant(value, owners, known, users=users)
    if len(meant) > 1:  # a group may outlive its container for a moment, or for ever
        meant = frozenset(each for each in meant if any(map(_has_processes, running[each][1]))) or meant
    if not meant:
        raise _no_container(text, value, known)
    if len(meant) > 1:
        how, more = (
            ("are of that image", "its name or id")
            if value.startswith(IMAGE)
            else ("are called so, or have an id that begins so", "more of it")
        )
        raise BadInput(f"{text}: {len(meant)} containers {how} ({_listed(meant)}); give {more}")
    return [cgroups.path_of(each) for each in running[next(iter(meant))][1]]


def _running() -> dict[str, tuple[int, list[Path]]]:
    """By id: its user, and its control groups. Any user who has been given a group can make one with the name of
    another's container: of several with one id those of the user with the lowest number count, root's if it has any."""
    found: dict[str, tuple[int, list[Path]]] = {}
    for each in cgroups.find(lambda name: _container_id(name) is not None):
        identity, user = _container_id(each.name) or "", _owner(each)
        if user is None:
            continue
        least, groups = found.get(identity, (user, []))
        if user < least:
            least, groups = user, []
        found[identity] = least, [*groups, each] if user == least else groups
    return found


def _meant(value: str, owners: Mapping[str, int], known: Containers, *, users: bool) -> frozenset[str]:
    """By image; or by the whole name, and if nothing is called so, by how an id begins. `users`: also of theirs, which
    are asked for where the system has none."""
    if value.startswith(IMAGE):
        return known.of_image(value.removeprefix(IMAGE))
    systems = {each for each, user in owners.items() if not user} | {each.id for each in known.found if not each.user}
    some = owners.keys() if users else systems
    return frozenset(known.called(value) & some or (each for each in some if each.startswith(value.lower())))


def _no_container(text: str, value: str, known: Containers) -> NapctlError:
    """What was looked for in vain, and what could not be looked into."""
    what = "of that image" if value.startswith(IMAGE) else "that is called so, or whose id begins so"
    why = f"; {known.unreadable[0]}" if known.unreadable else ""
    kind = NotPermitted if known.forbidden else BadInput if known.unreadable else NotRunning
    return kind(f"{text}: no container runs here {what}{why}")


def _has_processes(group: Path) -> bool:
    try:
        return bool(cgroups.processes_in(group))
    except FileNotFoundError:
        return False


def _owner(group: Path) -> int | None:
    """None: it has gone."""
    try:
        return group.stat().st_uid
    except OSError:
        return None


def _listed(ids: Iterable[str]) -> str:
    """Some of them."""
    some = sorted(ids)
    more = f" and {len(some) - LISTED} more" if len(some) > LISTED else ""
    return ", ".join(some[:LISTED]) + more


def container_names() -> list[str]:
    """Of those that run, as far as it is known; fit to be written behind "container:"."""
    ids = {each: user for each, (user, _) in _running().items()}
    return sorted({name for each in Containers.of(ids).found for name in each.names if is_container(name)})


def is_container(value: str) -> bool:
    """Whether a container can be meant by that: a name, POD/NAME, the beginning of an id, or an image."""
    pattern = IMAGE_NAME if value.startswith(IMAGE) else NAME
    return len(value) <= MOST_CHARACTERS and pattern.fullmatch(value) is not None


def _container_id(name: str) -> str | None:
    found = None if MONITOR in name else CONTAINER.search(name)
    return None if found is None else found[1]


def unit_names() -> list[str]:
    """Units that have a control group, in order."""
    return sorted({path.name.removeprefix("_") for path in cgroups.find(is_unit)})
