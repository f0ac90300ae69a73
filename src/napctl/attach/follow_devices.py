"""The attached devices, for as long as they are attached: what their NAPI instances are set to, and what happens."""

from collections.abc import Collection
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Protocol

from napctl.attach.follow_step import Present
from napctl.kernel.links import link
from napctl.kernel.monitor import Monitor, Notice
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.model.machine import Napi

__all__ = ["Devices", "PlacedNotice", "Readable"]


DeviceKey = tuple[int, int]
"""Network namespace and interface index."""
PlacedNotice = tuple[int, Notice]
"""With the network namespace of the device."""


class Readable(Protocol):
    """What poll(2) takes."""

    def fileno(self) -> int: ...  # noqa: D102


@dataclass(frozen=True)
class _Namespace:
    netns: NetworkNamespace
    netdev: Netdev
    monitor: Monitor


class Devices:
    """Nothing is read of any other device, and no other one's events are told.

    The sockets of a namespace keep it from going: they are closed with the last of its devices, at the end by
    `follow(())`.
    """

    def __init__(self) -> None:
        self._followed: frozenset[DeviceKey] = frozenset()
        self._namespaces: dict[int, _Namespace] = {}
        self._opened = ExitStack()
        self._seen: tuple[dict[DeviceKey, list[Napi]], Present] = {}, Present({})
        """What was read last, and what that means."""

    def follow(self, devices: Collection[DeviceKey]) -> tuple[PlacedNotice, ...]:
        """These, from now on; what had happened to those before and was not read yet, as their end. Raises NapctlError
        and OSError; no device is followed then."""
        unread: tuple[PlacedNotice, ...] = ()
        if frozenset(devices) == self._followed:
            return unread
        with suppress(OSError):
            unread = self.notices()
        self._opened.close()
        self._namespaces, self._followed = {}, frozenset()
        with ExitStack() as opened:
            found = {}
            for inode in {inode for inode, _ in devices}:
                if (netns := NetworkNamespace.find(inode)) is not None:
                    opened.enter_context(netns)
                    netdev = opened.enter_context(Netdev(netns))
                    there = [ifindex for each, ifindex in devices if each == inode]
                    found[inode] = _Namespace(netns, netdev, opened.enter_context(Monitor(netns, there)))
            self._opened, self._namespaces, self._followed = opened.pop_all(), found, frozenset(devices)
        return unread

    def present(self) -> Present:
        """What the kernel has by now; the very value from before, where nothing has changed."""
        found: dict[DeviceKey, list[Napi]] = {}
        down: set[DeviceKey] = set()
        for inode, ifindex in self._followed:
            if (place := self._namespaces.get(inode)) is None:
                continue
            napis = place.netdev.napis(ifindex)
            if not napis:
                there = link(place.netns, ifindex)
                if there is not None and there.up:  # it came up between the two
                    napis = place.netdev.napis(ifindex)
                elif there is not None:
                    down.add((inode, ifindex))
            found[inode, ifindex] = napis
        before, present = self._seen
        if down or before.keys() != found.keys() or any(found[key] is not before[key] for key in found):
            present = Present(
                {(key[0], napi.napi_id): napi.settings for key, napis in found.items() for napi in napis},
                {key: tuple(napi.napi_id for napi in napis) for key, napis in found.items() if napis},
                frozenset(down),
            )
            self._seen = found, present
        return present

    @property
    def sources(self) -> tuple[Readable, ...]:
        """What can be read when something may have happened to them."""
        return tuple(source for each in self._namespaces.values() for source in each.monitor.sources)

    def notices(self) -> tuple[PlacedNotice, ...]:
        """What has happened to them by now. Raises OSError."""
        return tuple((inode, notice) for inode, each in self._namespaces.items() for notice in each.monitor.waiting())
