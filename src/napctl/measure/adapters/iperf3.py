"""iperf3 --json: bits that arrived, and of UDP datagrams, losses and jitter. It knows no requests and no latencies.

With --json it ends with 0 and puts what went wrong into the document.
"""

from fractions import Fraction
from typing import Any

from napctl.measure.adapters.figures import documents, nearest, told
from napctl.measure.adapters.reading import Adapter, Reading


def read(text: str) -> Reading:
    """What iperf3 told. Raises ValueError."""
    found = [each for each in documents(text) if isinstance(each, dict) and "end" in each]
    if len(found) != 1:
        raise ValueError(f"{len(found)} JSON documents in its output; give -J")
    (document,) = found
    if document.get("error"):
        raise ValueError(f"{document['error']}")
    end = document["end"]
    if not isinstance(end, dict):
        raise ValueError("no 'end' in its output")
    if any("bidir" in key for key in end):
        raise ValueError("--bidir measures two directions at once; measure one")
    # Before 3.10 UDP had one sum, as the receiver saw it.
    arrived = end.get("sum_received", end.get("sum"))
    if not isinstance(arrived, dict):
        raise ValueError("no 'end.sum_received' in its output")
    bits = told(arrived.get("bits_per_second"))
    if not bits:
        raise ValueError("nothing arrived ('end.sum_received.bits_per_second')")
    return _datagrams(arrived, bits) if "packets" in arrived else Reading(bits_per_second=nearest(bits))


def _datagrams(arrived: dict[str, Any], bits: Fraction) -> Reading:
    seconds, packets, lost, jitter_ms = (
        told(arrived.get(key)) for key in ("seconds", "packets", "lost_packets", "jitter_ms")
    )
    if not seconds or packets is None or lost is None or lost > packets:
        raise ValueError("no 'seconds', 'packets' and 'lost_packets' in 'end.sum_received'")
    return Reading(
        requests_per_second=nearest((packets - lost) / seconds),
        bits_per_second=nearest(bits),
        jitter_us=nearest(jitter_ms * 1000) if jitter_ms is not None else None,
        errors=int(lost),
        warnings=(f"{int(lost):,} of {int(packets):,} datagrams were lost",) if lost else (),
    )


ADAPTER = Adapter("iperf3", ("iperf3",), read)
