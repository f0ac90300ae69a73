"""One NAPI instance found in two slots of the probe."""

from napctl.model.counts import NapiCounts, PollerCounts
from napctl.model.histogram import Histogram
from napctl.probe.napi import joined


def poller(pid: int, polls: int, empty: int, packets: int) -> PollerCounts:
    return PollerCounts(pid=pid, name=f"p{pid}", polls=polls, empty=empty, packets=packets)


def napi(instance: int, softirq: dict[int, int], busy_poll: dict[int, int], *pollers: PollerCounts) -> NapiCounts:
    return NapiCounts(
        napi_id=8200,
        device="eth0",
        ifindex=2,
        netns=4026531840,
        instance=instance,
        softirq=Histogram.of(softirq),
        busy_poll=Histogram.of(busy_poll),
        pollers=pollers,
    )


def test_counts_add_up_and_the_first_slot_names_it() -> None:
    before = napi(900, {0: 1, 3: 2}, {1: 4}, poller(10, 4, 0, 4))
    after = napi(5, {3: 1, 70: 1}, {0: 2, 1: 1}, poller(10, 2, 1, 1), poller(11, 1, 1, 0))

    both = joined(before, after)

    assert both == napi(
        900,
        {0: 1, 3: 3, 70: 1},
        {0: 2, 1: 5},
        poller(10, 6, 1, 5),
        poller(11, 1, 1, 0),
    )
