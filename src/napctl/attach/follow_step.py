"""Following a target: from what is attached and what is found now to what is to be done, and why. Pure."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from napctl.attach.attachment import planned
from napctl.attach.follow_thread import state_of_thread, thread_there
from napctl.attach.inspect_target import Examination
from napctl.attach.judge_target import JudgedTarget
from napctl.attach.steering import outgrown
from napctl.model.change import (
    Change,
    EpollChange,
    InstanceChange,
    NapiChange,
    PollerChange,
    RingChange,
    SocketChange,
    SteeringChange,
    ThreadChange,
    Transaction,
)
from napctl.model.modes import OF_INSTANCES
from napctl.model.plan import settings
from napctl.model.settings import NapiSettings, ThreadSettings
from napctl.model.snapshot import Decision
from napctl.model.suspension import Suspension

__all__ = [
    "NapiKey",
    "Present",
    "Step",
    "cheap_step",
    "next_step",
    "outgrown_listeners",
    "resets_of",
    "touched_settings",
]


NapiKey = tuple[int, int]
"""Network namespace and NAPI id."""


@dataclass(frozen=True)
class Present:
    """What the kernel has by now, beside what an examination tells: settings of all NAPI instances of the network
    namespaces in question, and those namespaces' devices that are down."""

    napis: Mapping[NapiKey, NapiSettings]
    of_devices: Mapping[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)
    """By network namespace and interface index: the device's NAPI ids in the order in which they were made."""
    down: frozenset[tuple[int, int]] = frozenset()
    """Network namespace and interface index."""
    resets: Mapping[tuple[int, int], NapiChange] = field(default_factory=dict)
    """By device: the newest attached NAPI instance that an earlier reset took away."""


@dataclass
class Step:
    """What to do to an attachment, and the lines about each part of it, with what was decided."""

    more: list[Change] = field(default_factory=list)
    without: list[Change] = field(default_factory=list)
    forget: list[Change] = field(default_factory=list)
    words: dict[str, Decision | None] = field(default_factory=dict)
    lost: list[Change] = field(default_factory=list)
    """Of what is forgotten: what has its former value again."""

    def __bool__(self) -> bool:
        return bool(self.more or self.without or self.forget)

    def say(self, line: str, kind: Decision | None = None) -> None:
        """`kind`: what was decided; None: it only tells what has happened."""
        self.words.setdefault(line, kind)

    def gone(self, change: Change, line: str, *, lost: bool = False) -> None:
        """To be forgotten, as it is not there any more; `lost`: it has its former value again."""
        self.forget.append(change)
        self.say(line)
        if lost:
            self.lost.append(change)

    def let_go(self, change: Change, line: str) -> None:
        """To be taken out of the attachment, and put back."""
        self.without.append(change)
        self.say(line, "detach")


def next_step(
    transaction: Transaction, now: JudgedTarget, wanted: Suspension, present: Present, *, adapts: bool = False,
    left: Collection[str] = (),
) -> Step:  # fmt: skip
    """What makes an attachment fit again what is there. `adapts`: as of planned(). `left`: as of cheap_step()."""
    step = Step()
    kept: set[tuple[object, ...]] = set()
    misfits = outgrown_listeners(transaction, now.found)
    for change in transaction.changes:
        if _stays(change, now, present, misfits, step, left) or change in step.more:
            kept |= set(_keys(change))
    resets = {**present.resets, **resets_of(step.forget)}
    for change in (*_renumbered(step, present), *planned(now, wanted, adapts=adapts)):
        if not kept & set(_keys(change)) and not _is_away(change, present) and change.where not in left:
            kept |= set(_keys(change))
            step.more.append(_as_before_reset(change, resets))
    if not any(key[0] in ("epoll", "socket", "ring", "listener") for key in kept) and now.choice.empty:
        _let_go_of_all_napis(transaction, now, step)
    _say_what_is_new(step)
    return step


