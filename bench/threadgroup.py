"""Where a NAPI thread stands best, where the CPU controller is on: in the root group with a nice value, or in a control
group with a weight.

    python -m bench.threadgroup [--seconds S]

All of the receiver is on one CPU, with dear packets, as in bench.overload. The server is in a unit of a slice, both of
weight 100, as systemd makes them; beside it, in a unit of its own, a program that never waits. A slice whose programs
are busy on many CPUs has its weight divided among them: "of 32 CPUs" gives it what it has on one of these.
Goodput in % of the peak of a softirq without the program. It needs a hierarchy of control groups with the CPU
controller on: makes groups of its own there, and removes them.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from napctl.lab.bed import Lab
from napctl.lab.flood import AS_SOFTIRQ, FloodSpec, flood, make_packets_dear, peak_per_second, udp_server
from napctl.model.errors import Unsupported

ORDINARY = 100
"""The weight of a group of which nobody has said anything."""
CPUS = (1, 32)
PLACES = ("softirq", "nice 0", "nice 19", "weight 1", "weight 10", "weight 100")
SITUATIONS = (("4x", 4.0, False), ("0.5x, program", 0.5, True), ("4x, program", 4.0, True))


@dataclass(frozen=True)
class Group:
    """A control group of the CPU controller, of version 1 or 2."""

    path: Path
    version: int

    def put(self, pid: int) -> None:
        """A thread of the kernel, or a process."""
        (self.path / "cgroup.procs").write_text(str(pid))

    def weigh(self, weight: float) -> None:
        """By the measure of version 2, whose weight 100 is the 1024 shares of version 1."""
        if self.version == 1:
            (self.path / "cpu.shares").write_text(str(max(2, round(weight * 1024 / ORDINARY))))
        else:
            (self.path / "cpu.weight").write_text(str(max(1, round(weight))))

    @contextmanager
    def below(self, name: str) -> Iterator["Group"]:
        """A new group; what is in it at the end is put back here."""
        found = Group(self.path / name, self.version)
        if self.version == 2 and "cpu" not in (self.path / "cgroup.subtree_control").read_text().split():
            (self.path / "cgroup.subtree_control").write_text("+cpu")
        found.path.mkdir()
        try:
            yield found
        finally:
            for pid in (found.path / "cgroup.procs").read_text().split():
                root_of(found).put(int(pid))
            found.path.rmdir()


def root() -> Group:
    """Raises Unsupported where the CPU controller is off: a group could have no weight."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup" and "cpu" in options.split(","):
            return Group(Path(where), 1)
        if kind == "cgroup2" and "cpu" in (Path(where) / "cgroup.subtree_control").read_text().split():
            return Group(Path(where), 2)
    raise Unsupported("no hierarchy of control groups has the CPU controller on")


def root_of(group: Group) -> Group:
    """To which everything may go."""
    found = root()
    assert group.path.is_relative_to(found.path)
    return found


@contextmanager
def busy_program(cpu: int, group: Group) -> Iterator[None]:
    """One that never waits."""
    with subprocess.Popen(["setsid", sys.executable, "-c", "while True: pass"]) as spinning:
        os.setpriority(os.PRIO_PROCESS, spinning.pid, 0)
        os.sched_setaffinity(spinning.pid, {cpu})
        group.put(spinning.pid)
        try:
            yield
        finally:
            spinning.kill()


def place(thread_pid: int, where: str, packets: Group) -> None:
    kind, _, value = where.partition(" ")
    if kind == "weight":
        packets.weigh(float(value))
        packets.put(thread_pid)
        nice = 0
    else:
        root().put(thread_pid)
        nice = AS_SOFTIRQ if kind == "softirq" else int(value)
    os.setpriority(os.PRIO_PROCESS, thread_pid, nice)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    with ExitStack() as undo:
        of_all = undo.enter_context(root().below(f"napctl-bench-{os.getpid()}.slice"))
        unit, beside = (undo.enter_context(of_all.below(name)) for name in ("server.service", "beside.service"))
        packets = undo.enter_context(root().below(f"napctl-bench-{os.getpid()}-packets"))
        lab = undo.enter_context(Lab.build(server_cpu=1, client_cpu=0))
        server = undo.enter_context(udp_server(lab, waits_in="epoll"))
        unit.put(server.pid)
        make_packets_dear(lab.server)
        (napi,) = lab.server.napis()
        assert napi.thread_pid is not None
        undo.callback(place, napi.thread_pid, "nice 0", packets)
        place(napi.thread_pid, "softirq", packets)
        peak = peak_per_second(lab, past_stack=True)
        print(f"goodput in % of the peak of a softirq, {peak:,.0f}/s")
        print(f"{'the thread':<12}" + "".join(f"{f'{name}, {cpus}':>20}" for cpus in CPUS for name, _, _ in SITUATIONS))
        for where in PLACES:
            found = []
            for cpus in CPUS:
                of_all.weigh(ORDINARY / cpus)
                place(napi.thread_pid, where, packets)
                for _, times, with_program in SITUATIONS:
                    with busy_program(lab.server.cpu, beside) if with_program else ExitStack():
                        time.sleep(0.3)
                        spec = FloodSpec(rate_per_second=times * peak, seconds=options.seconds, past_stack=True)
                        found.append(flood(lab, spec).answered_per_second(1.0) / peak)
            print(f"{where:<12}" + "".join(f"{100 * each:>20.0f}" for each in found), flush=True)


if __name__ == "__main__":
    main()
