"""What the policy's address for metrics changes of the unit; and what does not."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from napctl.model.policy import MetricsPlace, Policy, ServiceEntry
from napctl.service import metrics_drop_in
from napctl.service.metrics_drop_in import (
    DAEMON_RELOAD,
    HANDED_ON,
    NAME,
    UNIT,
    MetricsReach,
    drop_in_of,
    lets_others_in,
    write_drop_in,
)
from napctl.service.policy_file import POLICY_PATH

GENERATOR = Path(__file__).parents[3] / "deploy/systemd/napctl-generator"
BEYOND = '[service]\nmetrics = "192.0.2.1:9811"\nmetrics-beyond-loopback = true\n'


def serving(**place: Any) -> Policy:
    return Policy(service=ServiceEntry(metrics=MetricsPlace(**place)))


CLOSED, OPEN = "127.0.0.0/8 ::1/128", "0.0.0.0/0 ::/0"
GENERATED = f"/run/systemd/generator/{NAME}"


def systemctl(directory: Path, allow: str, deny: str = OPEN, drop_ins: str = "") -> None:
    """What a systemd answers that has loaded the unit with these."""
    answers = directory / "systemctl"
    answers.write_text(f"#!/bin/sh\ntouch {directory}/asked\necho IPAddressAllow={allow}\necho IPAddressDeny={deny}\n"
                       f"echo DropInPaths={drop_ins}\n")  # fmt: skip
    answers.chmod(0o755)


def knowing(monkeypatch: pytest.MonkeyPatch, directory: Path, allow: str, deny: str = OPEN, drop_ins: str = "") -> None:
    """This process belongs to the unit, and has just started."""
    systemctl(directory, allow, deny, drop_ins)
    monkeypatch.setenv(HANDED_ON, "")
    monkeypatch.setenv("PATH", str(directory), prepend=os.pathsep)
    monkeypatch.setattr(metrics_drop_in, "group_of", lambda _pid: "/system.slice/napctl.service")


def closed(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """As the unit is."""
    knowing(monkeypatch, directory, CLOSED)


@pytest.mark.parametrize("address", ["192.0.2.1", "0.0.0.0", "2001:db8::1", "::"])
def test_metrics_for_other_machines_let_these_in(address: str) -> None:
    text = drop_in_of(serving(address=address, port=9811))
    assert text is not None
    assert text.splitlines()[1:] == ["[Service]", "IPAddressAllow=any"]


@pytest.mark.parametrize(
    "policy",
    [
        Policy(),
        serving(address="127.0.0.1", port=9811),
        serving(address="127.8.8.8", port=9811),
        serving(address="::1", port=9811),
        serving(textfile="/var/lib/prometheus/node-exporter/napctl.prom"),
    ],
)
def test_what_stays_on_this_machine_leaves_the_unit_as_it_is(
    policy: Policy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert drop_in_of(policy) is None
    closed(monkeypatch, tmp_path)
    assert MetricsReach(POLICY_PATH).reminder(policy.service.metrics) == ""


def generated(directory: Path, policy: str | None) -> "subprocess.CompletedProcess[str]":
    """As the generator runs it, but for where the policy stands."""
    path = directory / "policy.toml"
    if policy is not None:
        path.write_text(policy)
        path.chmod(0o644)
    code = (
        "import runpy, sys; from pathlib import Path; import napctl.service.policy_file as file; "
        f"file.POLICY_PATH = Path({str(path)!r}); sys.argv = ['', {str(directory)!r}]; "
        "runpy.run_module('napctl.service.metrics_drop_in', run_name='__main__')"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_it_is_written_where_systemd_looks_and_not_for_another_policy(tmp_path: Path) -> None:
    assert generated(tmp_path, BEYOND.replace("192.0.2.1", "127.0.0.1")).returncode == 0
    assert not (tmp_path / NAME).exists()
    assert generated(tmp_path, BEYOND).returncode == 0
    assert (tmp_path / NAME).exists()
    assert (tmp_path / NAME).read_text() == drop_in_of(serving(address="192.0.2.1", port=9811))


@pytest.mark.parametrize("policy", [None, BEYOND + "metrics = 1\n", "metrics-beyond-loopback = true\n"])
def test_a_policy_that_cannot_be_read_is_one_line_and_no_drop_in(policy: str | None, tmp_path: Path) -> None:
    ran = generated(tmp_path, policy)
    assert ran.returncode == 1
    assert ran.stderr.startswith("napctl-generator: metrics are for this machine alone: ")
    assert ran.stderr.count("\n") == 1
    assert not (tmp_path / NAME).exists()


def test_a_drop_in_directory_that_is_there_is_used(tmp_path: Path) -> None:
    (tmp_path / NAME.parent).mkdir()
    policy = tmp_path / "policy.toml"
    policy.write_text(BEYOND)
    policy.chmod(0o644)
    write_drop_in(tmp_path, policy)
    assert (tmp_path / NAME).exists()


def test_the_generator_can_be_run_and_never_fails(tmp_path: Path) -> None:
    assert os.access(GENERATOR, os.X_OK)
    ran = subprocess.run(["sh", "-u", GENERATOR, tmp_path], capture_output=True, text=True, check=False)
    assert ran.returncode == 0


HERE, BEYOND_IT = MetricsPlace(address="127.0.0.1", port=9811), MetricsPlace(address="192.0.2.1", port=9811)


def test_it_is_reminded_where_systemd_keeps_others_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    closed(monkeypatch, tmp_path)
    reach = MetricsReach(POLICY_PATH)
    assert reach.reminder(BEYOND_IT) == f"metrics: {DAEMON_RELOAD} 192.0.2.1; until then this one alone does"
    assert [reach.reminder(each) for each in (HERE, None)] == ["", ""]


@pytest.mark.parametrize(
    ("allow", "deny"),
    [(f"{CLOSED} {OPEN}", OPEN), (f"{CLOSED} 192.0.2.0/24", OPEN), ("2001:db8::7/128", OPEN), (CLOSED, "")],
    ids=["the generator's", "an administrator's", "one alone", "nothing is denied"],
)
def test_whoever_lets_others_in_is_not_reminded(
    allow: str, deny: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    knowing(monkeypatch, tmp_path, allow, deny)
    assert MetricsReach(POLICY_PATH).reminder(BEYOND_IT) == ""


def test_a_unit_that_runs_is_given_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After a daemon-reload systemd lets others in, and this process is still reached by nobody."""
    closed(monkeypatch, tmp_path)
    reach = MetricsReach(POLICY_PATH)
    assert DAEMON_RELOAD in reach.reminder(BEYOND_IT)
    systemctl(tmp_path, OPEN, drop_ins=GENERATED)
    assert DAEMON_RELOAD in reach.reminder(BEYOND_IT)


