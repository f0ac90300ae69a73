"""Whatever is wrong with the service's policy, state or surroundings: one clear line, nothing half done."""

import json
import os
import re
import signal
import socket
import sqlite3
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from subprocess import TimeoutExpired
from urllib.error import URLError

import pytest

from napctl.change.journal import Journal
from napctl.kernel.cpu_time import clock_seconds
from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from tests.lab.following import all_unset, attached_in_kernel, settings_of, tells_later_what_it_has_mended, unread
from tests.lab.helpers import (
    Napctl,
    Sampled,
    ask,
    at,
    at_server,
    free_pid,
    in_mounts,
    machine_of,
    steps_in,
    until,
    victims,
    without,
)
from tests.lab.plans import frames_of
from tests.lab.ports import free_port
from tests.lab.service.services import guarding, guards_gone, policy_of, scraped, serving, write
from tests.tries import in_one_of

pytestmark = pytest.mark.lab


def test_a_policy_that_turns_unreadable_changes_nothing_and_is_told_once_and_scraped(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    port, name = free_port(), f"pid:{server.pid}"
    policy = policy_of(tmp_path, server.pid, service=f'metrics = "127.0.0.1:{port}"')
    text = policy.read_text()

    def written(words: str) -> None:
        write(policy, words)
        os.kill(it.pid, signal.SIGHUP)  # it would see it by itself, a little later

    def shows(valid: float, attached: float | None, paused: float = 0) -> bool:
        try:
            found = scraped(port)
        except URLError:  # there is no snapshot yet
            return False
        told = found.get("napctl_policy_valid"), found.get(f'napctl_target_attached{{target="{name}"}}')
        return (*told, found.get("napctl_paused")) == (valid, attached, paused)

    with serving(napctl, policy, *at_server(lab)) as it:
        it.told("attached memcached")
        until(lambda: shows(1, 1), "a scrape that shows the attachment")
        assert scraped(port)['napctl_decisions_total{decision="attach"}'] == 1

        written("[[attach]]\ntarget = 3\n")
        line = it.told("the policy cannot be read, the one before stays in force").text
        assert f"{policy}:2: target" in line
        until(lambda: shows(0, 1), "a scrape that shows it")
        written(text + "on-stopp = 1\n")
        assert "on-stopp: there is no such key" in it.told(f"stays in force: {policy}:6").text
        assert len([each for each in it.since() if "cannot be read" in each]) == 2
        assert attached_in_kernel(lab, server)

        written(text)
        it.told("the policy can be read again, and is as before")
        until(lambda: shows(1, 1), "a scrape that shows it")
        assert len([each for each in it.since() if "attached memcached" in each]) == 1

        assert napctl("pause", "1m").status == 0
        until(lambda: shows(1, None, paused=1), "a scrape that shows the pause")
        assert it.end(signal.SIGTERM) == 0


def test_what_keeps_it_from_starting_is_one_line(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    before, policy, here = machine_of(lab.server), tmp_path / "policy.toml", napctl.state
    here.mkdir(mode=0o700)

    def refused(status: int, *words: str, under: list[str] | None = None) -> None:
        assert napctl("daemon", "--policy", policy, under=under or []).failed_with(status, *words)
        assert machine_of(lab.server) == before
        guards_gone(napctl)

    refused(2, str(policy), "no such file", "napctl policy init")
    write(policy, '[[attach]]\ntarget = "x"\ndefer = 3\n')
    refused(2, f"{policy}:3", "defer: there is no such key")
    policy_of(tmp_path, server.pid)
    (here / "service.json").write_text('{"version": 2, "more": 1}')
    (here / "service.json").chmod(0o600)
    refused(2, "service.json", "a newer napctl has written")
    (here / "service.json").unlink()
    with Journal(here):
        pass
    with closing(sqlite3.connect(here / "journal.sqlite")) as database:
        database.execute("PRAGMA user_version=99")
    refused(2, "journal.sqlite", "version")
    (here / "journal.sqlite").unlink()
    policy_of(tmp_path, server.pid)

    with guarding(napctl), serving(napctl, policy) as it:
        it.told("attached memcached")
        assert napctl("daemon", "--policy", policy).failed_with(5, str(here), "another napctl daemon runs already")
        assert napctl("guard").failed_with(6, str(here), "another guard of the service watches already")
        assert attached_in_kernel(lab, server)
        assert napctl("why").status == 0, "it still answers"
        assert it.end(signal.SIGTERM) == 0
    assert machine_of(lab.server) == before


def test_on_a_full_disk_it_changes_nothing_and_says_so(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    """And goes on, until there is room."""
    before, here = machine_of(lab.server), napctl.state
    here.mkdir(mode=0o700)
    full = in_mounts(f"mount -t tmpfs -o size=64k,mode=700 tmpfs {here}; head -c 65536 /dev/zero >{here}/fill || true")
    with serving(napctl, policy_of(tmp_path, server.pid), under=full) as it:
        it.told("nothing was changed")
        time.sleep(1.5)  # it has tried again
        assert machine_of(lab.server) == before
        assert it.end(signal.SIGTERM) == 0
    assert machine_of(lab.server) == before


def test_metrics_at_a_port_that_another_process_has_are_served_later_and_nothing_else_waits(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        policy = policy_of(tmp_path, server.pid, service=f'metrics = "127.0.0.1:{port}"')
        with serving(napctl, policy) as it:
            it.told(f"metrics at 127.0.0.1:{port}: another process listens there")
            it.told("attached memcached")
            taken.close()
            assert napctl("policy", "apply").status == 0  # a decision, after which a snapshot is taken
            until(lambda: is_served(port), "metrics")
            assert it.end(signal.SIGTERM) == 0


def is_served(port: int) -> bool:
    with suppress(OSError):
        return scraped(port)["napctl_up"] == 1
    return False


def test_without_the_right_to_look_into_a_server_it_says_so_and_keeps_the_devices(
    bed: Lab, lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    before = machine_of(bed.server)
    policy = policy_of(tmp_path, server.pid)
    write(policy, f'{policy.read_text()}[[device]]\nname = "tun0"\ncoalescing.rx-max-frames = 16\n')
    inside = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{bed.server.namespace.fd}"]
    with serving(napctl, policy, under=[*inside, *without("sys_ptrace")]) as it:
        it.told("tun0: rx-max-frames 0 → 16, as the policy wants")
        assert "CAP_SYS_PTRACE" in it.told(f"pid:{server.pid}: ").text
        assert frames_of(bed.server.namespace) == 16
        assert all_unset(server.pid)
        assert it.end(signal.SIGTERM) == 0
        assert len([each for each in it.since() if "CAP_SYS_PTRACE" in each]) == 1, "told once"
        assert it.errors == ""
    assert machine_of(bed.server) == before


def test_targets_that_never_come_are_one_line_each_and_cost_nothing(napctl: Napctl, tmp_path: Path) -> None:
    gone = free_pid()
    with serving(napctl, policy_of(tmp_path, gone, "no-such-server-x")) as it:
        it.told(f"pid:{gone} has ended")
        it.told("waiting for no-such-server-x: it is not running")
        in_one_of(lambda: costs_nothing(it.pid), 5)  # from when it has made all that it needs
        assert len(it.since()) == 2
        assert it.end(signal.SIGTERM) == 0


def costs_nothing(pid: int) -> None:
    before = clock_seconds(pid)
    time.sleep(2)
    assert clock_seconds(pid) - before < 0.1


def test_scraped_while_it_stops_it_ends_and_each_scrape_is_whole_or_refused(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    port, whole, odd, over = free_port(), 0, [], threading.Event()

    def scrape() -> None:
        nonlocal whole
        while not over.is_set():
            try:
                whole += scraped(port)["napctl_up"] == 1
            except (URLError, ConnectionError):
                pass
            except Exception as error:
                odd.append(error)

    with serving(napctl, policy_of(tmp_path, server.pid, service=f'metrics = "127.0.0.1:{port}"')) as it:
        it.told("attached memcached")
        threads = [threading.Thread(target=scrape) for _ in range(3)]
        for each in threads:
            each.start()
        until(lambda: whole > 10, "scrapes")
        assert it.end(signal.SIGTERM) == 0
        over.set()
        for each in threads:
            each.join()
        assert (it.errors, odd) == ("", [])
    assert all_unset(server.pid)


def test_with_a_full_disk_nothing_is_attached_until_there_is_room(
    lab: Lab, server: Server, napctl: Napctl, tmp_path: Path
) -> None:
    before = settings_of(lab)
    napctl.state.mkdir(mode=0o700)
    disk = in_mounts(f"mount -t tmpfs -o size=256k,mode=700 tmpfs {napctl.state}")
    with serving(napctl, policy_of(tmp_path, server.pid), under=disk) as it:
        it.told("it has no connection yet")
        fill = Path(f"/proc/{it.pid}/root{napctl.state}/fill")
        with suppress(OSError), fill.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with ask(lab, server):
            assert "nothing was changed" in it.told("disk is full").text
            assert settings_of(lab) == before
            assert all_unset(server.pid)
            fill.unlink()
            it.told("attached memcached")
            assert it.end(signal.SIGTERM) == 0
    assert settings_of(lab) == before


def test_told_to_stop_amid_attaching_it_puts_everything_back(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path, sampled: Sampled,
) -> None:  # fmt: skip
    before, trace = machine_of(lab.server), tmp_path / "trace"
    policy, first = policy_of(tmp_path, server.pid), Napctl(napctl.state / "first")
    calls = "trace=pwrite64,fdatasync,sendto,ioctl,openat"
    with serving(first, policy, under=["strace", "-f", "-qq", "-o", str(trace), "-e", calls]) as it:
        it.told("attached memcached")
        steps = steps_in(trace, f"{first.state}/journal.sqlite")
        assert it.end(signal.SIGTERM) == 0
    amid = [each for each in steps if each[0] in ("pwrite64", "fdatasync", "ioctl")]
    for step, victim in victims(napctl, sampled(amid, 2)):
        with serving(victim, policy, under=at(step, "signal=SIGTERM")) as it:
            with suppress(TimeoutExpired):
                it.process.wait(20)
            if it.process.poll() is None:  # it may make fewer such calls than the first one
                os.kill(it.pid, signal.SIGTERM)
            assert it.ended() == 0, (step, it.errors)
            assert it.since()[-1] == "stopped: all is put back", step
        assert victim.live() == [], step
        assert machine_of(lab.server) == before, step
        guards_gone(victim)


@pytest.mark.parametrize("as_json", [False, True])
def test_its_log_is_a_line_for_each_decision(as_json: bool, napctl: Napctl, tmp_path: Path) -> None:
    policy = policy_of(tmp_path, "no-such-server-x")
    daemon = napctl.start("daemon", "--policy", policy, *(("--log-format", "json") if as_json else ()))
    assert daemon.stdout is not None
    first = daemon.stdout.readline()
    daemon.terminate()
    rest, errors = daemon.communicate(timeout=60)
    assert (daemon.returncode, errors) == (0, "")
    if as_json:
        told = [json.loads(each) for each in [first, *rest.splitlines()]]
        assert [each["about"] for each in told] == ["no-such-server-x", ""]
        assert [each["text"] for each in told][1] == "stopped: all is put back"
    else:
        assert re.fullmatch(r"\d\d:\d\d:\d\d no-such-server-x: waiting for no-such-server-x: it is .*\n", first)
        assert re.fullmatch(r"\d\d:\d\d:\d\d stopped: all is put back\n", rest)


def test_a_log_that_nobody_reads_does_not_hold_it_up_and_comes_later(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    before = settings_of(lab)
    with unread(napctl, "daemon", "--policy", policy_of(tmp_path, server.pid), "--log-format", "json") as process:
        told = tells_later_what_it_has_mended(lab, server, process)
    assert told[-1] == "stopped: all is put back"
    assert settings_of(lab) == before
