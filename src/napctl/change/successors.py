"""NAPI instances that were made anew when their device was reset, and may have what napctl had set on those before."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator

from msgspec.structs import replace

from napctl.change.objects import Places
from napctl.change.undoing_order import suspension_of
from napctl.kernel.netdev import Netdev
from napctl.model.change import Change, NapiChange, Transaction

__all__ = ["inherited"]


def inherited(changes: Collection[Change], others: Iterable[Transaction], places: Places) -> Iterator[NapiChange]:
    """What nobody has recorded and is napctl's all the same, as changes to be undone: suspension of the successors of
    instances that are no more, of those that these changes are of.

    A driver that keeps its structures over a reset, as veth does, keeps irq-suspend-timeout in them:
    netif_napi_add_weight_locked() in net/core/dev.c sets deferral only. `others`: of which none is inherited.
    """
    all_changes = (changes, *(one.changes for one in others))
    recorded = {(each.netns, each.napi_id) for some in all_changes for each in _napi_changes(some)}
    by_device = defaultdict(list)
    for change in _napi_changes(changes):
        by_device[change.netns, change.ifindex].append(change)
    for (inode, ifindex), its in by_device.items():
        netns = places.candidates(inode)[0]
        if netns.inode != inode:
            continue
        with Netdev(netns) as netdev:
            there = {napi.napi_id: napi.settings.irq_suspend_timeout_ns for napi in netdev.napis(ifindex)}
        gone = sorted((each for each in its if each.napi_id not in there), key=lambda each: each.napi_id)
        if not gone:
            continue
        newer = [each for each in sorted(there) if each > gone[-1].napi_id and (inode, each) not in recorded]
        heirs = gone if len(gone) == len(newer) else [gone[-1]] * len(newer)  # ids are given upwards
        for change, napi_id in zip(heirs, newer, strict=True):
            for each in suspension_of([replace(change, napi_id=napi_id)]):
                assert isinstance(each, NapiChange)
                if there[napi_id] in _own(each):
                    yield each


def _napi_changes(changes: Iterable[Change]) -> Iterator[NapiChange]:
    return (each for each in changes if isinstance(each, NapiChange))


def _own(change: NapiChange) -> set[int | None]:
    """What napctl gave it; never the former value, nor what it does not touch."""
    blocks = (change.after, change.leaving) if change.leaving is not None else (change.after,)
    return {each.irq_suspend_timeout_ns for each in blocks} - {None, change.before.irq_suspend_timeout_ns}
