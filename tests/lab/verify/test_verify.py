"""Verdicts on real drivers: tun, which ignores; veth, which obeys; and nothing left changed, however verify ends."""

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from napctl.lab.bed import Lab
from napctl.model.settings import NapiSettings
from napctl.model.value import from_json, to_json
from napctl.model.verdict import Verification
from napctl.verify.verify import Options
from tests.lab.conftest import LoadStarter
from tests.lab.helpers import Napctl, at_server, in_namespace, machine_of, set_napi, until
from tests.lab.plans import HEAD, states, two_devices, write_what_the_kernel_refuses
from tests.lab.tap import Tap, written_to
from tests.tries import in_one_of

pytestmark = pytest.mark.lab

QUICKLY = ("--seconds", 0.2)
PLAN = HEAD + '[tap0]\ndriver = "tun"\nrx-queues = 1\ntx-queues = 1\n[tap0.coalescing]\n'


@pytest.fixture
def tap() -> Iterator[Tap]:
    """Some thousand frames per second."""
    with written_to() as tap:
        yield tap


@pytest.fixture
def silent() -> Iterator[Tap]:
    with written_to(pause_s=0) as tap:
        yield tap


def verdicts(napctl: Napctl, *arguments: object) -> list[dict[str, Any]]:
    found = napctl("verify", *arguments, "--json", timeout_s=100)
    assert found.stdout, found
    assert from_json(found.stdout, Verification).schema == 1
    return list(found.json["verdicts"])


@pytest.mark.alone
@pytest.mark.long
@pytest.mark.trials
@pytest.mark.timeout(600)
def test_a_driver_that_accepts_and_ignores_is_said_to(
    tap: Tap, napctl: Napctl, trials: Callable[[int, int], int]
) -> None:
    """At least 19 times in 20."""
    tap.frames = 64
    tries = trials(1, 20)
    outcomes = [verdicts(napctl, "tap0", *tap.here, *QUICKLY, "--seed", seed)[0]["outcome"] for seed in range(tries)]
    print(f"tun, {tries} runs: {outcomes.count('without effect')} without effect")

    assert outcomes.count("without effect") >= tries * 19 / 20
    assert tap.frames == 64


@pytest.mark.alone
@pytest.mark.trials
@pytest.mark.timeout(600)
def test_a_driver_that_obeys_is_said_to(
    lab: Lab, load: LoadStarter, napctl: Napctl, trials: Callable[[int, int], int]
) -> None:
    """Deferral works for the lab's NAPI threads too. At least 19 times in 20."""
    (napi,) = lab.server.napis()
    set_napi(lab, napi.napi_id, NapiSettings(defer_hard_irqs=100, gro_flush_timeout_ns=200_000))
    tries = trials(1, 20)
    load(seconds=20 * tries + 60)

    def attempt() -> dict[str, Any]:
        seconds = ("--seconds", 0.4)
        found = [verdicts(napctl, "server0", *at_server(lab), *seconds, "--seed", seed)[0] for seed in range(tries)]
        outcomes = [each["outcome"] for each in found]
        print(f"veth, {tries} runs: {outcomes.count('honoured')} honoured")
        assert outcomes.count("honoured") >= tries * 19 / 20
        return found[0]

    found = in_one_of(attempt, 1 if tries > 1 else 3)  # one alone may be the one of 20
    assert found["estimate"]["statistic"] == "polls per packet"
    assert found["with_it"]["packets_per_poll"] != found["without_it"]["packets_per_poll"]
    (after,) = lab.server.napis()
    assert (after.settings.defer_hard_irqs, after.settings.gro_flush_timeout_ns) == (100, 200_000)


def test_a_verdict_is_told_with_what_it_stands_on_and_a_bad_one_by_the_exit_status(tap: Tap, napctl: Napctl) -> None:
    tap.frames = 64

    def attempt() -> None:
        done = napctl("verify", "tap0", *tap.here, *QUICKLY, "--seed", 1)

        assert done.status == 1, done
        assert "tap0 rx-max-frames 64: accepted but without effect" in done.stdout
        assert "runs per packet: 1 times those with 1 (99 %: 0." in done.stdout
        assert "pairs of windows of 0.2 s" in " ".join(done.stdout.split())
        assert "at most; Ctrl-C puts everything back" in done.stderr, "the time is told before"
        assert all(len(line) <= 80 for line in (done.stdout + done.stderr).splitlines())

    in_one_of(attempt)


