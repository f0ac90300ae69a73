"""attached and attach --dry-run: what they say is so, and they change nothing on the way."""

import re
import signal
import socket
import subprocess
from typing import Any

import pytest
from msgspec.structs import replace

from napctl.cli.attached import Report
from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from napctl.model.change import Transaction
from napctl.model.fitness import Fitness
from napctl.model.settings import NapiSettings
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

SHORT, BRIEF = ("--interval", 0.3), ("--interval", 0.1)
"""Windows: for who counts packets, and for who looks whether all is as it was attached."""


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
    load(10_000, seconds=100)
    napctl.attach_quickly(server.pid)

    def active() -> Any:
        done = napctl("attached", "--json", *SHORT)
        found = one(done.json)
        return found if (done.status, found["verdict"]) == (0, "active") and found["packets_per_second"] > 100 else None

    found = until(active, "a window in which it is active")

    assert found["why"] == ""
    assert found["suspensions_per_second"] > 0
    assert found["resumes_per_second"] > 0
    assert found["suspensions_per_second"] >= found["timeouts_per_second"]
    assert 0 < found["suspended_share"] <= 1
    assert 0 < found["server_poll_share"] <= 1
    assert 0 < found["server_packet_share"] <= 1
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
    told, text = napctl("attached", "--json", *BRIEF), napctl("attached", *BRIEF)
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
        assert napctl("attached", *BRIEF).status == 0


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

    told, text = napctl("attached", "--json", *BRIEF), napctl("attached", *BRIEF)

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
