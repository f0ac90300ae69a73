"""Following a target: what is done when workers, epoll instances, sockets or devices come and go. Without a kernel."""

from dataclasses import replace as but

from msgspec.structs import replace

from napctl.attach.attach_options import AttachOptions
from napctl.attach.attachment import planned
from napctl.attach.follow_conflicts import foreign_settings
from napctl.attach.follow_memory import Known
from napctl.attach.follow_step import Present, Step, cheap_step, next_step
from napctl.attach.inspect_target import Examination
from napctl.kernel.processes import Process
from napctl.model.change import EpollChange, NapiChange, SocketChange, SteeringChange
from napctl.model.settings import EpollParams, NapiSettings
from tests.unit.attach.steps import (
    DEVICE,
    IN_FORCE,
    WANTED,
    attached,
    attachment,
    of,
    present,
    reading,
    steered_now,
    step_of,
    with_queues,
    workers,
)
from tests.unit.attach.targets import (
    ABLE,
    GROUP,
    NETNS,
    UNSET,
    examination,
    instance,
    judged,
    listener,
)


def test_as_long_as_nothing_changes_nothing_is_done() -> None:
    before = examination(instance(5, {300: 3}))
    now = examination(instance(5, {300: 900}, WANTED.epoll), settings=IN_FORCE)

    step = step_of(attached(before), now)

    assert not step
    assert not step.words


def test_a_new_worker_is_attached_and_named() -> None:
    transaction = attached(examination(instance(5, {300: 1}, pid=100)))
    now = examination(instance(5, {300: 1}, WANTED.epoll, pid=100), instance(7, {301: 1}, pid=101), settings=ABLE)

    step = step_of(transaction, now)

    assert of(step, EpollChange) == {"more": ["epoll 7 of server (101)"]}
    assert of(step, NapiChange) == {"more": ["NAPI 301 of eth0"]}
    assert "attached epoll 7 of server (101)" in step.words
    assert "attached NAPI 301 of eth0" in step.words


def test_another_epoll_instance_of_a_known_process_is_attached_and_not_called_new() -> None:
    transaction = attached(examination(instance(5, {300: 1})))
    now = examination(instance(5, {300: 1}, WANTED.epoll), instance(7, {300: 1}))

    assert list(step_of(transaction, now).words) == ["attached epoll 7 of server (42)"]


def test_the_changes_of_a_worker_that_has_ended_are_forgotten_and_the_device_stays() -> None:
    both = examination(instance(5, {300: 1}, pid=100), instance(7, {300: 1}, pid=101))
    now = examination(instance(5, {300: 1}, WANTED.epoll, pid=100))

    step = step_of(attached(both), now)

    assert (of(step, EpollChange), of(step, NapiChange)) == ({"forget": ["epoll 7 of server (101)"]}, {})
    assert list(step.words) == ["server (101) has ended"]


def test_a_successor_with_the_same_pid_and_descriptor_is_another_process() -> None:
    transaction = attached(examination(instance(5, {300: 1})))
    reborn = but(instance(5, {300: 1}), process=Process(pid=42, name="server", started_ticks=43))

    step = step_of(transaction, examination(reborn))

    assert of(step, EpollChange) == {"more": ["epoll 5 of server (42)"], "forget": ["epoll 5 of server (42)"]}
    assert step.words == {"server (42) has ended": None, "attached epoll 5 of server (42)": "attach"}


def test_an_epoll_instance_that_was_closed_is_forgotten() -> None:
    transaction = attached(examination(instance(5, {300: 1}), instance(7, {300: 1})))

    step = step_of(transaction, examination(instance(5, {300: 1}, WANTED.epoll)))

    assert (of(step, EpollChange), list(step.words)) == (
        {"forget": ["epoll 7 of server (42)"]}, ["epoll 7 of server (42) was closed"],
    )  # fmt: skip


def test_an_instance_that_is_held_elsewhere_too_is_known_by_any_of_its_places() -> None:
    transaction = attached(examination(instance(5, {300: 1}), instance(9, {301: 1}, pid=43)))
    shared = instance(8, {300: 1}, WANTED.epoll, pid=41, also=((42, 5),))
    now = examination(shared, instance(9, {301: 1}, WANTED.epoll, pid=43))
    now = but(now, processes=(*now.processes, Process(42, "server", 42)))

    assert not step_of(transaction, now)


