"""Which epoll instances suspension fits, and which only after steering: every case, without a kernel."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.attach.attachment import planned
from napctl.attach.fitness import InstanceVerdict, loop_of, verdicts
from napctl.attach.fitness_report import explain
from napctl.attach.inspect_process import EpollInstance, View, joined
from napctl.attach.inspect_target import Examination
from napctl.attach.judge_target import why_not
from napctl.attach.plain_sockets import socket_fitness
from napctl.attach.server_options import steers_itself
from napctl.kernel.executable import Program
from napctl.model.change import EpollChange, NapiChange, SocketChange, SteeringChange
from napctl.model.machine import EpollPoller
from napctl.model.settings import EpollParams, NapiSettings
from napctl.model.suspension import Suspension
from tests.unit.attach.targets import (
    GROUP,
    UNSET,
    examination,
    instance,
    judged,
    listener,
    plain_socket,
    process,
    waits,
)


def judgements(found: Examination) -> list[str]:
    return [each.judgement for each in verdicts(found)]


def only(found: Examination) -> InstanceVerdict:
    (verdict,) = verdicts(found)
    assert "\n" not in verdict.why
    return verdict


def workers(*sockets: dict[int, int], reuseport: bool = True) -> tuple[EpollInstance, ...]:
    """One for each: a process with a listening socket of its own."""
    return tuple(
        instance(5, each, pid=100 + number, listeners=[listener(50 + number, reuseport=reuseport)])
        for number, each in enumerate(sockets)
    )


def test_a_server_whose_instances_follow_one_napi_instance_each_fits() -> None:
    assert judgements(examination(instance(5, {300: 10}))) == ["fits"]
    assert judgements(examination(instance(5, {300: 10}), instance(6, {300: 1}))) == ["fits", "fits"]
    assert judgements(examination(instance(5, {300: 10}), instance(6, {301: 10}))) == ["fits", "fits"]


def test_an_instance_without_a_socket_of_a_napi_instance_is_nothing_to_poll() -> None:
    assert judgements(examination(instance(3, {}), instance(5, {300: 10}))) == ["nothing to poll", "fits"]


def test_one_epoll_instance_over_two_napi_instances_does_not_fit_and_both_are_named() -> None:
    verdict = only(examination(instance(5, {301: 7, 300: 2})))

    assert verdict.judgement == "does not fit"
    assert "epoll instance 5" in verdict.why
    assert "2 of NAPI 300, 7 of NAPI 301" in verdict.why


@pytest.mark.parametrize(
    ("program", "words"),
    [("nginx", "`reuseport`"), ("memcached", "-N 2"), ("redis-server", "ethtool -N eth0"), ("haproxy", "by-thread")],
)
def test_a_server_that_cannot_be_steered_is_told_what_would_make_it_so(program: str, words: str) -> None:
    found = examination(instance(5, {300: 1, 301: 1}), program=Program(program, (program,)))

    assert words in only(found).hint
    assert "eth0" in only(found).hint or "2" in only(found).hint


def test_a_napi_instance_that_no_visible_device_has_does_not_fit() -> None:
    assert "NAPI 300 belongs to no device" in only(examination(instance(5, {300: 1}), known=False)).why


def test_a_kernel_without_suspension_does_not_fit() -> None:
    for settings in (NapiSettings(defer_hard_irqs=0, gro_flush_timeout_ns=0), NapiSettings()):
        assert "Linux 6.13" in only(examination(instance(5, {300: 1}), settings=settings)).why


def test_a_loop_that_never_waits_does_not_fit() -> None:
    spinning = instance(5, {300: 1}, threads=(waits(calls=1000, nonblocking=1000, blocked=False),))

    assert "timeout 0" in only(examination(spinning)).why


@given(calls=st.integers(0, 10_000), share=st.floats(0, 1), blocked=st.booleans())
def test_only_a_loop_that_hardly_ever_waits_is_said_to_spin(calls: int, share: float, blocked: bool) -> None:
    at_once = int(calls * share)
    loop = loop_of([waits(calls=calls, nonblocking=at_once, blocked=blocked)])
    asked = calls + blocked

    assert (loop == "spins") == (asked > 0 and at_once >= 0.99 * asked)
    assert (loop == "not seen") == (calls == 0 and not blocked)


@given(st.integers(1, 10_000))
def test_a_loop_that_was_only_seen_to_ask_with_timeout_0_spins_however_seldom(calls: int) -> None:
    assert loop_of([waits(calls=calls, nonblocking=calls, blocked=False)]) == "spins"
    assert loop_of([waits(calls=1, nonblocking=1, blocked=True)]) == "waits"


def test_an_instance_that_another_one_watches_does_not_fit_however_it_waits() -> None:
    inner = replace(instance(5, {300: 1}, threads=(waits(calls=1, nonblocking=1),)), outer=6)

    assert "waits in epoll instance 6, which watches this one" in only(examination(inner)).why


@given(st.lists(st.dictionaries(st.integers(1, 9), st.integers(300, 302)), min_size=1, max_size=4))
def test_an_instance_has_the_sockets_of_all_its_holders_once_each(held: list[dict[int, int]]) -> None:
    views = [
        View(process(pid), 5, UNSET, 20, {number: 300 + number % 3 for number in sockets},
             (listener(40 + pid), listener(50)), "" if sockets else "why", None)
        for pid, sockets in enumerate(held)
    ]  # fmt: skip
    found = joined(views)
    everybodys = {number for sockets in held for number in sockets}

    assert found.sockets_by_napi == Counter(300 + number % 3 for number in everybodys)
    assert found.places == tuple((pid, 5) for pid in range(len(held)))
    assert sorted(each.inode for each in found.listeners) == [*(40 + pid for pid in range(len(held))), 50]
    assert bool(found.unfed) == (not everybodys)


def test_an_instance_that_several_threads_wait_in_does_not_fit() -> None:
    shared = instance(5, {300: 1}, threads=(waits(42), waits(43)))

    assert "2 threads" in only(examination(shared)).why
    assert judgements(examination(instance(5, {300: 1}, threads=(waits(42),)))) == ["fits"]


def test_a_go_program_does_not_fit() -> None:
    assert "Go runtime" in only(examination(instance(5, {300: 1}), program=Program("caddy", go=True))).why


def test_a_napi_instance_that_another_process_polls_does_not_fit_and_it_is_named() -> None:
    prefers = EpollParams(busy_poll_usecs=0, busy_poll_budget=64, prefer_busy_poll=True)
    other = EpollPoller(pid=7, name="haproxy", epoll_fd=4, params=prefers, napi_ids=(300,))

    assert "haproxy (7)" in only(examination(instance(5, {300: 1}), others=(other,))).why


def test_workers_with_listeners_of_their_own_fit_after_steering_and_then_one_queue_each() -> None:
    found = examination(*workers({300: 2, 301: 1}, {}), queues=2)

    assert judgements(found) == ["fits after steering"] * 2
    assert judged(found).choice.empty

    choice = judged(found, steer=True).choice

    assert [each.process.pid for each in choice.instances] == [101], "connections from before may be of another queue"
    assert [len(group.members) for group in choice.steered] == [2]
    assert choice.napis == (300, 301)


def test_once_steered_only_connections_from_before_keep_a_worker_from_fitting() -> None:
    found = examination(*workers({300: 2, 301: 1}, {301: 4}, {}), queues=3)
    after = verdicts(found, steered=frozenset({50, 51, 52}))

    assert [each.judgement for each in after] == ["does not fit", "fits", "fits"]
    assert "from before are still open" in after[0].why


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (examination(*workers({300: 1, 301: 1}, {300: 1}), queues=3), "2 workers for 3 RX queues"),
        (examination(*workers({300: 1, 301: 1}, {300: 1}, {300: 1}), queues=2), "3 workers for 2 RX queues"),
        (
            examination(*workers({300: 1, 301: 1}, {300: 1}), queues=2, sharers={GROUP: frozenset({50, 51, 77})}),
            "other processes share its port (1 socket)",
        ),
        (
            examination(
                instance(5, {300: 1, 301: 1}, pid=100, listeners=[listener(50), listener(51)]),
                instance(5, {300: 1, 301: 1}, pid=101, listeners=[listener(50), listener(51)]),
            ),
            "share listening sockets",
        ),
        (
            examination(
                instance(5, {300: 1, 301: 1}, pid=100, listeners=[listener(50), listener(9, reuseport=False)]),
                instance(5, {300: 1, 301: 1}, pid=101, listeners=[listener(51), listener(9, reuseport=False)]),
            ),
            "also share the listening socket of 10.0.0.1:8080",
        ),
    ],
    ids=["fewer workers", "more workers", "strangers", "shared listeners", "one port not reuseport"],
)
def test_a_group_that_steering_would_harm_is_not_steered_and_the_reason_is_told(found: Examination, words: str) -> None:
    assert "does not fit" in judgements(found)
    assert any(words in each.hint for each in verdicts(found))
    assert judged(found, steer=True).choice.steered == ()


def test_datagrams_of_anybody_over_several_queues_do_not_fit_one_instance() -> None:
    udp = instance(5, {300: 1}, listeners=[listener(50, reuseport=False, kind="udp")])

    assert "any of 2 NAPI instances" in only(examination(udp, queues=2)).why
    assert judgements(examination(udp, queues=1)) == ["fits"]


def test_a_datagram_socket_that_is_marked_already_is_not_steered() -> None:
    marked = [
        instance(5, {300: 1} if number == 0 else {}, pid=100 + number, listeners=[listener(50 + number, kind="udp")])
        for number in range(2)
    ]
    found = examination(*marked, queues=2, sharers={("udp", 1, GROUP[2]): frozenset({50, 51})})

    assert judgements(found) == ["does not fit", "fits after steering"]
    assert "first datagram for good" in verdicts(found)[0].why
    assert "run --steer" in verdicts(found)[0].hint


def test_few_connections_of_one_queue_by_chance_prove_nothing() -> None:
    def one(connections: int) -> Examination:
        return examination(instance(5, {300: connections}, listeners=[listener(50, reuseport=False)]), queues=4)

    assert only(one(7)).judgement == "does not fit"
    assert "too few to tell" in only(one(7)).why
    assert only(one(8)).judgement == "fits", "something steers them: a filter of the NIC, say"


def test_force_takes_what_the_kernel_takes_and_nothing_else() -> None:
    found = examination(instance(3, {}), instance(5, {300: 1, 301: 1}))

    assert [each.fd for each in judged(found, force=True).choice.instances] == [5]
    unable = examination(instance(5, {300: 1}), settings=NapiSettings())
    assert judged(unable, force=True).choice.empty


@pytest.mark.parametrize(
    ("call", "nonblocking", "sysctl", "fits"),
    [("recv", False, 0, True), ("recv", True, 0, False), ("poll", False, 0, False), ("poll", False, 50, True),
     ("select", False, None, False)],
)  # fmt: skip
def test_a_socket_read_without_epoll_fits_where_the_kernel_busy_polls_for_it(
    call: str, nonblocking: bool, sysctl: int | None, fits: bool
) -> None:
    socket = plain_socket(threads=(waits(call=call, fd=9),), nonblocking=nonblocking)  # type: ignore[arg-type] # from the table
    ((_, verdict),) = socket_fitness(examination(plain_sockets=(socket,)), poll_sysctl=sysctl)

    assert (verdict.judgement == "fits") == fits
    assert ("net.core.busy_poll" in verdict.why) == (call != "recv")


def test_without_an_epoll_instance_that_is_said() -> None:
    assert "no epoll instance" in why_not(examination(), (), ())


def test_without_a_connection_that_is_said_with_the_number_of_descriptors() -> None:
    found = examination(instance(3, {}), instance(5, {}))

    assert "it has no connection yet" in why_not(found, verdicts(found), ())
    assert "4 descriptors" in why_not(found, verdicts(found), ())


def test_connections_without_a_napi_id_are_told_with_their_reason() -> None:
    found = examination(instance(3, {}), replace(instance(5, {}), unfed="its connections are MPTCP"))

    assert why_not(found, verdicts(found), ()) == "its connections are MPTCP"
    assert [each.why for each in verdicts(found)][1] == "its connections are MPTCP"


def test_memcached_that_steers_itself_is_recognised() -> None:
    assert steers_itself("memcached", ("memcached", "-t", "4", "-N", "4")) == "-N"
    assert steers_itself("memcached", ("memcached", "--napi_ids=4")) == "--napi_ids=4"
    assert steers_itself("memcached", ("memcached", "-t", "4")) is None
    assert steers_itself("nginx", ("nginx", "-N")) is None


def test_more_napi_instances_than_epoll_instances_are_noted() -> None:
    found = examination(instance(5, {300: 1, 301: 1, 302: 1}))

    assert any("(3) feed it than epoll instances (1)" in note for note in explain(found, verdicts(found)).notes)


def test_the_plan_changes_exactly_what_was_chosen_the_device_before_the_application() -> None:
    wanted = Suspension()
    socket = plain_socket(302, threads=(waits(call="recv", fd=9),))
    found = examination(
        instance(3, {}), instance(5, {301: 10}), instance(6, {300: 2}), instance(7, {300: 1}, wanted.epoll),
        plain_sockets=(socket,),
    )  # fmt: skip

    changes = planned(judged(found), wanted)

    napis = [change for change in changes if isinstance(change, NapiChange)]
    epolls = [change for change in changes if isinstance(change, EpollChange)]
    sockets = [change for change in changes if isinstance(change, SocketChange)]
    assert list(changes) == [*napis, *epolls, *sockets], "the deferral must be there before the first task polls"
    assert [change.napi_id for change in napis] == [300, 301, 302]
    assert [change.epoll_fd for change in epolls] == [5, 6], "3 has no socket of a device, 7 is as wanted already"
    assert [(change.after.busy_poll_usecs, change.after.prefer_busy_poll) for change in sockets] == [(50, True)]
    for change in napis:
        assert change.after == wanted.napi
        assert change.before == NapiSettings(defer_hard_irqs=0, gro_flush_timeout_ns=0, irq_suspend_timeout_ns=0)
        assert change.before.threaded is None, "not touched, so not recorded"


def test_steering_comes_first_in_the_plan_and_names_every_member() -> None:
    found = examination(*workers({300: 1}, {301: 1}), queues=2)

    first, *_ = planned(judged(found, steer=True), Suspension())

    assert isinstance(first, SteeringChange)
    assert (first.inodes, first.address) == ((50, 51), "tcp 10.0.0.1:8080")