def test_without_traffic_there_is_no_verdict_but_the_rate_that_would_do(silent: Tap, napctl: Napctl) -> None:
    silent.frames = 64
    done = napctl("verify", "tap0", *silent.here, *QUICKLY)

    assert done.status == 0, "no bad answer"
    assert "not enough traffic" in done.stdout
    assert re.search(r"It would need about \d+ packets/s on a queue; the busiest had 0", done.stdout)
    assert "That is no verdict on the device" in " ".join(done.stdout.split())


def test_with_nothing_that_delays_there_is_nothing_to_verify(tap: Tap, napctl: Napctl) -> None:
    done = napctl("verify", *tap.here)
    assert (done.status, done.stdout) == (0, "nothing to verify: no setting of these devices delays anything\n")


def test_a_device_that_is_down_is_said_to_be_at_once(silent: Tap, napctl: Napctl, tmp_path: Path) -> None:
    silent.frames = 64
    file = plan(tmp_path / "plan", rx_max_frames=32)
    in_namespace(silent.namespace, "ip", "link", "set", "tap0", "down")

    for words in (("verify", "tap0"), ("verify", file), ("apply", "--verify", file)):
        assert napctl(*words, *silent.here).failed_with(2, "tap0 is down (ip link set tap0 up)")
    assert napctl("verify", *silent.here).stdout.endswith("\nnot known: what tap0 would do: no link\n")
    assert silent.frames == 64


def plan(path: Path, **values: int) -> Path:
    path.write_text(PLAN + "".join(f"{name.replace('_', '-')} = {value}\n" for name, value in values.items()))
    return path


def test_a_plan_is_tried_without_being_applied(tap: Tap, napctl: Napctl, tmp_path: Path) -> None:
    tap.frames = 3

    def attempt() -> None:
        (found,) = verdicts(napctl, plan(tmp_path / "plan", rx_max_frames=32), *tap.here, *QUICKLY)

        assert (found["wanted"], found["read_back"], found["without"]) == (32, 32, 3)
        assert tap.frames == 3
        assert set(states(napctl)) == {"restored"}
        assert found["outcome"] == "without effect"

    in_one_of(attempt)


def test_an_applied_plan_is_compared_with_what_was_there_before(tap: Tap, napctl: Napctl, tmp_path: Path) -> None:
    tap.frames = 3
    file = plan(tmp_path / "plan", rx_max_frames=32)
    assert napctl("apply", file, *tap.here).status == 0

    def attempt() -> None:
        (found,) = verdicts(napctl, file, *tap.here, *QUICKLY)

        assert tap.frames == 32
        assert [each.state for each in napctl.live()] == ["applied"]
        assert (found["wanted"], found["without"], found["outcome"]) == (32, 3, "without effect")

    in_one_of(attempt)


