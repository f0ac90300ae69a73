"""A policy's file, written: of what is in force now, with comments that say what else may stand there. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from napctl.attach.attach_options import DEFAULT
from napctl.model.change import (
    Change,
    ChannelsChange,
    CoalescingChange,
    DeviceChange,
    EpollChange,
    NapiChange,
    RingsChange,
    SteeringChange,
    ThreadChange,
    Transaction,
)
from napctl.model.machine import Coalescing
from napctl.model.modes import mode_of
from napctl.model.plan import Advice, Deferral, GoalName, RingSizes, settings
from napctl.model.policy import POLICY_VERSION, AttachEntry, DeviceEntry, Origin, Policy
from napctl.model.settings import BUSY_POLL, kernel_name
from napctl.model.units import duration_text
from napctl.plan.file import comment, quoted, value_line

__all__ = ["policy_in_force", "policy_text"]


HEADER = """\
# How packets are to be taken on this machine. `napctl policy check` reads this file, `napctl policy drift` says what is
# not so. What is not named here is left alone. Files in policy.d/*.toml beside it are read after it, in order.
# Each key is the name of an option of `napctl attach` or `napctl plan`, or the kernel's name of a setting.
"""
ATTACH = """\
# Servers that get IRQ suspension, for as long as they run. For one that is to adapt:
#   [[attach]]
#   target = "nginx.service"      # as `napctl attach` takes it
#   latency-budget = "150us"      # 99 of 100 requests are to be read within that time
#   timer-range = "20us..200us"   # among these timers, and interrupts
#   prefer = "cpu"                # or "latency"
# For one that suspension does not fit:
#   [[attach]]
#   target = "caddy.service"
#   mode = "auto"                 # the best of what fits; or "poll", "thread", "defer"
"""
DEVICE = """\
# Devices, by name, driver or all = true. Settings that are written outright win over the goal's; rings and channels are
# left alone unless they are named.
#   [[device]]
#   name = "eth0"
#   goal = "balanced"             # or latency, throughput, efficiency
#   max-added-latency = "50us"
#   coalescing = { rx-usecs = 50 }
"""
PROTECT = """\
# Devices that are kept from taking the machine by a flood of packets.
#   [protect]
#   devices = ["eth0"]            # or "all": network hardware that is up
#   storm-control = 10000         # as the last step; not allowed unless set
"""
SERVICE = """\
# [service]
# on-stop = "restore"             # what stopping the service does; or "keep"
# guard-wait = "60s"              # so long a killed service may take to come back before all is restored
# metrics = "127.0.0.1:9811"      # or "textfile:/var/lib/prometheus/node-exporter/napctl.prom"; off unless set
"""
NOWHERE = Origin(file="", line=0)


def policy_in_force(live: Iterable[Transaction], netns: int, units: Mapping[int, str]) -> Policy:
    """What is attached and applied, as a policy: everything outright. `netns`: the inode number of the network
    namespace whose devices count; `units`: the systemd unit of a process, by its pid, where it has one."""
    attach: dict[str, AttachEntry] = {}
    blocks: dict[str, dict[str, dict[str, Any]]] = {}
    for each in live:
        if each.kind == "attach" and each.state == "attached":
            entry = _attach_entry(each, units.get(each.pid, each.name))
            attach.setdefault(entry.target, entry)
        elif each.kind == "apply" and each.state == "applied":
            for change in each.changes:
                _take(change, netns, blocks)
    return Policy(attach=tuple(attach.values()), devices=tuple(_device_entry(*each) for each in blocks.items()))


def _attach_entry(transaction: Transaction, target: str) -> AttachEntry:
    """With what differs from the defaults, and with the timer, unless it is adapted."""
    changes, mode = transaction.changes, mode_of(transaction.changes)
    if mode == "thread":
        spins = any(isinstance(each, ThreadChange) and each.after.threaded == BUSY_POLL for each in changes)
        return AttachEntry(origin=NOWHERE, target=target, mode=mode, spin=spins)
    napi = next((each.after for each in changes if isinstance(each, NapiChange)), None)
    epoll = next((each.after for each in changes if isinstance(each, EpollChange)), None)
    values: dict[str, Any] = {}
    if not (transaction.switches or transaction.on_interrupts):
        made = {**dict(settings(napi)), **dict(settings(epoll))}
        for name in ("defer_hard_irqs", "irq_suspend_timeout_ns", "busy_poll_usecs", "busy_poll_budget"):
            if name in made and made[name] != getattr(DEFAULT, name):
                values[name] = made[name]
        values["timer_ns"] = made.get("gro_flush_timeout_ns") or None
        if values.get("irq_suspend_timeout_ns") == 0:  # which nothing but another mode has
            values["mode"] = mode
            del values["irq_suspend_timeout_ns"]
    steer = any(isinstance(each, SteeringChange) for each in changes)
    return AttachEntry(origin=NOWHERE, target=target, steer=steer, **values)


def _take(change: Change, netns: int, blocks: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Later changes win; those of single queues a policy has no place for."""
    if not isinstance(change, DeviceChange | NapiChange) or change.netns != netns:
        return
    if isinstance(change, CoalescingChange) and change.queue is not None:
        return
    kinds = {CoalescingChange: "coalescing", RingsChange: "rings", ChannelsChange: "channels", NapiChange: "deferral"}
    block = kinds[type(change)]
    if values := dict(settings(change.after)):
        blocks.setdefault(change.device, {}).setdefault(block, {}).update(values)


