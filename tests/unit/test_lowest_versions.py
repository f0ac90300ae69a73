"""The lower bounds that pyproject.toml declares are true: the command line runs with the lowest versions of all."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture(scope="module")
def lowest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the lowest version of each dependency, and what those need."""
    declared = tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
    exact = [re.sub(r">=(.*)", r"==\1", each) for each in declared]
    assert all("==" in each for each in exact), declared
    target = tmp_path_factory.mktemp("lowest")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(target), *exact]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"the lowest versions cannot be installed: {said}")
    return target


@pytest.mark.parametrize(
    "command",
    ["--version", "status --help", "attach --help", "plan --help", "compare --help", "watch --help", "history"],
)
def test_the_command_line_runs_with_the_lowest_versions_of_all(command: str, lowest: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(lowest), "NAPCTL_STATE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "napctl", *command.split()], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
