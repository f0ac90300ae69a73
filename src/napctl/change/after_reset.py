"""What attaching a native program, or taking it away, takes from many devices: NAPI instances are made anew, without
what was set on them.

What a running napctl keeps (the service, `attach --stay`) it sets again itself, as after any reset; the rest is set
here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from msgspec.structs import replace

from napctl.change.journal import Journal
from napctl.change.objects import Places
from napctl.change.same_process import running
from napctl.change.transaction import amend
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.kernel.netlink import Refused
from napctl.model.change import Change, InstanceChange, ThreadChange, Transaction
from napctl.model.errors import NapctlError, Unsupported
from napctl.model.machine import Napi
from napctl.model.plan import settings
from napctl.model.settings import NapiSettings
from napctl.model.storm_change import StormControlChange

__all__ = ["instances", "reset_words", "set_again", "set_again_after"]


@contextmanager
def set_again_after(journal: Journal, undone: Iterable[Change]) -> Iterator[list[str]]:
    """Around undoing these: what a reset by it has taken from other transactions is set again. In words, in the end."""
    words: list[str] = []
    storm = {(each.netns, each.ifindex): each.device for each in undone if isinstance(each, StormControlChange)}
    if not storm:
        yield words
        return
    with Places() as places:
        homes = {place: places.candidates(place[0])[0] for place in storm}
        before = {place: instances(netns, place[1]) for place, netns in homes.items() if netns.inode == place[0]}
        yield words
        for (inode, ifindex), old in before.items():
            netns = homes[inode, ifindex]
            new = instances(netns, ifindex)
            if new:  # else it is down, or has gone
                words += reset_words(storm[inode, ifindex], old, new)
                words += set_again(journal, netns, ifindex, old, new)


def instances(netns: NetworkNamespace, ifindex: int) -> list[Napi]:
    """Of a device, as they are now; none if that is not to be known."""
    with suppress(Unsupported, Refused), Netdev(netns) as netdev:
        return netdev.napis(ifindex)
    return []


def reset_words(device: str, before: Sequence[Napi], after: Sequence[Napi]) -> Iterator[str]:
    """What became of a device's NAPI instances; nothing if it was not reset."""
    old, new = _by_id(before), _by_id(after)
    if gone := sorted(old.keys() - new.keys()):
        anew = sorted(new.keys() - old.keys())
        came = f"NAPI {_list(anew)} came in their place" if anew else "none came in their place"
        yield f"{device} was reset for it: NAPI {_list(gone)} disappeared, {came}"
    if lost := sorted(number for number in old.keys() & new.keys() if old[number] != new[number]):
        yield f"{device} was reset for it: NAPI {_list(lost)} lost settings"


def set_again(
    journal: Journal, netns: NetworkNamespace, ifindex: int, before: Sequence[Napi], after: Sequence[Napi]
) -> Iterator[str]:
    """Set on the NAPI instances of a device what transactions in force had set on them before its reset; says what."""
    heirs = _heirs(_by_id(before), _by_id(after))
    for transaction in journal.live() if heirs else ():
        kept = transaction.keeper is not None and running(transaction.keeper)
        lost = [each for each in _of_device(transaction, netns.inode, ifindex) if each.napi_id in heirs]
        if kept or not lost or transaction.state not in ("attached", "applied", "unconfirmed"):
            continue
        anew = [_inherited(each, heirs[each.napi_id]) for each in lost]
        try:
            amend(journal, transaction, more=anew, forget=lost)
        except NapctlError as error:
            yield f"{transaction.title} was not set again: {error}"
        else:
            yield f"{transaction.title} was set again: {', '.join(each.where for each in anew)}"


State = tuple[NapiSettings, int | None]
"""With the pid of its thread: another one has nothing of what was set on the former."""
Heir = tuple[int, NapiSettings]
"""Its id, and what it was born with."""


def _heirs(old: Mapping[int, State], new: Mapping[int, State]) -> dict[int, Heir]:
    """Of each instance that is gone, the one that came in its place, in the order of ids, which are given upwards; of
    one that has lost settings, itself. None of those that are gone, if it is not clear which came for which."""
    gone, anew = sorted(old.keys() - new.keys()), sorted(new.keys() - old.keys())
    pairs = dict(zip(gone, anew, strict=True)) if len(gone) == len(anew) else {}
    pairs |= {number: number for number in old.keys() & new.keys() if old[number] != new[number]}
    return {number: (heir, new[heir][0]) for number, heir in pairs.items()}


def _inherited(change: InstanceChange, heir: Heir) -> InstanceChange:
    """What it was born with may be what napctl had set on its predecessor, as veth keeps the suspend timer: that is no
    former value (netif_napi_add_weight_locked() in net/core/dev.c sets deferral only). A thread begins anew."""
    napi_id, found = heir
    if isinstance(change, ThreadChange):
        return replace(change, napi_id=napi_id, leaving=None)
    born = {name: getattr(found, name) for name, _ in settings(change.after)}
    before = {
        name: getattr(change.before, name) if value == getattr(change.after, name) else value
        for name, value in born.items()
    }
    return replace(change, napi_id=napi_id, before=NapiSettings(**before), leaving=None)


def _of_device(transaction: Transaction, inode: int, ifindex: int) -> list[InstanceChange]:
    changes = (each for each in transaction.changes if isinstance(each, InstanceChange))
    return [each for each in changes if (each.netns, each.ifindex) == (inode, ifindex)]


def _by_id(napis: Sequence[Napi]) -> dict[int, State]:
    return {each.napi_id: (each.settings, each.thread_pid) for each in napis}


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
