"""Of any step of a follower, whatever was and is there: after it nothing is left to do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from dataclasses import replace as but

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict, replace

from napctl.attach.attachment import planned, ring_polling, steered_inodes
from napctl.attach.follow_step import NapiKey, Present, Step, next_step
from napctl.attach.inspect_process import EpollInstance, Listener, PlainSocket, Ring
from napctl.attach.inspect_target import Examination
from napctl.model.change import EpollChange, IoUringChange, NapiChange, SteeringChange, Transaction
from napctl.model.settings import EpollParams, NapiSettings, RingPolling
from tests.unit.attach.steps import DEVICE, IN_FORCE, WANTED, attachment, reading
from tests.unit.attach.targets import (
    ABLE,
    NETNS,
    QUIET,
    UNSET,
    examination,
    instance,
    judged,
    listener,
    ring,
)


@dataclass(frozen=True)
class Machine:
    """A kernel in a few values, to which changes can be made."""

    napis: dict[int, NapiSettings]
    instances: tuple[EpollInstance, ...]
    plain_sockets: tuple[PlainSocket, ...] = ()
    rings: tuple[Ring, ...] = ()
    down: bool = False
    sharers: Mapping[tuple[str, int, bytes], frozenset[int]] | None = field(default=None)

    def examination(self) -> Examination:
        found = examination(
            *self.instances, queues=0, plain_sockets=self.plain_sockets, rings=self.rings, sharers=self.sharers
        )
        there = examination(instance(1, dict.fromkeys(self.napis, 1))).napis if self.napis and not self.down else {}
        located = {
            napi_id: but(each, napi=replace(each.napi, settings=self.napis[napi_id]), netns=NETNS)
            for napi_id, each in there.items()
        }
        napis = tuple(each.napi for each in located.values())
        located = {napi_id: but(each, device=replace(each.device, napis=napis)) for napi_id, each in located.items()}
        members = [each.process for each in self.instances] + [each.process for each in self.plain_sockets]
        members += [each.process for each in self.rings]
        running = {each.pid: each for each in members}
        return but(found, napis=located, processes=tuple(running.values())).without_former_napis()

    def present(self) -> Present:
        if self.down:
            return Present({}, {}, frozenset({DEVICE}))
        there: dict[NapiKey, NapiSettings] = {(NETNS, napi_id): each for napi_id, each in self.napis.items()}
        return Present(there, {DEVICE: tuple(sorted(self.napis))} if there else {})

    def after(self, step: Step) -> "Machine":
        napis, instances = dict(self.napis), {(each.process.pid, each.fd): each for each in self.instances}
        rings = {each.inode: each for each in self.rings}
        for change, settings in (*((each, each.after) for each in step.more), *((e, e.before) for e in step.without)):
            if isinstance(change, NapiChange) and isinstance(settings, NapiSettings):
                given = {name: value for name, value in asdict(settings).items() if value is not None}
                napis[change.napi_id] = replace(napis.get(change.napi_id, ABLE), **given)
            elif isinstance(change, EpollChange) and isinstance(settings, EpollParams):
                key = (change.pid, change.epoll_fd)
                instances[key] = but(instances[key], params=settings)
            elif isinstance(change, IoUringChange) and isinstance(settings, RingPolling):
                one = rings[change.inode]
                assert one.facts is not None
                rings[change.inode] = but(one, facts=but(one.facts, polling=settings))
        return but(self, napis=napis, instances=tuple(instances.values()), rings=tuple(rings.values()))


def amended(transaction: Transaction, step: Step) -> Transaction:
    """As change.transaction.amend() leaves it."""
    dropped = (*step.without, *step.forget)
    return replace(transaction, changes=(*(each for each in transaction.changes if each not in dropped), *step.more))


NAPI_IDS = st.sampled_from([300, 301, 302])
PARAMS = st.sampled_from(
    [UNSET, WANTED.epoll, EpollParams(busy_poll_usecs=1, busy_poll_budget=2, prefer_busy_poll=True)]
)
POLLING = st.sampled_from(
    [
        QUIET,
        ring_polling(WANTED),
        RingPolling(tracking="dynamic", busy_poll_usecs=20, prefer_busy_poll=False),
        RingPolling(tracking="static", busy_poll_usecs=20, prefer_busy_poll=False),
    ]
)
SETTINGS = st.sampled_from([ABLE, IN_FORCE, replace(ABLE, gro_flush_timeout_ns=777)])


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    napi_ids = draw(st.sets(NAPI_IDS, min_size=1) | st.just({310, 311}))
    instances = []
    for number in range(draw(st.integers(0, 3))):
        fed = draw(st.dictionaries(NAPI_IDS | st.sampled_from([310, 311]), st.integers(1, 3), max_size=2))
        listening: list[Listener] = [listener(50 + number)] if draw(st.booleans()) else []
        instances.append(
            instance(5 + draw(st.integers(0, 1)) * 2, fed, draw(PARAMS), pid=100 + number, listeners=listening)
        )
    some = (reading(draw(NAPI_IDS)),) if draw(st.booleans()) else ()
    rings = [
        ring(*draw(st.sets(NAPI_IDS, max_size=2)), fd=20 + number, pid=100 + number, polling=draw(POLLING))
        for number in range(draw(st.integers(0, 2)))
    ]
    settings = {each: draw(SETTINGS) for each in sorted(napi_ids)}
    return Machine(settings, tuple(instances), some, tuple(rings), draw(st.booleans()))


@given(was=machines(), now=machines(), steer=st.booleans())
def test_after_a_step_nothing_is_left_to_do(was: Machine, now: Machine, steer: bool) -> None:
    first = was.examination()
    transaction = attachment(planned(judged(first, steer=steer), WANTED), 100)

    def next_of(machine: Machine, transaction: Transaction) -> Step:
        found = machine.examination()
        seen = judged(found, steer=steer, steered=steered_inodes([transaction]))
        return next_step(transaction, seen, WANTED, machine.present())

    step = next_of(now, transaction)
    now, transaction = now.after(step), amended(transaction, step)
    again = next_of(now, transaction)
    if again and any(isinstance(each, SteeringChange) for each in step.more):
        # Workers whose connections from before turn out to be of one NAPI instance: they fit once they are steered. An
        # instance that feeds only workers whose connections from before are of several is let go until these end.
        let_go = [line for line in again.words if "connections from before are still open" in line]
        assert not again.forget, (step, again)
        assert len(again.without) == len(let_go), (step, again)
        assert all(isinstance(each, NapiChange) for each in again.without), (step, again)
        now, transaction = now.after(again), amended(transaction, again)
        again = next_of(now, transaction)

    assert not again, (step, again)
    assert not again.words


@given(was=machines(), now=machines())
def test_a_step_has_each_object_once_and_only_its_own_changes(was: Machine, now: Machine) -> None:
    first = was.examination()
    transaction = attachment(planned(judged(first), WANTED), 100)

    step = next_step(transaction, judged(now.examination()), WANTED, now.present())

    assert set(map(repr, (*step.without, *step.forget))) <= set(map(repr, transaction.changes))
    after = amended(transaction, step).changes
    names = [each.where for each in after if not isinstance(each, EpollChange)]
    assert len(names) == len(set(names))
    assert all("\n" not in line for line in step.words)