def test_an_instance_that_comes_to_follow_two_queues_is_let_go_with_the_reason() -> None:
    transaction = attached(examination(instance(5, {300: 1})))

    step = step_of(transaction, examination(instance(5, {300: 1, 301: 1}, WANTED.epoll)))

    assert (of(step, EpollChange), of(step, NapiChange)) == (
        {"without": ["epoll 5 of server (42)"]}, {"without": ["NAPI 300 of eth0"]},
    )  # fmt: skip
    _, line = step.words
    assert line.startswith("detached epoll 5 of server (42): ")
    assert "2 NAPI instances" in line


def test_the_napi_instance_of_a_program_that_set_itself_and_comes_to_mix_queues_is_let_go() -> None:
    transaction = attached(examination(instance(5, {300: 1}, WANTED.epoll)))
    assert [type(each) for each in transaction.changes] == [NapiChange]

    step = step_of(transaction, examination(instance(5, {300: 1, 301: 1}, WANTED.epoll)))

    assert of(step, NapiChange) == {"without": ["NAPI 300 of eth0"]}
    (first, kind), *_ = step.words.items()
    assert first.startswith("detached NAPI 300 of eth0: epoll instance 5 watches sockets of 2 NAPI instances")
    assert kind == "detach"


def test_a_napi_instance_is_let_go_also_if_no_device_has_it_that_can_be_seen() -> None:
    transaction = attached(examination(instance(5, {300: 1})))
    hidden = but(examination(instance(5, {300: 1}, WANTED.epoll)), napis={})

    step = next_step(transaction, judged(hidden), WANTED, present(examination(instance(5, {300: 1})), IN_FORCE))

    assert of(step, NapiChange) == {"without": ["NAPI 300 of eth0"]}


def test_a_napi_instance_is_let_go_with_the_last_process_of_its_network_namespace() -> None:
    """Others of the target live elsewhere. Of one whose namespace is not known none is let go."""
    transaction = attached(examination(instance(5, {300: 1}, pid=100), instance(6, {300: 1}, pid=101)))
    left = instance(6, {}, WANTED.epoll, pid=101)

    def let_go(*namespaces: int, down: bool = False) -> bool:
        now = examination(left, namespaces=frozenset(namespaces))
        there = present(examination(instance(5, {300: 1})), IN_FORCE, down=down)
        step = next_step(transaction, judged(now), WANTED, there)
        assert of(step, NapiChange) in ({}, {"without": ["NAPI 300 of eth0"]})
        return bool(step.without)

    assert let_go(NETNS + 1)
    assert not let_go(NETNS + 1, NETNS)
    assert not let_go(NETNS + 1, 0)
    assert not let_go(NETNS + 1, down=True)


def test_what_does_not_fit_stays_if_it_was_chosen_all_the_same() -> None:
    mixed = examination(instance(5, {300: 1, 301: 1}, WANTED.epoll))
    transaction = attachment(planned(judged(examination(instance(5, {300: 1, 301: 1})), force=True), WANTED))

    step = next_step(transaction, judged(mixed, force=True), WANTED, present(mixed, IN_FORCE))

    assert not step


def test_an_instance_without_a_connection_stays_attached() -> None:
    transaction = attached(examination(instance(5, {300: 1})))

    unfed = judged(examination(instance(5, {}, WANTED.epoll)))

    assert not next_step(transaction, unfed, WANTED, Present({(NETNS, 300): IN_FORCE}, {DEVICE: (300,)}))


def test_parameters_that_were_lost_are_set_again() -> None:
    transaction = attached(examination(instance(5, {300: 1})))

    step = step_of(transaction, examination(instance(5, {300: 1}, UNSET)))

    assert of(step, EpollChange) == {"more": ["epoll 5 of server (42)"], "forget": ["epoll 5 of server (42)"]}
    lost = "epoll 5 of server (42) lost its parameters: somebody else reset them"
    assert list(step.words) == [lost, "attached epoll 5 of server (42)"]


def test_parameters_that_somebody_else_set_are_left_to_him() -> None:
    transaction = attached(examination(instance(5, {300: 1})))
    other = EpollParams(busy_poll_usecs=7, busy_poll_budget=3, prefer_busy_poll=True)

    assert not step_of(transaction, examination(instance(5, {300: 1}, other)))


def test_settings_of_a_napi_instance_that_were_lost_are_set_again() -> None:
    transaction = attached(examination(instance(5, {300: 1})))

    step = step_of(transaction, examination(instance(5, {300: 1}, WANTED.epoll)), ABLE)

    assert of(step, NapiChange) == {"more": ["NAPI 300 of eth0"], "forget": ["NAPI 300 of eth0"]}
    assert list(step.words) == ["NAPI 300 of eth0 lost its settings", "attached NAPI 300 of eth0"]


