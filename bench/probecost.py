"""Cost of a NAPI poll under our probe and under bpftrace's one-liner, above an empty program: same events, same run."""

import ctypes
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from napctl.lab.bed import Lab
from napctl.lab.load import LoadSpec, started
from napctl.lab.servers import memcached
from napctl.probe import Probe
from napctl.probe.libbpf import BpfObject

ONE_LINER = "tracepoint:napi:napi_poll { @[args->work] = count(); }"
BPF_STATS_RUN_TIME = 0
TRACEPOINT = "5"  # BPF_PROG_TYPE_TRACEPOINT, what bpftrace loads
ROUNDS = 7
libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)


def run() -> None:
    """Print the cost per poll of each, and ours net of the empty program as a part of bpftrace's."""
    with ExitStack() as stack:
        stack.enter_context(statistics())
        lab = stack.enter_context(Lab.build())
        server = stack.enter_context(memcached(lab))
        probe = stack.enter_context(Probe.load())
        least = stack.enter_context(floor())
        bpftrace = stack.enter_context(_bpftrace())
        names = ("nothing", "one_counter")
        programs = {
            **{name: least[name] for name in names},
            "napctl": probe.prog_fds()["on_napi_poll"],
            "bpftrace": bpftrace,
        }
        rows = []
        for seed in range(1, ROUNDS + 1):
            spec = LoadSpec(rate_per_second=20_000, seconds=1.0, warmup_seconds=0.3, seed=seed)
            with started(lab, server, spec) as load:
                load.wait_for_warmup()
                before = {name: totals(fd) for name, fd in programs.items()}
                time.sleep(spec.seconds)
                after = {name: totals(fd) for name, fd in programs.items()}
                load.result()
            rows.append({name: _cost(before[name], after[name]) for name in programs})
    print(f"cost per NAPI poll, ns: median of {ROUNDS} runs (least-most); all attached to the same events")
    for name in programs:
        costs = sorted(row[name] for row in rows)
        print(f"  {name:<12} {median(costs):6.1f} ({costs[0]:.1f}-{costs[-1]:.1f})")
    print("net of the empty program, as a part of bpftrace's net cost (aim: 0.1)")
    for name in ("napctl", "one_counter"):
        ratios = sorted((row[name] - row["nothing"]) / (row["bpftrace"] - row["nothing"]) for row in rows)
        print(f"  {name:<12} {median(ratios):6.3f} ({ratios[0]:.3f}-{ratios[-1]:.3f})")


def totals(fd: int) -> tuple[int, int]:
    """(run time in ns, runs) of a program, by the kernel's own count."""
    words = dict(
        line.split(":\t") for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines() if ":\t" in line
    )
    return int(words["run_time_ns"]), int(words["run_cnt"])


def _cost(before: tuple[int, int], after: tuple[int, int]) -> float:
    return (after[0] - before[0]) / (after[1] - before[1])


@contextmanager
def statistics() -> Iterator[None]:
    """The kernel times BPF programs while this descriptor is open; the sysctl stays untouched."""
    fd = libbpf.bpf_enable_stats(BPF_STATS_RUN_TIME)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "bpf_enable_stats")
    try:
        yield
    finally:
        os.close(fd)


@contextmanager
def floor() -> Iterator[dict[str, int]]:
    """An empty program, and one that only increments one variable: less than that no counting can cost."""
    program = compiled("floor")
    try:
        program.load()
        program.attach()
        yield program.program_fds()
    finally:
        program.close()


def compiled(name: str) -> BpfObject:
    """A BPF program of the benches, by its source's name."""
    source = Path(__file__).with_name(f"{name}.bpf.c")
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / f"{name}.bpf.o"
        subprocess.run(["clang", "-O2", "-g", "-target", "bpf", "-c", str(source), "-o", str(target)], check=True)
        return BpfObject.open(target.read_bytes(), name)


@contextmanager
def _bpftrace() -> Iterator[int]:
    """The descriptor of the program that bpftrace loads for the one-liner."""
    before = set(_program_ids())
    with subprocess.Popen(["bpftrace", "-e", ONE_LINER], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            yield _wait_for_program(before)
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)


def _wait_for_program(before: set[int]) -> int:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for number in set(_program_ids()) - before:
            fd = int(libbpf.bpf_prog_get_fd_by_id(number))
            if fd >= 0 and f"prog_type:\t{TRACEPOINT}\n" in Path(f"/proc/self/fdinfo/{fd}").read_text():
                time.sleep(1)  # loaded is not yet attached
                return fd
        time.sleep(0.05)
    raise TimeoutError("bpftrace did not load its program")


def _program_ids() -> Iterator[int]:
    number = ctypes.c_uint32(0)
    while libbpf.bpf_prog_get_next_id(number, ctypes.byref(number)) == 0:
        yield number.value
