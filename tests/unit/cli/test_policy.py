"""napctl policy: it reads, writes and compares; what is wrong is one line, and what is there is not overwritten."""

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from napctl.cli.main import cli
from napctl.cli.policy import policy as group
from napctl.model.policy import Policy
from napctl.model.value import from_json
from napctl.service.policy_file import read_policy

PROGRAM = Path(sys.executable).with_name("napctl")


def napctl(*arguments: object, state: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "NAPCTL_STATE_DIR": str(state)}
    command = [str(PROGRAM), "policy", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(
        '[[attach]]\ntarget = "no-such-server-x"\nlatency-budget = "150us"\nsteer = true\n\n'
        '[[device]]\nname = "no-such-device"\ngoal = "latency"\ncoalescing.rx-usecs = 50\n\n'
        '[service]\nmetrics = "[::1]:9811"\n'
    )
    path.chmod(0o644)
    return path


def test_check_says_in_one_line_each_what_a_policy_means(file: Path, tmp_path: Path) -> None:
    done = napctl("check", file, state=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    first, *lines = done.stdout.splitlines()
    assert first == f"{file}: valid: 1 target, 1 device entry"
    text = re.sub(r"\s+", "", "".join(lines))  # long paths are folded
    for sentence in (
        "attach no-such-server-x: adapts to the least CPU within 150us, among interrupts and timers of 20us..200us;",
        f"connections steered by queue ({file}:1)",
        f"device no-such-device: goal latency; rx-usecs 50 ({file}:6)",
        "service: stopping it restores everything; its guard waits 60s; metrics at [::1]:9811",
    ):
        assert sentence.replace(" ", "") in text
    assert max(map(len, lines)) <= 80


def test_check_tells_of_drop_ins(file: Path, tmp_path: Path) -> None:
    directory = file.with_suffix(".d")
    directory.mkdir(mode=0o755)
    (directory / "10.toml").write_text('[[attach]]\ntarget = "other"\n')
    (directory / "10.toml").chmod(0o644)
    assert napctl("check", file, state=tmp_path).stdout.startswith(f"{file} and 1 drop-in: valid: 2 targets, ")


def test_check_prints_the_policy_as_json(file: Path, tmp_path: Path) -> None:
    done = napctl("check", file, "--json", state=tmp_path)
    assert from_json(done.stdout, Policy) == read_policy(file)


def test_what_is_not_there_is_waited_for_and_no_drift(file: Path, tmp_path: Path) -> None:
    done = napctl("drift", file, state=tmp_path / "state")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"waiting: no-such-server-x: no process has that name ({file}:1)",
        f"waiting: no-such-device: there is no such device ({file}:6)",
        "as the policy wants it",
    ]
    found = json.loads(napctl("drift", file, "--json", state=tmp_path / "state").stdout)
    assert (found["schema"], found["differences"], len(found["waiting"])) == (1, [], 2)
    assert napctl("diff", file, state=tmp_path / "state").stdout.splitlines()[-1] == "nothing to change"
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("command", ["check", "drift", "diff"])
def test_a_wrong_policy_is_one_line_with_its_place_and_status_2(command: str, file: Path, tmp_path: Path) -> None:
    file.write_text('[[attach]]\ntarget = "x"\nlatency-bugdet = "150us"\n')
    done = napctl(command, file, state=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"napctl: {file}:3: latency-bugdet: there is no such key; did you mean latency-budget?\n"


def test_init_writes_a_policy_that_check_reads_and_never_over_one(tmp_path: Path) -> None:
    path = tmp_path / "new.toml"
    done = napctl("init", "--output", path, state=tmp_path / "state")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"napctl policy check {path}" in done.stdout
    assert path.stat().st_mode & 0o777 == 0o644
    assert napctl("check", path, state=tmp_path).returncode == 0
    text = path.read_text()
    again = napctl("init", "--output", path, state=tmp_path / "state")
    assert again.returncode == 2
    assert "it is there already, and is not overwritten" in again.stderr
    assert path.read_text() == text
    assert napctl("init", "--output", "-", state=tmp_path / "state").stdout == text


def test_init_into_a_directory_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = napctl("init", "--output", tmp_path / "no" / "p.toml", state=tmp_path / "state")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("command", ["init", "check", "drift", "diff"])
def test_each_command_has_an_example_and_fits_80_columns(command: str) -> None:
    with click.Context(cli, info_name="napctl") as top, click.Context(group, top, info_name="policy") as above:
        each = group.commands[command]
        shown = each.get_help(click.Context(each, above, info_name=command))
    assert f"  napctl policy {command}" in shown.partition("Example")[2]
    assert max(map(len, shown.splitlines())) <= 80


def test_files_are_completed() -> None:
    found = ShellComplete(cli, {}, "napctl", "_NAPCTL_COMPLETE").get_completions(["policy", "check"], "/etc/na")
    assert [each.type for each in found] == ["file"]
