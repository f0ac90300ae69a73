"""What an attachment does right now: measured in a window after the fact, never assumed."""

from napctl.model.change import NapiChange, Transaction
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


def attached(transaction: Transaction, window: Window | None, attach_seconds: float) -> Attached:
    """The report of an attachment. Active means: the process polls its NAPI instances itself whenever it has work."""
    if window is None or window.source != "bpf":
        return _report(transaction, attach_seconds, window, "not measured", None, None)
    window = _only(window, transaction)
    polls = total(napi.polls for napi in window.napis)
    own = own_polls(window.napis, transaction.pid)
    fruitful = polls.polls - polls.empty
    if fruitful < FEW_POLLS:
        return _report(transaction, attach_seconds, window, "too little traffic to tell", None, None)
    verdict = "active" if own.polls >= OWN_PER_FRUITFUL * fruitful else "not active"
    return _report(transaction, attach_seconds, window, verdict, own.polls / polls.polls, own.packets / polls.packets)


def _report(
    transaction: Transaction,
    seconds: float,
    window: Window | None,
    verdict: str,
    poll_share: float | None,
    packet_share: float | None,
) -> Attached:
    return Attached(
        transaction=transaction,
        attach_seconds=seconds,
        window=window,
        verdict=verdict,
        server_poll_share=poll_share,
        server_packet_share=packet_share,
    )


def _only(window: Window, transaction: Transaction) -> Window:
    """The window of the attached NAPI instances alone."""
    ours = {(change.netns, change.napi_id) for change in transaction.changes if isinstance(change, NapiChange)}
    fields = {name: getattr(window, name) for name in Window.__struct_fields__}
    return Window(**fields | {"napis": tuple(napi for napi in window.napis if (napi.netns, napi.napi_id) in ours)})
