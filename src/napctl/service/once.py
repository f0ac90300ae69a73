"""A policy made true once, without a service that follows it."""

from collections.abc import Iterator
from pathlib import Path

from napctl.attach.attach_target import attach_target, in_best_mode
from napctl.attach.attachment import napis_of
from napctl.attach.follow_words import counted
from napctl.attach.judge_target import judge_target
from napctl.attach.target import attached_of, parse, resolve
from napctl.change.journal import Journal
from napctl.change.recovery import recover, refuse_unsettled
from napctl.change.transaction import amend, apply, begun, undisturbed
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.change import ChannelsChange, devices_of
from napctl.model.errors import NapctlError
from napctl.model.policy import AttachEntry, Policy
from napctl.observe.machine import take_machine
from napctl.service.device_plan import wanted_changes
from napctl.service.policy_keys import options_for_once

__all__ = ["made_true_once"]


def made_true_once(policy: Policy, directory: Path, netns: NetworkNamespace) -> Iterator[tuple[str, str, bool]]:
    """(target or devices, what became of it, whether it is as the policy wants it), of one after the other."""
    with undisturbed(), Journal(directory) as journal:
        for orphan, _ in recover(journal):
            yield orphan.name, "put back what was left of it", True
    for entry in policy.attach:
        try:
            yield entry.target, _attached(entry, directory), True
        except NapctlError as error:
            yield entry.target, str(error), False
    if policy.protect is not None:
        yield "protection", "left out, as it has to watch: `napctl daemon` does", True
    try:
        yield from _devices_set(policy, directory, netns)
    except NapctlError as error:
        yield "devices", str(error), False


def _attached(entry: AttachEntry, directory: Path) -> str:
    processes = resolve(parse(entry.target))
    options = options_for_once(entry)
    with Journal(directory) as journal:
        if attached_of(processes, (each for each in journal.live() if each.kind == "attach")):
            return "attached already"
        judged = judge_target(entry.target, processes, options)
        if options.mode == "auto":
            judged, options, _ = in_best_mode(journal, judged, options, lambda _line: None)
        attached = attach_target(journal, judged, options, lambda _line: None)
    return f"attached {attached.transaction.title}: {counted(attached.transaction)}"


def _devices_set(policy: Policy, directory: Path, netns: NetworkNamespace) -> Iterator[tuple[str, str, bool]]:
    if not policy.devices:
        return
    with undisturbed(), Journal(directory) as journal:
        live = [each for each in journal.live() if each.kind == "attach"]
        held = {napi_id for each in live for inode, napi_id in napis_of(each) if inode == netns.inode}
        asked = wanted_changes(policy.devices, take_machine(netns), held)
        if not (asked.changes or asked.problems):
            yield "devices", "as the policy wants them already", True
        for device, why in asked.problems.items():
            yield device, why, False
        transaction = None
        while asked.changes:
            names = devices_of(asked.changes)
            refuse_unsettled(journal, names)
            if transaction is None:
                transaction = apply(journal, begun("apply", ", ".join(names), asked.changes), then="applied")
            else:
                transaction = amend(journal, transaction, more=asked.changes, join=True)
            yield ", ".join(names), f"set: {'; '.join(each.where for each in asked.changes)}", True
            if not any(isinstance(each, ChannelsChange) for each in asked.changes):
                break  # else what those devices get besides comes by another look
            asked = wanted_changes(policy.devices, take_machine(netns), held, in_force=transaction.changes)
