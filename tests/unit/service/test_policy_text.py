"""A policy that is written reads back as it was, and one of what is in force wants nothing else."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from napctl.attach.attach_options import AttachOptions, in_mode
from napctl.attach.attachment import planned
from napctl.attach.switch_way import in_way
from napctl.model.change import ChannelsChange, CoalescingChange, NapiChange, RingsChange, Transaction
from napctl.model.machine import Coalescing
from napctl.model.plan import Advice, ChannelCounts, Deferral, DevicePlan, Plan, Proposal, RingSizes
from napctl.model.policy import AttachEntry, DeviceEntry, Origin, Policy
from napctl.model.settings import NapiSettings
from napctl.model.suspension import Suspension
from napctl.service.policy_file import policy_of
from napctl.service.policy_keys import attach_options_of
from napctl.service.policy_text import policy_in_force, policy_text
from tests.strategies import PLANNED_COALESCING, S32, U32
from tests.unit.attach.steps import attached, attachment, workers
from tests.unit.attach.targets import examination, instance, judged
from tests.unit.attach.test_next_best import GO, in_mode_of_instances

NOWHERE = Origin(file="", line=0)


def read(text: str) -> Policy:
    found = policy_of([("p", text.encode())])
    return replace(
        found,
        attach=tuple(replace(each, origin=NOWHERE) for each in found.attach),
        devices=tuple(replace(each, origin=NOWHERE) for each in found.devices),
    )


TIMES = st.integers(1, 10**7)
FIXED = {"timer_ns": TIMES}
ADAPTING = {
    "latency_budget_ns": st.integers(1_000, 10**9),
    "timer_range_ns": st.tuples(st.integers(1, 1_000), st.integers(1_000, 10**6)),
    "prefer": st.sampled_from((None, "cpu", "latency")),
}


def attach_entries(target: str, **values: Any) -> st.SearchStrategy[AttachEntry]:
    return st.builds(
        AttachEntry, origin=st.just(NOWHERE), target=st.just(target), steer=st.booleans(), force=st.just(True),
        irq_suspend_timeout_ns=st.just(50_000_001), busy_poll_usecs=st.none() | st.integers(0, 10**6),
        busy_poll_budget=st.none() | st.integers(1, 65535), defer_hard_irqs=st.none() | st.integers(1, 10**6), **values,
    )  # fmt: skip


DEVICES = st.builds(
    DeviceEntry, origin=st.just(NOWHERE), name=st.sampled_from(("eth0", 'a"b#', "[[attach]]", "é")),
    goal=st.just("latency"), max_added_latency_ns=st.none() | st.integers(0, 10**7),
    coalescing=st.none() | PLANNED_COALESCING.filter(lambda each: each != Coalescing()),
    deferral=st.none() | st.builds(Deferral, defer_hard_irqs=S32, gro_flush_timeout_ns=U32),
    rings=st.none() | st.builds(RingSizes, rx=U32), channels=st.none() | st.integers(1, 64),
)  # fmt: skip


@given(
    st.lists(DEVICES, max_size=3, unique_by=lambda each: each.name),
    attach_entries("nginx.service", **FIXED),
    attach_entries("name:odd \\ \"name'", **ADAPTING),
)
def test_any_policy_reads_back_as_it_was(devices: list[DeviceEntry], one: AttachEntry, two: AttachEntry) -> None:
    policy = Policy(attach=(one, two), devices=tuple(devices))
    assert read(policy_text(policy)) == policy


def test_a_policy_of_nothing_wants_nothing() -> None:
    assert read(policy_text(Policy())) == Policy()


def test_what_the_comments_offer_is_a_policy_too() -> None:
    text = policy_text(Policy())
    offered = [
        line.removeprefix("#").strip() for line in text.splitlines() if line.startswith(("#   ", "# [", "# on-"))
    ]
    offered += [line[2:] for line in text.splitlines() if line.startswith(("# guard", "# metrics"))]
    found = read("\n".join(offered))
    assert (len(found.attach), len(found.devices), found.service.metrics is not None) == (2, 1, True)


def applied(*changes: Any, number: int = 1) -> Transaction:
    return Transaction(
        number=number, boot_id="b", made_unix_ns=1, name="eth0", kind="apply", state="applied", changes=changes
    )


def test_what_is_attached_becomes_an_entry_with_what_is_not_the_default() -> None:
    found = examination(instance(5, {300: 2}))
    odd = attachment(planned(judged(found), Suspension(gro_flush_timeout_ns=50_000, busy_poll_budget=16)))
    steered = replace(attached(examination(*workers(2), queues=2), steer=True), pid=100)
    policy = policy_in_force([odd, steered], 1, {42: "server.service"})
    assert policy.attach == (
        AttachEntry(origin=NOWHERE, target="server.service", timer_ns=50_000, busy_poll_budget=16),
        AttachEntry(origin=NOWHERE, target="server", timer_ns=200_000, steer=True),
    )
    assert read(policy_text(policy)) == policy


def test_what_is_attached_in_another_mode_becomes_an_entry_with_that_mode() -> None:
    thread, spinning = (
        attachment(planned(in_mode_of_instances(GO, "thread", spins=spins), Suspension())) for spins in (False, True)
    )
    deferral = in_way(in_mode(AttachOptions(suspension=Suspension()), "defer").suspension, 50_000)
    defer = attachment(planned(in_mode_of_instances(GO, "defer"), deferral))
    entries = [policy_in_force([each], 1, {}).attach[0] for each in (thread, spinning, defer)]
    assert entries == [
        AttachEntry(origin=NOWHERE, target="server", mode="thread"),
        AttachEntry(origin=NOWHERE, target="server", mode="thread", spin=True),
        AttachEntry(origin=NOWHERE, target="server", mode="defer", timer_ns=50_000),
    ]
    for each in entries:
        assert read(policy_text(Policy(attach=(each,)))).attach == (each,)
        assert attach_options_of(each).mode == each.mode


def test_what_is_applied_becomes_an_entry_for_each_device_of_the_namespace() -> None:
    where: dict[str, Any] = {"netns": 1, "device": "eth0", "ifindex": 2}
    napi: dict[str, Any] = {
        "before": NapiSettings(),
        "after": NapiSettings(gro_flush_timeout_ns=50_000),
        "napi_id": 300,
    }
    live = [
        applied(
            ChannelsChange(**where, before=ChannelCounts(rx=2, tx=2), after=ChannelCounts(rx=4, tx=4)),
            RingsChange(**where, before=RingSizes(), after=RingSizes(rx=512)),
            CoalescingChange(**where, before=Coalescing(), after=Coalescing(rx_usecs=30, tx_usecs=8)),
            NapiChange(**where, **napi),
            CoalescingChange(**where, queue=1, before=Coalescing(), after=Coalescing(rx_usecs=99)),
            CoalescingChange(**{**where, "netns": 2}, before=Coalescing(), after=Coalescing(rx_usecs=99)),
        ),
        applied(CoalescingChange(**where, before=Coalescing(), after=Coalescing(rx_usecs=50)), number=2),
        replace(
            applied(CoalescingChange(**where, before=Coalescing(), after=Coalescing(rx_usecs=7))), state="restored"
        ),
    ]
    policy = policy_in_force(live, 1, {})
    (only,) = policy.devices
    assert only.name == "eth0"
    assert only.coalescing == Coalescing(rx_usecs=50, tx_usecs=8)
    assert only.rings == RingSizes(rx=512)
    assert only.channels == 4
    assert only.deferral == Deferral(gro_flush_timeout_ns=50_000)
    assert read(policy_text(policy)) == policy


def test_what_would_be_proposed_stands_there_as_a_comment() -> None:
    plan = Plan(
        goal="balanced",
        max_added_latency_ns=50_000,
        devices=(DevicePlan(name="eth1", driver="x", rx_queues=1, tx_queues=1),),
    )
    proposal = Proposal(device="eth1", setting="rx_usecs", now=3, proposed=50, why="", bound="", sources=())
    advice = Advice(plan=plan, proposals=(proposal,), unsupported=(), missing=())
    text = policy_text(Policy(), advice)
    assert '# The goal balanced would change rx-usecs:\n# [[device]]\n# name = "eth1"\n' in text
    assert read(text) == Policy()
