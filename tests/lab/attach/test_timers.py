"""The choice of the timer: what was tried under the traffic that is there, and what ended trials leave."""

import json
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from napctl.attach.timer_choice import TIMERS_NS
from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from napctl.model.timer_choice import TimerChoice
from napctl.model.value import from_json
from tests.lab.conftest import LoadStarter
from tests.lab.helpers import Napctl, Ran, state_of, until
from tests.lab.sweeps import sweeping

pytestmark = pytest.mark.lab


def chosen_by(napctl: Napctl, server: Server, *options: object) -> TimerChoice:
    """What attach chose; let go again."""
    report = napctl("attach", server.pid, "--window", 0, "--json", *options).json
    assert napctl("detach", server.pid).status == 0
    timer = from_json(json.dumps(report["timer"]), TimerChoice)
    (napi,) = (change for change in report["transaction"]["changes"] if change["type"] == "napi")
    assert napi["after"]["gro_flush_timeout_ns"] == timer.gro_flush_timeout_ns
    return timer


@contextmanager
def working(lab: Lab) -> Iterator[None]:
    """Somebody else's work that takes all that is left of the server's CPU."""
    with subprocess.Popen(
        ["nice", "-n", "19", "taskset", "-c", str(lab.server.cpu), "yes"], stdout=subprocess.DEVNULL
    ) as other:
        yield
        other.kill()


@pytest.mark.long
def test_under_load_the_timers_are_tried_and_what_else_runs_there_costs_the_server_nothing(
    lab: Lab, server: Server, load: LoadStarter, napctl: Napctl
) -> None:
    load(5_000, seconds=60)
    before = state_of(lab.server)

    with working(lab):
        timer = chosen_by(napctl, server)

    assert tuple(each.gro_flush_timeout_ns for each in timer.trials) == TIMERS_NS
    assert timer.gro_flush_timeout_ns in TIMERS_NS
    assert "CPU per packet" in timer.why
    assert "within the noise" in timer.why
    assert [each.gro_flush_timeout_ns for each in timer.savings] == [*TIMERS_NS[1:]]
    for each in timer.trials:
        assert each.cpu_share is not None
        assert 0 < each.cpu_share < 0.8
        assert each.packets_per_second is not None
        assert each.packets_per_second > 0
        assert each.wait_p50_us is not None
        assert len(each.cpu_us_per_packet) == 6
    assert state_of(lab.server) == before


def test_the_table_shows_the_timers_within_the_latency_budget(
    server: Server, load: LoadStarter, napctl: Napctl
) -> None:
    load(5_000, seconds=100)

    def tried() -> Ran | None:
        """It lets the load wait for longer than a window now and then, where the machine is busy."""
        done = napctl("attach", server.pid, "--window", 0, "--latency-budget", "60us")
        assert napctl("detach", server.pid).status == 0
        return done if "too little traffic" not in done.stdout else None

    shown = until(tried, "enough traffic to try timers on")

    assert shown is not None
    assert "trying timers for about" in shown.stderr
    assert "200us" not in shown.stdout
    for name in ("20us", "50us"):
        assert re.search(rf"^ +{name} +\d+( +[\d.]+){{3}} +[\d,]+ +[\d,]+ *$", shown.stdout, re.M), shown.stdout
    assert re.search(r"^chose gro-flush-timeout [25]0us: ", shown.stdout, re.M)
    assert "\x1b" not in shown.stdout
    assert all(len(line) <= 80 for line in shown.stdout.splitlines())


def test_without_traffic_it_says_so_and_takes_200_us(server: Server, client: socket.socket, napctl: Napctl) -> None:
    timer = chosen_by(napctl, server)

    assert (timer.gro_flush_timeout_ns, timer.why) == (200_000, "too little traffic to try timers on")
    assert all(each.cpu_share is None for each in timer.trials)
    shown = napctl("attach", server.pid, "--window", 0)
    assert "gro-flush-timeout 200us: too little traffic to try timers on" in shown.stdout
    assert "trying timers" not in shown.stderr


def test_no_timer_beyond_the_latency_budget_is_taken(server: Server, client: socket.socket, napctl: Napctl) -> None:
    timer = chosen_by(napctl, server, "--latency-budget", "60us")
    assert [each.gro_flush_timeout_ns for each in timer.trials] == [20_000, 50_000]
    assert timer.gro_flush_timeout_ns == 50_000

    for budget, ns in (("5us", 5_000), ("20us", 20_000)):
        timer = chosen_by(napctl, server, "--latency-budget", budget)
        assert (timer.gro_flush_timeout_ns, timer.trials) == (ns, ())
        assert "budget" in timer.why


@pytest.mark.parametrize(("given", "ns"), [("123", 123_000), ("35us", 35_000), ("1ms", 1_000_000)])
def test_a_timer_that_was_asked_for_is_taken_and_nothing_is_tried(
    given: str, ns: int, server: Server, load: LoadStarter, napctl: Napctl
) -> None:
    load(5_000)
    done = napctl("attach", server.pid, "--window", 0, "--json", "--defer-us", given)
    timer = from_json(json.dumps(done.json["timer"]), TimerChoice)

    assert timer == TimerChoice(gro_flush_timeout_ns=ns, why="asked for")
    assert done.stderr == ""


def test_ctrl_c_amid_the_trials_leaves_nothing_changed(
    lab: Lab, server: Server, load: LoadStarter, napctl: Napctl
) -> None:
    before = state_of(lab.server)
    load(10_000, seconds=100)
    running = sweeping(napctl, server, "--window", 0)
    running.send_signal(signal.SIGINT)
    output, errors = running.communicate(timeout=60)

    assert running.returncode == 130, (output, errors)
    assert errors.splitlines()[-1] == "napctl: interrupted"
    assert "Traceback" not in errors
    assert output == ""
    assert napctl.live() == []
    assert state_of(lab.server) == before


def test_kill_9_amid_the_trials_is_recovered_from(
    lab: Lab, server: Server, load: LoadStarter, napctl: Napctl, trials: Callable[[int, int], int]
) -> None:
    before = state_of(lab.server)
    load(10_000, seconds=100)

    def killed_with_one_in_force() -> bool:
        """And not between two of them."""
        running = sweeping(napctl, server, "--window", 0)
        running.kill()
        running.communicate(timeout=60)
        in_force = state_of(lab.server) != before

        recovered = napctl("recover")

        assert (recovered.status, recovered.stderr) == (0, ""), recovered
        assert napctl.live() == []
        assert state_of(lab.server) == before
        return in_force

    for _ in range(trials(1, 10)):
        until(killed_with_one_in_force, "a kill amid a trial")
