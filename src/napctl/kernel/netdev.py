"""The netlink family `netdev`: NAPI instances, queues and their statistics, and setting one NAPI instance.

Source: Documentation/netlink/specs/netdev.yaml. napi-get is there since Linux 6.8, napi-set and the deferral and
suspension attributes since 6.13 (merge 80b6f094756f), `threaded` since 6.17 (commit 2677010e7793).
An attribute that this kernel does not report is None.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Self

from napctl.kernel.genetlink import Family
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netlink import Attr, Refused, decode, table
from napctl.model.counts import QueueCounts
from napctl.model.machine import Napi, Queue, QueueUse
from napctl.model.settings import THREADED, NapiSettings

__all__ = ["NAPI", "NAPI_SET", "QUEUE", "Netdev", "queue"]


DEV_GET, QUEUE_GET, NAPI_GET, QSTATS_GET, NAPI_SET = 1, 10, 11, 12, 14
ENODEV, EOPNOTSUPP = 19, 95
QUEUE_TYPES = ("rx", "tx")

NAPI = table(
    {
        "ifindex": "u32",
        "id": "u32",
        "irq": "u32",
        "pid": "u32",
        "defer-hard-irqs": "u32",
        "gro-flush-timeout": "uint",
        "irq-suspend-timeout": "uint",
        "threaded": "u32",
    }
)
DEV = {1: Attr("ifindex", "u32"), 3: Attr("xdp-features", "uint")}
XDP_BASIC = 1
QUEUE_ID = {1: Attr("id"), 3: Attr("type")}
LEASE = {1: Attr("ifindex"), 2: Attr("queue", "nest", nest=QUEUE_ID), 3: Attr("netns-id", "s32")}
QUEUE = table({"id": "u32", "ifindex": "u32", "type": "u32", "napi-id": "u32", "dmabuf": "u32"}) | {
    6: Attr("io-uring", "nest", nest={}),
    7: Attr("xsk", "nest", nest={}),
    8: Attr("lease", "nest", nest=LEASE),
}
QSTATS = table({"ifindex": "u32", "queue-type": "u32", "queue-id": "u32", "scope": "uint"}) | table(
    {
        "rx-packets": "uint",
        "rx-bytes": "uint",
        "tx-packets": "uint",
        "tx-bytes": "uint",
        "rx-alloc-fail": "uint",
        "rx-hw-drops": "uint",
        "rx-hw-drop-overruns": "uint",
    },
    first=8,
)
SCOPE_QUEUE = 1
MOST_KNOWN = 1024
"""Replies of which it is kept what they say: who asks again and again is mostly told the same."""


class Netdev:
    """The family in one network namespace. Raises Unsupported on kernels without it (before Linux 6.7)."""

    def __init__(self, netns: NetworkNamespace | None = None):
        self._family = Family("netdev", netns)
        self._napis: dict[int | None, tuple[list[bytes], list[Napi]]] = {}
        """What was told of each device that was asked for, and what that means."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._family.__exit__()

    def napis(self, ifindex: int | None = None) -> list[Napi]:
        """NAPI instances of one device (none, if it is down or gone), or of all of the namespace that are up.

        Where it is told the same again, this is the list from before, which nobody is to change.
        """
        told = self._of_device(NAPI_GET, NAPI, ifindex, "reading NAPI instances")
        before, found = self._napis.get(ifindex, ([], []))
        if told != before:
            found = sorted(map(_napi, told), key=lambda napi: napi.napi_id)
            self._napis[ifindex] = told, found
        return found

    def has_native_xdp(self, ifindex: int) -> bool | None:
        """Whether its driver says that it takes XDP programs (since Linux 6.3, commit d3d854fd6a1d); None: it cannot be
        told."""
        try:
            replies = list(self._family.ask(DEV_GET, DEV, {"ifindex": ifindex}, what=f"reading device {ifindex}"))
        except Refused:
            return None
        features = replies[0].get("xdp-features") if replies else None
        return None if features is None else bool(features & XDP_BASIC)

    def napi(self, napi_id: int) -> Napi | None:
        """One NAPI instance; None if this namespace has none with that id."""
        try:
            replies = list(self._family.replies(NAPI_GET, NAPI, {"id": napi_id}, what=f"reading NAPI {napi_id}"))
        except Refused as refusal:
            if refusal.errno in (ENODEV, 2):  # ENOENT since Linux 6.13, before that an empty answer
                return None
            raise
        return _napi(bytes(replies[0])) if replies else None

    def set_napi(self, napi_id: int, settings: NapiSettings) -> None:
        """Set what is not None. Needs CAP_NET_ADMIN in the initial user namespace. Raises Refused."""
        values: dict[str, int | str] = {"id": napi_id}
        if settings.defer_hard_irqs is not None:
            values["defer-hard-irqs"] = settings.defer_hard_irqs
        if settings.gro_flush_timeout_ns is not None:
            values["gro-flush-timeout"] = settings.gro_flush_timeout_ns
        if settings.irq_suspend_timeout_ns is not None:
            values["irq-suspend-timeout"] = settings.irq_suspend_timeout_ns
        if settings.threaded is not None:
            values["threaded"] = THREADED.index(settings.threaded)
        for _ in self._family.ask(NAPI_SET, NAPI, values, what=f"setting NAPI {napi_id}"):
            pass

    def queues(self, ifindex: int | None = None) -> list[Queue]:
        """Queues of one device (none, if it is gone) or all, with the NAPI instance that serves each (None: the driver
        does not tell)."""
        return list(map(_queue, self._of_device(QUEUE_GET, QUEUE, ifindex, "reading queues")))

    def _of_device(self, command: int, attributes: dict[int, Attr], ifindex: int | None, what: str) -> list[bytes]:
        """Attributes of each reply: of one device (nothing, if it is gone), or of all."""
        wanted = {} if ifindex is None else {"ifindex": ifindex}
        try:
            return list(map(bytes, self._family.replies(command, attributes, wanted, what=what, dump=True)))
        except Refused as refusal:
            if ifindex is not None and refusal.errno == ENODEV:
                return []
            raise

    def queue_counts(self, ifindex: int) -> list[QueueCounts] | None:
        """Counters per queue since the device came up; None if the driver does not keep them."""
        wanted = {"ifindex": ifindex, "scope": SCOPE_QUEUE}
        try:
            replies = list(self._family.ask(QSTATS_GET, QSTATS, wanted, what="reading queue statistics", dump=True))
        except Refused as refusal:
            if refusal.errno == EOPNOTSUPP:
                return None
            raise
        return [_queue_counts(reply) for reply in replies] or None