def test_what_is_applied_though_it_could_not_be_judged_is_said_last(
    silent: Tap, napctl: Napctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napctl.cli.apply.Options", lambda: Options(seconds=0.2))
    file = plan(tmp_path / "plan", rx_max_frames=32)
    done = napctl("apply", "--verify", file, *silent.here, timeout_s=100)

    assert done.status == 0, done
    number = napctl.live()[0].number
    assert done.stdout.splitlines()[-3:] == [
        f"applied as {number}; 1 of 1 setting could not be judged: not enough traffic",
        "applied unverified: tap0 rx-max-frames",
        f"undo with: napctl rollback {number}",
    ]
    assert napctl("rollback").status == 0


def test_what_is_refused_is_said_in_the_kernels_words_and_the_rest_is_tried(
    napctl: Napctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with two_devices() as lab:
        before = machine_of(lab.server)
        file = write_what_the_kernel_refuses(tmp_path / "plan.toml", monkeypatch)

        frames, deferral = verdicts(napctl, file, *at_server(lab), *QUICKLY, "--force")

        assert (frames["setting"], frames["outcome"]) == ("rx_max_frames", "not enough traffic")
        assert (deferral["setting"], deferral["outcome"]) == ("deferral", "refused")
        assert "defer-hard-irqs" in deferral["reason"]
        assert machine_of(lab.server) == before


def test_what_the_driver_makes_another_value_of_is_clamped(silent: Tap, napctl: Napctl, tmp_path: Path) -> None:
    """tun takes at most 64."""
    (found,) = verdicts(napctl, plan(tmp_path / "plan", rx_max_frames=100), *silent.here, *QUICKLY, "--force")

    assert (found["outcome"], found["acts_as"], found["read_back"]) == ("clamped", "64", 64)
    assert silent.frames == 0


def test_what_apply_would_refuse_is_not_tried(tap: Tap, napctl: Napctl, tmp_path: Path) -> None:
    other = tmp_path / "plan.toml"
    other.write_text(plan(other, rx_max_frames=32).read_text().replace('"tun"', '"e1000e"'))
    assert napctl("verify", other, *tap.here).failed_with(2, "not for this machine", "tap0")


def test_a_setting_that_is_not_there_is_bad_input(tap: Tap, napctl: Napctl) -> None:
    tap.frames = 64
    done = napctl("verify", "tap0", *tap.here, "--settings", "rx-usecs")
    assert done.failed_with(2, "rx-usecs", "rx-max-frames")


def amid(napctl: Napctl, tap: Tap, amidst: int, *arguments: object) -> subprocess.Popen[str]:
    """A verify in its first window, whose device then has that value for 5 seconds."""
    running = napctl.start("verify", *arguments, *tap.here, "--seconds", 5)
    until(lambda: held(tap, amidst), f"{amidst} frames")
    return running


def held(tap: Tap, amidst: int) -> bool:
    """For longer than it takes to switch."""
    for _ in range(10):
        if tap.frames != amidst:
            return False
        time.sleep(0.05)
    return True


WITH_FIRST, WITHOUT_FIRST = ("--seed", 1), ("--seed", 0)
"""Of the first pair, as the seeds have it."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_leaves_everything_as_it_was(tap: Tap, napctl: Napctl, number: signal.Signals) -> None:
    tap.frames = 64
    with amid(napctl, tap, 1, "tap0", *WITHOUT_FIRST) as running:
        running.send_signal(number)
        _, said = running.communicate(timeout=60)

    assert running.returncode == 128 + number, said
    assert tap.frames == 64
    assert napctl.live() == []


def test_after_a_kill_recover_brings_everything_back(tap: Tap, napctl: Napctl) -> None:
    tap.frames = 64
    with amid(napctl, tap, 1, "tap0", *WITHOUT_FIRST) as running:
        running.kill()
    assert tap.frames == 1

    assert napctl("recover").status == 0

    assert tap.frames == 64
    assert napctl.live() == []


def test_after_a_kill_amid_a_plan_that_is_only_tried_recover_brings_everything_back(
    tap: Tap, napctl: Napctl, tmp_path: Path
) -> None:
    """Two transactions are open then, the trial's within the plan's."""
    tap.frames = 3
    file = plan(tmp_path / "plan", rx_max_frames=32)
    with amid(napctl, tap, 32, file, *WITH_FIRST) as running:
        running.kill()
    assert tap.frames == 32

    assert napctl("recover").status == 0

    assert tap.frames == 3
    assert napctl.live() == []


def test_the_lab_is_as_it_was_after_its_deferral_was_verified(lab: Lab, napctl: Napctl) -> None:
    (napi,) = lab.server.napis()
    set_napi(lab, napi.napi_id, NapiSettings(defer_hard_irqs=10, gro_flush_timeout_ns=50_000))
    before = machine_of(lab.server)

    (found,) = verdicts(napctl, *at_server(lab), *QUICKLY)

    assert found["outcome"] == "not enough traffic"
    assert to_json(machine_of(lab.server)) == to_json(before)