def _stays(
    change: Change, now: JudgedTarget, present: Present, misfits: Mapping[int, str], step: Step, left: Collection[str]
) -> bool:
    """Whether it stays as it is."""
    match change:
        case EpollChange():
            return _epoll(change, now, misfits, step)
        case NapiChange() | ThreadChange():
            return _instance(change, now, present, step, left)
        case SocketChange():
            return _socket(change, now, step)
        case RingChange():
            return _ring(change, now, step)
        case SteeringChange():
            return _steering(change, now, misfits, step)
    return True


def _let_go_of_all_napis(transaction: Transaction, now: JudgedTarget, step: Step) -> None:
    """Deferral without anybody who polls only delays packets, unless that is what was asked for."""
    if now.choice.mode in OF_INSTANCES:
        return
    step.more = [each for each in step.more if not isinstance(each, NapiChange)]
    left = [each for each in transaction.changes if isinstance(each, NapiChange)]
    left = [each for each in left if each not in step.without and each not in step.forget]
    step.without += left
    for each in left:
        step.say(f"detached {each.where}: nothing that is attached polls it", "detach")


def cheap_step(transaction: Transaction, present: Present, pids: Collection[int], left: Collection[str] = ()) -> Step:
    """That part of it for which nobody needs to look at the target: processes that have ended are forgotten, as long as
    others run, and NAPI instances that were reset are set again. `pids`: of those that run. `left`: what is not set
    again when it was lost, as a change says where."""
    step = Step()
    for change in transaction.changes:
        match change:
            case EpollChange() | SocketChange() | RingChange():
                if pids and not any(each.pid in pids for each in change.holders):
                    step.gone(change, f"{change.name} ({change.pid}) has ended")
            case NapiChange() if not _napi(change, present, step):
                if (change.netns, change.napi_id) in present.napis and change.where not in left:
                    step.more.append(change)
            case ThreadChange():
                _thread(change, present, None, step, left)
    resets = {**present.resets, **resets_of(step.forget)}
    step.more += [_as_before_reset(change, resets) for change in _renumbered(step, present)]
    _say_what_is_new(step)
    return step


def resets_of(forgotten: Iterable[Change]) -> dict[tuple[int, int], NapiChange]:
    """By device: the newest NAPI instance among these that are gone."""
    gone = (change for change in forgotten if isinstance(change, NapiChange))
    return {(change.netns, change.ifindex): change for change in sorted(gone, key=lambda each: each.napi_id)}


def _keys(change: Change) -> Iterator[tuple[object, ...]]:
    """What a change is known again by; a group of listeners by each of them."""
    match change:
        case EpollChange():
            yield ("epoll", change.pid, change.started_ticks, change.epoll_fd)
        case NapiChange():
            yield ("napi", change.netns, change.napi_id)
        case ThreadChange():
            yield ("thread", change.netns, change.napi_id)
        case SocketChange():
            yield ("socket", change.inode)
        case RingChange():
            yield ("ring", change.inode)
        case SteeringChange():
            yield from (("listener", inode) for inode in change.inodes)


def outgrown_listeners(transaction: Transaction, found: Examination) -> Mapping[int, str]:
    """Listening sockets (inodes) of groups whose program does not fit what is there now, and why."""
    steered = (each for each in transaction.changes if isinstance(each, SteeringChange))
    return {inode: why for each in steered if (why := outgrown(each.inodes, found)) for inode in each.inodes}


def _epoll(change: EpollChange, now: JudgedTarget, misfits: Mapping[int, str], step: Step) -> bool:
    """Whether it stays as it is."""
    if not _runs(change, now):
        step.gone(change, f"{change.name} ({change.pid}) has ended")
        return False
    places = {(place.pid, place.fd) for place in change.holders}
    verdict = next((each for each in now.verdicts if places & set(each.instance.places)), None)
    if verdict is None:
        step.gone(change, f"{change.where} was closed")
        return False
    chosen = any(each is verdict.instance for each in now.choice.instances)
    why = next((misfits[one.inode] for one in verdict.instance.listeners if one.inode in misfits), None)
    if why is not None and not chosen:
        step.let_go(change, f"detached {change.where}: {why}")
        return False
    if verdict.judgement in ("does not fit", "fits after steering") and not chosen:
        step.let_go(change, f"detached {change.where}: {verdict.why}")
        return False
    if verdict.instance.params == change.before != change.after:
        step.gone(change, f"{change.where} lost its parameters: somebody else reset them", lost=True)
        return False
    return True


