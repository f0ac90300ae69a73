"""napctl daemon and those who ask it, where no service runs: what is checked, and what is refused in one line."""

from pathlib import Path

import pytest

import napctl.cli.daemon as module
from napctl.model.policy import MetricsPlace
from napctl.service.metrics_drop_in import DAEMON_RELOAD
from tests.lab.helpers import Napctl


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o644)
    return path


@pytest.mark.parametrize(
    ("service", "words"),
    [
        ("", "; no metrics\n"),
        ('[service]\nmetrics = "127.0.0.1:9811"\n', " series of metrics\n"),
        ('[service]\nmetrics = "127.0.0.1:9811"\nmetrics-per-napi = true\n', " series of metrics\n"),
        (
            '[service]\nmetrics = "192.0.2.1:9811"\nmetrics-beyond-loopback = true\n',
            " series of metrics\n",
        ),
    ],
)
def test_check_says_how_many_metrics_there_will_be(service: str, words: str, napctl: Napctl, tmp_path: Path) -> None:
    policy = write(tmp_path / "policy.toml", f'[[attach]]\ntarget = "no-such-server"\n{service}')
    ran = napctl("daemon", "--check", "--policy", policy)
    assert (ran.status, ran.stderr) == (0, "")
    assert ran.stdout.startswith("1 target, 0 devices; ")
    assert ran.stdout.endswith(words)


def test_check_reminds_of_what_systemd_is_to_be_told_where_it_is_true(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    policy = write(tmp_path / "policy.toml", "")
    monkeypatch.setattr(module, "POLICY_PATH", policy)
    monkeypatch.setattr(module, "lets_others_in", lambda: False)
    here, beyond = (MetricsPlace(address=each, port=9811) for each in ("127.0.0.1", "192.0.2.1"))
    assert module._who_may_scrape(policy, beyond) == f"; {DAEMON_RELOAD} 192.0.2.1"
    assert module._who_may_scrape(policy, here) == ""
    assert module._who_may_scrape(tmp_path / "draft.toml", beyond) == "", "the generator reads another one"
    monkeypatch.setattr(module, "lets_others_in", lambda: True)
    assert module._who_may_scrape(policy, beyond) == "", "an administrator has let them in"


def test_a_policy_that_cannot_be_read_is_one_line(napctl: Napctl, tmp_path: Path) -> None:
    policy = write(tmp_path / "policy.toml", '[[attach]]\ntarget = "x"\nsteeer = true\n')
    for option in ((), ("--check",)):
        ran = napctl("daemon", "--policy", policy, *option)
        assert ran.failed_with(2, f"{policy}:3: ", "steer")


@pytest.mark.parametrize("arguments", [("pause", "1m"), ("pause", "--end"), ("why",), ("why", "eth0")])
def test_without_a_service_nobody_answers(arguments: tuple[str, ...], napctl: Napctl) -> None:
    assert napctl(*arguments).failed_with(2, "no napctl daemon runs here")


@pytest.mark.parametrize("arguments", [("pause",), ("pause", "1m", "--end"), ("pause", "0s"), ("pause", "10d")])
def test_a_pause_that_makes_no_sense_is_refused(arguments: tuple[str, ...], napctl: Napctl) -> None:
    assert napctl(*arguments).status == 2
