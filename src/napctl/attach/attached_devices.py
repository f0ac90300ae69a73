"""The devices of an attachment, as the kernel tells of them: threads of their NAPI instances, their drivers."""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Self

from napctl.attach.follow_step import NapiKey
from napctl.attach.learned_file import identity_of
from napctl.attach.parts import whole
from napctl.kernel.ethtool_ioctl import EthtoolIoctl
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.napi_threads import scheduled
from napctl.kernel.netdev import Netdev
from napctl.model.change import NapiChange, Transaction

__all__ = ["AttachedThreads", "server_identity", "thread_nice"]


class AttachedThreads:
    """Of an attachment's devices, again and again. The sockets by which they are asked for stay open: to find a network
    namespace means to go through all processes. A context manager."""

    def __init__(self, transaction: Transaction):
        self._open = ExitStack()
        self.follow(transaction)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    def follow(self, transaction: Transaction) -> None:
        """Of these devices from now on."""
        self._open.close()
        self._napis = whole(transaction).napis
        self._devices: list[tuple[NapiKey, Netdev]] = []
        """By network namespace and interface index."""
        self._told: dict[NapiKey, dict[NapiKey, int]] = {}
        for netns, change in _devices(transaction):
            with suppress(OSError):
                netdev = self._open.enter_context(Netdev(netns))
                self._devices.append(((netns.inode, change.ifindex), netdev))

    def read(self) -> dict[NapiKey, int]:
        """Pids, where there are threads; what was told last of a device that cannot be asked."""
        for (inode, ifindex), netdev in self._devices:
            with suppress(OSError):
                threads = {(inode, each.napi_id): each.thread_pid for each in netdev.napis(ifindex)}
                self._told[inode, ifindex] = {key: pid for key, pid in threads.items() if pid and key in self._napis}
        return {key: pid for each in self._told.values() for key, pid in each.items()}


def thread_nice(transaction: Transaction) -> int | None:
    """The least nice value of the NAPI threads; None: not each of its NAPI instances has one."""
    with AttachedThreads(transaction) as threads:
        told = [scheduled(pid) for pid in threads.read().values()]
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
