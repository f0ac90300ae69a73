"""Promises of what is shipped: man pages that say what --help says, and a wheel that holds all that napctl needs."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from napctl.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]


def test_the_man_pages_say_what_the_help_texts_say(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "scripts" / "build-man", tmp_path], check=True, capture_output=True)
    fresh = {page.name: page.read_text() for page in tmp_path.glob("*.1")}
    shipped = {page.name: page.read_text() for page in (ROOT / "man").glob("*.1")}
    assert fresh == shipped, "run `make man`"


@pytest.mark.heavy
def test_every_command_has_a_man_page_that_man_can_read() -> None:
    for name in ("napctl", *(f"napctl-{command}" for command in COMMANDS)):
        page = ROOT / "man" / f"{name}.1"
        read = subprocess.run(
            ["man", "--warnings", "-l", page],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | {"MANPAGER": "cat", "LC_ALL": "C.UTF-8"},
        )
        assert "SYNOPSIS" in read.stdout


def test_the_debian_package_has_the_projects_version_and_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    changelog = (ROOT / "debian/changelog").read_text()
    control = (ROOT / "debian/control").read_text()
    binary = control[control.index("Package: napctl\n") :]

    assert changelog.startswith(f"napctl ({project['version']}) ")
    for dependency in project["dependencies"]:
        name = re.split("[^a-z0-9-]", dependency)[0]
        assert f" python3-{name},\n" in binary
        assert f" python3-{name},\n" in control.removesuffix(binary), f"{name}: the build prints completions"


def test_the_guard_is_confined_as_the_service_is() -> None:
    service, guard = (
        set((ROOT / f"deploy/systemd/{name}.service").read_text().splitlines()) for name in ("napctl", "napctl-guard")
    )
    own = {
        "Description=Restores what a killed napctl.service left, if that does not come back in time",
        "# As long as the disk is full, it cannot watch; then it can.",
        "Type=notify",
        "ExecStart=/usr/bin/napctl guard",
        "# As napctl.service has it.",
    }
    assert guard - service == own
    assert {
        each.partition("=")[0] for each in service - guard if each.startswith(("Protect", "Restrict", "System"))
    } == set()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        target,
        ROOT,
    ]
    subprocess.run(pip, check=True, capture_output=True)
    (built,) = target.glob("*.whl")
    return built


@pytest.mark.heavy
@pytest.mark.xdist_group("wheel")
def test_the_wheel_holds_the_probe_the_load_generator_the_types_and_the_man_pages(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    needed_files = (
        "napctl/probe/napi.bpf.o",
        "napctl/probe/waits.bpf.o",
        "napctl/probe/suspension.bpf.o",
        "napctl/report/page/page.html",
        "napctl/report/page/style.css",
        "napctl/lab/openloop.c",
        "napctl/py.typed",
        "man1/napctl-attach.1",
    )
    for needed in needed_files:
        assert any(name.endswith(needed) for name in names), needed


@pytest.mark.heavy
@pytest.mark.xdist_group("wheel")
def test_napctl_runs_from_the_unpacked_wheel(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = f"import napctl, napctl.cli.main as m; assert napctl.__file__.startswith({str(tmp_path)!r}); m.run()"
    shown = subprocess.run(
        [sys.executable, "-c", code, "--version"],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert shown.stdout.startswith("napctl, version")
