"""From what the user wrote to the one process that is meant."""

import os

from napctl.kernel import processes
from napctl.kernel.processes import Process
from napctl.model.change import Transaction
from napctl.model.errors import BadInput


def is_pid(target: str) -> bool:
    """Whether the user wrote a number."""
    return target.isascii() and target.isdigit()


def find_process(target: str) -> Process:
    """The process with that pid or name. Raises BadInput if there is none, or several of that name."""
    if is_pid(target):
        found = processes.process(int(target))
        if found is None:
            raise BadInput(f"{target}: no such process")
        if processes.process_of_thread(found.pid) != found.pid:
            raise BadInput(f"{target}: a thread of process {processes.process_of_thread(found.pid)}; give that pid")
        return found
    candidates = [process for process in processes.named(target) if process.pid != os.getpid()]
    if not candidates:
        raise BadInput(f"{target}: no process has that name")
    if len(candidates) > 1:
        pids = ", ".join(str(candidate.pid) for candidate in candidates)
        raise BadInput(f"{target}: {len(candidates)} processes have that name ({pids}); give a pid")
    return candidates[0]


def find_attachments(target: str, live: list[Transaction]) -> list[Transaction]:
    """What the journal holds for that pid or name, whether or not the process still lives. Raises BadInput."""
    matches = [each for each in live if str(each.pid) == target or each.name == target[:15]]
    if matches:
        return matches
    running = None if is_pid(target) else processes.named(target)
    pids = {process.pid for process in running or ()}
    matches = [each for each in live if each.pid in pids]
    if not matches:
        raise BadInput(f"{target}: nothing is attached to it")
    return matches
