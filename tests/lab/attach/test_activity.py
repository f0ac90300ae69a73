"""attached, attach --dry-run and the choice of the timer: what they say is so, and they change nothing on the way."""

import json
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from napctl.attach.timer_choice import TIMERS_NS
from napctl.change.journal import Journal
from napctl.cli.attached import Report
from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from napctl.model.change import Transaction
from napctl.model.errors import NapctlError
from napctl.model.fitness import Fitness
from napctl.model.settings import NapiSettings
from napctl.model.timer_choice import TimerChoice
from napctl.model.value import from_json
from tests.lab.conftest import LoadStarter
from tests.lab.helpers import (
    PREFERS,
    UNSET,
    Napctl,
    Ran,
    in_namespace,
    params_of,
    set_napi,
    set_params,
    state_of,
    until,
)

pytestmark = pytest.mark.lab

QUICKLY = ("--window", 0, "--defer-us", 200)
SHORT = ("--interval", 0.3)


def lines_of(done: Ran) -> list[str]:
    """Fit for a pipe: no escape sequences, 80 columns."""
    assert done.stderr == "", done
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert all(len(line) <= 80 for line in lines), lines
    return lines


def one(report: Any) -> Any:
    (attachment,) = report["attachments"]
    return attachment


@pytest.fixture
def attached(server: Server, client: socket.socket, napctl: Napctl) -> Transaction:
    return napctl.attach_quickly(server.pid)


def test_without_a_journal_and_with_an_empty_one_nothing_is_attached(napctl: Napctl, server: Server) -> None:
    for _ in range(2):
        assert lines_of(napctl("attached")) == ["nothing is attached"]
        assert napctl("attached").status == 0
        told = napctl("attached", "--json")
        assert (told.status, told.json) == (0, {"schema": 1, "seconds": 0, "attachments": []})
        assert napctl.live() == []  # which makes the journal


def test_a_server_without_traffic_is_quiet_and_that_is_no_fault(attached: Transaction, napctl: Napctl) -> None:
    text, told = napctl("attached", *SHORT), napctl("attached", "--json", *SHORT)
    report = from_json(told.stdout, Report)
    (standing,) = report.attachments
    first, verdict, *_ = lines_of(text)

    assert (text.status, told.status) == (0, 0)
    assert (report.schema, standing.verdict, standing.why) == (1, "quiet", "too little traffic to tell")
    assert standing.transaction.changes == attached.changes
    assert (standing.server_poll_share, standing.kept_by) == (None, None)
    assert report.seconds >= 0.3
    assert first.startswith(f"memcached ({attached.pid}): since 20")
    assert "1 NAPI instance, 1 epoll instance" in " ".join(lines_of(text)[:2])
    assert any("too little traffic" in line for line in (verdict, *lines_of(text)))


def test_a_server_under_load_is_active_and_its_suspensions_and_resumes_are_counted(
    server: Server, load: LoadStarter, napctl: Napctl
) -> None:
    load(10_000, seconds=40)
    napctl.attach_quickly(server.pid)

    def active() -> Any:
        done = napctl("attached", "--json", *SHORT)
        found = one(done.json)
        return found if (done.status, found["verdict"]) == (0, "active") else None

    found = until(active, "a window in which it is active")

    assert found["why"] == ""
    assert found["suspensions_per_second"] > 0
    assert found["resumes_per_second"] > 0
    assert found["suspensions_per_second"] >= found["timeouts_per_second"]
    assert 0 < found["suspended_share"] <= 1
    assert 0 < found["server_poll_share"] <= 1
    assert 0 < found["server_packet_share"] <= 1
    assert found["packets_per_second"] > 100
    assert found["wait_p50_us"] is not None

    def shown() -> list[str]:
        done = napctl("attached", *SHORT)
        return lines_of(done) if re.search(r"of\s+packets\s+taken.*:\s+active", done.stdout, re.S) else []

    text = " ".join(until(shown, "an active window in words"))
    assert re.search(r"[\d.]+ % of packets taken by memcached itself, in [\d.]+ % of the +polls: active", text)
    assert re.search(r"interrupts suspended [\d.]+ % of the time; +the safety timer (never )?had +to +step +in", text)
    assert re.search(r"(time until a packet is polled \(upper bound\):|server-side latency: +read) +p50", text), text


