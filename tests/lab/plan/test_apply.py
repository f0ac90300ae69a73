"""Applying a plan: all of it or nothing, recorded, read back, and with a way back. On a real tun and a real veth."""

import os
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from napctl.change.journal import LOCK_SECONDS, Journal
from napctl.lab.bed import Lab
from napctl.lab.servers import memcached
from tests.lab.helpers import (
    Napctl,
    Sampled,
    ask,
    at,
    at_server,
    ending,
    in_mounts,
    machine_of,
    victims,
    without,
)
from tests.lab.plans import (
    HEAD,
    TUN,
    VETH,
    assert_way_back,
    deferrals,
    frames_of,
    killed_at_random,
    set_frames,
    states,
    steps_of_apply,
    write_plan,
    write_what_the_kernel_refuses,
)

pytestmark = pytest.mark.lab


def test_a_plan_is_made_true_on_all_devices_at_once_and_rolled_back(bed: Lab, napctl: Napctl, plan: Path) -> None:
    before = machine_of(bed.server)

    applied = napctl("apply", plan, *at_server(bed))

    assert applied.status == 0, applied
    assert frames_of(bed.server.namespace) == 16
    assert deferrals(bed) == {(10, 50_000)}
    assert "undo with: napctl rollback 1" in applied.stdout
    assert napctl("rollback").status == 0
    assert machine_of(bed.server) == before
    assert states(napctl) == ["restored"]


def test_applying_again_changes_nothing_and_says_so(bed: Lab, napctl: Napctl, plan: Path) -> None:
    assert napctl("apply", plan, *at_server(bed)).status == 0
    again = napctl("apply", plan, *at_server(bed))
    assert (again.status, again.stdout) == (0, "nothing to change: the plan is in force already\n")
    assert states(napctl) == ["applied"]


def test_a_dry_run_shows_the_changes_and_makes_none(bed: Lab, napctl: Napctl, plan: Path) -> None:
    before = machine_of(bed.server)
    done = napctl("apply", plan, "--dry-run", *at_server(bed))
    assert done.status == 0
    assert "rx-max-frames" in done.stdout
    assert machine_of(bed.server) == before
    assert not napctl.state.exists()


