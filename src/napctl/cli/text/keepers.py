"""Who keeps what is in force: a napctl that somebody started, or the service."""

from napctl.change.same_process import running
from napctl.model.change import Transaction

__all__ = ["is_of_service", "kept_by"]


def kept_by(transaction: Transaction) -> str:
    """For a line: "kept by the service (77)"; empty if nobody keeps it, or it is put back."""
    keeper = transaction.keeper
    if keeper is None or transaction.state == "restored":
        return ""
    who = f"{'the service' if keeper.entry else 'napctl'} ({keeper.pid})"
    return f"kept by {who}" if running(keeper) else f"left by {who}, which has ended"


def is_of_service(transaction: Transaction) -> bool:
    """Whether the service keeps it, and runs."""
    keeper = transaction.keeper
    return keeper is not None and bool(keeper.entry) and running(keeper)
