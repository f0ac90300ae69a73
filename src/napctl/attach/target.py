"""From what the user wrote to the one process that is meant."""

from napctl.kernel import processes
from napctl.kernel.processes import Process
from napctl.model.change import Transaction
from napctl.model.errors import BadInput


def find_process(target: str) -> Process:
    """The process with that pid or name. Raises BadInput if there is none, or several of that name."""
    if target.isdigit():
        found = processes.process(int(target))
        if found is None:
            raise BadInput(f"{target}: no such process")
        return found
    candidates = processes.named(target)
    if not candidates:
        raise BadInput(f"{target}: no process has that name")
    if len(candidates) > 1:
        pids = ", ".join(str(candidate.pid) for candidate in candidates)
        raise BadInput(f"{target}: {len(candidates)} processes have that name ({pids}); give a pid")
    return candidates[0]


def find_attachments(target: str, live: list[Transaction]) -> list[Transaction]:
    """What the journal holds for that pid or name, whether or not the process still lives. Raises BadInput."""
    matches = [each for each in live if target in (str(each.pid), each.name)]
    if matches:
        return matches
    running = None if target.isdigit() else processes.named(target)
    pids = {process.pid for process in running or ()}
    matches = [each for each in live if each.pid in pids]
    if not matches:
        raise BadInput(f"{target}: nothing is attached to it")
    return matches
