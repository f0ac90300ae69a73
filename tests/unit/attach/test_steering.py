"""Steering fits where each worker gets one NAPI instance of its own, and no longer than that. Without a kernel."""

from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.attach.attachment import planned
from napctl.attach.fitness import verdicts
from napctl.attach.fitness_report import explain
from napctl.attach.inspect_process import EpollInstance
from napctl.attach.inspect_target import Examination, receiving
from napctl.attach.judge_target import why_not
from napctl.attach.steering import Feed, groups, outgrown, program_misfit, queue_misfit
from napctl.model.change import NapiChange, SteeringChange
from napctl.model.machine import Device
from napctl.model.suspension import Suspension
from tests.unit.attach.targets import GROUP, examination, instance, judged, listener, nic

ONE_EACH = tuple(range(300, 304))
PAIRS = (300, 300, 301, 301, 302, 302, 303, 303)
"""As i40e hands out 8 queues to 4 vectors."""
TURNS = ONE_EACH * 2
"""As other drivers do."""
BOND = (nic(ONE_EACH), nic(tuple(range(400, 404)), name="eth1", ifindex=4))


def workers(*sockets: Mapping[int, int]) -> tuple[EpollInstance, ...]:
    """One for each: a process with a listening socket of its own, 50 and on."""
    return tuple(
        instance(5, each, pid=100 + number, listeners=[listener(50 + number)]) for number, each in enumerate(sockets)
    )


def target(*nics: Device, count: int = 4, fed: Sequence[Mapping[int, int]] | None = None) -> Examination:
    return examination(*workers(*(fed or [{}] * count)), nics=nics)


def misfit(found: Examination) -> str | None:
    (group,) = groups(found)
    return group.misfit


def steered(found: Examination) -> tuple[int, ...]:
    """The NAPI instances that are attached with it; () if it is not steered."""
    choice = judged(found, steer=True).choice
    return choice.napis if choice.steered else ()


@pytest.mark.parametrize("queues", [ONE_EACH, TURNS], ids=["a NAPI instance each", "every fourth shares one"])
def test_queues_that_fall_to_a_worker_by_one_napi_instance_are_steered(queues: Sequence[int]) -> None:
    found = target(nic(queues))

    assert [each.judgement for each in verdicts(found)] == ["fits after steering"] * 4
    assert steered(found) == ONE_EACH
    (shown,) = explain(found, verdicts(found)).steering
    assert (shown.members, shown.queues) == (4, len(queues))


@pytest.mark.parametrize(
    ("nics", "count", "words"),
    [
        ([nic(PAIRS)], 4, "4 workers for 8 RX queues of eth0 on 4 NAPI instances: one worker would serve several NAPI"),
        ([nic(PAIRS)], 8, "8 workers for 8 RX queues of eth0 on 4 NAPI instances: several workers would poll one NAPI"),
        ([nic(TURNS)], 2, "one worker would serve several NAPI instances"),
        ([nic(ONE_EACH)], 3, "3 workers for 4 RX queues: one worker would serve several queues"),
        ([nic(ONE_EACH)], 8, "8 workers for 4 RX queues: workers without a queue would get no connections"),
        ([nic([None] * 4, napis=range(300, 305))], 4, "the driver of eth0 does not report"),
        ([nic([300, 301, None, None])], 4, "the driver of eth0 does not report"),
        (BOND, 4, "2 devices can feed it (eth0 and eth1)"),
        (BOND, 8, "2 devices can feed it (eth0 and eth1)"),
    ],
)  # fmt: skip
def test_queues_or_devices_that_would_mix_are_not_steered_and_it_is_told_which_of_the_two(
    nics: Sequence[Device], count: int, words: str
) -> None:
    unfed = target(*nics, count=count)
    first, last = nics[0].napis[0].napi_id, nics[-1].napis[-1].napi_id
    fed = target(*nics, fed=[{first: 2, last: 1}] * count)

    for found in (unfed, fed):
        assert words in (misfit(found) or "")
        assert steered(found) == ()
        assert all(words in each.hint for each in verdicts(found))
        assert words in why_not(found, verdicts(found), ())
        assert any(words in note for note in explain(found, verdicts(found)).notes)
    assert [each.judgement for each in verdicts(fed)] == ["does not fit"] * count


