"""Attach a target that was judged: choose the mode and the timer, change the settings."""

import time
from collections.abc import Callable
from dataclasses import replace as but

from napctl.attach.attach_options import AttachOptions
from napctl.attach.attachment import attachment, refuse_second, refuse_shared
from napctl.attach.inspect_target import receiving
from napctl.attach.judge_target import JudgedTarget, judge, unfit_words, who
from napctl.attach.mode_sweep import ROUNDS_TO_CHOOSE, ROUNDS_TO_TELL, next_best, offered, options_for
from napctl.attach.switch_way import in_way
from napctl.attach.timer_sweep import choose_timer
from napctl.change.journal import Journal
from napctl.change.transaction import LeaveOut, apply, never, undisturbed
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.model.activity import Attached
from napctl.model.change import Guard, Keeper, NapiChange, Transaction
from napctl.model.errors import Unsupported
from napctl.model.modes import OF_INSTANCES, mode_of
from napctl.model.next_best import NextBest, Offer
from napctl.model.timer_choice import TimerChoice

__all__ = [
    "attach_target",
    "attach_with",
    "chosen_options",
    "in_best_mode",
    "refuse_unfit",
    "several_queues",
    "timer_without_trial",
]


def attach_target(
    journal: Journal,
    target: JudgedTarget,
    options: AttachOptions,
    progress: Callable[[str], None],
    *,
    in_force: Callable[[Attached], object] = lambda _attached: None,
    keeper: Keeper | None = None,
) -> Attached:
    """Attach what fits; what it does then is still to be measured. To be called after recover().

    `in_force` and `keeper`: as of attach_with(). Raises what refuse_unfit() does.
    """
    refuse_unfit(journal, target)
    timer = timer_without_trial(options) or choose_timer(
        journal, target, options.suspension, budget_ns=options.budget_ns, progress=progress
    )
    return attach_with(journal, target, options, timer, in_force=in_force, keeper=keeper)


def refuse_unfit(journal: Journal, target: JudgedTarget) -> None:
    """Raises BadInput if it is attached already, and Unsupported, with the reason, if nothing fits."""
    refuse_second(target.found.processes, journal.live())
    if target.choice.empty:
        refuse_shared(target.found.feeding, journal.live())
        raise Unsupported(f"{who(target.found)}: {unfit_words(target)}; nothing was changed")


def in_best_mode(
    journal: Journal,
    target: JudgedTarget,
    options: AttachOptions,
    progress: Callable[[str], None],
    *,
    show: Callable[[NextBest], object] = lambda _found: None,
    measure: bool = True,
) -> tuple[JudgedTarget, AttachOptions, NextBest | None]:
    """What `--mode auto` attaches, and with which options: suspension where it fits, else the best of what does, and
    what that was chosen from. Whoever asks for suspension, which does not fit, is only shown what does, `measure`d or
    not. Raises what refuse_unfit() does, and Unsupported if nothing is better than what is there.
    """
    if options.mode not in ("suspend", "auto") or not target.choice.empty:
        return target, options, None
    refuse_second(target.found.processes, journal.live())
    refuse_shared(target.found.feeding, journal.live())
    if measure or options.mode == "auto":
        rounds = ROUNDS_TO_CHOOSE if options.mode == "auto" else ROUNDS_TO_TELL
        found = next_best(journal, target, options, rounds=rounds, progress=progress)
    else:
        found = offered(target, options)
    show(found)
    if options.mode != "auto":
        return target, options, None
    return (*as_chosen(target, options, found), found)


def as_chosen(target: JudgedTarget, options: AttachOptions, found: NextBest) -> tuple[JudgedTarget, AttachOptions]:
    """To attach the best of what was tried, with the timer that it was tried with. Raises Unsupported if there is
    none."""
    if found.best is None:
        raise Unsupported(
            f"{who(target.found)}: suspension does not fit: {unfit_words(target)}; of what fits else, "
            f"{found.unmeasured or found.why}; nothing was changed"
        )
    chosen = chosen_options(options, found, found.best)
    return judge(target.found, chosen), chosen


def chosen_options(options: AttachOptions, found: NextBest, offer: Offer) -> AttachOptions:
    """To attach in the mode that was offered, with the timer that it was tried with."""
    chosen = options_for(options, offer)
    return chosen if chosen.mode == "thread" else but(chosen, timer_ns=found.gro_flush_timeout_ns)


def timer_without_trial(options: AttachOptions) -> TimerChoice | None:
    """None: timers are to be tried."""
    if options.mode == "thread":
        return TimerChoice(gro_flush_timeout_ns=0, why="a thread has no timer")
    if options.goal is not None:
        return TimerChoice(gro_flush_timeout_ns=0, why="it adapts, from interrupts on")
    if options.timer_ns is not None:
        return TimerChoice(gro_flush_timeout_ns=options.timer_ns, why="asked for")
    return None


def attach_with(
    journal: Journal,
    target: JudgedTarget,
    options: AttachOptions,
    timer: TimerChoice,
    *,
    in_force: Callable[[Attached], object] = lambda _attached: None,
    guard: Guard | None = None,
    keeper: Keeper | None = None,
    leave_out: LeaveOut = never,
) -> Attached:
    """Attach with that timer what refuse_unfit() does not refuse.

    `in_force` is told before any signal can interrupt: from then on it is the caller's to undo. `keeper`: as of
    attachment(). `leave_out`: as of apply().
    """
    wanted = in_way(options.suspension, timer.gro_flush_timeout_ns or None)
    start = time.monotonic()
    with undisturbed():
        adapts = options.goal is not None
        planned = attachment(journal, target, wanted, guard=guard, keeper=keeper, adapts=adapts)
        transaction = apply(journal, planned, then="attached", leave_out=leave_out)
        attached = Attached(
            verdict="not measured",
            transaction=transaction,
            attach_seconds=target.seconds + time.monotonic() - start,
            fitness=target.fitness,
            timer=timer,
            mode=mode_of(transaction.changes),
            window=None,
            warnings=target.warnings,
            recovered=(),
            busy_cpus_before=target.found.cpus if transaction.busy_polls else None,
        )
        in_force(attached)
    return attached


def several_queues(transaction: Transaction) -> list[str]:
    """A warning for each device that receives by more NAPI instances than are attached: connections of the others mix.

    An epoll instance follows one NAPI id; sockets of another wait for the suspend timer. A ring polls all.
    """
    if mode_of(transaction.changes) in OF_INSTANCES:
        return []  # what comes over others is taken as before
    changes = [
        change
        for change in transaction.changes
        if isinstance(change, NapiChange) and change.after.irq_suspend_timeout_ns
    ]
    words = []
    for ifindex, device, inode in sorted({(change.ifindex, change.device, change.netns) for change in changes}):
        netns = NetworkNamespace.find(inode)
        if netns is None:
            continue
        with netns, Netdev(netns) as netdev:
            there = receiving(netdev.napis(ifindex), netdev.queues(ifindex))
        ours = sum(change.ifindex == ifindex and change.napi_id in there for change in changes)
        if len(there) > ours:
            words.append(
                f"{device}: {ours} of {len(there)} NAPI instances attached; a later connection over another one may "
                "wait as long as irq-suspend-timeout, unless the server keeps each in an epoll instance of its own"
            )
    return words
