"""What the tests of keepers and guards share: attachments of this process, without a change, and dead keepers."""

import os
import subprocess

from msgspec.structs import replace

from napctl.change.guard import myself
from napctl.change.guard_lock import service_guard
from napctl.change.journal import Journal
from napctl.kernel import running_kernel
from napctl.model.change import Guard, Keeper, State, Transaction

WAIT_NS = 60 * 10**9
ME = myself()
OURS = Guard(pid=ME.pid, started_ticks=ME.started_ticks, deadline_boot_ns=0)
"""A guard that runs."""
WAITING = replace(OURS, wait_ns=WAIT_NS)
OF_SERVICE = service_guard(WAIT_NS)


def dead() -> Keeper:
    """One that has just ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return Keeper(pid=process.pid, started_ticks=1)


def recorded(journal: Journal, guard: Guard | None, keeper: Keeper | None, state: State = "attached") -> Transaction:
    """Of this process, so that its server runs."""
    one = Transaction(
        state=state, boot_id=running_kernel.boot_id(), made_unix_ns=1, name="server", pid=os.getpid(),
        started_ticks=ME.started_ticks, guard=guard, keeper=keeper, changes=(),
    )  # fmt: skip
    number = journal.begin(one)
    found = journal.find(number)
    assert found is not None
    return found
