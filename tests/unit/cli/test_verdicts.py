"""Promises of verdicts in print: within 80 columns, each with its statistic, interval and windows."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from napctl.cli.text.verdicts import show, unverified
from napctl.model.histogram import Histogram
from napctl.model.value import from_json, to_json
from napctl.model.verdict import Arm, RatioEstimate, Regression, ThreadPrice, Verdict, Verification
from tests.strategies import examples

positive = st.floats(1e-4, 1e5)
counts = st.integers(0, 10**13)
estimates = st.builds(
    RatioEstimate,
    statistic=st.sampled_from(["interrupts per packet", "runs per packet", "TX-only polls per TX packet"]),
    ratio=positive,
    low=positive,
    high=positive,
    confidence=st.just(0.99),
    expected=st.none() | positive,
    pairs=st.integers(2, 1000),
    seconds=st.floats(0.1, 3600),
)
values = st.integers(0, 2**32 - 1) | st.booleans() | st.just("2147483647 x 4294967295ns")
arms = st.builds(
    Arm,
    value=values,
    windows=st.integers(1, 1000),
    seconds=positive,
    rx_packets=counts,
    tx_packets=counts,
    interrupts=st.none() | counts,
    polls=st.none() | counts,
    runs=st.none() | counts,
    interrupts_per_packet=st.none() | positive,
    packets_per_poll=st.none() | positive,
    mean_gap_us=st.none() | positive,
    tx_only_share=st.none() | st.floats(0, 1),
    histogram=st.dictionaries(st.integers(0, 100), counts).map(Histogram.of),
)
verdicts = st.builds(
    Verdict,
    device=st.just("enp197s0f1np1vf"),
    queue=st.none() | st.integers(0, 999),
    setting=st.sampled_from(["rx_usecs", "use_adaptive_rx", "deferral", "rx_ring", "rx_max_frames"]),
    wanted=values,
    without=st.none() | values,
    read_back=st.none() | values,
    acts_as=st.just("about 4,294,967 µs"),
    estimate=st.none() | estimates,
    per_second=st.none() | estimates,
    to_acts_as=st.none() | estimates,
    with_it=st.none() | arms,
    without_it=st.none() | arms,
    reason=st.just("the driver made 64 of it; nothing changes, where obeying would give 0.016 times the runs"),
    needs=st.none() | st.just("about 5,100 packets/s on a queue; the busiest had 100"),
)
regressions = st.builds(
    Regression,
    device=st.just("enp197s0f1np1vf"),
    setting=st.just("rx_usecs"),
    what=st.just("throughput"),
    estimate=estimates,
    text=st.just("5,000 packets/s with it, 10,000 without"),
)
verifications = st.builds(
    Verification,
    netns=counts,
    seed=counts,
    verdicts=st.lists(verdicts, max_size=4).map(tuple),
    regressions=st.lists(regressions, max_size=2).map(tuple),
    lacks=st.just(("packets per poll, who polled, and softirq times: CAP_BPF and CAP_PERFMON are missing",)),
)


@settings(max_examples=examples(5, 20))  # a table takes its time
@given(verifications)
def test_whatever_the_verdict_it_fits_80_columns(found: Verification) -> None:
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("click.echo", lambda text="", **_: lines.extend(str(text).splitlines()))
        show(found)
    assert all(len(line) <= 80 for line in lines), [line for line in lines if len(line) > 80]


@given(verifications)
def test_a_verification_survives_json(found: Verification) -> None:
    assert from_json(to_json(found), Verification) == found


ESTIMATE = RatioEstimate(
    statistic="interrupts per packet",
    ratio=0.5,
    low=0.48,
    high=0.52,
    confidence=0.99,
    expected=0.5,
    pairs=4,
    seconds=1,
)
IGNORED = Verdict(
    device="eth0",
    setting="rx_usecs",
    wanted=50,
    without=0,
    read_back=50,
    outcome="without effect",
    estimate=ESTIMATE,
    reason="nothing changes",
)


def test_a_verdict_is_printed_with_what_it_stands_on(capsys: pytest.CaptureFixture[str]) -> None:
    show(Verification(netns=1, seed=1, verdicts=(IGNORED,)))

    said = " ".join(capsys.readouterr().out.split())
    assert "eth0 rx-usecs 50 accepted but without effect 0.50 0.48 to 0.52" in said
    assert (
        "interrupts per packet: 0.5 times those with 0 (99 %: 0.48 to 0.52; if obeyed, about 0.5), from 4 pairs" in said
    )


def test_a_regression_is_a_bad_answer_as_is_a_setting_that_is_not_obeyed() -> None:
    warning = Regression(device="eth0", setting="rx_usecs", what="drops", estimate=ESTIMATE, text="")
    fine = Verdict(device="eth0", setting="rx_usecs", wanted=50, outcome="honoured", reason="")
    unclear = Verdict(device="eth0", setting="rx_usecs", wanted=50, outcome="not enough traffic", reason="")

    assert not Verification(netns=1, seed=1, verdicts=(fine, unclear)).bad
    assert Verification(netns=1, seed=1, verdicts=(fine, IGNORED)).bad
    assert Verification(netns=1, seed=1, verdicts=(fine,), regressions=(warning,)).bad


def test_what_was_applied_unverified_is_named_with_the_reason() -> None:
    fine = Verdict(device="eth0", setting="rx_usecs", wanted=50, outcome="honoured", reason="")
    frames = Verdict(device="eth0", setting="rx_max_frames", wanted=9, outcome="not enough traffic", reason="")
    late = Verdict(device="eth1", queue=3, setting="tx_usecs", wanted=9, outcome="not enough traffic", reason="")
    ring = Verdict(device="eth1", setting="rx_ring", wanted=512, outcome="accepted", reason="")

    def told(*verdicts: Verdict) -> tuple[str, str] | None:
        return unverified(Verification(netns=1, seed=1, verdicts=verdicts))

    assert told(fine) is None
    assert told(fine, frames, late) == (
        "2 of 3 settings could not be judged: not enough traffic",
        "eth0 rx-max-frames; eth1 queue 3 tx-usecs",
    )
    assert told(frames, ring) == (
        "2 of 2 settings could not be judged: not enough traffic (1), nothing on the wire shows it (1)",
        "eth0 rx-max-frames; eth1 rx-ring",
    )


def priced(ratio: float, low: float, refused: str | None = None) -> Verification:
    goodput = replace(ESTIMATE, statistic="bytes received per second", ratio=ratio, low=low, high=1.1, expected=None)
    price = ThreadPrice(
        device="eth0", instances=(0, 2), goodput=None if refused else goodput, cpu=None if refused else ESTIMATE,
        waited_us=None if refused else 12.3, refused=refused,
    )  # fmt: skip
    return Verification(netns=1, seed=1, verdicts=(), prices=(price,))


@pytest.mark.parametrize(
    ("found", "words", "bad"),
    [
        (priced(1.0, 0.97), "eth0 threads of NAPI instances 0 and 2: affordable", False),
        (priced(0.95, 0.7), "not enough traffic to be sure", False),
        (priced(0.8, 0.7), "too dear bytes received per second: 80.0% of those without them (99 %: 0.70 to 1.10", True),
        (priced(1, 1, refused="no threads here"), "refused no threads here.", True),
    ],
)
def test_the_price_of_threads_is_printed_with_what_it_stands_on(
    found: Verification, words: str, bad: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    show(found)
    said = capsys.readouterr().out
    assert words in " ".join(said.split())
    assert max(map(len, said.splitlines())) <= 80
    assert found.bad is bad
    assert ("waits 12 µs" in said) is (found.prices[0].refused is None)
    assert (unverified(found) is None) is found.prices[0].sure
