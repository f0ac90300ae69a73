"""What an attachment does, in words: the share first, and no word that a figure contradicts."""

from msgspec.structs import replace

from napctl.cli.follow import event_lines
from napctl.cli.text.activity import now_lines, protected_line, verdict_line
from napctl.model.activity import Now
from napctl.model.latency import LatencyFigures, LatencySummary


def active(share: float) -> Now:
    return Now(verdict="active", server_poll_share=share, server_packet_share=share)


def test_the_share_comes_first_and_few_polls_are_explained() -> None:
    assert verdict_line("memcached", active(0.98)) == (
        "98.0 % of packets taken by memcached itself, in 98.0 % of the polls: active"
    )
    little = verdict_line("memcached", active(0.066))
    assert little.startswith("6.6 % of packets taken by memcached itself")
    assert "light load" in little


def test_suspension_is_a_share_of_the_time_and_the_safety_timer_is_named() -> None:
    now = Now(
        verdict="active", suspensions_per_second=3555, resumes_per_second=3555, timeouts_per_second=0,
        suspended_share=0.401, wait_p50_us=49, wait_p99_us=229,
    )  # fmt: skip
    assert list(now_lines(now)) == [
        "interrupts suspended 40.1 % of the time; the safety timer never had to step in",
        "time until a packet is polled (upper bound): p50 49 µs, p99 229 µs",
    ]


def test_latency_of_the_server_takes_the_place_of_the_wait_for_a_poll() -> None:
    def figures(pid: int | None, samples: int) -> LatencyFigures:
        return LatencyFigures(
            pid=pid, samples=samples, until_read_p50_us=34.2, until_read_p99_us=12_345, until_reply_p50_us=None,
            until_reply_p99_us=None, wait_for_poll_p50_us=0.5, wait_for_poll_p99_us=200,
        )  # fmt: skip

    latency = LatencySummary(together=figures(None, 3000), processes=(figures(7, 1000), figures(8, 2000)))
    now = Now(
        verdict="active", suspensions_per_second=0, wait_p50_us=49, wait_p99_us=229, latency=latency
    )  # fmt: skip
    assert list(now_lines(now)) == [
        "server-side latency: read p50 34 µs, p99 12 ms; replied not seen",
        "pid 7: read p50 34 µs, p99 12 ms; replied not seen",
        "pid 8: read p50 34 µs, p99 12 ms; replied not seen",
        "of it, time until a packet is polled (upper bound): p50 below 1 µs, p99 200 µs; 3,000 requests looked at",
        "interrupts were never suspended",
    ]
    nothing = LatencySummary(together=None, processes=(), lacks=("why",))
    assert len(list(now_lines(replace(now, latency=nothing)))) == 2


def test_what_is_suspended_is_protected_for_as_long_as_its_threads_let_it_be() -> None:
    while_it_is = "protected against overload while suspended"
    assert protected_line(None) == protected_line(7) == protected_line(0) == while_it_is
    assert protected_line(-19) == f"{while_it_is}; threads at nice -19 can end that"
    assert protected_line(19) == "protected against overload: its NAPI threads come last (nice 19)"
    assert max(len(protected_line(nice)) for nice in range(-20, 20)) <= 78


def test_rescues_are_counted_and_what_never_happened_is_said() -> None:
    rescued = Now(verdict="starving", suspensions_per_second=60, timeouts_per_second=45, suspended_share=0.9)
    assert next(now_lines(rescued)).endswith("the safety timer had to step in 45 times a second")
    never = Now(verdict="not active", suspensions_per_second=0, timeouts_per_second=0)
    assert list(now_lines(never)) == ["interrupts were never suspended"]
    assert list(now_lines(Now(verdict="not measured"))) == []


def test_an_event_is_one_line_in_a_log_and_folded_on_a_terminal() -> None:
    event = "waiting: server (1): " + "a reason that is long " * 8
    assert event_lines("12:00:00.000", event, folds=False) == [f"12:00:00.000 {event}"]
    first, *rest = event_lines("12:00:00.000", event, folds=True)
    assert all(line.startswith(" " * 13) for line in rest)
    assert max(map(len, [first, *rest])) <= 80
