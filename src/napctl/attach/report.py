"""What an attachment does right now: measured in a window after the fact, never assumed."""

from collections.abc import Iterable

from napctl.kernel import system
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.model.change import NapiChange, Restored, Transaction
from napctl.model.histogram import total
from napctl.model.machine import SCHEMA
from napctl.model.value import Value
from napctl.model.window import Window, own_polls

FEW_POLLS = 20
"""Below this number of polls that found packets nothing can be told."""
OWN_PER_FRUITFUL = 0.1
"""A server that waits in epoll polls once for every time it found events; one that never does is at 0."""


class Attached(Value, frozen=True, kw_only=True):
    """What was set, and who polled in the window after it."""

    schema: int = SCHEMA
    transaction: Transaction
    attach_seconds: float
    """From the first look at the process until the last setting was read back."""
    window: Window | None
    """None: no window was asked for."""
    verdict: str
    """"active", "not active", "too little traffic to tell", "not measured"."""
    server_poll_share: float | None
    """Share of the NAPI instances' polls, 0 … 1, that the attached process made itself."""
    server_packet_share: float | None
    """Share of their packets, 0 … 1, that it found by polling itself: near 1 under heavy load, less under light."""
    warnings: tuple[str, ...]
    """What may go wrong with this attachment: one sentence each."""
    recovered: tuple[Restored, ...]
    """What was put back first: settings of interrupted operations and of servers that have ended."""


def judge(transaction: Transaction, window: Window | None) -> tuple[str, float | None, float | None]:
    """(verdict, share of polls, share of packets) of the attached process.

    Active means: the process polls its NAPI instances itself whenever it has work.
    """
    if window is None or window.source != "bpf" or not system.in_initial_pid_namespace():
        return "not measured", None, None
    polls = total(napi.polls for napi in window.napis)
    own = own_polls(window.napis, transaction.pid)
    fruitful = polls.polls - polls.empty
    if fruitful < FEW_POLLS:
        return "too little traffic to tell", None, None
    verdict = "active" if own.polls >= OWN_PER_FRUITFUL * fruitful else "not active"
    return verdict, own.polls / polls.polls, own.packets / polls.packets


def attached(
    transaction: Transaction,
    window: Window | None,
    attach_seconds: float,
    warnings: Iterable[str] = (),
    recovered: Iterable[Restored] = (),
) -> Attached:
    """The report of an attachment."""
    window = _only(window, transaction) if window else None
    verdict, poll_share, packet_share = judge(transaction, window)
    return Attached(
        transaction=transaction,
        attach_seconds=attach_seconds,
        window=window,
        verdict=verdict,
        server_poll_share=poll_share,
        server_packet_share=packet_share,
        warnings=tuple(warnings),
        recovered=tuple(recovered),
    )


def several_queues(transaction: Transaction) -> list[str]:
    """A warning for each device of which only some NAPI instances are attached: connections of the others would mix.

    An epoll instance follows one NAPI id; sockets of another wait for the suspend timer.
    """
    changes = [change for change in transaction.changes if isinstance(change, NapiChange)]
    words = []
    for ifindex, device, inode in sorted({(change.ifindex, change.device, change.netns) for change in changes}):
        netns = NetworkNamespace.find(inode)
        if netns is None:
            continue
        with netns, Netdev(netns) as netdev:
            there = len(netdev.napis(ifindex))
        ours = sum(change.ifindex == ifindex for change in changes)
        if there > ours:
            words.append(
                f"{device} has {there} NAPI instances, {ours} attached; a later connection that comes over another one "
                "may wait as long as irq-suspend-timeout, unless the server keeps each in an epoll instance of its own"
            )
    return words


def _only(window: Window, transaction: Transaction) -> Window:
    """The window of the attached NAPI instances alone."""
    ours = {(change.netns, change.napi_id) for change in transaction.changes if isinstance(change, NapiChange)}
    fields = {name: getattr(window, name) for name in Window.__struct_fields__}
    return Window(**fields | {"napis": tuple(napi for napi in window.napis if (napi.netns, napi.napi_id) in ours)})
