"""What the tests of a follower's step share: attachments, and what the kernel has by now."""

from dataclasses import replace as but

from msgspec.structs import replace

from napctl.attach.attachment import planned, steered_inodes
from napctl.attach.follow_step import Present, Step, next_step
from napctl.attach.inspect_process import EpollInstance, PlainSocket
from napctl.attach.inspect_target import Examination
from napctl.attach.judge_target import JudgedTarget
from napctl.model.change import Change, Transaction
from napctl.model.settings import EpollParams, NapiSettings
from napctl.model.suspension import Suspension
from tests.unit.attach.targets import (
    IFINDEX,
    NETNS,
    UNSET,
    examination,
    instance,
    judged,
    listener,
    plain_socket,
    waits,
)

WANTED = Suspension()
DEVICE = (NETNS, IFINDEX)


def attachment(changes: tuple[Change, ...], pid: int = 42) -> Transaction:
    return Transaction(
        boot_id="b", made_unix_ns=1, name="server", pid=pid, started_ticks=pid, state="attached", changes=changes
    )


def attached(found: Examination, *, steer: bool = False) -> Transaction:
    return attachment(planned(judged(found, steer=steer), WANTED), found.processes[0].pid)


def present(found: Examination, settings: NapiSettings | None = None, *, down: bool = False) -> Present:
    """The NAPI instances of the examination; with `settings`, all alike."""
    napis = {(each.netns, napi_id): settings or each.napi.settings for napi_id, each in found.napis.items()}
    return Present(
        {} if down else napis,
        {} if down else {DEVICE: tuple(sorted(found.napis))},
        frozenset({DEVICE}) if down else frozenset(),
    )


IN_FORCE = replace(WANTED.napi, threaded="disabled")


def step_of(transaction: Transaction, found: Examination, settings: NapiSettings = IN_FORCE) -> Step:
    return next_step(transaction, judged(found), WANTED, present(found, settings))


def of(step: Step, kind: type[Change]) -> dict[str, list[str]]:
    """Where changes of a kind are made, undone and forgotten."""
    parts = {"more": step.more, "without": step.without, "forget": step.forget}
    found = {name: [each.where for each in part if isinstance(each, kind)] for name, part in parts.items()}
    return {name: places for name, places in found.items() if places}


def workers(count: int, first: int = 0, *, params: EpollParams = UNSET) -> tuple[EpollInstance, ...]:
    return tuple(
        instance(5, {}, params, pid=100 + number, listeners=[listener(50 + number)])
        for number in range(first, first + count)
    )


def steered_now(found: Examination, transaction: Transaction) -> JudgedTarget:
    return judged(found, steer=True, steered=steered_inodes([transaction]))


def with_queues(*instances: EpollInstance) -> Examination:
    """Two queues, one worker of which is fed by each."""
    fed = tuple(but(each, sockets_by_napi={300 + number % 2: 1}) for number, each in enumerate(instances))
    return examination(*fed, queues=2)


def reading(napi_id: int = 300) -> PlainSocket:
    return plain_socket(napi_id, threads=(waits(call="recv", fd=9),))
