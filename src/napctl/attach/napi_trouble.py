"""Why a NAPI instance that feeds a server cannot be set for it, whatever waits for its packets. Pure."""

from collections.abc import Iterable, Mapping

from napctl.attach.inspect_target import LocatedNapi
from napctl.model.machine import EpollPoller, RingPoller, leases

__all__ = ["NO_DEFERRAL", "why_not_ours", "why_polled"]


NO_DEFERRAL = "this kernel has no deferral of single NAPI instances (Linux 6.13)"


def why_not_ours(napi_id: int, napis: Mapping[int, LocatedNapi]) -> str:
    """It is of nobody that is known, or somebody else's; a clause, empty: neither."""
    located = napis.get(napi_id)
    if located is None:
        return f"NAPI {napi_id} belongs to no device of its network namespace or of ours"
    lease = dict(leases(located.device)).get(napi_id)
    return f"{lease}, which is not ours to set" if lease else ""


def why_polled(napi_id: int, others: Iterable[EpollPoller | RingPoller]) -> str:
    """Somebody else polls it; a clause, empty: nobody of these does."""
    other = next((each for each in others if napi_id in each.napi_ids), None)
    return f"NAPI {napi_id} is polled by {other.name} ({other.pid}) already, through {other.through}" if other else ""
