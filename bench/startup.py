"""Time of whole commands: to the first sample, against bpftrace; `status`, `plan` and `apply` with 64 queues."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.probecost import ONE_LINER
from napctl.lab.bed import Lab

ROUNDS = 9
NAPCTL = str(Path(sys.executable).with_name("napctl"))
SAMPLE_SECONDS = 0.01


def first_sample() -> None:
    """napctl's first sample against bpftrace's, in turn."""
    ours = [NAPCTL, "watch", "--json", "--interval", str(SAMPLE_SECONDS), "--seconds", str(SAMPLE_SECONDS)]
    printing = f'interval:ms:{SAMPLE_SECONDS * 1000:.0f} {{ print(@); printf("sample\\n"); exit(); }}'
    theirs = ["bpftrace", "-e", f"{ONE_LINER} {printing}"]
    times = [(_seconds(ours), _seconds(theirs)) for _ in range(ROUNDS)]
    ratios = sorted(a / b for a, b in times)
    print(f"start to first sample of {SAMPLE_SECONDS * 1000:.0f} ms, s: median of {ROUNDS} pairs (least-most)")
    for name, column in (("napctl", [a for a, _ in times]), ("bpftrace", [b for _, b in times])):
        print(f"  {name:<9} {median(column):.2f} ({min(column):.2f}-{max(column):.2f})")
    print(f"  napctl / bpftrace: {median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})")
    print("  (bound: 0.5)")


def status() -> None:
    """`napctl status` of a device with 64 queues, against the interpreter alone."""
    with Lab.build(queues=64) as lab, lab.server.namespace.entered():
        pairs = [(_seconds([NAPCTL, "status"]), _seconds([sys.executable, "-c", ""])) for _ in range(ROUNDS)]
    column = [a for a, _ in pairs]
    print(f"napctl status with 64 queues, s: median of {ROUNDS} runs (least-most)")
    print(
        f"  napctl    {median(column):.2f} ({min(column):.2f}-{max(column):.2f}), of which Python's own start ", end=""
    )
    print(f"{median(b for _, b in pairs):.2f}")
    print("  (bound: 0.5)")


def apply() -> None:
    """`plan`, `apply` and `rollback` of deferral on 64 NAPI instances, against `status` of the same device."""
    with tempfile.TemporaryDirectory() as directory, Lab.build(queues=64) as lab, lab.server.namespace.entered():
        os.environ["NAPCTL_STATE_DIR"] = directory
        file = f"{directory}/plan.toml"
        commands = {
            "plan": ["plan", lab.server.device, "--window", "0", "--output", file],
            "apply": ["apply", file],
            "rollback": ["rollback"],
            "status": ["status"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(ROUNDS):
            for name, command in commands.items():
                times[name].append(_seconds([NAPCTL, *command]))
    print(f"deferral on 64 NAPI instances, s: median of {ROUNDS} rounds (least-most)")
    for name, column in times.items():
        ratio = median(ours / status for ours, status in zip(column, times["status"], strict=True))
        print(f"  {name:<9} {median(column):.2f} ({min(column):.2f}-{max(column):.2f}), {ratio:.1f} x status")


def _seconds(command: list[str]) -> float:
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - start
