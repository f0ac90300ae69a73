"""From a plan to a transaction: what is admitted, what differs, and the one way to make it true."""

from napctl.change.journal import Journal
from napctl.change.recovery import refuse_unsettled
from napctl.change.transaction import apply, begun
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.pci_nics import user_space_nics
from napctl.model.change import Change, Guard, Transaction, devices_of
from napctl.model.errors import BadInput, Unsupported
from napctl.model.machine import Machine
from napctl.model.plan import Plan, named_as
from napctl.observe.machine import take_machine
from napctl.plan.bounds import beyond, driven_by_programs, leased, mismatch
from napctl.plan.diff import changes

__all__ = ["admitted", "apply_plan"]


def admitted(plan: Plan, netns: NetworkNamespace, *, force: bool) -> tuple[tuple[Change, ...], tuple[str, ...]]:
    """What differs now; and the safety bounds that the plan goes beyond, one sentence each, if that is forced.

    Raises BadInput for another machine's plan, and for one beyond a bound unless it is forced or in force already;
    Unsupported where somebody else drives a device, or a queue of it.
    """
    machine = _machine_of(plan, netns)
    plan = named_as(plan, machine)
    if wrong := mismatch(plan, machine):
        raise BadInput(f"this plan is not for this machine as it is: {'; '.join(wrong)}")
    asked, unsafe = changes(plan, machine), beyond(plan, machine)
    if asked and (taken := [words for device in machine.devices for words in leased(device)]):
        raise Unsupported(f"{'; '.join(taken)}; nothing was changed")
    if unsafe and asked and not force:
        raise BadInput(f"{'; '.join(unsafe)}; nothing was changed (--force does it nevertheless)")
    return asked, unsafe if asked else ()


def _machine_of(plan: Plan, netns: NetworkNamespace) -> Machine:
    try:
        return take_machine(netns, [device.name for device in plan.devices])
    except BadInput:
        if taken := driven_by_programs(plan, user_space_nics()):
            raise Unsupported(f"{'; '.join(taken)}; nothing was changed") from None
        raise


def apply_plan(
    journal: Journal, plan: Plan, netns: NetworkNamespace, *, force: bool = False, guard: Guard | None = None
) -> Transaction | None:
    """Make a plan true; None: everything is in force already. Raises what admitted() and apply() raise.

    To be called after recover(). What differs is read here, under the journal's lock, when no other napctl is at work:
    only then are the former values the right ones.
    """
    asked, forced = admitted(plan, netns, force=force)
    if not asked:
        return None
    names = devices_of(asked)
    refuse_unsettled(journal, names)
    transaction = begun("apply", ", ".join(names), asked, forced=forced, guard=guard)
    return apply(journal, transaction, then="unconfirmed" if guard else "applied")
