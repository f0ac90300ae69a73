"""What an attachment does right now: measured in a window after the fact, never assumed."""

from napctl.model.change import NapiChange, Transaction
from napctl.model.machine import SCHEMA
from napctl.model.value import Value
from napctl.model.window import Window

FEW_POLLS = 20
"""Below this number of polls a share says nothing."""


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
    server_share: float | None
    """Share of the NAPI instances' polls, 0 … 1, made by the attached process."""


def attached(transaction: Transaction, window: Window | None, attach_seconds: float) -> Attached:
    """The report of an attachment. Active means: the process itself made most of the polls."""
    share = None
    if window is None or window.source != "bpf":
        verdict = "not measured"
    else:
        window = _only(window, transaction)
        polls = sum(napi.polls.polls for napi in window.napis)
        own = sum(poller.polls for napi in window.napis for poller in napi.pollers if poller.pid == transaction.pid)
        if polls < FEW_POLLS:
            verdict = "too little traffic to tell"
        else:
            share = own / polls
            verdict = "active" if share > 0.5 else "not active"
    return Attached(
        transaction=transaction,
        attach_seconds=attach_seconds,
        window=window,
        verdict=verdict,
        server_share=share,
    )


def _only(window: Window, transaction: Transaction) -> Window:
    """The window of the attached NAPI instances alone."""
    ours = {(change.netns, change.napi_id) for change in transaction.changes if isinstance(change, NapiChange)}
    fields = {name: getattr(window, name) for name in Window.__struct_fields__}
    return Window(**fields | {"napis": tuple(napi for napi in window.napis if (napi.netns, napi.napi_id) in ours)})
