"""Which io_uring instances get busy polling, and what of a target is attached beside them. Without a kernel."""

import errno
from pathlib import Path

import pytest
from msgspec.structs import replace

from napctl.attach.attach_options import AttachOptions, in_mode
from napctl.attach.attachment import planned, ring_polling
from napctl.attach.follow import Stay
from napctl.attach.follow_rings import step_without_rings
from napctl.attach.inspect_process import Ring
from napctl.attach.judge_target import judge, unfit_words, why_not
from napctl.attach.parts import feeds_of, whole
from napctl.attach.rings import ring_fitness, ring_verdicts
from napctl.attach.starving import starved_changes
from napctl.attach.switch_way import has_one_way, in_force, in_way, wanted_of
from napctl.attach.target import parse
from napctl.model.change import EpollChange, Guard, IoUringChange, NapiChange
from napctl.model.machine import RingPoller
from napctl.model.modes import mode_of
from napctl.model.settings import DYNAMIC, STATIC, NapiSettings, RingPolling
from napctl.model.suspension import Suspension
from tests.unit.attach.steps import IN_FORCE, attached, of, present, step_of
from tests.unit.attach.targets import ABLE, QUIET, examination, instance, judged, plain_socket, ring, waits

POLLS = RingPolling(tracking=DYNAMIC, busy_poll_usecs=50, prefer_busy_poll=True)
OWN = RingPolling(tracking=DYNAMIC, busy_poll_usecs=20, prefer_busy_poll=False)
LISTED = RingPolling(tracking=STATIC, busy_poll_usecs=20, prefer_busy_poll=False)
WAITS = (waits(call="io_uring", fd=20),)
NEVER_WAITS = (waits(calls=9, nonblocking=9, blocked=False, call="io_uring", fd=20),)


@pytest.mark.parametrize(
    ("one", "judgement", "words"),
    [
        (ring(300, threads=WAITS), "fits", "busy polling, not suspension"),
        (ring(300), "fits", "NAPI 300"),
        (ring(300, 301, threads=WAITS), "fits", "NAPI 300, 301"),
        (ring(300, threads=WAITS, polling=OWN), "fits", "busy_poll_usecs"),
        (ring(threads=WAITS), "nothing to poll", "no NAPI instance has fed"),
        (ring(300, threads=()), "does not fit", "no thread was seen to wait"),
        (ring(300, threads=NEVER_WAITS), "does not fit", "no thread was seen to wait"),
        (ring(300, threads=WAITS, told=False), "does not fit", "try again"),
        (ring(300, threads=WAITS, polling=None), "does not fit", "Linux 6.12"),
        (ring(300, threads=WAITS, polling=LISTED), "does not fit", "static tracking"),
        (ring(300, threads=WAITS, refusal=errno.EEXIST), "does not fit", "IORING_SETUP_SINGLE_ISSUER"),
        (ring(300, threads=WAITS, refusal=errno.EACCES), "does not fit", "IORING_REGISTER_RESTRICTIONS"),
        (ring(300, threads=WAITS, refusal=errno.EINVAL), "does not fit", "Linux 6.13"),
        (ring(300, threads=WAITS, refusal=errno.EOPNOTSUPP), "does not fit", "CONFIG_NET_RX_BUSY_POLL"),
        (ring(300, threads=WAITS, submission_thread=True), "does not fit", "IORING_SETUP_SQPOLL"),
    ],
)
def test_each_ring_gets_its_verdict_with_the_reason(one: Ring, judgement: str, words: str) -> None:
    (verdict,) = ring_verdicts(examination(rings=[one]))

    assert verdict.judgement == judgement
    assert words in verdict.why


def test_a_ring_is_refused_whose_napi_instance_cannot_be_had() -> None:
    one = ring(300, threads=WAITS)
    other = RingPoller(pid=7, name="other", fd=4, polling=POLLS, napi_ids=(300,))

    for found, words in (
        (examination(rings=[one], known=False), "belongs to no device"),
        (examination(rings=[one], settings=NapiSettings()), "Linux 6.13"),
        (examination(rings=[one], others=(other,)), "polled by other (7) already, through ring 4"),
    ):
        (verdict,) = ring_verdicts(found)
        assert verdict.judgement == "does not fit"
        assert words in verdict.why