def test_a_refusal_undoes_the_rest_and_names_the_parameter(
    bed: Lab, napctl: Napctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then rx-max-frames is changed already."""
    before = machine_of(bed.server)
    plan = write_what_the_kernel_refuses(tmp_path / "plan.toml", monkeypatch)

    done = napctl("apply", plan, "--force", *at_server(bed))

    lines = [line for line in done.stderr.splitlines() if "forced" not in line]
    assert done.status == 6
    assert len(lines) == 1
    assert "defer-hard-irqs" in lines[0]
    assert "put back" in lines[0]
    assert machine_of(bed.server) == before
    assert states(napctl) == ["restored"]


def test_a_value_that_the_driver_alters_is_shown_and_is_no_success(bed: Lab, napctl: Napctl, tmp_path: Path) -> None:
    """tun takes at most 64 (NAPI_POLL_WEIGHT in tun_set_coalesce(), drivers/net/tun.c)."""
    before = machine_of(bed.server)
    plan = tmp_path / "plan.toml"
    plan.write_text(HEAD + TUN.format(frames=100))

    done = napctl("apply", plan, "--force", *at_server(bed))

    assert done.status == 1
    assert frames_of(bed.server.namespace) == 64
    assert "the driver set another rx-max-frames" in " ".join(done.stdout.split())
    assert napctl("rollback").status == 0
    assert machine_of(bed.server) == before


def test_what_somebody_else_has_set_since_is_not_overwritten_unless_told(bed: Lab, napctl: Napctl, plan: Path) -> None:
    before = machine_of(bed.server)
    assert napctl("apply", plan, *at_server(bed)).status == 0
    set_frames(bed.server.namespace, 5)

    done = napctl("rollback", "1")

    assert done.status == 5
    assert "rx-max-frames is now 5; somebody else changed it, so napctl leaves it" in done.stderr
    assert frames_of(bed.server.namespace) == 5
    assert deferrals(bed) == {(0, 0)}
    assert napctl("rollback", "1").failed_with(2, "rolled back already", "--force")
    assert napctl("rollback", "1", "--force").status == 0
    assert machine_of(bed.server) == before


def test_plans_upon_plans_are_rolled_back_newest_first(bed: Lab, napctl: Napctl, tmp_path: Path) -> None:
    before = machine_of(bed.server)
    for frames in (16, 32):
        assert napctl("apply", write_plan(tmp_path / "plan.toml", frames=frames), *at_server(bed)).status == 0
    assert frames_of(bed.server.namespace) == 32
    assert napctl("rollback").status == 0
    assert frames_of(bed.server.namespace) == 16
    assert napctl("rollback").status == 0
    assert machine_of(bed.server) == before
    assert napctl("rollback").failed_with(2, "no plan is in force")


def test_deferral_of_an_attached_napi_instance_is_left_to_the_attachment(napctl: Napctl, tmp_path: Path) -> None:
    text = HEAD + '[server0]\ndriver = "veth"\nrx-queues = 1\ntx-queues = 1\n[server0.deferral]\ndefer-hard-irqs = 5\n'
    (tmp_path / "plan.toml").write_text(text)
    with Lab.build() as lab, ending(memcached(lab)) as server, ask(lab, server):
        napctl.attach_quickly(server.pid)
        assert napctl("apply", tmp_path / "plan.toml", "--force", *at_server(lab)).failed_with(
            2, "server0", "IRQ suspension", "detach"
        )


def test_history_can_be_read_while_another_napctl_is_at_work(bed: Lab, napctl: Napctl, plan: Path) -> None:
    assert napctl("apply", plan, *at_server(bed)).status == 0
    with Journal(napctl.state):
        start = time.monotonic()
        assert states(napctl) == ["applied"]
        assert time.monotonic() - start < 0.9 * LOCK_SECONDS, "it did not wait for the lock"
    assert napctl("rollback").status == 0


def test_many_napi_instances_are_one_row(napctl: Napctl, tmp_path: Path) -> None:
    text = VETH.format(defer=3, flush="9us").replace("queues = 2", "queues = 8")
    (tmp_path / "plan.toml").write_text(HEAD + text)
    with Lab.build(queues=8) as lab:
        done = napctl("apply", tmp_path / "plan.toml", *at_server(lab))
        assert done.status == 0
        assert len([line for line in done.stdout.splitlines() if "8 NAPI instances of server0" in line]) == 2


def test_a_server_can_be_attached_upon_a_plan_and_comes_off_first(napctl: Napctl, tmp_path: Path) -> None:
    text = VETH.format(defer=5, flush="30us").replace("queues = 2", "queues = 1")
    (tmp_path / "plan.toml").write_text(HEAD + text)
    with Lab.build() as lab, ending(memcached(lab)) as server, ask(lab, server):
        before = machine_of(lab.server)
        assert napctl("apply", tmp_path / "plan.toml", *at_server(lab)).status == 0
        planned = machine_of(lab.server)
        assert napctl("attach", server.pid, "--window", "0s").status == 0
        assert napctl("rollback").failed_with(2, "memcached", f"napctl detach {server.pid}")
        assert napctl("detach", server.pid).status == 0
        assert machine_of(lab.server) == planned
        assert napctl("rollback").status == 0
        assert machine_of(lab.server) == before


def test_all_that_is_in_force_is_rolled_back_at_once(napctl: Napctl, tmp_path: Path) -> None:
    assert "nothing is in force" in napctl("rollback", "--all").stdout
    text = VETH.format(defer=5, flush="30us").replace("queues = 2", "queues = 1")
    (tmp_path / "plan.toml").write_text(HEAD + text)
    with Lab.build() as lab, ending(memcached(lab)) as server, ask(lab, server):
        before = machine_of(lab.server)
        assert napctl("apply", tmp_path / "plan.toml", *at_server(lab)).status == 0
        assert napctl("attach", server.pid, "--window", "0s").status == 0
        assert napctl("rollback", "1", "--all").failed_with(2, "--all goes with neither an ID nor --force")
        done = napctl("rollback", "--all")
        assert done.status == 0, done
        assert machine_of(lab.server) == before
        assert states(napctl) == ["restored", "restored"]


# Kills


@pytest.mark.trials
@pytest.mark.timeout(1200)
def test_kills_at_random_instants_leave_the_former_state_or_the_applied_one(
    bed: Lab, napctl: Napctl, plan: Path, trials: Callable[[int, int], int]
) -> None:
    outcomes = killed_at_random(bed, napctl, plan, kills=trials(2, 200), chance=random.Random(3))
    print(f"{sum(outcomes.values())} kills of apply: {dict(outcomes)}")


@pytest.mark.trials
@pytest.mark.timeout(600)
def test_apply_killed_at_any_step_leaves_a_way_back(
    bed: Lab,
    napctl: Napctl,
    plan: Path,
    tmp_path: Path,
    sampled: Sampled,
) -> None:
    before = machine_of(bed.server)
    steps = steps_of_apply(bed, napctl, plan, tmp_path / "trace")
    assert {"pwrite64", "fdatasync", "sendto"} <= {name for name, _ in steps}

    # How many descriptors it copies and asks to see who polls depends on what else runs on the machine.
    all_steps = [step for step in steps if step[0] not in ("pwrite64", "pidfd_getfd", "ioctl")]
    halfway, picked = 0, sampled(all_steps, 5)
    for step, victim in victims(napctl, picked):
        assert victim("apply", plan, *at_server(bed), under=at(step, "signal=SIGKILL")).status == -9, step
        halfway += machine_of(bed.server) != before
        assert_way_back(bed, victim, before)

    assert halfway or picked != all_steps, "some of the kills came between the first and the last change"


# Bad input


def test_two_at_once_take_turns_and_the_second_says_who_holds_the_lock(
    bed: Lab, napctl: Napctl, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = machine_of(bed.server)
    monkeypatch.setattr(Journal.__init__, "__kwdefaults__", {"patience_seconds": 0.5})  # not ten, in the forked one too
    with Journal(napctl.state):
        done = napctl("apply", plan, *at_server(bed))
    assert done.failed_with(6, f"pid {os.getpid()}", "is changing settings")
    assert machine_of(bed.server) == before


def test_a_bound_is_kept_unless_forced_and_forcing_is_recorded(bed: Lab, napctl: Napctl, tmp_path: Path) -> None:
    before = machine_of(bed.server)
    plan = write_plan(tmp_path / "plan.toml", flush="90ms")

    assert napctl("apply", plan, *at_server(bed)).failed_with(2, "server0", "gro-flush-timeout", "--force")
    assert machine_of(bed.server) == before
    assert napctl("apply", plan, "--force", *at_server(bed)).status == 0

    (recorded,) = napctl("history", "--json").json["transactions"]
    assert "gro-flush-timeout" in recorded["forced"][0]
    assert "forced: " in napctl("history", "1").stdout
    assert napctl("rollback").status == 0


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("rx-max-frames", "rx-max-framez", ("rx-max-framez", "rx-max-frames")),
        ("rx-max-frames = 16", "rx-max-frames = true", ("rx-max-frames",)),
        ("rx-max-frames = 16", "rx-max-frames = -1", ("rx-max-frames",)),
        ("defer-hard-irqs = 10", 'defer-hard-irqs = "ten"', ("defer-hard-irqs",)),
        ("50us", "50 parsecs", ("gro-flush-timeout", "50 parsecs")),
        ("tun0", "tun7", ("tun7", "no such network device")),
        ('driver = "veth"', 'driver = "mlx5_core"', ("server0", "mlx5_core", "veth")),
        ("rx-queues = 2", "rx-queues = 8", ("server0", "8 RX")),
        ("schema = 1", "schema = 99", ("schema",)),
        ("[tun0]", "[tun0", ("plan.toml",)),
        ("rx-max-frames", "rx-usecs", ("tun0", "rx-usecs")),
    ],
)
def test_a_wrong_plan_is_refused_in_one_line(
    old: str, new: str, words: tuple[str, ...], bed: Lab, napctl: Napctl, plan: Path
) -> None:
    before = machine_of(bed.server)
    plan.write_text(plan.read_text().replace(old, new))
    assert napctl("apply", plan, *at_server(bed)).failed_with(2, *words)
    assert machine_of(bed.server) == before
    assert not napctl.state.exists()


def test_a_plan_that_is_not_there_or_no_plan_is_refused(bed: Lab, napctl: Napctl, tmp_path: Path) -> None:
    assert napctl("apply", tmp_path / "none.toml", *at_server(bed)).failed_with(2, "none.toml")
    (tmp_path / "garbage").write_bytes(os.urandom(500))
    assert napctl("apply", tmp_path / "garbage", *at_server(bed)).failed_with(2, "garbage")
    assert napctl("apply", "/dev/zero", *at_server(bed)).status == 2
    assert napctl("apply", tmp_path, *at_server(bed)).status == 2


def test_a_journal_of_a_newer_napctl_is_refused(bed: Lab, napctl: Napctl, plan: Path) -> None:
    before = machine_of(bed.server)
    with Journal(napctl.state):
        pass
    with sqlite3.connect(napctl.state / "journal.sqlite") as database:
        database.execute("PRAGMA user_version=99")
    database.close()
    for command in (("apply", plan, *at_server(bed)), ("rollback",), ("history",), ("confirm",)):
        assert napctl(*command).failed_with(2, "version 99")
    assert machine_of(bed.server) == before


def test_a_state_directory_that_cannot_be_written_is_refused(bed: Lab, napctl: Napctl, plan: Path) -> None:
    before = machine_of(bed.server)
    napctl.state.mkdir()
    read_only = in_mounts(f"mount --bind {napctl.state} {napctl.state} && mount -o remount,bind,ro {napctl.state}")
    for more in ((), ("--confirm-within", "60s")):
        done = napctl("apply", plan, *more, *at_server(bed), under=read_only)
        assert done.failed_with(6, str(napctl.state)), done
    assert machine_of(bed.server) == before


def test_without_the_capability_it_says_which(bed: Lab, napctl: Napctl, plan: Path) -> None:
    before = machine_of(bed.server)
    done = napctl("apply", plan, *at_server(bed), under=without("net_admin"))
    assert done.status == 4
    assert "CAP_NET_ADMIN" in done.stderr
    assert machine_of(bed.server) == before


@pytest.mark.parametrize("command", ["rollback", "confirm"])
def test_without_anything_applied_there_is_nothing_to_do(command: str, napctl: Napctl) -> None:
    assert napctl(command).failed_with(2, "nothing was ever applied here")
    assert not napctl.state.exists()


def test_a_transaction_that_is_not_there_is_named(bed: Lab, napctl: Napctl, plan: Path) -> None:
    assert napctl("apply", plan, *at_server(bed)).status == 0
    for command in ("rollback", "confirm", "history"):
        assert napctl(command, "99").failed_with(2, "99")
    assert napctl("rollback").status == 0
