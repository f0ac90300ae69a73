"""What a follower costs: CPU time, looks, and the BPF programs that it loads."""

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napctl.kernel.cpu_time import clock_seconds
from tests.lab.following import Following
from tests.lab.helpers import until

CALLS = "trace=openat,bpf"


class Cost:
    """CPU seconds and deep looks of a follower, and the BPF programs that it loads, from now on."""

    def __init__(self, it: Following, trace: Path):
        self._pid = it.pid
        self._trace, self._at = trace, len(trace.read_bytes())
        self._began, self._used = time.monotonic(), self._cpu()

    def _cpu(self) -> float:
        """Of all its threads, also those that have ended."""
        return clock_seconds(self._pid)

    @property
    def share(self) -> float:
        """Of one CPU."""
        return (self._cpu() - self._used) / (time.monotonic() - self._began)

    @property
    def reads(self) -> int:
        """How often it read what an epoll instance watches."""
        return len(re.findall(r"fdinfo/\d+", self._since()))

    @property
    def looks(self) -> int:
        """At memcached with one worker: it has two epoll instances."""
        return self.reads // 2

    @property
    def long_looks(self) -> int:
        """At how threads wait, each of which loads the same programs."""
        return _long_looks(self._since())

    @property
    def programs(self) -> int:
        return self._since().count("BPF_PROG_LOAD")

    def _since(self) -> str:
        return self._trace.read_bytes()[self._at :].decode()


@contextmanager
def traced_from_now(pid: int, trace: Path) -> Iterator[Path]:
    """A process that runs already, while the context lasts."""
    trace.touch()
    with subprocess.Popen(["strace", "-f", "-qq", "-o", trace, "-e", CALLS, "-p", str(pid)]) as strace:
        until(lambda: "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text(), "strace")
        try:
            yield trace
        finally:
            strace.terminate()


def _long_looks(text: str) -> int:
    return len(re.findall('prog_name="on_entry"', text))


def long_looks_in(trace: Path) -> int:
    """From its start on."""
    return _long_looks(trace.read_bytes().decode())


def traced(trace: Path) -> list[str]:
    return ["strace", "--seccomp-bpf", "-f", "-qq", "-o", str(trace), "-e", CALLS]
