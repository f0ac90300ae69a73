"""What the policy's address for metrics changes of the unit; and what does not."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from napctl.model.policy import MetricsPlace, Policy, ServiceEntry
from napctl.service.metrics_drop_in import NAME, drop_in_of, is_generated, reload_reminder, write_drop_in

GENERATOR = Path(__file__).parents[3] / "deploy/systemd/napctl-generator"
BEYOND = '[service]\nmetrics = "192.0.2.1:9811"\nmetrics-beyond-loopback = true\n'


def serving(**place: Any) -> Policy:
    return Policy(service=ServiceEntry(metrics=MetricsPlace(**place)))


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
def test_what_stays_on_this_machine_leaves_the_unit_as_it_is(policy: Policy) -> None:
    assert drop_in_of(policy) is None
    assert reload_reminder(policy.service.metrics) == ""


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
    assert not is_generated(tmp_path)
    assert generated(tmp_path, BEYOND).returncode == 0
    assert is_generated(tmp_path)
    assert (tmp_path / NAME).read_text() == drop_in_of(serving(address="192.0.2.1", port=9811))


@pytest.mark.parametrize("policy", [None, BEYOND + "metrics = 1\n", "metrics-beyond-loopback = true\n"])
def test_a_policy_that_cannot_be_read_is_one_line_and_no_drop_in(policy: str | None, tmp_path: Path) -> None:
    ran = generated(tmp_path, policy)
    assert ran.returncode == 1
    assert ran.stderr.startswith("napctl-generator: metrics are for this machine alone: ")
    assert ran.stderr.count("\n") == 1
    assert not is_generated(tmp_path)


def test_a_drop_in_directory_that_is_there_is_used(tmp_path: Path) -> None:
    (tmp_path / NAME.parent).mkdir()
    policy = tmp_path / "policy.toml"
    policy.write_text(BEYOND)
    policy.chmod(0o644)
    write_drop_in(tmp_path, policy)
    assert is_generated(tmp_path)


def test_the_generator_can_be_run_and_never_fails(tmp_path: Path) -> None:
    assert os.access(GENERATOR, os.X_OK)
    ran = subprocess.run(["sh", "-u", GENERATOR, tmp_path], capture_output=True, text=True, check=False)
    assert ran.returncode == 0
