"""The bounds of pyproject.toml are true: napctl runs with the oldest packages that they allow, and with Debian 13's."""

import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from napctl.experiment.run_directory import RunDirectory
from tests.unit import runs
from tests.unit.cli.test_main import PROGRAM

pytestmark = [pytest.mark.heavy, pytest.mark.xdist_group("packages")]
ROOT = Path(__file__).parents[2]
Ran = subprocess.CompletedProcess[str]


def oldest() -> tuple[str, ...]:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return tuple(each.replace(">=", "==") for each in declared)


DEBIAN_13 = ("click==8.1.8", "jinja2==3.1.6", "msgspec==0.19.0", "prometheus-client==0.21.1", "rich==13.9.4")
"""packages.debian.org: python3-click, python3-jinja2, python3-msgspec, python3-prometheus-client, python3-rich of
trixie."""


@pytest.fixture(scope="module", params=[oldest(), DEBIAN_13], ids=["the oldest", "Debian 13"])
def packages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...]]:
    """A directory of such packages, which is kept in the virtual environment: 10 s once, for each set."""
    wanted: tuple[str, ...] = request.param
    name = hashlib.sha256(" ".join((*wanted, sys.version)).encode()).hexdigest()[:16]
    kept = Path(sys.prefix) / "packages" / name
    if not kept.exists():
        making = tmp_path_factory.mktemp("packages")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", str(making), *wanted]
        done = subprocess.run(pip, capture_output=True, text=True, timeout=110, check=False)
        if done.returncode and os.environ.get("CI") != "true":
            pytest.skip(f"pip cannot install {', '.join(wanted)}: {done.stderr.strip().splitlines()[-1]}")
        assert not done.returncode, done.stderr
        kept.parent.mkdir(exist_ok=True)
        subprocess.run(["cp", "-a", "--no-target-directory", making, f"{kept}.{os.getpid()}"], check=True)
        if not kept.exists():
            Path(f"{kept}.{os.getpid()}").rename(kept)
    return kept, wanted


@pytest.fixture
def napctl(packages: tuple[Path, tuple[str, ...]], tmp_path: Path) -> Callable[..., Ran]:
    environment = os.environ | {"PYTHONPATH": str(packages[0]), "NAPCTL_STATE_DIR": str(tmp_path / "state")}

    def run(*arguments: object, **added: str) -> Ran:
        return subprocess.run(
            [PROGRAM, *map(str, arguments)], env=environment | added, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip

    return run


def test_it_is_these_packages_that_are_used(packages: tuple[Path, tuple[str, ...]]) -> None:
    program = (
        "import json, sys; from importlib.metadata import version; print(json.dumps(list(map(version, sys.argv[1:]))))"
    )
    names = [each.partition("==")[0] for each in packages[1]]
    done = subprocess.run(
        [sys.executable, "-c", program, *names], env=os.environ | {"PYTHONPATH": str(packages[0])}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    for found, wanted in zip(json.loads(done.stdout), packages[1], strict=True):
        exact = wanted.partition("==")[2]
        assert re.fullmatch(rf"{re.escape(exact)}(\.0)*", found), wanted


EXPLAIN = """
from click.testing import CliRunner
from napctl.cli.main import COMMANDS, cli
for command in COMMANDS:
    done = CliRunner().invoke(cli, [command, "--help"])
    assert done.exit_code == 0 and "Example" in done.output, (command, done.output, done.exception)
"""


def test_every_command_explains_itself(packages: tuple[Path, tuple[str, ...]]) -> None:
    environment = os.environ | {"PYTHONPATH": str(packages[0])}
    done = subprocess.run([sys.executable, "-c", EXPLAIN], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_tables_pages_json_plans_and_completion_work(napctl: Callable[..., Ran], tmp_path: Path) -> None:
    directory = runs.written(tmp_path / "run", runs.run()).path
    for done in (
        napctl("status"),
        napctl("history"),
        napctl("report", directory),
        napctl("report", directory, "--json"),
        napctl("completion", "bash"),
    ):
        assert (done.returncode, done.stderr) == (0, ""), done.args
    assert (directory / "report.html").read_text().startswith("<!DOCTYPE html>")
    words = napctl(
        _NAPCTL_COMPLETE="bash_complete",
        COMP_LINE="napctl sta",
        COMP_POINT="10",
        COMP_WORDS="napctl sta",
        COMP_CWORD="1",
    )
    assert words.stdout == "plain,status\n"


def test_mistakes_are_one_line_of_our_own(napctl: Callable[..., Ran], tmp_path: Path) -> None:
    broken = tmp_path / "plan.toml"
    broken.write_text("goal = [\n")
    run = RunDirectory(tmp_path / "run")
    runs.written(run.path, runs.run())
    (run.path / "config.json").write_text("{")
    for arguments, said in (
        (("stat",), "No such command 'stat'"),
        (("status", "--window", "1parsec"), "No such option"),
        (("watch", "--seconds", "long"), "--seconds"),
        (("apply", broken), "plan.toml"),
        (("report", run.path), "this is no JSON"),
    ):
        done = napctl(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert done.stderr.startswith("napctl: "), arguments
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