def test_a_ring_gets_busy_polling_and_its_napi_instances_deferral_alone_the_device_first() -> None:
    target = judged(examination(rings=[ring(300, 301, threads=WAITS)]))

    napis, (poller,) = planned(target, Suspension())[:2], planned(target, Suspension())[2:]

    assert isinstance(poller, IoUringChange)
    assert (poller.before, poller.after, poller.where) == (QUIET, POLLS, "ring 20 of server (42)")
    assert [each.napi_id for each in napis if isinstance(each, NapiChange)] == [300, 301]
    deferral = NapiSettings(defer_hard_irqs=100, gro_flush_timeout_ns=200_000, irq_suspend_timeout_ns=0)
    assert [each.after for each in napis] == [deferral, deferral]


def test_the_options_reach_a_ring_and_one_that_polls_already_is_part_of_it_all_the_same() -> None:
    target = judged(examination(rings=[ring(300, threads=WAITS, polling=POLLS)]))

    (_, poller) = planned(target, Suspension(busy_poll_usecs=33))
    assert isinstance(poller, IoUringChange)
    assert poller.after == replace(POLLS, busy_poll_usecs=33)
    as_it_is = planned(target, Suspension())
    assert [type(each) for each in as_it_is] == [NapiChange, IoUringChange]
    assert isinstance(as_it_is[1], IoUringChange)
    assert as_it_is[1].before == as_it_is[1].after == POLLS
    assert mode_of(as_it_is) == "poll"


def test_a_ring_is_left_alone_where_something_else_of_the_server_fits_and_that_is_said() -> None:
    one = ring(301, threads=WAITS)
    read = plain_socket(300, threads=(waits(call="recv", fd=9),))
    for found in (
        examination(instance(5, {300: 3}), rings=[one]),
        examination(plain_sockets=(read,), rings=[one]),
    ):
        target = judged(found)
        assert target.choice.rings == ()
        assert target.choice.napis == (300,)
        assert any("ring 20 of server (42)" in each for each in target.warnings)
    beside_misfit = judged(examination(instance(5, {300: 1, 301: 1}), rings=[one]))
    assert beside_misfit.choice.rings == (one,)
    assert beside_misfit.choice.napis == (301,)


def test_why_nothing_fits_names_the_ring_and_its_reason() -> None:
    refuses = examination(rings=[ring(300, threads=WAITS, refusal=errno.EEXIST)])
    waits_still = examination(rings=[ring()])

    assert "ring 20 of server): only the thread that made it" in why_not(refuses, (), ring_verdicts(refuses))
    assert "no NAPI instance has fed" in why_not(waits_still, (), ring_verdicts(waits_still))


def test_what_is_shown_is_the_ring_with_its_price_and_not_the_sockets_that_it_reads() -> None:
    found = examination(rings=[ring(300, threads=WAITS)], plain_sockets=(plain_socket(300, threads=()),))
    fitness = judged(found).fitness

    assert [(each.kind, each.fd, each.napi_id, each.judgement) for each in fitness.sockets] == [
        ("io_uring", 20, 300, "fits")
    ]
    assert any("CPU time" in each for each in fitness.notes)
    (of_two,) = ring_fitness(ring_verdicts(examination(rings=[ring(300, 301)])))
    assert of_two.napi_id is None


def test_a_follower_lets_a_ring_stay_and_attaches_the_next_one_when_it_was_closed() -> None:
    before = attached(examination(rings=[ring(300)]))
    deferred = replace(ABLE, defer_hard_irqs=100, gro_flush_timeout_ns=200_000)

    assert not step_of(before, examination(rings=[ring(300, polling=POLLS)]), deferred)

    step = step_of(before, examination(rings=[ring(300, fd=21)]), deferred)
    assert of(step, IoUringChange) == {"more": ["ring 21 of server (42)"], "forget": ["ring 20 of server (42)"]}
    assert of(step, NapiChange) == {}
    assert "ring 20 of server (42) was closed" in step.words


def test_a_follower_sets_a_ring_again_that_lost_its_polling_and_lets_go_of_all_when_none_is_left() -> None:
    before = attached(examination(rings=[ring(300)]))

    lost = step_of(before, examination(rings=[ring(300)]), IN_FORCE)
    assert of(lost, IoUringChange) == {"more": ["ring 20 of server (42)"], "forget": ["ring 20 of server (42)"]}
    assert [each.where for each in lost.lost] == ["ring 20 of server (42)"]

    gone = step_of(before, examination(instance(5, {}), queues=1), IN_FORCE)
    assert of(gone, NapiChange) == {"without": ["NAPI 300 of eth0"]}