def _instance(change: InstanceChange, now: JudgedTarget, present: Present, step: Step, left: Collection[str]) -> bool:
    """Whether it stays as it is."""
    if isinstance(change, ThreadChange):
        stays = _thread(change, present, thread_there(change, now.found), step, left)
    else:
        stays = _napi(change, present, step) and not _feeds_only_unfit(change, now, step)
    return stays and not _is_deserted(change, now, present, step)


def _napi(change: NapiChange, present: Present, step: Step) -> bool:
    there = present.napis.get((change.netns, change.napi_id))
    if there is None:
        if (change.netns, change.ifindex) in present.down:
            return True  # they may come back with it
        step.gone(change, f"{change.where} disappeared (device reset)")
        return False
    if touched_settings(there) == change.before and _differs(there, change.after):
        step.gone(change, f"{change.where} lost its settings", lost=True)
        return False
    return True


def _differs(there: NapiSettings, wanted: NapiSettings) -> bool:
    """In what is wanted: of deferral alone, the suspend timer may be anything."""
    return any(getattr(there, name) != value for name, value in settings(wanted))


def _thread(
    change: ThreadChange, present: Present, thread: ThreadSettings | None, step: Step, left: Collection[str]
) -> bool:
    """Whether it stays as it is; one that was lost is made again."""
    there, down = present.napis.get((change.netns, change.napi_id)), (change.netns, change.ifindex) in present.down
    state = state_of_thread(change, there, thread, down=down)
    if state == "stays":
        return True
    words = "disappeared (device reset)" if state == "gone" else "lost its settings"
    step.gone(change, f"{change.where} {words}", lost=state == "lost")
    if state == "lost":
        step.more += [] if change.where in left else [change]
    return False


def touched_settings(there: NapiSettings) -> NapiSettings:
    """Those of what is there that attaching changes."""
    return NapiSettings(
        defer_hard_irqs=there.defer_hard_irqs,
        gro_flush_timeout_ns=there.gro_flush_timeout_ns,
        irq_suspend_timeout_ns=there.irq_suspend_timeout_ns,
    )


def _feeds_only_unfit(change: NapiChange, now: JudgedTarget, step: Step) -> bool:
    """Whether it is to be let go: it feeds instances that do not fit, and none that is or may be attached.

    Those need not be of the transaction: a program may have set its epoll instance itself.
    """
    if now.choice.mode in OF_INSTANCES:
        return False  # nothing of the target polls, nor is to
    chosen = {id(each) for each in now.choice.instances}
    unfit = [each for each in now.verdicts if each.judgement == "does not fit" and id(each.instance) not in chosen]
    feeds = [each for each in unfit if change.napi_id in each.instance.sockets_by_napi]
    if not feeds or change.napi_id in now.choice.napis:
        return False
    step.let_go(change, f"detached {change.where}: {feeds[0].why}")
    return True


def _is_deserted(change: InstanceChange, now: JudgedTarget, present: Present, step: Step) -> bool:
    """Whether it is to be let go as no process of the target lives in its network namespace any more.

    Who follows it keeps the namespace from going with its last process.
    """
    lived_in = now.found.namespaces
    if not lived_in or 0 in lived_in or change.netns in lived_in or (change.netns, change.ifindex) in present.down:
        return False
    step.let_go(change, f"detached {change.where}: no process of the target is left in its network namespace")
    return True