def _device_entry(name: str, blocks: Mapping[str, Mapping[str, Any]]) -> DeviceEntry:
    kinds = {"coalescing": Coalescing, "rings": RingSizes, "deferral": Deferral}
    made: dict[str, Any] = {block: kinds[block](**values) for block, values in blocks.items() if block in kinds}
    if "channels" in blocks:  # RX and TX alike, or combined
        made["channels"] = max(blocks["channels"].values())
    return DeviceEntry(origin=NOWHERE, name=name, **made)


def policy_text(policy: Policy, advice: Advice | None = None) -> str:
    """The file's text. `advice`: what would be proposed for devices that have no entry, as a comment."""
    lines = [*HEADER.splitlines(), f"version = {POLICY_VERSION}", "", *ATTACH.splitlines()]
    for entry in policy.attach:
        lines += ["", *_attach_lines(entry)]
    lines += ["", *DEVICE.splitlines()]
    for device in policy.devices:
        lines += ["", *_device_lines(device)]
    if advice is not None:
        lines += _advice_lines(advice, {device.name for device in policy.devices})
    lines += ["", *PROTECT.splitlines(), "", *SERVICE.splitlines()]
    return "\n".join(lines) + "\n"


def _attach_lines(entry: AttachEntry) -> Iterator[str]:
    yield "[[attach]]"
    yield f"target = {quoted(entry.target)}"
    yield from (f"{name} = true" for name in ("steer", "force", "spin") if getattr(entry, name))
    if entry.mode is not None:
        yield f"mode = {quoted(entry.mode)}"
    if entry.timer_ns is not None:
        yield f"defer-us = {quoted(duration_text(entry.timer_ns))}"
    if entry.latency_budget_ns is not None:
        yield f"latency-budget = {quoted(duration_text(entry.latency_budget_ns))}"
    if entry.timer_range_ns is not None:
        yield f"timer-range = {quoted('..'.join(map(duration_text, entry.timer_range_ns)))}"
    if entry.prefer is not None:
        yield f"prefer = {quoted(entry.prefer)}"
    for field in ("defer_hard_irqs", "irq_suspend_timeout_ns", "busy_poll_usecs", "busy_poll_budget"):
        if (value := getattr(entry, field)) is not None:
            yield value_line(field, value)


def _device_lines(entry: DeviceEntry) -> Iterator[str]:
    yield "[[device]]"
    if entry.all:
        yield "all = true"
    for name in ("name", "driver", "goal"):
        if (value := getattr(entry, name)) is not None:
            yield f"{name} = {quoted(value)}"
    if entry.max_added_latency_ns is not None:
        yield value_line("max_added_latency_ns", entry.max_added_latency_ns)
    if entry.channels is not None:
        yield f"channels = {entry.channels}"
    for block in ("coalescing", "deferral", "rings"):
        lines = [value_line(field, value) for field, value in settings(getattr(entry, block))]
        if lines:
            yield f"[device.{block}]"
            yield from lines


def _advice_lines(advice: Advice, named: set[str | None]) -> Iterator[str]:
    goal: GoalName = advice.plan.goal
    for planned in advice.plan.devices:
        if planned.name not in named:
            mine = [each for each in advice.proposals if each.device == planned.name]
            yield ""
            yield from comment(f"The goal {goal} would change {', '.join(kernel_name(each.setting) for each in mine)}:")
            yield "# [[device]]"
            yield f"# name = {quoted(planned.name)}"
            yield f"# goal = {quoted(goal)}"
