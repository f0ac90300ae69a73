"""sockperf: ping-pong, under-load and throughput, as it prints them (src/client.cpp: print_average_results and others).

It ends with 0 even if the server refused the connection, so what is missing is an error here.
"""

from napctl.load.tools.checks import Printed, check_divisor, check_rate
from napctl.load.tools.numbers import NUMBER, Output, microseconds, number
from napctl.load.tools.reading import Adapter, Reading

__all__ = ["ADAPTER"]


HALVES = "latencies are halves of the round trip: sockperf tells the whole with --full-rtt"
BURSTS = "latencies are of whole bursts of messages (--burst)"
SENT = "sockperf throughput counts what it sent, not what arrived"
FEW_ANSWERS = "the server had to answer only some messages, and requests/s counts these: give --reply-every=1"


def read(text: str) -> Reading:
    """What sockperf told. Raises ValueError."""
    output = Output(text)
    sent = output.maybe(rf"sockperf: Summary: Message Rate is ({NUMBER}) \[msg/sec\]", "Summary: Message Rate")
    if sent:
        total = output.one(rf"sockperf: Total of (\d+) messages sent in ({NUMBER}) sec", "Total of messages sent")
        check_rate(Printed.of(sent[1]), int(total[1]), Printed.of(total[2], "s"))
        return Reading(requests_per_second=number(sent[1]), warnings=(SENT,))
    # Without its first and last moments, in which the load is not what was asked for.
    valid = output.one(
        rf"sockperf: \[Valid Duration\] RunTime=({NUMBER}) sec; SentMessages=(\d+); ReceivedMessages=(\d+)",
        "[Valid Duration]",
    )
    seconds, asked, answered = number(valid[1]), int(valid[2]), int(valid[3])
    if not answered:
        raise ValueError("no message was answered")
    check_divisor(Printed.of(valid[1], "s"), answered)
    summary = output.one(
        rf"sockperf: Summary: (Latency|Round trip)( of burst of \d+ messages)? is ({NUMBER}) usec", "Summary: Latency"
    )
    observed = output.one(r"sockperf: Total (\d+) observations; .*", "Total observations")
    if not 1 <= int(observed[1]) <= answered:
        raise ValueError(f"its figures contradict each other: {observed[1]} observations of {answered} answers")
    at = output.unambiguous(
        (number(row[1]), microseconds(row[2], "us"))
        for row in output.all(rf"sockperf: ---> percentile\s+({NUMBER})\s*=\s*({NUMBER})")
    )
    lost = output.maybe(r"sockperf: # dropped messages = (\d+);.*", "dropped messages")
    dropped = int(lost[1]) if lost else None
    doubts = {
        HALVES: summary[1] == "Latency",
        BURSTS: summary[2] is not None,
        FEW_ANSWERS: 2 * asked > 3 * (answered + (dropped or 0)),
    }
    reading = Reading(
        requests_per_second=answered / seconds,
        latency_avg_us=microseconds(summary[3], "us"),
        latency_p50_us=at.get(50),
        latency_p95_us=at.get(95),
        latency_p99_us=at.get(99),
        latency_p999_us=at.get(99.9),
        errors=dropped,
        warnings=tuple(sentence for sentence, holds in doubts.items() if holds),
    )
    return reading.standing_on(int(observed[1]))


ADAPTER = Adapter("sockperf", ("sockperf",), read)