def test_an_instance_that_was_away_when_all_changed_their_way_is_left_to_the_next_try() -> None:
    transaction = attached(examination(instance(5, {300: 1})))
    changes = [replace(each, leaving=ABLE) if isinstance(each, NapiChange) else each for each in transaction.changes]
    transaction = replace(transaction, changes=tuple(changes))
    found = examination(instance(5, {300: 1}, WANTED.epoll))

    assert not step_of(transaction, found)
    assert not next_step(transaction, judged(found), WANTED, present(found, down=True))


def test_settings_of_a_napi_instance_that_somebody_else_set_are_left_to_him() -> None:
    transaction = attached(examination(instance(5, {300: 1})))
    now = examination(instance(5, {300: 1}, WANTED.epoll))

    assert not step_of(transaction, now, replace(IN_FORCE, gro_flush_timeout_ns=777))
    his = foreign_settings(transaction, present(now, replace(IN_FORCE, gro_flush_timeout_ns=777)))
    assert his == {"NAPI 300 of eth0": "gro-flush-timeout is now 777ns"}
    for ours_or_former in (IN_FORCE, ABLE):
        assert foreign_settings(transaction, present(now, ours_or_former)) == {}


def test_what_is_left_to_somebody_else_is_not_set_again_when_it_was_lost() -> None:
    transaction = attached(examination(instance(5, {300: 1})))
    there = present(examination(instance(5, {300: 1})), ABLE)

    for left, more in (((), ["NAPI 300 of eth0"]), (("NAPI 300 of eth0",), None)):
        step = cheap_step(transaction, there, {42}, left)
        assert [each.where for each in step.lost] == ["NAPI 300 of eth0"]
        assert of(step, NapiChange).get("more") == more
        found = judged(examination(instance(5, {300: 1}, WANTED.epoll)))
        assert of(next_step(transaction, found, WANTED, there, left=left), NapiChange).get("more") == more


def test_as_long_as_the_device_is_down_its_settings_may_come_back_with_it() -> None:
    found = examination(instance(5, {300: 1}))
    now = judged(examination(instance(5, {300: 1}, WANTED.epoll)))

    assert not next_step(attached(found), now, WANTED, present(found, down=True))


def test_after_a_reset_the_successors_are_set_in_the_order_of_their_ids() -> None:
    transaction = attached(examination(instance(5, {300: 1}), instance(6, {301: 1})))
    unfed = examination(instance(5, {}, WANTED.epoll), instance(6, {}, WANTED.epoll))
    there = Present({(NETNS, 310): ABLE, (NETNS, 311): ABLE}, {DEVICE: (310, 311)})

    step = next_step(transaction, judged(unfed), WANTED, there)

    assert of(step, NapiChange) == {
        "more": ["NAPI 310 of eth0", "NAPI 311 of eth0"], "forget": ["NAPI 300 of eth0", "NAPI 301 of eth0"],
    }  # fmt: skip
    first, *_, last = step.words
    assert (first, last) == ("NAPI 300 of eth0 disappeared (device reset)", "attached NAPI 311 of eth0")


def test_what_a_driver_kept_over_a_reset_is_not_taken_for_a_former_value() -> None:
    transaction = attached(examination(instance(5, {300: 1})))
    kept = NapiSettings(defer_hard_irqs=3, gro_flush_timeout_ns=0, irq_suspend_timeout_ns=WANTED.irq_suspend_timeout_ns)
    there = Present({(NETNS, 310): kept}, {DEVICE: (310,)})

    step = next_step(transaction, judged(examination(instance(5, {}, WANTED.epoll))), WANTED, there)

    (change,) = (each for each in step.more if isinstance(each, NapiChange))
    assert change.before == NapiSettings(defer_hard_irqs=3, gro_flush_timeout_ns=0, irq_suspend_timeout_ns=0)
    assert change.after == WANTED.napi


def test_after_a_reset_to_another_number_of_queues_only_what_feeds_the_server_is_attached() -> None:
    transaction = attached(examination(instance(5, {300: 1}), instance(6, {301: 1})))
    fed = examination(instance(5, {311: 1}, WANTED.epoll), instance(6, {}, WANTED.epoll))
    there = Present({(NETNS, each): ABLE for each in (310, 311, 312)}, {DEVICE: (310, 311, 312)})

    step = next_step(transaction, judged(fed), WANTED, there)

    assert of(step, NapiChange)["more"] == ["NAPI 311 of eth0"]


