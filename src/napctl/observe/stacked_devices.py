"""Devices on devices: which NICs take the packets of a VLAN, a macvlan, a bond, a bridge."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import cached_property

from msgspec.structs import replace

from napctl.kernel.links import Link, links, links_at, namespace_id
from napctl.kernel.listeners import network_namespaces
from napctl.kernel.namespaces import NAMED, NetworkNamespace
from napctl.model.errors import NapctlError
from napctl.model.machine import Device, LowerDevice

__all__ = ["with_lower"]


PEERS = frozenset({"veth", "netkit", "vxcan"})
"""Kinds whose IFLA_LINK is the other end of a pair, and nothing below them."""
MAX_NEST_DEV = 8
"""As the kernel has it (include/linux/netdevice.h); lists of several moments might lead in a circle."""
Found = tuple["_Place", Link, tuple[str, ...]]
"""Where it is, the device, and what is between."""


def with_lower(netns: NetworkNamespace, devices: tuple[Device, ...]) -> tuple[Device, ...]:
    """The same devices, each with the lowest ones on which it stands; of a bridge its NICs alone, if it has any."""
    with ExitStack() as stack:
        top = _Place(netns, stack)
        return tuple(replace(device, lower=_lower(top, device)) for device in devices)


def _lower(top: "_Place", device: Device) -> tuple[LowerDevice, ...]:
    if device.kind in PEERS or (device.kind is None and not top.stands_on_another(device.ifindex)):
        return ()
    link = top.links.get(device.ifindex)
    found = list(_bottoms(top, link, ())) if link is not None else []
    nics = [each for each in found if isinstance(each, LowerDevice) or not each[1].virtual]
    return tuple(each if isinstance(each, LowerDevice) else _told(top, *each) for each in nics or found)


def _told(top: "_Place", place: "_Place", link: Link, through: tuple[str, ...]) -> LowerDevice:
    return LowerDevice(
        name=link.name,
        ifindex=link.ifindex,
        through=through,
        elsewhere=place is not top,
        netns=place.option,
    )


def _bottoms(place: "_Place", link: Link, through: tuple[str, ...]) -> Iterator[Found | LowerDevice]:
    """The lowest devices below one; itself, if it is below another and there is none."""
    ports = [each for each in place.links.values() if each.master == link.ifindex]
    below: list[tuple[_Place, Link]] = [(place, port) for port in ports]
    if not ports and link.link not in (None, link.ifindex) and link.kind not in PEERS:
        assert link.link is not None
        other = place if link.link_netnsid is None else place.known_as(link.link_netnsid)
        lower = other.links.get(link.link) if other else None
        if other is None or lower is None:
            yield LowerDevice(name=None, ifindex=link.link, through=through, elsewhere=True, netns=None)
            return
        below = [(other, lower)]
    if not below and through:
        yield place, link, through[1:]  # without the upper one itself
    for where, each in below if len(through) < MAX_NEST_DEV else ():
        yield from _bottoms(where, each, (*through, link.name))


class _Place:
    """One network namespace and its devices, read once."""

    def __init__(self, netns: NetworkNamespace, stack: ExitStack):
        self._netns, self._stack = netns, stack
        self._known: dict[int, _Place | None] = {}

    def stands_on_another(self, ifindex: int) -> bool:
        """Whether the device itself says so; a bond or a bridge does not. Of no other device anything is read."""
        return any(link.link not in (None, ifindex) for link in links_at(self._netns, [ifindex]))

    @cached_property
    def links(self) -> dict[int, Link]:
        """Its devices, by interface index."""
        return {link.ifindex: link for link in links(self._netns)}

    @property
    def option(self) -> str | None:
        """What --netns takes for it: see LowerDevice."""
        with NetworkNamespace.current() as ours:
            if ours.inode == self._netns.inode:
                return ""
        for name in _names():
            with suppress(OSError):
                if os.stat(NAMED / name).st_ino == self._netns.inode:  # noqa: PTH116 - as in namespaces
                    return name
        pid = network_namespaces().get(self._netns.inode)
        return None if pid is None else f"pid:{pid}"

    def known_as(self, number: int) -> "_Place | None":
        """The namespace that this one knows by a number; None if it cannot be seen from here."""
        if number not in self._known:
            self._known[number] = self._find(number)
        return self._known[number]

    def _find(self, number: int) -> "_Place | None":
        paths = [f"/proc/{pid}/ns/net" for pid in network_namespaces().values()]
        paths += [f"{NAMED}/{name}" for name in _names()]
        for path in paths:
            with suppress(NapctlError), ExitStack() as held:  # gone meanwhile, or not ours to see
                other = held.enter_context(NetworkNamespace.open(path))
                if namespace_id(self._netns, other) == number:
                    self._stack.push(held.pop_all())
                    return _Place(other, self._stack)
        return None


def _names() -> list[str]:
    try:
        return sorted(os.listdir(NAMED))  # noqa: PTH208 - as in namespaces
    except OSError:
        return []
