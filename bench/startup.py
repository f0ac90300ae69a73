"""Time of whole commands: to the first sample, against bpftrace; and `status` of a device with 64 queues."""

import subprocess
import sys
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


def _seconds(command: list[str]) -> float:
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - start