BY_HAND = f"/etc/systemd/system/{UNIT}.d/override.conf"


@pytest.mark.parametrize(("by", "reminded"), [(GENERATED, True), (BY_HAND, False)])
def test_a_policy_that_asks_for_it_later_has_its_drop_in_too_late_for_the_unit_that_runs(
    by: str, reminded: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever reloads systemd at once is reminded of the restart as well."""
    knowing(monkeypatch, tmp_path, OPEN, drop_ins=by)
    reach = MetricsReach(POLICY_PATH)
    assert reach.reminder(HERE) == ""
    assert (DAEMON_RELOAD in reach.reminder(BEYOND_IT)) is reminded


def test_systemd_is_asked_only_where_a_policy_serves_metrics_to_other_machines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    closed(monkeypatch, tmp_path)
    reach = MetricsReach(POLICY_PATH)
    assert [reach.reminder(each) for each in (None, HERE)] == ["", ""]
    assert not (tmp_path / "asked").exists()
    assert DAEMON_RELOAD in reach.reminder(BEYOND_IT)
    assert (tmp_path / "asked").exists()
    (tmp_path / "asked").unlink()
    assert DAEMON_RELOAD in reach.reminder(BEYOND_IT)
    assert not (tmp_path / "asked").exists(), "it is given nothing else"


EXECUTED_ANEW = """
import os, sys
from napctl.model.policy import MetricsPlace
from napctl.service import metrics_drop_in
metrics_drop_in.group_of = lambda pid: f"/system.slice/{metrics_drop_in.UNIT}"
reach = metrics_drop_in.MetricsReach(metrics_drop_in.POLICY_PATH)
for address in sys.argv[1].split():
    print(bool(reach.reminder(MetricsPlace(address=address, port=9811))), flush=True)
if len(sys.argv) > 2:
    os.replace(sys.argv[3], sys.argv[4])
    os.execv(sys.executable, [*sys.orig_argv[:-4], sys.argv[2]])
"""


@pytest.mark.parametrize(
    ("before", "since", "reminded"),
    [
        ("192.0.2.1", "192.0.2.1", ["True", "True"]),
        ("127.0.0.1", "192.0.2.1", ["False", "True"]),
        ("127.0.0.1", "127.0.0.1 192.0.2.1", ["False", "False", "True"]),
    ],
    ids=["asked before", "asked for since", "asked for later"],
)
def test_a_daemon_that_executes_itself_anew_knows_how_it_was_started(
    before: str, since: str, reminded: list[str], tmp_path: Path
) -> None:
    """As for an upgrade; systemd has been reloaded meanwhile, and this is still the process that nobody reaches."""
    systemctl(tmp_path, OPEN, drop_ins=GENERATED)
    now, later = tmp_path / "systemctl", tmp_path / "later"
    now.rename(later)
    systemctl(tmp_path, CLOSED)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        [sys.executable, "-c", EXECUTED_ANEW, before, since, later, now],
        env=os.environ | {"PATH": path}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stdout.split() == reminded


def test_of_a_policy_that_the_generator_does_not_read_something_else_is_true(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    closed(monkeypatch, tmp_path)
    words = MetricsReach(tmp_path / "policy.toml").reminder(BEYOND_IT)
    assert "daemon-reload" not in words
    assert words == (
        "metrics: the unit lets this machine alone reach 192.0.2.1; "
        "IPAddressAllow by `systemctl edit napctl`, and a restart, let others"
    )


def test_outside_of_the_unit_nobody_keeps_others_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    closed(monkeypatch, tmp_path)
    monkeypatch.setattr(metrics_drop_in, "group_of", lambda _pid: "/user.slice")
    assert MetricsReach(POLICY_PATH).reminder(BEYOND_IT) == ""


@pytest.mark.parametrize("script", ["exit 1", None])
def test_where_no_systemd_runs_nothing_keeps_others_out(
    script: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if script is not None:
        (tmp_path / "systemctl").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert lets_others_in()
