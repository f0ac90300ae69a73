"""What changes at network devices while one looks: notifications of the kernel, as an iterator.

Sources: the multicast group `monitor` of the netlink family ethtool (Documentation/networking/ethtool-netlink.rst) and
RTNLGRP_LINK of rtnetlink. For NAPI ids there is no notification: they are read again after what may renumber them, a
link that comes up and changed channels, and compared.
"""

import errno
import select
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from typing import Literal, Self

from napctl.kernel.ethtool import HEADER
from napctl.kernel.genetlink import Family
from napctl.kernel.links import IFF_LOWER_UP, IFF_UP, IFINFO, LINK, NETLINK_ROUTE, links
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.kernel.netlink import NetlinkSocket, decode
from napctl.model.value import Value

__all__ = ["Monitor", "Notice", "What"]


What = Literal["coalescing", "rings", "channels", "link up", "link down", "device gone", "napi ids", "lost"]
NTF: Mapping[int, What] = {17: "rings", 19: "channels", 21: "coalescing"}
"""ETHTOOL_MSG_RINGS_NTF, _CHANNELS_NTF, _COALESCE_NTF of include/uapi/linux/ethtool_netlink_generated.h."""
RTM_NEWLINK, RTM_DELLINK, RTNLGRP_LINK = 16, 17, 1
MOST_AT_ONCE = 1000
"""Receives: there is an end also where a device changes all the time."""
NapiIds = Mapping[int, tuple[int, ...]]
"""By interface index."""


class Notice(Value, frozen=True, kw_only=True):
    """Something changed at one device. "lost": so much at once that some of it is not known; read everything anew."""

    what: What
    device: str = ""
    ifindex: int = 0


class Monitor:
    """Notices of one network namespace from the moment it is opened. Use as a context manager.

    `ifindexes`: of these devices only, and nothing is read of any other; empty: of all, also those that come later.

    Raises Unsupported on kernels without the families (before Linux 5.6 and 6.7), and OSError.
    """

    def __init__(self, netns: NetworkNamespace | None = None, ifindexes: Collection[int] = ()):
        self._only = frozenset(ifindexes)
        self._heard = False
        """Of one of these devices, amid waiting(): events of others, of which there may be many, are to cost little."""
        with ExitStack() as opened:
            self._ethtool = opened.enter_context(Family("ethtool", netns))
            self._links = opened.enter_context(NetlinkSocket(NETLINK_ROUTE, netns))
            self._netdev = opened.enter_context(Netdev(netns))
            self._ethtool.join("monitor")
            self._links.join(RTNLGRP_LINK)
            there = [link for link in links(netns) if self._concerns(link.ifindex)]
            self._up = {link.ifindex: link.up and link.carrier for link in there}
            self._names = {link.ifindex: link.name for link in there}
            self._napi_ids = self._read_napi_ids()
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._opened.close()

    @property
    def sources(self) -> tuple[Family | NetlinkSocket, ...]:
        """What becomes readable (poll(2)) when there is something to be told."""
        return self._ethtool, self._links

    def waiting(self) -> Iterator[Notice]:
        """Those that have come by now. May raise OSError."""
        waiting = select.poll()
        for source in self.sources:
            waiting.register(source, select.POLLIN)
        self._heard = False
        for _ in range(MOST_AT_ONCE):  # one receive brings one of them
            fds = {fd for fd, _ in waiting.poll(0)}
            if not fds:
                break
            for source in (each for each in self.sources if each.fileno() in fds):
                try:
                    yield from self._settings() if source is self._ethtool else self._link_changes()
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                    self._heard = True
                    yield Notice(what="lost")
        if self._heard:
            yield from self._renumbered()

    def _concerns(self, ifindex: int) -> bool:
        return not self._only or ifindex in self._only

    def _hears_of(self, ifindex: int) -> bool:
        """Whether that concerns it; then NAPI ids are read again."""
        concerns = self._concerns(ifindex)
        self._heard |= concerns
        return concerns

    def _settings(self) -> Iterator[Notice]:
        for command, attributes in self._ethtool.notifications():
            header = decode({1: HEADER}, attributes).get("header", {})  # features may reset a device, too
            if self._hears_of(header.get("dev-index", 0)) and command in NTF:
                yield Notice(what=NTF[command], device=header["dev-name"], ifindex=header["dev-index"])

    def _link_changes(self) -> Iterator[Notice]:
        """rtnetlink tells every change of a link; only whether it carries packets matters here."""
        for kind, message in self._links.notifications():
            family, _, ifindex, flags, _ = IFINFO.unpack_from(message)
            if family != socket.AF_UNSPEC:
                continue  # a bridge tells RTM_DELLINK of a port that leaves it (del_nbp() in net/bridge/br_if.c)
            if kind not in (RTM_NEWLINK, RTM_DELLINK) or not self._hears_of(ifindex):
                continue
            name = decode(LINK, message[IFINFO.size :]).get("name", "")
            self._names[ifindex] = name
            if kind == RTM_DELLINK:
                self._up.pop(ifindex, None)
                yield Notice(what="device gone", device=name, ifindex=ifindex)
                continue
            up = flags & (IFF_UP | IFF_LOWER_UP) == IFF_UP | IFF_LOWER_UP
            if self._up.get(ifindex) != up:
                self._up[ifindex] = up
                yield Notice(what="link up" if up else "link down", device=name, ifindex=ifindex)

    def _renumbered(self) -> Iterator[Notice]:
        before, self._napi_ids = self._napi_ids, self._read_napi_ids()
        for ifindex, ids in self._napi_ids.items():
            if before.get(ifindex) not in (None, ids):
                yield Notice(what="napi ids", device=self._names.get(ifindex, ""), ifindex=ifindex)

    def _read_napi_ids(self) -> NapiIds:
        """A device that is down has none for that time: what it had before is kept, to be compared when it is up."""
        found: dict[int, tuple[int, ...]] = dict(getattr(self, "_napi_ids", {}))
        now: dict[int, tuple[int, ...]] = {}
        for only in self._only or (None,):
            for napi in self._netdev.napis(only):
                now[napi.ifindex] = (*now.get(napi.ifindex, ()), napi.napi_id)
        return found | now
