"""Units of systemd and containers, known by the names of their control groups; nobody is asked for them."""

import re
from collections.abc import Callable
from typing import Literal

from napctl.kernel import cgroups
from napctl.model.errors import BadInput, Unsupported

__all__ = ["in_group", "is_unit", "service_of", "unit_names"]


ENDINGS = (".service", ".scope", ".slice")
"""Of units that processes run in."""
CONTAINER = re.compile(r"(?:^|[-:])([0-9a-f]{64})(?:\.scope)?$")
"""docker-ID.scope, cri-containerd-ID.scope, crio-ID.scope, libpod-ID.scope; with the cgroupfs driver ID alone."""
MONITOR = "conmon"
"""libpod-conmon-ID.scope and crio-conmon-ID.scope hold the container's monitor, not the container."""


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
        raise BadInput(f"{text}: it ended meanwhile") from None
    if not pids:
        raise BadInput(f"{text}: no process runs in it")
    return sorted(pids)


def _unit(text: str, unit: str) -> list[str]:
    # What would look like one of the kernel's own files has "_" before it: cg_escape() in systemd's cgroup-util.c.
    found = cgroups.find(lambda name: name in (unit, f"_{unit}"))
    if not found:
        raise BadInput(f"{text}: no such unit, or it does not run: it has no control group")
    paths = [cgroups.path_of(each) for each in found]
    if len(paths) > 1:  # of several users
        ways = ", ".join(f"cgroup:{path}" for path in paths)
        raise BadInput(f"{text}: {len(paths)} units have that name; give one of {ways}")
    return paths


def _cgroup(text: str, path: str) -> list[str]:
    if cgroups.directory_of(path) is None:
        raise BadInput(f"{text}: no such control group")
    return [path]


def _container(text: str, beginning: str) -> list[str]:
    found = cgroups.find(lambda name: (_container_id(name) or "").startswith(beginning))
    ids = sorted({name for each in found if (name := _container_id(each.name)) is not None})
    if not ids:
        raise BadInput(f"{text}: no container runs here whose id begins so")
    if len(ids) > 1:
        raise BadInput(f"{text}: {len(ids)} containers have an id that begins so ({', '.join(ids)}); give more of it")
    return [cgroups.path_of(each) for each in found]


def _container_id(name: str) -> str | None:
    found = None if MONITOR in name else CONTAINER.search(name)
    return None if found is None else found[1]


def unit_names() -> list[str]:
    """Units that have a control group, in order."""
    return sorted({path.name.removeprefix("_") for path in cgroups.find(is_unit)})
