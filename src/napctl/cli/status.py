"""napctl status: how the machine takes its packets, as it is set now."""

from collections.abc import Iterable, Iterator
from contextlib import suppress

import click

from napctl.change.journal import Journal
from napctl.cli.netns import netns_option
from napctl.cli.options import devices_argument, json_option
from napctl.cli.terminal import echo, echo_json
from napctl.cli.text.keepers import is_of_service, kept_by
from napctl.cli.text.table import ABSENT, optional, paragraph, print_table
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.change import Transaction, devices_of
from napctl.model.errors import NapctlError
from napctl.model.machine import Coalescing, Device, EpollPoller, Machine, Napi, RingPoller, levels_text
from napctl.model.units import duration_text, on_or_number
from napctl.observe.machine import take_machine
from napctl.plan.lower_devices import look_below

MANY = 8
"""So many epoll instances alike are still shown one by one; --json shows all."""


@click.command(epilog="\b\nExamples:\n  napctl status\n  napctl status eth0 --json\n  napctl status --netns pid:1234")
@devices_argument
@netns_option
@json_option("One JSON object")
def status(devices: tuple[str, ...], netns: NetworkNamespace, as_json: bool) -> None:
    """Show how each device takes packets, and which processes poll it.

    For each device (all but loopback by default): driver and link, coalescing, rings, and each NAPI instance with its
    queues, interrupt, CPUs, deferral and suspension; then the processes whose epoll and io_uring instances poll them.
    A dash stands for what this driver or kernel does not have.
    """
    machine = take_machine(netns, devices)
    if as_json:
        echo_json(machine)
    else:
        show(machine)
        with suppress(NapctlError):  # no right to read the journal: that is not what was asked for
            _show_service(machine, Journal.read(live=True))


def show(machine: Machine) -> None:
    """Print a Machine."""
    for device in machine.devices:
        _show_device(device)
        echo()
    _show_pollers(machine.pollers)
    _show_ring_pollers(machine.ring_pollers)
    for lack in machine.lacks:
        paragraph(f"not known: {lack}")


def _show_service(machine: Machine, live: Iterable[Transaction]) -> None:
    names = {device.name for device in machine.devices}
    for each in live:
        here = any(getattr(change, "netns", machine.netns) == machine.netns for change in each.changes)
        if is_of_service(each) and here and names & set(devices_of(each.changes)):
            paragraph(f"{each.title}: {kept_by(each)}")


def _show_device(device: Device) -> None:
    speed = f"{device.speed_mbps:,} Mb/s" if device.speed_mbps else "speed unknown"
    driver = device.driver or "driver unknown"
    where = f" at {device.bus}" if device.bus else ""
    also = f" (also {', '.join(device.alternative_names)})" if device.alternative_names else ""
    echo(f"{device.name}{also}: {driver}{where}, {'up' if device.up else 'down'}, {speed}")
    if below := look_below(device, "status"):
        paragraph(below, first="  ", rest="              ")
    _show_coalescing("coalescing", device.coalescing)
    rings, channels = device.rings, device.channels
    echo(
        "  rings       "
        + (
            f"rx {_of(rings.rx, rings.rx_max)}, tx {_of(rings.tx, rings.tx_max)}"
            if rings
            else "not reported by this driver"
        )
    )
    if channels:
        counts = {"rx": (channels.rx, channels.rx_max), "tx": (channels.tx, channels.tx_max)}
        counts["combined"] = (channels.combined, channels.combined_max)
        told = (f"{name} {_of(*pair)}" for name, pair in counts.items() if pair[1])
        echo(f"  channels    {', '.join(told)}")
    for each in device.queue_coalescing:
        if each.coalescing != device.coalescing:
            _show_coalescing(f"queue {each.queue}", each.coalescing)
    wide = device.deferral
    if wide is not None and (wide.defer_hard_irqs or wide.gro_flush_timeout_ns):
        words = f"defer-hard-irqs {wide.defer_hard_irqs}, gro-flush-timeout {_time(wide.gro_flush_timeout_ns)}"
        echo(f"  deferral    {words} for new NAPI instances")
    if device.napis:
        print_table(
            ("queues", "NAPI", "irq", "CPUs", "thread", "defer", "flush", "suspend"),
            [_napi_row(device, napi) for napi in device.napis],
            indent=2,
        )
    else:
        echo("  no NAPI instance known" if device.up else "  no NAPI instance while it is down")


