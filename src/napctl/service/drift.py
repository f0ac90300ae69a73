"""What of this machine differs from a policy, found out by reading alone: with a service running, and without one."""

from collections.abc import Mapping, Sequence

from napctl.attach.attachment import napis_of, steered_inodes
from napctl.attach.inspect_target import examine
from napctl.attach.judge_target import WATCH_SECONDS, judge
from napctl.attach.target import Ambiguous, attached_of, parse, resolve
from napctl.change.journal import Journal
from napctl.change.objects import Places, opened
from napctl.change.recovery import alive
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.change import Change, SteeringChange, Transaction
from napctl.model.drift import Drift, Drifted, joined
from napctl.model.errors import BadInput, Unsupported
from napctl.model.policy import AttachEntry, Policy
from napctl.model.value import Value
from napctl.observe.machine import take_machine
from napctl.service.attach_drift import coverage_drift, settings_drift
from napctl.service.device_drift import device_drift
from napctl.service.policy_keys import attach_options_of

__all__ = ["find_drift", "target_drift"]


def find_drift(policy: Policy, netns: NetworkNamespace) -> Drift:
    """All that differs. `netns`: where the devices are; targets are found wherever they run.

    Raises NotPermitted where another user's processes or the journal would have to be read.
    """
    live = attachments_in_force()
    with Places() as places:
        parts = [target_drift(entry, live, places) for entry in policy.attach]
    if policy.devices:
        machine = take_machine(netns)
        held = {napi_id for each in live for inode, napi_id in napis_of(each) if inode == netns.inode}
        parts.append(device_drift(policy.devices, machine, held))
    return joined(*parts)


def attachments_in_force() -> list[Transaction]:
    """Without what a dead napctl or an ended server has left behind, which is `napctl recover`'s."""
    live = (each for each in Journal.read(live=True) if each.kind == "attach" and each.state == "attached")
    return [each for each in live if alive(each)]


def target_drift(entry: AttachEntry, live: Sequence[Transaction], places: Places) -> Drift:
    """Of one entry. `live`: what is attached."""
    try:
        running = resolve(parse(entry.target))
    except Ambiguous as error:
        return Drift(differences=(Drifted(where=entry.target, words=str(error), origin=entry.origin),))
    except BadInput as error:
        return Drift(waiting=(f"{error} ({entry.origin})",))
    options, mine = attach_options_of(entry), attached_of(running, live)
    try:
        found = examine(entry.target, running, WATCH_SECONDS)
    except BadInput as error:  # it ended meanwhile
        return Drift(waiting=(f"{error} ({entry.origin})",))
    target = judge(found, options, steered=steered_inodes(live))
    parts = [coverage_drift(entry, target, mine)]
    for each in mine:
        now, notes = _read(each.changes, places)
        parts += [settings_drift(entry, options, each, now), Drift(notes=notes)]
    return joined(*parts)


def _read(changes: Sequence[Change], places: Places) -> tuple[Mapping[Change, Value | None], tuple[str, ...]]:
    """What each has now; and why it cannot be read of some. Nobody can read whether a group is steered."""
    now: dict[Change, Value | None] = {}
    notes = []
    for change in changes:
        if isinstance(change, SteeringChange):
            continue
        try:
            with opened(change, places) as block:
                now[change] = block.read() if block is not None else None
        except Unsupported as error:
            notes.append(str(error))
    return now, tuple(notes)
