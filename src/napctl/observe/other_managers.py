"""Which other managers run on this machine, and what they touch."""

from contextlib import suppress
from pathlib import Path

from napctl.kernel import cgroups, processes
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.processes import Process
from napctl.model.other_manager import KNOWN_MANAGERS, KnownManager, OtherManager, Touch
from napctl.observe.manager_files import FILES_OF

__all__ = ["other_managers"]


ROOT = Path("/")
BY_COMM = {each.comm: each for each in KNOWN_MANAGERS}


def other_managers(netns: NetworkNamespace) -> tuple[OtherManager, ...]:
    """Those that set devices of this network namespace, in the order of the table; each once."""
    found: dict[str, OtherManager] = {}
    for process in processes.processes():
        known = BY_COMM.get(process.name)
        if known is None or known.name in found or not _is(known, process) or not _reaches(known, process, netns):
            continue
        touches = (*(Touch(what=what) for what in known.always), *dict.fromkeys(FILES_OF[known.name](ROOT)))
        if touches or not known.everywhere:
            found[known.name] = OtherManager(name=known.name, pid=process.pid, how=known.how, touches=touches)
    return tuple(found[each.name] for each in KNOWN_MANAGERS if each.name in found)


def _is(known: KnownManager, process: Process) -> bool:
    """Anybody can call his process so: it is in the system's unit, or root's and executed from such a program."""
    if cgroups.group_of(process.pid) == f"/system.slice/{known.unit}":
        return True
    proc = processes.PROC / str(process.pid)
    with suppress(OSError):
        program = (proc / "exe").readlink().name.removesuffix(" (deleted)")
        return program in known.programs and proc.stat().st_uid == 0
    return False


def _reaches(known: KnownManager, process: Process, netns: NetworkNamespace) -> bool:
    """Interrupts are of the whole machine; devices are set by who is in their network namespace."""
    if "interrupt affinity" in known.always:
        return True
    with suppress(OSError):
        return (processes.PROC / str(process.pid) / "ns/net").stat().st_ino == netns.inode
    return False