def not_active(napctl: Napctl) -> str:
    """Why, as both forms have it."""
    told, text = napctl("attached", "--json", *SHORT), napctl("attached", *SHORT)
    found = one(told.json)
    assert (told.status, text.status, found["verdict"]) == (1, 1, "not active")
    assert found["why"] in re.sub(r"\s+", " ", text.stdout)
    assert "NOT active: " in text.stdout
    lines_of(text)
    return str(found["why"])


def test_settings_of_the_device_that_were_taken_away_are_missed(
    lab: Lab, attached: Transaction, napctl: Napctl
) -> None:
    (napi,) = lab.server.napis()
    for name in ("defer_hard_irqs", "gro_flush_timeout_ns", "irq_suspend_timeout_ns"):
        set_napi(lab, napi.napi_id, replace(NapiSettings(), **{name: 0}))
        assert re.search(rf"NAPI {napi.napi_id} of server0 lost its settings", not_active(napctl)), name
        set_napi(lab, napi.napi_id, attached.changes[0].after)  # type: ignore[arg-type] # the device comes first
        assert napctl("attached", *SHORT).status == 0


def test_parameters_of_the_server_that_were_taken_away_are_missed(attached: Transaction, napctl: Napctl) -> None:
    (fd,) = (fd for fd, params in params_of(attached.pid).items() if params == PREFERS)
    set_params(attached.pid, fd, UNSET)

    assert f"epoll {fd} of memcached ({attached.pid}) has other parameters" in not_active(napctl)


def test_a_reset_of_the_link_is_noticed(lab: Lab, attached: Transaction, napctl: Napctl) -> None:
    in_namespace(lab.server.namespace, "ip", "link", "set", "server0", "down")
    down = not_active(napctl)
    in_namespace(lab.server.namespace, "ip", "link", "set", "server0", "up")
    up = not_active(napctl)

    assert "disappeared (device reset, or down)" in down
    assert "disappeared (device reset" in up or "lost its settings" in up


def test_a_server_that_has_ended_is_gone(server: Server, attached: Transaction, napctl: Napctl) -> None:
    server.process.kill()
    server.process.wait()

    told, text = napctl("attached", "--json", *SHORT), napctl("attached", *SHORT)

    assert (told.status, text.status) == (1, 1)
    assert one(told.json)["verdict"] == "gone"
    assert any("gone: its server has ended; `napctl recover` puts back" in line for line in lines_of(text))
    assert [each.state for each in napctl.live()] == ["attached"], "asking changes nothing"
    assert napctl("recover").status == 0
    assert lines_of(napctl("attached")) == ["nothing is attached"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("lost", "status"), [(False, 0), (True, 1)])
def test_watch_goes_on_until_it_is_asked_to_end_with_the_status_of_the_last_window(
    number: signal.Signals, lost: bool, status: int, lab: Lab, attached: Transaction, napctl: Napctl
) -> None:
    if lost:
        set_napi(lab, lab.server.napis()[0].napi_id, NapiSettings(gro_flush_timeout_ns=0))
    with napctl.start("attached", "--watch", "--json", "--interval", 0.1) as watching:
        assert watching.stdout is not None
        reports = [from_json(watching.stdout.readline(), Report) for _ in range(3)]
        watching.send_signal(number)
        output, errors = watching.communicate(timeout=60)

    assert watching.returncode == status
    assert errors == ""
    assert all(each.attachments[0].verdict == ("not active" if lost else "quiet") for each in reports)
    assert all(from_json(line, Report) for line in output.splitlines())


def test_watch_in_a_pipe_prints_window_after_window_as_text(attached: Transaction, napctl: Napctl) -> None:
    with napctl.start("attached", "--watch", "--interval", 0.1) as watching:
        assert watching.stdout is not None
        seen: list[str] = []
        while sum(line.startswith("memcached (") for line in seen) < 3:
            seen.append(watching.stdout.readline())
        watching.send_signal(signal.SIGINT)
        output, errors = watching.communicate(timeout=60)

    assert watching.returncode == 0
    lines_of(Ran(0, "".join(seen) + output, errors))


def test_watch_ends_quietly_when_its_reader_does(attached: Transaction, napctl: Napctl) -> None:
    with napctl.start("attached", "--watch", "--json", "--interval", 0.1) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline()
        watching.stdout.close()
        watching.wait(60)
        assert watching.stderr is not None
        assert "Traceback" not in watching.stderr.read()


