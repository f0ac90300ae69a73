"""What of a target differs from its entry: what is not attached, and settings that are others."""

from typing import Any

from msgspec.structs import replace

from napctl.attach.attachment import planned
from napctl.attach.switch_way import in_way
from napctl.model.change import Change, EpollChange, NapiChange, Transaction
from napctl.model.drift import Drift
from napctl.model.policy import AttachEntry, Origin
from napctl.model.suspension import Suspension
from napctl.model.value import Value
from napctl.service.attach_drift import coverage_drift, settings_drift
from napctl.service.policy_keys import attach_options_of
from tests.unit.attach.steps import attached, attachment, workers
from tests.unit.attach.targets import examination, instance, judged, ring, waits

FED = examination(instance(5, {300: 2}))
IDLE = examination(instance(5))
SPINNING = examination(instance(5, {300: 2}, threads=(waits(nonblocking=100, blocked=False),)))


def entry(**values: Any) -> AttachEntry:
    return AttachEntry(origin=Origin(file="policy.toml", line=3), target="server", **values)


def told(drift: Drift) -> list[str]:
    return [str(each) for each in drift.differences]


def test_what_runs_and_is_not_attached_differs() -> None:
    assert told(coverage_drift(entry(), judged(FED), [])) == [
        "server: not attached, and server (42) runs (policy.toml:3)"
    ]


def test_a_server_without_a_connection_is_waited_for() -> None:
    drift = coverage_drift(entry(), judged(IDLE), [])
    assert drift.differences == ()
    assert "it has no connection yet" in drift.waiting[0]


def test_what_cannot_be_attached_differs_and_says_why() -> None:
    (line,) = told(coverage_drift(entry(), judged(SPINNING), []))
    assert line.startswith("server: cannot be attached: server (42): ")


def test_what_is_attached_does_not_differ_and_a_worker_that_came_later_does() -> None:
    assert coverage_drift(entry(), judged(FED), [attached(FED)]) == Drift()
    later = examination(instance(5, {300: 2}), instance(7, {300: 1}, pid=43), instance(8, {300: 1}, pid=44))
    assert told(coverage_drift(entry(), judged(later), [attached(FED)])) == [
        "server: not attached: epoll 7 of server (43) and 1 more (policy.toml:3)"
    ]
    native = examination(instance(5, {300: 2}), instance(7, {300: 1}, Suspension().epoll, pid=43))
    assert coverage_drift(entry(), judged(native), [attached(FED)]) == Drift()


# Settings.


def drift_of(wanted: AttachEntry, transaction: Transaction, **changed: Any) -> list[str]:
    """With everything as it was made, but for what somebody `changed`."""
    found: dict[Change, Value | None] = {}
    for change in transaction.changes:
        mine = {name: value for name, value in changed.items() if name in change.after.__struct_fields__}
        found[change] = replace(change.after, **mine)
    return told(settings_drift(wanted, attach_options_of(wanted), transaction, found))


def made(wanted: Suspension = Suspension()) -> Transaction:  # noqa: B008 - frozen
    return attachment(planned(judged(FED), wanted, adapts=True))


def test_what_is_as_it_was_made_does_not_differ() -> None:
    assert drift_of(entry(), made()) == []


def test_what_somebody_changed_differs() -> None:
    assert drift_of(entry(), made(), gro_flush_timeout_ns=10**6) == [
        "NAPI 300 of eth0: gro-flush-timeout is 1ms, napctl chose 200us (policy.toml:3)"
    ]
    assert drift_of(entry(timer_ns=200_000), made(), gro_flush_timeout_ns=10**6, prefer_busy_poll=False) == [
        "NAPI 300 of eth0: gro-flush-timeout is 1ms, policy wants 200us (policy.toml:3)",
        "epoll 5 of server (42): prefer_busy_poll is off, policy wants on (policy.toml:3)",
    ]


def test_what_was_attached_otherwise_differs_though_nobody_has_changed_it() -> None:
    assert drift_of(entry(timer_ns=50_000, defer_hard_irqs=200, busy_poll_budget=32), made()) == [
        "NAPI 300 of eth0: defer-hard-irqs is 100, policy wants 200 (policy.toml:3)",
        "NAPI 300 of eth0: gro-flush-timeout is 200us, policy wants 50us (policy.toml:3)",
        "epoll 5 of server (42): busy_poll_budget is 64, policy wants 32 (policy.toml:3)",
    ]


def test_an_entry_that_adapts_wants_a_timer_of_its_range_or_interrupts() -> None:
    adapting = entry(latency_budget_ns=150_000, timer_range_ns=(20_000, 100_000))
    assert drift_of(adapting, made(Suspension(gro_flush_timeout_ns=50_000))) == []
    assert drift_of(adapting, made()) == [
        "NAPI 300 of eth0: gro-flush-timeout is 200us, policy wants 20us..100us (policy.toml:3)"
    ]
    interrupts = made(in_way(Suspension(), None))
    assert drift_of(adapting, interrupts) == []
    assert drift_of(adapting, interrupts, defer_hard_irqs=7) == [
        "NAPI 300 of eth0: defer-hard-irqs is 7, policy wants 0 (policy.toml:3)"
    ]
    assert len(drift_of(entry(), interrupts)) > 1
    two = made(Suspension(gro_flush_timeout_ns=50_000))
    other_way = replace(two, changes=(*two.changes, *interrupts.changes))
    assert drift_of(adapting, other_way) == [], "groups of unlike load have their own"


def test_an_instance_that_is_gone_differs_and_an_ended_worker_does_not() -> None:
    transaction = made()
    gone: dict[Change, Value | None] = dict.fromkeys(transaction.changes)
    drift = settings_drift(entry(), attach_options_of(entry()), transaction, gone)
    assert [each.where for each in drift.differences] == ["NAPI 300 of eth0"]
    assert [type(each) for each in transaction.changes] == [NapiChange, EpollChange]


def test_steering_that_nobody_asked_for_differs() -> None:
    found = examination(*workers(2), queues=2)
    transaction = attached(found, steer=True)
    assert drift_of(entry(steer=True), transaction) == []
    assert drift_of(entry(), transaction) == ["server: steer is on, policy wants off (policy.toml:3)"]


def test_a_ring_is_compared_like_what_else_polls() -> None:
    waiting = examination(rings=[ring(300), ring(300, fd=21)])
    transaction = attached(examination(rings=[ring(300)]))

    assert told(coverage_drift(entry(), judged(waiting), [transaction])) == [
        "server: not attached: ring 21 of server (42) (policy.toml:3)"
    ]
    assert drift_of(entry(), transaction) == []
    (line,) = drift_of(entry(), transaction, tracking="inactive")
    assert line.startswith("ring 20 of server (42)")


# Modes.


def test_another_mode_than_the_policys_differs_and_auto_takes_any() -> None:
    transaction = attached(FED)
    wanted = entry(mode="thread")
    (line,) = told(settings_drift(wanted, attach_options_of(wanted), transaction, dict.fromkeys(transaction.changes)))
    assert line == "server: mode is suspend, policy wants thread (policy.toml:3)"
    auto = entry(mode="auto")
    found: dict[Change, Value | None] = {each: each.after for each in transaction.changes}
    assert settings_drift(auto, attach_options_of(auto), transaction, found) == Drift()


def test_a_target_for_which_nothing_may_be_better_is_waited_for() -> None:
    drift = coverage_drift(entry(mode="auto"), judged(SPINNING), [])
    assert drift.differences == ()
    assert drift.waiting[0].startswith("server: in no mode yet: ")