def _napi_row(device: Device, napi: Napi) -> tuple[str, ...]:
    settings = napi.settings
    queues = [f"{queue.kind}{queue.index}" for queue in device.queues if queue.napi_id == napi.napi_id]
    return (
        " ".join(queues) or ABSENT,
        str(napi.napi_id),
        optional(napi.irq),
        optional(napi.cpus),
        _thread(napi),
        optional(settings.defer_hard_irqs),
        _time(settings.gro_flush_timeout_ns),
        _time(settings.irq_suspend_timeout_ns),
    )


def _thread(napi: Napi) -> str:
    """One that busy polls takes a whole CPU, with traffic and without."""
    mode = napi.settings.threaded
    if napi.thread_pid is None:
        return optional(mode)
    return f"{napi.thread_pid} busy-polls" if mode == "busy-poll" else str(napi.thread_pid)


def _show_pollers(pollers: tuple[EpollPoller, ...]) -> None:
    if not pollers:
        echo("no epoll instance polls these devices itself")
        return
    alike: dict[tuple[object, ...], list[EpollPoller]] = {}
    for poller in pollers:
        alike.setdefault((poller.name, poller.napi_ids, poller.params), []).append(poller)
    shown = [(each[:1], len(each) - 1) if len(each) > MANY else (each, 0) for each in alike.values()]
    print_table(
        ("polled by", "pid", "epoll", "NAPI", "busy-poll-usecs", "budget", "prefer"),
        [_poller_row(poller, more) for some, more in shown for poller in some],
    )


def _poller_row(poller: EpollPoller, more: int) -> tuple[str, ...]:
    """`more`: other instances alike, of processes of that name."""
    return (
        poller.name,
        f"{poller.pid} and {more:,} more" if more else str(poller.pid),
        str(poller.epoll_fd),
        " ".join(map(str, poller.napi_ids)),
        str(poller.params.busy_poll_usecs),
        str(poller.params.busy_poll_budget),
        "yes" if poller.params.prefer_busy_poll else "no",
    )


def _show_ring_pollers(pollers: tuple[RingPoller, ...]) -> None:
    if not pollers:
        return
    rows = [
        (
            each.name,
            str(each.pid),
            str(each.fd),
            " ".join(map(str, each.napi_ids)),
            str(each.polling.busy_poll_usecs),
            each.polling.tracking,
            "yes" if each.polling.prefer_busy_poll else "no",
        )
        for each in pollers[:MANY]
    ]
    print_table(("polled by", "pid", "ring", "NAPI", "busy-poll-usecs", "tracking", "prefer"), rows)
    if len(pollers) > MANY:
        echo(f"and {len(pollers) - MANY} io_uring instances more")


def _show_coalescing(what: str, coalescing: Coalescing | None) -> None:
    for line in _coalescing(coalescing):
        echo(f"  {what:<12}{line}")
        what = ""


def _coalescing(coalescing: Coalescing | None) -> list[str]:
    if coalescing is None:
        return ["not supported by this driver"]
    told = {name: getattr(coalescing, name) for name in Coalescing.__struct_fields__ if "profile" not in name}
    words = (f"{name.replace('_', '-')} {on_or_number(value)}" for name, value in told.items() if value is not None)
    profiles = {"rx-profile": coalescing.rx_profile, "tx-profile": coalescing.tx_profile}
    levels = (f"{name} {levels_text(levels)} (µs/packets)" for name, levels in profiles.items() if levels)
    return [*_wrapped(words, 64), *levels] or ["the driver reports no value"]


def _wrapped(words: Iterable[str], width: int) -> Iterator[str]:
    line = ""
    for word in words:
        if line and len(line) + len(word) + 2 > width:
            yield line + ","
            line = word
        else:
            line = f"{line}, {word}" if line else word
    if line:
        yield line


def _of(now: int | None, most: int | None) -> str:
    return f"{optional(now)} of {optional(most)}"


def _time(ns: int | None) -> str:
    return ABSENT if ns is None else duration_text(ns)
