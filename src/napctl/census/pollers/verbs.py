"""RDMA: by the verbs that a process has open, /dev/infiniband/uverbsN (rdma-core, ibv_open_device(3)).

Completions are polled (ibv_poll_cq(3)) or waited for (ibv_req_notify_cq(3)); a program that polls spins. The library
alone is no sign: MPI and DPDK link it and may use none.

Never looked at live: made from its documentation.
"""

from napctl.census.pollers import bus_devices
from napctl.census.pollers.detection import Detected
from napctl.census.pollers.suspects import Suspect
from napctl.model.text import printable

__all__ = ["detect"]


REMEDY = "Let it wait for completions (ibv_req_notify_cq), if it has an option for that."


def detect(suspect: Suspect) -> Detected | None:
    """Whoever has verbs open, and is nothing else that is known."""
    opened = sorted(name for name in suspect.names if bus_devices.VERBS.match(name))
    if not opened:
        return None
    return Detected(
        kind="RDMA",
        evidence=tuple(f"{printable(name)} is open" for name in opened),
        devices=bus_devices.verbs_devices(opened),
        remedy=REMEDY,
    )