# Dry run


def test_a_dry_run_changes_nothing_and_makes_no_journal(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    before = state_of(lab.server)

    text, told = napctl("attach", server.pid, "--dry-run"), napctl("attach", server.pid, "--dry-run", "--json")
    fitness = from_json(told.stdout, Fitness)

    assert (text.status, told.status, told.stderr) == (0, 0, "")
    assert lines_of(text)[-1] == "nothing was changed"
    assert [each.judgement for each in fitness.instances].count("fits") == 1
    assert (fitness.schema, fitness.target, fitness.processes) == (1, str(server.pid), 1)
    assert all(each.why for each in fitness.instances)
    assert not napctl.state.exists()
    assert state_of(lab.server) == before
    assert set(params_of(server.pid).values()) == {UNSET}


def test_a_dry_run_of_what_does_not_fit_says_so_with_status_1(lab: Lab, server: Server, napctl: Napctl) -> None:
    del server  # nobody has spoken to the one below yet
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        text = napctl("attach", sleeper.pid, "--dry-run")
        told = napctl("attach", sleeper.pid, "--dry-run", "--json")
        sleeper.kill()

    assert (text.status, told.status) == (1, 1)
    assert "nothing would be attached" in lines_of(text)[-1]
    assert from_json(told.stdout, Fitness).instances == ()
    assert not napctl.state.exists()


def test_a_dry_run_beside_an_attachment_leaves_it_as_it_is(lab: Lab, attached: Transaction, napctl: Napctl) -> None:
    before, live = state_of(lab.server), napctl.live()

    assert napctl("attach", attached.pid, "--dry-run").status == 0
    assert (state_of(lab.server), napctl.live()) == (before, live)


def test_a_dry_run_has_nothing_to_stay_for(server: Server, napctl: Napctl) -> None:
    assert napctl("attach", server.pid, "--dry-run", "--stay").status == 2
    assert not napctl.state.exists()


# The timer


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
    load(5_000, seconds=60)

    shown = napctl("attach", server.pid, "--window", 0, "--latency-budget", "60us")

    assert "trying timers for about" in shown.stderr
    assert "200us" not in shown.stdout
    for name in ("20us", "50us"):
        assert re.search(rf"^ +{name} +\d+( +[\d.]+){{3}} +[\d,]+ +[\d,]+ *$", shown.stdout, re.M), shown.stdout
    assert re.search(r"^chose gro-flush-timeout [25]0us: ", shown.stdout, re.M)
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


def sweeping(napctl: Napctl, server: Server) -> "subprocess.Popen[str]":
    """An attach that has begun to try timers, with one of them in force."""
    for _ in range(10):
        running = napctl.start("attach", server.pid, "--window", 0)
        if _tries(napctl, running):
            return running
        running.communicate(timeout=60)
        napctl("detach", server.pid)
    raise AssertionError("no sweep was caught in the act")


def _tries(napctl: Napctl, running: "subprocess.Popen[str]") -> bool:
    """Whether it was seen with a trial in force; False if it ended without any."""

    def state() -> str:
        return "ended" if running.poll() is not None else " ".join(each.state for each in live_now(napctl))

    return until(lambda: (now := state()) in ("ended", "attached") and now, "a trial") == "attached"


def live_now(napctl: Napctl) -> list[Transaction]:
    """What the journal holds, without waiting for its lock."""
    try:
        return [each for each in Journal.read(napctl.state) if each.state != "restored"]
    except NapctlError:
        return []


def test_ctrl_c_amid_the_trials_leaves_nothing_changed(
    lab: Lab, server: Server, load: LoadStarter, napctl: Napctl
) -> None:
    before = state_of(lab.server)
    load(10_000, seconds=30)
    running = sweeping(napctl, server)
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
    load(10_000, seconds=60)
    for _ in range(trials(1, 10)):
        running = sweeping(napctl, server)
        running.kill()
        running.communicate(timeout=60)

        assert state_of(lab.server) != before
        recovered = napctl("recover")

        assert (recovered.status, recovered.stderr) == (0, ""), recovered
        assert napctl.live() == []
        assert state_of(lab.server) == before
