"""What a policy means, one line for each entry."""

from collections.abc import Iterator

from napctl.attach.attach_options import RANGE
from napctl.cli.text.settings import setting_name, value_text
from napctl.model.plan import settings
from napctl.model.policy import AttachEntry, DeviceEntry, MetricsPlace, Policy, ProtectEntry, ServiceEntry
from napctl.model.units import duration_text

__all__ = ["policy_lines"]


OUTRIGHT = ("defer_hard_irqs", "irq_suspend_timeout_ns", "busy_poll_usecs", "busy_poll_budget")


def policy_lines(policy: Policy) -> Iterator[str]:
    """Targets, devices, what is protected, and how the service behaves."""
    yield from (f"attach {entry.target}: {'; '.join(_attach(entry))} ({entry.origin})" for entry in policy.attach)
    yield from (f"{_whom(entry)}: {'; '.join(_device(entry))} ({entry.origin})" for entry in policy.devices)
    if policy.protect is not None:
        yield f"protect {'; '.join(_protect(policy.protect))} ({policy.protect.origin})"
    yield f"service: {'; '.join(_service(policy.service))}"


def _attach(entry: AttachEntry) -> Iterator[str]:
    if entry.mode is not None:
        yield f"mode {entry.mode}{', which spins' * entry.spin}"
    if entry.mode == "thread":
        return  # it has no timer, and nothing of its own to set
    if entry.latency_budget_ns is not None:
        ends = "..".join(map(duration_text, entry.timer_range_ns)) if entry.timer_range_ns else RANGE
        best = "the least latency" if entry.prefer == "latency" else "the least CPU"
        budget = duration_text(entry.latency_budget_ns)
        yield f"adapts to {best} within {budget}, among interrupts and timers of {ends}"
    elif entry.timer_ns is not None:
        yield f"timer {duration_text(entry.timer_ns)}"
    else:
        yield "timer chosen under its traffic"
    if entry.steer:
        yield "connections steered by queue"
    yield from _named((name, getattr(entry, name)) for name in OUTRIGHT)
    if entry.force:
        yield "also what does not fit"


def _whom(entry: DeviceEntry) -> str:
    if entry.all:
        return "all network hardware"
    return f"device {entry.name}" if entry.name is not None else f"devices of {entry.driver}"


def _device(entry: DeviceEntry) -> Iterator[str]:
    if entry.goal is not None:
        most = entry.max_added_latency_ns
        yield f"goal {entry.goal}" + (f" with at most {duration_text(most)} added" if most is not None else "")
    yield from _named(settings(entry.coalescing))
    yield from _named(settings(entry.deferral))
    yield from (f"{name} ring {value}" for name, value in settings(entry.rings))
    if entry.channels is not None:
        yield f"{entry.channels} channels"


def _named(values: "Iterator[tuple[str, object]]") -> Iterator[str]:
    return (f"{setting_name(name)} {value_text(name, value)}" for name, value in values if value is not None)


def _protect(entry: ProtectEntry) -> Iterator[str]:
    yield "all network hardware" if entry.devices is None else ", ".join(entry.devices)
    yield f"from {entry.threshold} % of a CPU on"
    if entry.storm_control is not None:
        yield f"storm control beyond {entry.storm_control:,} packets/s"


def _service(entry: ServiceEntry) -> Iterator[str]:
    yield f"stopping it {'restores everything' if entry.on_stop == 'restore' else 'keeps what is in force'}"
    yield f"its guard waits {duration_text(entry.guard_wait_ns)}"
    yield _metrics(entry.metrics) + (", per NAPI instance" if entry.metrics and entry.metrics_per_napi else "")


def _metrics(place: MetricsPlace | None) -> str:
    if place is None:
        return "no metrics"
    if place.textfile is not None:
        return f"metrics in {place.textfile}"
    address = f"[{place.address}]" if ":" in str(place.address) else place.address
    return f"metrics at {address}:{place.port}"
