"""A CPU that packets take stands first in what watch says; a calm machine is not spoken of."""

import pytest
from msgspec.structs import replace

from napctl.cli.watch import show
from tests.unit.doctor.checkups import checkup, row
from tests.unit.doctor.test_overload import load


def test_an_overloaded_cpu_stands_at_the_top(capsys: pytest.CaptureFixture[str]) -> None:
    window = checkup(row(softirq={1: 10})).window
    show(replace(window, packet_load=load(0.97, 0.1, late=12_000.0)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "CPU 0 overloaded: packets take 97 %, threads waited 90 % of the time, 12,000/s"
    assert lines[2].startswith("  dropped after the stack worked on them")
    assert all(len(line) <= 80 for line in lines)
    show(window)
    show(replace(window, packet_load=None))
    assert "CPU 0" not in capsys.readouterr().out
