"""The devices of an attachment, as the kernel tells of them: threads of their NAPI instances, their drivers."""

from collections.abc import Iterator
from contextlib import suppress

from napctl.attach.follow_step import NapiKey
from napctl.attach.learned_file import identity_of
from napctl.attach.parts import whole
from napctl.kernel.ethtool_ioctl import EthtoolIoctl
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.napi_threads import scheduled
from napctl.kernel.netdev import Netdev
from napctl.model.change import NapiChange, Transaction

__all__ = ["napi_threads", "server_identity", "thread_nice"]


def napi_threads(transaction: Transaction) -> dict[NapiKey, int]:
    """Pids of the NAPI threads, where there are such."""
    found: dict[NapiKey, int] = {}
    napis = whole(transaction).napis
    for netns, change in _devices(transaction):
        with suppress(OSError), Netdev(netns) as netdev:
            keys = ((netns.inode, each.napi_id, each.thread_pid) for each in netdev.napis(change.ifindex))
            found |= {(inode, napi_id): pid for inode, napi_id, pid in keys if pid and (inode, napi_id) in napis}
    return found


def thread_nice(transaction: Transaction) -> int | None:
    """The least nice value of these threads; None: not each of its NAPI instances has one."""
    told = [scheduled(pid) for pid in napi_threads(transaction).values()]
    known = [each[0] for each in told if each is not None]
    return min(known) if known and len(known) == len(whole(transaction).napis) else None


def server_identity(transaction: Transaction) -> str:
    """By which what was learned of it is known again."""
    drivers: set[str] = set()
    for netns, change in _devices(transaction):
        with EthtoolIoctl(netns) as ioctl:
            driver = ioctl.driver(change.device)
        drivers.add(driver[0] if driver else "unknown driver")
    return identity_of(transaction.pid, transaction.name, "+".join(sorted(drivers)))


def _devices(transaction: Transaction) -> Iterator[tuple[NetworkNamespace, NapiChange]]:
    changes = (each for each in transaction.changes if isinstance(each, NapiChange))
    for change in {(each.netns, each.ifindex): each for each in changes}.values():
        netns = NetworkNamespace.find(change.netns)
        if netns is not None:
            with netns:
                yield netns, change
