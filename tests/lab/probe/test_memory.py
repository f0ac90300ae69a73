"""What a probe that is open takes of this process's memory."""

import re
from pathlib import Path

import pytest

from napctl.probe import Probe
from napctl.probe.latency import LatencyProbe
from napctl.probe.suspension import SuspensionProbe

pytestmark = pytest.mark.lab


def resident_kb(name: str) -> int:
    """Of all that is mapped from such a file."""
    found, is_it = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match("[0-9a-f]+-", line):
            is_it = name in line
        elif is_it and line.startswith("Rss:"):
            found += int(line.split()[1])
    return found


def test_its_counters_are_there_once_and_libbpf_keeps_no_copy_of_them() -> None:
    with Probe.load() as polls, SuspensionProbe.load(), LatencyProbe.load([]):
        assert resident_kb("anon_inode:bpf-map") > 5000
        assert resident_kb("/dev/zero") < 100
        assert polls.read().cpus
