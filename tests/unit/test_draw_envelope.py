"""scripts/draw-envelope: a picture for documents, from any run's directory."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.unit import runs

SCRIPT = Path(__file__).parents[2] / "scripts/draw-envelope"
SVG = "{http://www.w3.org/2000/svg}"


def test_it_draws_each_treatment_in_both_panels_and_says_where_it_comes_from(tmp_path: Path) -> None:
    run = runs.run()
    directory = runs.written(tmp_path / "run", run).path
    done = subprocess.run(
        [sys.executable, SCRIPT, directory, "--machine", "A machine of mine"],
        capture_output=True,
        text=True,
        check=True,
    )
    root = ET.fromstring(done.stdout)
    words = [each.text or "" for each in root.iter(f"{SVG}text")]
    assert {"interrupts", "suspend 20 µs", "suspend 200 µs", "p99, µs", "CPU, %"} <= set(words)
    assert any("A machine of mine, Linux " in each for each in words)
    assert any(each.startswith("napctl compare base ") for each in words)
    lines = [each for each in root.iter(f"{SVG}path") if each.get("class") == "line"]
    assert len(lines) == 3 * len(run.config.treatments), "in the legend and in both panels"
    assert "prefers-color-scheme: dark" in done.stdout


def test_the_command_under_a_run_of_the_demo_is_the_demo(tmp_path: Path) -> None:
    """Its load at rest has no rate that a command line could name."""
    directory = runs.written(tmp_path / "run", runs.demo()).path
    done = subprocess.run([sys.executable, SCRIPT, directory], capture_output=True, text=True, check=True)
    assert "napctl demo --rounds 8 --seconds 10<" in done.stdout