def test_only_the_device_that_feeds_the_group_counts_once_one_does() -> None:
    found = target(*BOND, fed=[{300: 2, 301: 1}, {}, {}, {302: 1}])

    assert misfit(found) is None
    assert steered(found) == ONE_EACH, "those of the other device are left alone"


def test_a_driver_that_links_no_queues_and_has_as_many_napi_instances_is_taken_to_have_one_each() -> None:
    assert misfit(target(nic([None] * 4, napis=ONE_EACH))) is None


def test_napi_instances_that_only_send_are_none_of_it() -> None:
    found = target(nic(ONE_EACH, napis=range(304, 308)), fed=[{300: 9}, {301: 1}, {}, {}])

    assert found.receiving(307) == steered(found) == ONE_EACH
    alone = nic([300], napis=[301])
    assert receiving(alone.napis, alone.queues) == (300,)
    assert receiving(alone.napis, ()) == (300, 301), "the driver does not tell"


def test_a_device_with_one_napi_instance_needs_no_steering() -> None:
    found = target(nic([300] * 4), fed=[{300: 9}, {300: 1}, {}, {}])

    assert [each.judgement for each in verdicts(found)] == ["fits", "fits", "nothing to poll", "nothing to poll"]
    assert explain(found, verdicts(found)).steering == ()
    assert not any("steered" in note for note in explain(found, verdicts(found)).notes)


@pytest.mark.parametrize(("driver", "told"), [("virtio_net", True), ("ice", False)])
def test_a_device_that_receives_where_it_was_answered_is_told_with_what_prevents_it(driver: str, told: bool) -> None:
    found = target(nic(ONE_EACH, driver=driver))

    assert any("queues/tx-0/xps_rxqs" in note for note in explain(found, verdicts(found)).notes) == told
    alone = examination(instance(5, {300: 9}), nics=[nic([300], driver=driver)])
    assert not any("xps_rxqs" in note for note in explain(alone, verdicts(alone)).notes)


def polled(workers: int, napi_of: Mapping[int, int]) -> list[set[int]]:
    """What each worker would poll, by giving it the queues one by one."""
    found: list[set[int]] = [set() for _ in range(workers)]
    for queue, napi in napi_of.items():
        found[queue % workers].add(napi)
    return found


maps = st.lists(st.integers(300, 308), min_size=1, max_size=16).map(lambda napis: dict(enumerate(napis)))


@given(count=st.integers(1, 9), napi_of=maps, shift=st.integers(0, 16))
def test_it_fits_if_and_only_if_queues_and_napi_instances_are_one_to_one_modulo_the_workers(
    count: int, napi_of: dict[int, int], shift: int
) -> None:
    told = queue_misfit(count, [Feed("eth0", napi_of)])
    each = polled(count, napi_of)
    pollers = Counter(napi for napis in each for napi in napis)

    assert (told is None) == (all(len(napis) == 1 for napis in each) and set(pollers.values()) == {1})
    # Drivers record their queue plus 1, others the sender's queue: which worker comes first makes no difference.
    shifted = {(queue + shift) % len(napi_of): napi for queue, napi in napi_of.items()}
    if len(napi_of) % count == 0:
        assert (queue_misfit(count, [Feed("eth0", shifted)]) is None) == (told is None)


@given(count=st.integers(1, 9), napi_of=maps)
def test_a_driver_may_serve_several_queues_by_one_napi_instance_if_these_are_of_one_worker(
    count: int, napi_of: dict[int, int]
) -> None:
    turns = {queue: 300 + queue % count for queue in range(count * len(napi_of))}

    assert queue_misfit(count, [Feed("eth0", turns)]) is None
    assert queue_misfit(count, [Feed("eth0", turns), Feed("eth1", napi_of)]) is not None
    assert queue_misfit(count, [Feed("eth0", None)]) is not None
    assert queue_misfit(count, []) is None, "nothing is known yet"


# What is steered already


