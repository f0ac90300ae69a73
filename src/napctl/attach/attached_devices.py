"""The devices of an attachment, as the kernel tells of them: threads of their NAPI instances, their drivers."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import Self

from napctl.attach.follow_step import NapiKey
from napctl.attach.learned_file import identity_of
from napctl.attach.parts import whole
from napctl.kernel.ethtool_ioctl import EthtoolIoctl
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.napi_threads import device_threaded, scheduled
from napctl.kernel.netdev import Netdev
from napctl.kernel.sysfs import DeviceAttributes
from napctl.model.change import NapiChange, Transaction
from napctl.model.machine import Napi
from napctl.model.settings import DISABLED

__all__ = ["AttachedThreads", "polling_threads", "server_identity", "thread_nice"]


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
    """The least nice value of the threads that poll its NAPI instances; None: not each of these has one.

    Raises NapctlError and OSError.
    """
    napis, told = whole(transaction).napis, list[int]()
    for netns, change in _devices(transaction):
        with Netdev(netns) as netdev:
            ours = [each for each in netdev.napis(change.ifindex) if (netns.inode, each.napi_id) in napis]
        told += [nice for nice, _ in filter(None, map(scheduled, polling_threads(ours, _switch(netns, change, ours))))]
    return min(told) if told and len(told) == len(napis) else None


def polling_threads(napis: Iterable[Napi], of_device: str | None) -> Iterator[int]:
    """Pids of the threads that poll them: before Linux 6.17 one outlives its being switched off. `of_device`: the
    switch for all instances of their device, where they have none of their own."""
    for napi in napis:
        if napi.thread_pid is not None and (napi.settings.threaded or of_device) != DISABLED:
            yield napi.thread_pid


def _switch(netns: NetworkNamespace, change: NapiChange, napis: Iterable[Napi]) -> str | None:
    if all(napi.settings.threaded is not None for napi in napis):
        return None
    with DeviceAttributes(netns) as attributes:
        return device_threaded(attributes, change.device)


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
