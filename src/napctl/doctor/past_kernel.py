"""Rules about XDP and AF_XDP, and what somebody else drives, of which nothing is judged."""

from collections.abc import Iterator
from shlex import quote

from napctl.doctor.facts import NETDEV, Rule, napi_name, no_napis
from napctl.model.census import XdpSocket
from napctl.model.finding import Checkup, Evidence, Finding
from napctl.model.machine import Device, Napi, leases
from napctl.model.text import each
from napctl.model.units import duration_text

__all__ = ["RULES", "left_alone"]


RTNETLINK, SOCKOPT = "rtnetlink", "SO_PREFER_BUSY_POLL"


def busy_polling_without_deferral(seen: Checkup) -> Iterator[Finding]:
    """An AF_XDP socket that prefers busy polling on a queue without deferral: two poll it, and one of them may stop."""
    for device in seen.machine.devices:
        for socket in seen.xdp_sockets:
            if socket.device != device.name or not socket.prefers_busy_poll:
                continue
            napi = _of_queue(device, socket.queue)
            if napi is not None and not napi.settings.defers:
                yield _without_deferral(device, napi, socket)


def _of_queue(device: Device, index: int) -> Napi | None:
    ids = {queue.napi_id for queue in device.queues if (queue.kind, queue.index) == ("rx", index)}
    return next((napi for napi in device.napis if napi.napi_id in ids), None)


def _without_deferral(device: Device, napi: Napi, socket: XdpSocket) -> Finding:
    who = each(f"{name} ({pid})" for pid, name in socket.holders)
    where = napi_name(device, napi.napi_id)
    settings = napi.settings
    return Finding(
        rule="busy-polling-without-deferral",
        severity="danger",
        where=where,
        title=f"{who} prefers to poll {where} itself, which has no deferral: packets may wait, or stop",
        evidence=(
            Evidence(text=f"its AF_XDP socket on rx{socket.queue} prefers busy polling", source=SOCKOPT),
            Evidence(
                text=f"defer-hard-irqs {settings.defer_hard_irqs or 0}, gro-flush-timeout "
                f"{duration_text(settings.gro_flush_timeout_ns or 0)}",
                source=NETDEV,
            ),
        ),
        consequence="Interrupts stay on, so that softirq takes the same queue on another CPU; under load an AF_XDP "
        "program was seen to get no packet at all.",
        remedy="Give exactly this NAPI instance deferral: attaching the program does. Or let it not prefer busy "
        "polling.",
        commands=tuple(f"napctl attach {pid}" for pid, _ in socket.holders[:1]),
        certainty="likely",
        basis="Documentation/networking/napi.rst, Software IRQ coalescing; xdp-project/bpf-examples issue 138",
    )


def generic_xdp(seen: Checkup) -> Iterator[Finding]:
    """A program in generic mode where the driver has the native one: what it drops has cost an skb already."""
    for device in seen.machine.devices:
        programs = device.xdp
        if programs is None or programs.generic is None or not programs.driver_has_native:
            continue
        yield Finding(
            rule="generic-xdp",
            severity="cost",
            where=device.name,
            title=f"the XDP program of {device.name} runs in generic mode, and its driver has the native one",
            evidence=(
                Evidence(text=f"program {programs.generic} in generic mode", source=RTNETLINK),
                Evidence(text=f"{device.driver or 'the driver'} has XDP: xdp-features", source=NETDEV),
            ),
            consequence="Each packet becomes an skb before the program sees it, and may be copied for it: it saves "
            "little of what XDP is for.",
            remedy="Attach it in native mode, by what attached it; the command only shows what is there. Some programs "
            "and some settings (a large MTU, LRO) exclude it.",
            commands=(f"ip -details link show dev {quote(device.name)}",),
            certainty="certain",
            basis="dev_xdp_attach() and do_xdp_generic() in net/core/dev.c; ip-link(8), xdpgeneric",
        )


def left_alone(seen: Checkup) -> Iterator[str]:
    """What somebody else drives: sentences."""
    for device in seen.machine.devices:
        for _, words in leases(device):
            yield f"{words}: who has it sets it"
    for nic in seen.machine.user_space:
        yield f"{nic.bus} is driven from user space ({nic.driver}): the kernel has no network device of it"


RULES = (
    Rule("busy-polling-without-deferral", busy_polling_without_deferral, (no_napis,)),
    Rule("generic-xdp", generic_xdp),
)
