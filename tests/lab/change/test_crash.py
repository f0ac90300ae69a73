"""Whatever ends napctl, at any instruction: settings are as recorded, or there is a way back to what was before."""

import json
import random
import signal
import socket
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import pytest

from napctl.change.journal import Journal
from napctl.kernel import running_kernel
from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from napctl.model.machine import Machine
from tests.lab.helpers import Napctl, Ran, Sampled, Step, at, machine_of, open_files, victims

pytestmark = pytest.mark.lab

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
QUICKLY = ("--window", "0s", "--defer-us", 200)


def fresh(napctl: Napctl, name: str) -> Napctl:
    """With a journal of its own: the steps of the first attach, which also makes the journal."""
    return Napctl(napctl.state / name)


def brought_back(napctl: Napctl, lab: Lab, server: Server, before: Machine) -> bool:
    """`recover`, or `detach` if attach had come to its end, brings everything back."""
    assert napctl("recover").status == 0
    finished = napctl.live()
    if finished:
        assert [each.state for each in finished] == ["attached"]
        assert napctl("detach", server.pid).status == 0
    assert machine_of(lab.server) == before
    assert napctl.live() == []
    return True


def sane(napctl: Napctl, lab: Lab, before: Machine, attached: Machine) -> str:
    """Either fully attached and recorded, or fully restored: which."""
    now, states = machine_of(lab.server), [each.state for each in napctl.live()]
    if now == before:
        assert "attached" not in states
        return "restored"
    assert now == attached
    assert states == ["attached"]
    return "attached"


CHANGING = 24
"""So many of its last steps are those by which attach changes settings and records that; by those before it looks."""