def test_when_only_one_napi_instance_of_a_device_went_no_successor_is_guessed() -> None:
    transaction = attached(examination(instance(5, {300: 1}), instance(6, {301: 1})))
    now = examination(instance(5, {300: 1}, WANTED.epoll), instance(6, {}, WANTED.epoll))
    there = Present({(NETNS, 300): IN_FORCE}, {DEVICE: (300,)})

    step = next_step(transaction, judged(now), WANTED, there)

    assert of(step, NapiChange) == {"forget": ["NAPI 301 of eth0"]}


def test_a_socket_stays_attached_as_long_as_its_process_runs() -> None:
    transaction = attached(examination(plain_sockets=(reading(),)))
    assert any(isinstance(each, SocketChange) for each in transaction.changes)

    assert not step_of(transaction, examination(plain_sockets=(reading(),)))
    gone = but(examination(instance(5, {300: 1}, pid=43)), plain_sockets=())
    step = step_of(transaction, gone)
    assert of(step, SocketChange) == {"forget": ["socket 9 of server (42)"]}
    assert "server (42) has ended" in step.words


def test_a_group_that_is_steered_stays_so() -> None:
    transaction = attached(with_queues(*workers(2)), steer=True)
    assert isinstance(transaction.changes[0], SteeringChange)
    found = with_queues(*workers(2, params=WANTED.epoll))

    assert not next_step(transaction, steered_now(found, transaction), WANTED, present(found, IN_FORCE))


def test_a_group_with_another_member_is_steered_anew_without_a_word_of_the_old_one() -> None:
    transaction = attached(with_queues(*workers(2)), steer=True)
    found = with_queues(*workers(2, first=1, params=WANTED.epoll))

    step = next_step(transaction, steered_now(found, transaction), WANTED, present(found, IN_FORCE))

    assert of(step, SteeringChange) == {
        "more": ["2 listeners on tcp 10.0.0.1:8080"], "forget": ["2 listeners on tcp 10.0.0.1:8080"],
    }  # fmt: skip
    (steering,) = (each for each in step.more if isinstance(each, SteeringChange))
    assert steering.inodes == (51, 52)
    assert "steered the 2 listeners on tcp 10.0.0.1:8080, one RX queue each" in step.words
    assert not any("were closed" in line for line in step.words)


def test_a_group_whose_listeners_have_all_gone_is_forgotten() -> None:
    transaction = attached(with_queues(*workers(2)), steer=True)
    found = but(with_queues(*workers(1, params=WANTED.epoll)), sharers={GROUP: frozenset({99})})

    step = next_step(transaction, steered_now(found, transaction), WANTED, present(found, IN_FORCE))

    assert of(step, SteeringChange) == {"forget": ["2 listeners on tcp 10.0.0.1:8080"]}
    assert "the 2 listeners on tcp 10.0.0.1:8080 were closed" in step.words


# Whatever happens, one step is enough


# Steering, judged anew


def workers_on(queues: int, count: int, *, attached_first: int = 0) -> Examination:
    """So many workers with a listener each, of which the first so many are attached and fed by a queue each."""
    each = [
        instance(
            5, {300 + number: 20} if number < attached_first else {},
            WANTED.epoll if number < attached_first else UNSET, pid=100 + number, listeners=[listener(50 + number)],
        )
        for number in range(count)
    ]  # fmt: skip
    there = examination(*(instance(5, {300 + number: 1}) for number in range(queues)), queues=queues)
    return but(examination(*each), napis=there.napis)


def test_a_group_that_has_outgrown_its_queues_is_taken_back_with_the_reason() -> None:
    transaction = attached(workers_on(4, 4), steer=True)
    assert len(of(Step(more=list(transaction.changes)), EpollChange)["more"]) == 4
    for count, why in ((8, "8 listeners share its port now"), (3, "3 are left"), (2, "2 are left")):
        now = workers_on(4, count, attached_first=4)

        seen = Known(AttachOptions(WANTED, steer=True)).judged(now, transaction)
        step = next_step(transaction, seen, WANTED, present(now, IN_FORCE))

        assert of(step, SteeringChange) == {"without": ["4 listeners on tcp 10.0.0.1:8080"]}
        assert any("stopped steering the " in line and why in line for line in step.words), step.words
        gone = of(step, EpollChange)
        assert len(gone.get("without", [])) + len(gone.get("forget", [])) == 4
