"""NAPI threads of the whole machine, whatever network namespace their devices are in: what they ran, and where."""

from napctl.kernel.napi_threads import THREAD_NAME
from napctl.kernel.processes import PROC, last_cpu, look, pids
from napctl.kernel.schedstat import turns
from napctl.model.overload import PacketThread

__all__ = ["NapiThreads"]


CHILDREN = PROC / "2/task/2/children"
KTHREADD = PROC / "2/comm"
RAN_NS = 1_000_000
"""Of less it does not matter where it was."""


class NapiThreads:
    """Finds them again and again, cheaply: a kernel thread's name is read once."""

    def __init__(self) -> None:
        self._known: dict[int, str | None] = {}
        """Kernel threads by pid; the name of those that are NAPI threads."""
        self._last: dict[int, PacketThread] = {}

    def read(self) -> tuple[PacketThread, ...] | None:
        """All that are there now; None where kernel threads cannot be seen, as in a PID namespace of its own."""
        there = _kernel_threads()
        if there is None:
            return None
        for pid in there - self._known.keys():
            seen = look(pid)
            is_napi = seen is not None and seen.is_kernel_thread and seen.process.name.startswith(THREAD_NAME)
            self._known[pid] = seen.process.name if seen is not None and is_napi else None
        self._known = {pid: name for pid, name in self._known.items() if pid in there}
        found = [self._thread(pid, name) for pid, name in self._known.items() if name is not None]
        self._last = {each.pid: each for each in found if each is not None}
        return tuple(self._last.values())

    def _thread(self, pid: int, name: str) -> PacketThread | None:
        times = turns(pid)
        if times is None:
            return None
        before = self._last.get(pid)
        ran = times.ran_ns - before.ran_ns if before is not None else RAN_NS
        cpu = before.cpu if before is not None and 0 <= ran < RAN_NS else last_cpu(pid, pid)
        return PacketThread(pid=pid, name=name, cpu=cpu, ran_ns=times[0], waited_ns=times[1])


def _kernel_threads() -> set[int] | None:
    """Pids of the children of kthreadd; on kernels without CONFIG_PROC_CHILDREN of all processes."""
    try:
        if KTHREADD.read_bytes() != b"kthreadd\n":
            return None
    except OSError:  # also where /proc is mounted with hidepid
        return None
    try:
        return {int(word) for word in CHILDREN.read_bytes().split()}
    except FileNotFoundError:
        return set(pids())