def some(steps: list[Step], sampled: Sampled, few: int) -> list[Step]:
    """All of them in the long form; else two thirds of those few are such that change something."""
    looking, changing = steps[:-CHANGING], steps[-CHANGING:]
    return [*sampled(looking, few // 3), *sampled(changing, few - few // 3)]


@dataclass(frozen=True)
class Undisturbed:
    """An attach that nothing disturbs."""

    before: Machine
    """And after it was detached again."""
    attached: Machine
    steps: list[Step]


@pytest.fixture
def attach(lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path) -> Undisturbed:
    before = machine_of(lab.server)
    trial = fresh(napctl, "trial")
    steps = trial.steps(tmp_path / "trace", "attach", server.pid, *QUICKLY)
    attached = machine_of(lab.server)
    assert brought_back(trial, lab, server, before)
    return Undisturbed(before, attached, steps)


def attached_machine(napctl: Napctl, lab: Lab, server: Server) -> Machine:
    """What it looks like when attached; it is detached again."""
    assert napctl("attach", server.pid, *QUICKLY).status == 0
    found = machine_of(lab.server)
    assert napctl("detach", server.pid).status == 0
    return found


def never_reached(victim: Napctl, server: Server, step: Step, done: Ran) -> bool:
    """Whether it made such a call less than in the trial before: it asks others' epoll instances, which come and go."""
    if done.status != 0 or step[0] not in ("ioctl", "pidfd_getfd"):
        return False
    assert victim("detach", server.pid).status == 0
    return True


@pytest.mark.trials
@pytest.mark.timeout(600)
def test_attach_killed_at_any_step_leaves_a_way_back(
    attach: Undisturbed, lab: Lab, server: Server, napctl: Napctl, sampled: Sampled
) -> None:
    before, steps = attach.before, attach.steps
    assert {"pwrite64", "fdatasync", "sendto", "ioctl", "pidfd_getfd"} <= {name for name, _ in steps}

    killed, changed, picked = 0, 0, some(steps, sampled, 4)
    for step, victim in victims(napctl, picked):
        done = victim("attach", server.pid, *QUICKLY, under=at(step, "signal=SIGKILL"))
        if never_reached(victim, server, step, done):
            continue
        assert done.status == -9, (step, done)
        killed += 1
        changed += machine_of(lab.server) != before
        assert brought_back(victim, lab, server, before), step

    assert killed > (len(picked) // 2 if picked == steps else 0)  # a few are only there if others have epoll instances
    assert changed or picked != steps, "some of the kills came between the first and the last change"
    name, count = steps[-1]
    survivor = fresh(napctl, "survivor")
    assert survivor("attach", server.pid, *QUICKLY, under=at((name, count + 1), "signal=SIGKILL")).status == 0


@pytest.mark.trials
@pytest.mark.timeout(600)
def test_detach_killed_at_any_step_leaves_a_way_back(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path, sampled: Sampled
) -> None:
    before = machine_of(lab.server)
    napctl.attach_quickly(server.pid)
    attached = machine_of(lab.server)
    steps = napctl.steps(tmp_path / "trace", "detach", server.pid)
    assert machine_of(lab.server) == before

    halfway, picked = 0, sampled(steps, 4)
    for step in picked:
        napctl.attach_quickly(server.pid)
        assert napctl("detach", server.pid, under=at(step, "signal=SIGKILL")).status == -9, step
        halfway += machine_of(lab.server) not in (before, attached)
        assert brought_back(napctl, lab, server, before), step

    assert halfway or picked != steps, "some of the kills came between the first and the last change"


@pytest.mark.trials
@pytest.mark.timeout(600)
def test_recover_killed_at_any_step_can_be_repeated(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path, sampled: Sampled
) -> None:
    before = machine_of(lab.server)

    def half_attached() -> None:
        number = napctl.attach_quickly(server.pid).number
        with Journal(napctl.state) as journal:
            journal.set_state(number, "changing")  # as if attach had been killed before it recorded its success

    half_attached()
    steps = napctl.steps(tmp_path / "trace", "recover")
    for step in sampled(steps, 3):
        half_attached()
        assert napctl("recover", under=at(step, "signal=SIGKILL")).status == -9, step
        assert brought_back(napctl, lab, server, before), step


def test_recovering_twice_is_harmless(lab: Lab, server: Server, client: socket.socket, napctl: Napctl) -> None:
    before = machine_of(lab.server)
    kill_half_done(napctl, lab, server)
    assert machine_of(lab.server) != before

    first, second = napctl("recover"), napctl("recover")

    assert (first.status, second.status) == (0, 0)
    assert "it was interrupted" in first.stdout
    assert second.stdout == "nothing to recover\n"
    assert machine_of(lab.server) == before


def kill_half_done(napctl: Napctl, lab: Lab, server: Server) -> None:
    """When all is changed, and before that is recorded."""
    before = machine_of(lab.server)
    napctl("attach", server.pid, *QUICKLY, under=at(write_when_all_is_changed(napctl, server), "signal=SIGKILL"))
    assert [each.state for each in napctl.live()] == ["changing"]
    assert machine_of(lab.server) != before


def write_when_all_is_changed(napctl: Napctl, server: Server) -> Step:
    """The journal's first after the last ioctl, which reads back the last thing that attach changes."""
    trial = fresh(napctl, "trial")
    napctl.state.mkdir()
    steps = trial.steps(napctl.state / "trace", "attach", server.pid, *QUICKLY)
    assert trial("detach", server.pid).status == 0
    recorded = max(place for place, (name, _) in enumerate(steps) if name == "fdatasync")  # that all is done
    changed = max(place for place, (name, _) in enumerate(steps[:recorded]) if name == "ioctl")
    return next((name, number) for name, number in steps[changed:] if name == "pwrite64")


def test_recover_works_when_the_server_was_killed_as_well(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    before = machine_of(lab.server)
    kill_half_done(napctl, lab, server)
    server.process.kill()
    server.process.wait()
    assert machine_of(lab.server) != before

    recovered = napctl("recover", "--json")

    assert recovered.status == 0
    outcomes = {row["setting"]: row["outcome"] for row in recovered.json["settings"]}
    assert outcomes == {
        "prefer_busy_poll": "gone",
        "busy_poll_budget": "gone",
        "defer_hard_irqs": "restored",
        "gro_flush_timeout_ns": "restored",
        "irq_suspend_timeout_ns": "restored",
    }
    assert machine_of(lab.server) == before


def test_the_next_attach_first_recovers_what_was_left_half_done(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    before = machine_of(lab.server)
    kill_half_done(napctl, lab, server)

    assert napctl("attach", server.pid, *QUICKLY).status == 0
    assert napctl("detach", server.pid).status == 0

    assert machine_of(lab.server) == before


@pytest.mark.trials
@pytest.mark.timeout(600)
def test_an_interruption_at_any_step_of_attach_leaves_all_or_nothing(
    attach: Undisturbed, lab: Lab, server: Server, napctl: Napctl, sampled: Sampled
) -> None:
    interruptions = cycle(INTERRUPTIONS)
    steps = attach.steps[:-1]  # exit_group comes after the last chance to speak
    interrupted, picked = 0, some(steps, sampled, 4)
    for step, victim in victims(napctl, picked):
        interruption = next(interruptions)
        done = victim("attach", server.pid, *QUICKLY, under=at(step, f"signal={interruption.name}"))

        if never_reached(victim, server, step, done):
            continue
        interrupted += 1
        assert done.status == 128 + interruption, (step, done)
        assert "Traceback" not in done.stderr, (step, done)
        if sane(victim, lab, attach.before, attach.attached) == "attached":
            assert victim("detach", server.pid).status == 0
            assert machine_of(lab.server) == attach.before
    assert interrupted > (len(picked) // 2 if picked == steps else 0)


@pytest.mark.trials
@pytest.mark.timeout(600)
def test_an_interruption_at_any_step_of_detach_leaves_all_or_nothing(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path, sampled: Sampled
) -> None:
    before = machine_of(lab.server)
    napctl.attach_quickly(server.pid)
    attached = machine_of(lab.server)
    steps = napctl.steps(tmp_path / "trace", "detach", server.pid)

    for number, step in enumerate(sampled(steps[:-1], 4)):
        napctl.attach_quickly(server.pid)
        interruption = INTERRUPTIONS[number % 3]
        done = napctl("detach", server.pid, under=at(step, f"signal={interruption.name}"))

        assert done.status == 128 + interruption, (step, done)
        assert "Traceback" not in done.stderr, (step, done)
        if machine_of(lab.server) != before:
            assert machine_of(lab.server) == attached, step
            assert brought_back(napctl, lab, server, before), step


@pytest.mark.trials
@pytest.mark.timeout(600)
@pytest.mark.parametrize("interruption", INTERRUPTIONS)
def test_an_interruption_at_any_moment_leaves_all_or_nothing(
    interruption: signal.Signals,
    lab: Lab,
    server: Server,
    client: socket.socket,
    napctl: Napctl,
    trials: Callable[[int, int], int],
) -> None:
    """At moments between system calls too; those of the interpreter's own start are not napctl's yet."""
    before = machine_of(lab.server)
    attached = attached_machine(napctl, lab, server)
    chance = random.Random(int(interruption))
    for _ in range(trials(2, 40)):
        running = napctl.start("attach", server.pid, *QUICKLY)
        while (napctl.state / "lock").exists() and str(napctl.state / "lock") not in open_files(running.pid):
            if running.poll() is not None:
                break
        time.sleep(chance.uniform(0, 0.03))
        running.send_signal(interruption)
        _, words = running.communicate(timeout=60)

        # Minus: while the interpreter ends, the signal has its default effect; a shell sees 128+n as well.
        assert running.returncode in (0, 128 + interruption, -interruption), words
        assert "Traceback" not in words
        if sane(napctl, lab, before, attached) == "attached":
            assert napctl("detach", server.pid).status == 0
        assert napctl("recover").status == 0
        assert machine_of(lab.server) == before


@pytest.mark.parametrize("module", ["/click/core", "/napctl/cli/main", "/napctl/cli/attach"])
def test_ctrl_c_while_napctl_is_still_loading_prints_no_traceback(module: str, napctl: Napctl, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    napctl("attach", "--help", under=["strace", "-f", "--seccomp-bpf", "-qq", "-o", str(trace), "-e", "trace=openat"])
    opened = [line.replace("__pycache__/", "") for line in trace.read_text().splitlines() if " openat(" in line]
    number = next(number for number, line in enumerate(opened, 1) if module in line)

    done = napctl("attach", "--help", under=at(("openat", number), "signal=SIGINT"))

    assert done.status in (130, -signal.SIGINT)
    assert "Traceback" not in done.stderr


@pytest.mark.trials
@pytest.mark.timeout(600)
@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
def test_a_disk_that_fails_at_any_write_of_the_journal_leaves_all_or_nothing(
    call: str, attach: Undisturbed, lab: Lab, server: Server, napctl: Napctl, sampled: Sampled
) -> None:
    error = {"pwrite64": "ENOSPC", "fdatasync": "EIO"}[call]
    calls = [step for step in attach.steps if step[0] == call]
    for step, victim in victims(napctl, sampled(calls, 2)):
        done = victim("attach", server.pid, *QUICKLY, under=at(step, f"error={error}"))

        if done.status == 0:
            assert sane(victim, lab, attach.before, attach.attached) == "attached", step
        else:
            assert done.failed_with(6, str(victim.state)), step
            assert machine_of(lab.server) == attach.before, step
        assert brought_back(victim, lab, server, attach.before), step


@pytest.mark.trials
@pytest.mark.timeout(600)
def test_a_full_disk_from_any_write_of_the_journal_on_leaves_all_or_nothing(
    attach: Undisturbed, lab: Lab, server: Server, napctl: Napctl, sampled: Sampled
) -> None:
    writes = [step for step in attach.steps if step[0] == "pwrite64"]
    for step, victim in victims(napctl, sampled(writes, 2)):
        under = at(step, "error=ENOSPC")
        under[-1] += "+"  # this one and all that follow
        done = victim("attach", server.pid, *QUICKLY, under=under)

        assert done.failed_with(6, str(victim.state)), step
        assert machine_of(lab.server) == attach.before, step
        assert brought_back(victim, lab, server, attach.before), step


def test_after_a_reboot_nothing_is_restored_because_nothing_is_left(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    """The reboot is simulated by another boot id in the record: what another boot had set, this one must not touch."""
    napctl.attach_quickly(server.pid)
    attached = machine_of(lab.server)
    database = sqlite3.connect(napctl.state / "journal.sqlite")
    (body,) = database.execute("SELECT body FROM transactions").fetchone()
    record = json.loads(body) | {"boot_id": "00000000-0000-0000-0000-000000000000"}
    with database:
        database.execute("UPDATE transactions SET body = ?", (json.dumps(record),))
    database.close()
    assert json.loads(body)["boot_id"] == running_kernel.boot_id()

    assert napctl("recover").status == 0

    assert machine_of(lab.server) == attached
    assert napctl.live() == []