def _renumbered(step: Step, present: Present) -> Iterator[NapiChange]:
    """For each NAPI instance that a reset took away, its successor, if all of a device went: in the order of ids.

    What a successor was born with may be the predecessor's: a driver that keeps its structures keeps the suspend timer,
    as veth does (netif_napi_add_weight_locked() in net/core/dev.c sets deferral only). That is no former value.
    """
    gone: dict[tuple[int, int], list[NapiChange]] = {}
    for change in step.forget:
        if isinstance(change, NapiChange):
            gone.setdefault((change.netns, change.ifindex), []).append(change)
    for device, changes in gone.items():
        successors = present.of_devices.get(device, ())
        if len(successors) == len(changes) and not {each.napi_id for each in changes} & set(successors):
            ordered = sorted(changes, key=lambda each: each.napi_id)
            for change, napi_id in zip(ordered, successors, strict=True):
                born = present.napis[device[0], napi_id]
                yield replace(change, napi_id=napi_id, before=_former(born, change))


def _as_before_reset(change: Change, resets: Mapping[tuple[int, int], NapiChange]) -> Change:
    """An instance that was born by a reset, as changed channels do, without what it was born with of ours."""
    gone = resets.get((change.netns, change.ifindex)) if isinstance(change, NapiChange) else None
    if gone is None or not isinstance(change, NapiChange) or change.napi_id <= gone.napi_id:  # ids are given upwards
        return change
    return replace(change, before=_former(change.before, gone))


def _former(born: NapiSettings, predecessor: NapiChange) -> NapiSettings:
    """What an instance would have been born with but for what napctl had set on its predecessor."""
    former = {
        name: getattr(predecessor.before, name) if getattr(born, name) == value else getattr(born, name)
        for name in predecessor.after.__struct_fields__
        if (value := getattr(predecessor.after, name)) is not None
    }
    return NapiSettings(**former)


def _steering(change: SteeringChange, now: JudgedTarget, misfits: Mapping[int, str], step: Step) -> bool:
    if why := next((misfits[inode] for inode in change.inodes if inode in misfits), None):
        step.let_go(change, f"stopped steering the {change.where}: {why}")
        return False
    groups = [{one.listener.inode for one in group.members} for group in now.choice.steered]
    if any(set(change.inodes) & group for group in groups):  # it has other members now: to be counted anew
        step.forget.append(change)
        return False
    sharing = frozenset[int]().union(*now.found.sharers.values())
    if not sharing or sharing & set(change.inodes):
        return True
    step.gone(change, f"the {change.where} were closed")
    return False


def _socket(change: SocketChange | RingChange, now: JudgedTarget, step: Step) -> bool:
    if _runs(change, now):
        return True
    step.gone(change, f"{change.name} ({change.pid}) has ended")
    return False


def _ring(change: RingChange, now: JudgedTarget, step: Step) -> bool:
    if not _socket(change, now, step):
        return False
    ring = next((each for each in now.found.rings if each.inode == change.inode), None)
    if ring is None:
        step.gone(change, f"{change.where} was closed")
        return False
    if ring.polling == change.before != change.after:
        step.gone(change, f"{change.where} lost its busy polling: somebody else switched it off", lost=True)
        return False
    return True


def _runs(change: PollerChange, now: JudgedTarget) -> bool:
    """Whether a process that holds it is still among the target's."""
    running = {(each.pid, each.started_ticks) for each in now.found.processes}
    return any((each.pid, each.started_ticks) in running for each in change.holders)


def _is_away(change: Change, present: Present) -> bool:
    """Whether it is of a NAPI instance that cannot be set now: its device is down, or was reset since the look."""
    if not isinstance(change, InstanceChange):
        return False
    device = (change.netns, change.ifindex)
    renumbered = device in present.of_devices and change.napi_id not in present.of_devices[device]
    return device in present.down or renumbered


def _say_what_is_new(step: Step) -> None:
    for change in step.more:
        if isinstance(change, SteeringChange):
            step.say(f"steered the {change.where}, one RX queue each", "attach")
        else:
            step.say(f"attached {change.where}", "attach")
