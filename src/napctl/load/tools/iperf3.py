"""iperf3 --json: bits that arrived, and of UDP datagrams, losses and jitter. It knows no requests and no latencies.

With --json it ends with 0 and puts what went wrong into the document, or into a line after it.
"""

from collections.abc import Iterator
from typing import Any

from napctl.load.tools.checks import Printed, check_length, check_rate
from napctl.load.tools.numbers import Output, Twice, documents, told
from napctl.load.tools.reading import Adapter, Reading

__all__ = ["ADAPTER"]


LATE = 0.05
"""By how much the receiver may count for longer than was sent: without a CPU it hears of the end late, and its rate is
too low."""
BOTH_WAYS = "--bidir measures two directions at once; measure one"


def read(text: str) -> Reading:
    """What iperf3 told. Raises ValueError."""
    document = _document(text)
    end = document["end"]
    if not isinstance(end, dict):
        raise ValueError("no 'end' in its output")
    # The first versions with --bidir, 3.7 among them, write the sums of both directions under the same names.
    if any("bidir" in key or isinstance(end[key], Twice) for key in end):
        raise ValueError(BOTH_WAYS)
    # Before 3.10 UDP had one sum: bytes and bits as they were sent, losses as the receiver saw them.
    arrived = end.get("sum_received", end.get("sum"))
    if not isinstance(arrived, dict):
        raise ValueError("no 'end.sum_received' in its output")
    bits, size, seconds = (told(arrived.get(key)) for key in ("bits_per_second", "bytes", "seconds"))
    if not bits:
        raise ValueError("nothing arrived ('end.sum_received.bits_per_second')")
    if size is None or not seconds:
        raise ValueError("no 'bytes' and 'seconds' in 'end.sum_received'")
    ran = Printed.exactly(seconds)
    check_rate(Printed.exactly(bits), int(8 * size), ran)
    if asked := _asked_seconds(document):
        check_length(ran, Printed.exactly(asked))
    late = tuple(_late(end, seconds))
    if "packets" not in arrived:
        return Reading(bits_per_second=bits, warnings=late)
    return _datagrams(arrived, bits if "sum_received" in end else None, seconds, late)


def _document(text: str) -> dict[str, Any]:
    """The one document of one run that went well. Raises ValueError, with what to do."""
    every = [each for each in documents(text) if isinstance(each, dict)]
    found = [each for each in every if "end" in each]
    if len(found) > 1:
        raise ValueError(f"{len(found)} JSON documents in its output; one run is to be measured")
    if not found and any("event" in each for each in every):
        raise ValueError("a stream of JSON events instead of one document: give -J without --json-stream")
    said = Output(text + "\n").maybe(r"iperf3: (error - .*)", "iperf3: error")
    error = (found and found[0].get("error")) or (said and said[1])
    if error:
        raise ValueError(f"{error}")
    if not found:
        raise ValueError("no JSON document in its output; give -J")
    return found[0]


def _asked_seconds(document: dict[str, Any]) -> float | None:
    """For how long it was to send; None where a number of bytes was asked for instead."""
    start = document.get("start")
    test = start.get("test_start") if isinstance(start, dict) else None
    return told(test.get("duration")) if isinstance(test, dict) else None


def _late(end: dict[str, Any], seconds: float) -> Iterator[str]:
    """What is wrong with a rate over `seconds`, for which the receiver counted, if it was sent for less."""
    sent = end.get("sum_sent")
    sending = told(sent.get("seconds")) if isinstance(sent, dict) else None
    if sending and seconds > sending * (1 + LATE):
        yield f"its receiver counted for {seconds:.2f} s what was sent within {sending:.2f} s: its rates are too low"


def _datagrams(arrived: dict[str, Any], bits: float | None, seconds: float, late: tuple[str, ...]) -> Reading:
    """`bits`: per second, as they arrived; None: it tells only what was sent."""
    packets, lost, jitter_ms = (told(arrived.get(key)) for key in ("packets", "lost_packets", "jitter_ms"))
    if packets is None or lost is None or lost > packets:
        raise ValueError("no 'packets' and 'lost_packets' in 'end.sum_received'")
    return Reading(
        requests_per_second=(packets - lost) / seconds,
        bits_per_second=bits,
        jitter_us=jitter_ms * 1000 if jitter_ms is not None else None,
        errors=int(lost),
        warnings=(*late, *((f"{int(lost):,} of {int(packets):,} datagrams were lost",) if lost else ())),
    )


ADAPTER = Adapter("iperf3", ("iperf3",), read)