def test_a_follower_lets_go_of_a_ring_and_of_its_deferral_once_an_epoll_instance_fits() -> None:
    before = attached(examination(rings=[ring(300, threads=WAITS)]))
    polled = ring(300, polling=POLLS, threads=WAITS)
    assert not step_without_rings(before, judged(examination(rings=[polled])))
    assert not step_without_rings(before, judged(examination(instance(5, {}), rings=[polled])))
    assert not step_without_rings(before, judged(examination(plain_sockets=(plain_socket(),), rings=[polled])))

    now = judged(examination(instance(5, {300: 3}), rings=[polled]))
    step = step_without_rings(before, now)
    assert step.without == list(before.changes)
    assert (step.more, step.forget) == ([], [])
    assert any("detached ring 20 of server (42): its server has another way" in each for each in step.words)
    suspended = attached(examination(instance(5, {300: 3})))
    mixed = replace(before, changes=(*suspended.changes, before.changes[-1]))
    assert [type(each) for each in step_without_rings(mixed, now).without] == [IoUringChange]


def test_who_follows_takes_that_step_before_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = Guard(pid=0, started_ticks=0, deadline_boot_ns=0)
    stay = Stay(parse("pid:42"), AttachOptions(suspension=Suspension()), guard, tmp_path, lambda *_: None)
    now = judged(examination(instance(5, {300: 3}), rings=[ring(300, polling=POLLS, threads=WAITS)]))
    monkeypatch.setattr(stay._settings, "present", lambda _transaction: present(now.found, IN_FORCE))
    before = attached(examination(rings=[ring(300, threads=WAITS)]))

    step = stay._step(before, now)
    assert (step.without, step.more) == (list(before.changes), [])
    step = stay._step(replace(before, changes=()), now)
    assert of(step, EpollChange)["more"]
    assert [each.after.irq_suspend_timeout_ns for each in step.more if isinstance(each, NapiChange)] == [20_000_000]


def test_what_starves_does_not_take_the_napi_instance_of_a_ring_with_it() -> None:
    found = examination(instance(5, {300: 1, 301: 1}), rings=[ring(301)])
    (epoll,) = (each for each in attached(examination(instance(5, {300: 1}))).changes if isinstance(each, EpollChange))
    by_ring = attached(examination(rings=[ring(301)]))
    transaction = replace(by_ring, changes=(*by_ring.changes, epoll))

    assert list(starved_changes(transaction, found, [300])) == [epoll]


def test_an_attached_ring_counts_among_who_polls_and_has_ways_like_them() -> None:
    target = judged(examination(rings=[ring(300, 301)]))
    transaction = attached(target.found)
    interrupts = in_way(Suspension(), None)

    assert feeds_of(target.choice) == {42: frozenset({300, 301})}
    assert whole(transaction).servers == {42}
    assert all(whole(transaction).has(each) for each in transaction.changes)
    assert has_one_way(transaction)
    assert (mode_of(transaction.changes), transaction.suspends, transaction.busy_polls) == ("poll", False, True)
    assert wanted_of(transaction.changes, Suspension()).napi == Suspension().deferral
    assert ring_polling(interrupts) == QUIET
    assert ring_polling(Suspension(busy_poll_usecs=1_000_000)).busy_poll_usecs == 10_000
    assert in_force(transaction, Suspension()) == Suspension()


def test_in_the_mode_poll_rings_and_blocking_reads_are_polled_and_no_epoll_instance() -> None:
    read = plain_socket(300, threads=(waits(call="recv", fd=9),))
    found = examination(instance(5, {301: 3}), plain_sockets=(read,), rings=[ring(302, threads=WAITS)])
    options = in_mode(AttachOptions(suspension=Suspension()), "poll")

    target = judge(found, options)

    assert (target.choice.instances, len(target.choice.sockets), len(target.choice.rings)) == ((), 1, 1)
    assert target.choice.napis == (300, 302)
    assert {each.after for each in planned(target, options.suspension) if isinstance(each, NapiChange)} == {
        Suspension().deferral
    }
    refuses = judge(examination(rings=[ring(300, threads=WAITS, refusal=errno.EEXIST)]), options)
    assert "IORING_SETUP_SINGLE_ISSUER" in unfit_words(refuses)