@lru_cache(MOST_KNOWN)
def _napi(told: bytes) -> Napi:
    """What the attributes of one reply to napi-get say."""
    reply = decode(NAPI, told)
    threaded = reply.get("threaded")
    return Napi(
        napi_id=reply["id"],
        ifindex=reply["ifindex"],
        irq=reply.get("irq"),
        thread_pid=reply.get("pid"),
        settings=NapiSettings(
            defer_hard_irqs=reply.get("defer-hard-irqs"),
            gro_flush_timeout_ns=reply.get("gro-flush-timeout"),
            irq_suspend_timeout_ns=reply.get("irq-suspend-timeout"),
            threaded=None if threaded is None else THREADED[threaded] if threaded < len(THREADED) else str(threaded),
        ),
    )


@lru_cache(MOST_KNOWN)
def _queue(told: bytes) -> Queue:
    return queue(decode(QUEUE, told))


def queue(reply: Mapping[str, Any]) -> Queue:
    """What one decoded reply to queue-get says."""
    return Queue(
        ifindex=reply["ifindex"],
        kind=QUEUE_TYPES[reply["type"]],
        index=reply["id"],
        napi_id=reply.get("napi-id"),
        uses=tuple(_uses(reply)),
    )


def _uses(reply: Mapping[str, Any]) -> Iterator[QueueUse]:
    if "xsk" in reply:
        yield QueueUse(kind="AF_XDP")
    if "io-uring" in reply:
        yield QueueUse(kind="io_uring")
    if "dmabuf" in reply:
        yield QueueUse(kind="device memory")
    if "lease" in reply:
        lease = reply["lease"]
        yield QueueUse(
            kind="lease",
            ifindex=lease.get("ifindex"),
            queue=lease.get("queue", {}).get("id"),
            netns_id=lease.get("netns-id"),
        )


def _queue_counts(reply: dict[str, Any]) -> QueueCounts:
    return QueueCounts(
        kind=QUEUE_TYPES[reply["queue-type"]],
        index=reply["queue-id"],
        packets=reply.get("rx-packets", reply.get("tx-packets")),
        bytes=reply.get("rx-bytes", reply.get("tx-bytes")),
        alloc_fail=reply.get("rx-alloc-fail"),
        hw_drops=reply.get("rx-hw-drops"),
    )
