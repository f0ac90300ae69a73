"""Who holds a NAPI thread: a second one is refused, and the holder itself may go on with it."""

import os
import signal
import time
from pathlib import Path

import pytest

from napctl.change import transaction
from napctl.change.journal import Journal
from napctl.change.transaction import amend, apply, begun, restore
from napctl.lab.bed import Lab
from napctl.lab.servers import memcached
from napctl.model.errors import BadInput
from napctl.model.settings import ThreadSettings
from napctl.plan.diff import thread_change
from tests.lab.change.threads import APPLIED, change_to, pid_of, scheduled
from tests.lab.helpers import Napctl, ask, at_server, ending, machine_of

pytestmark = pytest.mark.lab


def test_a_second_holder_is_refused(threads: Lab, napctl: Napctl, threads_plan: Path, tmp_path: Path) -> None:
    assert napctl("apply", threads_plan, *at_server(threads)).status == 0
    other = tmp_path / "other.toml"
    other.write_text(threads_plan.read_text().replace("nice = 19", "nice = 11"))

    done = napctl("apply", other, *at_server(threads))

    assert done.failed_with(2, "its thread is held by apply 1", "`napctl rollback 1` first")
    assert scheduled(threads) == APPLIED


def test_the_holder_itself_may_go_on_with_it(threads: Lab, napctl: Napctl) -> None:
    """As protection does, that first gives a thread and then a nice value."""
    before = machine_of(threads.server)
    with Journal(napctl.state) as journal:
        first = change_to(threads, ThreadSettings(threaded="enabled", nice=1))
        made = apply(journal, begun("apply", "server0", (first,)), then="applied")
        more = (change_to(threads, ThreadSettings(nice=19, cpus="0")),)
        both = amend(journal, made, more=more, join=True)
        assert scheduled(threads)[0] == (19, "0")
        assert len(both.changes) == 1
        restore(journal, both)
    assert machine_of(threads.server) == before


def test_killed_while_the_holder_goes_on_with_it_the_first_value_comes_back(
    threads: Lab, napctl: Napctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Amid the change it has a value that is napctl's own, but neither the former one nor the one to come."""
    before = machine_of(threads.server)
    (device,) = before.devices
    inode = threads.server.namespace.inode
    first = thread_change(device, device.napis[1], inode, ThreadSettings(nice=10))
    assert first is not None
    with Journal(napctl.state) as journal:
        made = apply(journal, begun("apply", "server0", (first,)), then="applied")
    (device,) = machine_of(threads.server).devices
    more = thread_change(device, device.napis[1], inode, ThreadSettings(nice=19))
    assert more is not None
    pid = os.fork()
    if pid == 0:
        monkeypatch.setattr(transaction, "make", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        with Journal(napctl.state) as journal:
            amend(journal, made, more=(more,), join=True)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert [each.state for each in napctl.live()] == ["changing"]

    assert napctl("recover").status == 0

    assert machine_of(threads.server) == before


def test_what_is_attached_gets_no_thread_and_what_has_one_can_be_attached(lab: Lab, napctl: Napctl) -> None:
    """A task that busy polls takes an instance from its thread as from the softirq: the lab's own threads show it."""
    (before,) = machine_of(lab.server).devices
    os.setpriority(os.PRIO_PROCESS, pid_of(lab, 0), 0)
    with ending(memcached(lab)) as server, ask(lab, server), Journal(napctl.state) as journal:
        journal.let_go()
        attachment = napctl.attach_quickly(server.pid)
        journal.take_again()
        with pytest.raises(BadInput, match=f"held by .*, whose tasks poll it; `napctl detach {server.pid}` first"):
            apply(journal, begun("apply", "server0", (change_to(lab, ThreadSettings(nice=19)),)), then="applied")
        restore(journal, attachment)
        made = apply(journal, begun("apply", "server0", (change_to(lab, ThreadSettings(nice=19)),)), then="applied")
        journal.let_go()
        again = napctl.attach_quickly(server.pid)
        time.sleep(0.1)
        journal.take_again()
        restore(journal, made)
        restore(journal, again)
    (after,) = machine_of(lab.server).devices
    assert after.napis[0].settings == before.napis[0].settings