def steering_of(found: Examination) -> SteeringChange:
    chosen = judged(found, steer=True)
    changes = planned(chosen, Suspension())
    assert {each.napi_id for each in changes if isinstance(each, NapiChange)} == set(chosen.choice.napis)
    (change,) = (each for each in changes if isinstance(each, SteeringChange))
    return change


FED: list[Mapping[int, int]] = [{napi: 20} for napi in ONE_EACH]
STEERED = steering_of(target(nic(ONE_EACH))).inodes


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (target(nic(ONE_EACH), fed=FED), None),
        (target(nic(ONE_EACH), fed=[*FED, {}, {}, {}, {}]), "8 listeners share its port now and it is steered to 4"),
        (target(nic(ONE_EACH), fed=FED[:3]), "steered to 4 listeners and 3 are left"),
        (target(nic(ONE_EACH[:2]), fed=FED[:2] * 2), "4 workers for 2 RX queues: workers without a queue"),
        (target(nic(range(300, 308)), fed=FED), "4 workers for 8 RX queues: one worker would serve several queues"),
        (target(nic(PAIRS), fed=FED), "one worker would serve several NAPI instances"),
        (target(nic(TURNS), fed=FED), None),
        (target(*BOND, fed=[*FED[:3], {400: 1}]), "2 devices can feed it"),
        (target(fed=[{}] * 4), None),
        (examination(*workers(*FED), nics=[nic(ONE_EACH)], sharers={GROUP: frozenset({*STEERED, 99})}), "5 listeners"),
        (examination(*workers(*FED)[:3], nics=[nic(ONE_EACH)], sharers={GROUP: frozenset(STEERED)}), None),
        (examination(nics=[nic(ONE_EACH)], sharers={}), None),
        (examination(instance(9, {300: 1}, listeners=[listener(77)]), nics=[nic(ONE_EACH)]), None),
    ],
    ids=["settled", "4 workers become 8", "4 workers become 3", "4 queues become 2", "4 queues become 8",
         "queues share NAPI instances", "in turns", "a second device", "the device is down", "a stranger",
         "a worker was lost", "nobody waits", "another group"],
)  # fmt: skip
def test_a_steered_group_is_judged_again_by_what_is_there(now: Examination, words: str | None) -> None:
    told = outgrown(STEERED, now)

    assert told is None if words is None else words in (told or "")


def test_a_worker_that_waits_on_two_of_its_listeners_serves_two_queues() -> None:
    two = instance(5, {300: 9}, pid=100, listeners=[listener(50), listener(51)])
    others = workers({}, {}, *FED[2:])[2:]

    assert "several of its listeners" in (outgrown(STEERED, examination(two, *others, nics=[nic(ONE_EACH)])) or "")


def test_two_workers_on_one_listener_serve_one_queue_as_during_a_reload() -> None:
    leaving = [instance(5, {}, pid=200 + number, listeners=[listener(50 + number)]) for number in range(4)]

    assert outgrown(STEERED, examination(*workers(*FED), *leaving, nics=[nic(ONE_EACH)])) is None


@given(
    steered_to=st.integers(1, 6),
    waiting=st.dictionaries(st.integers(50, 57), st.lists(st.integers(0, 5), max_size=2), min_size=1, max_size=8),
    napi_of=maps,
)
def test_a_program_fits_as_long_as_each_queue_reaches_a_listener_and_each_worker_serves_one_napi_instance(
    steered_to: int, waiting: dict[int, list[int]], napi_of: dict[int, int]
) -> None:
    listeners = sorted(waiting)
    told = program_misfit(steered_to, waiting, [Feed("eth0", napi_of)])
    reached = {queue % steered_to for queue in napi_of}
    served: dict[int, set[int]] = {}
    for queue, napi in napi_of.items():
        for worker in waiting[listeners[queue % steered_to]] if queue % steered_to < len(listeners) else ():
            served.setdefault(worker, set()).add(napi)

    if told is None:
        assert reached == set(range(len(listeners))), "each listener gets something, and nothing goes elsewhere"
        assert all(len(napis) == 1 for napis in served.values())
    if len(listeners) != steered_to:
        assert told is not None
