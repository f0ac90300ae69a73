"""A Census in words: one table of devices and queues, and some lines for each program."""

from collections.abc import Iterator, Sequence

from napctl.cli.text.table import ABSENT, number, percent, print_table, wrapped
from napctl.model.census import NO_BYPASS, Census, CensusDevice, Poller, QueueWay, SpinningThread, TakenWay
from napctl.model.text import each

__all__ = ["print_devices", "program_lines", "summary"]


MOST_DEVICES, MOST_QUEUES = 16, 12
"""Devices, and rows of one device; --json shows all."""
LEAST_SHARE = 0.0005
"""What would print as 0.0 %."""
PAST = ("AF_XDP", "io_uring zero copy", "device memory", "leased", "user-space driver", "XDP offload")
"""Ways by which packets never come to the kernel's stack."""
WORDS = {
    "AF_XDP": "AF_XDP socket",
    "device memory": "zero copy into a device's memory",
    "io_uring zero copy": "io_uring zero copy",
    "leased": "leased",
    "user-space driver": "driven from user space",
    "hardware offload": "offloaded to the NIC",
    "suspension": "polled while interrupts are suspended",
    "busy polling": "busy polling",
    "backlog": "the backlog of the sender's CPU",
    "lower device": "taken",
}
JOINED = {"leased": " to ", "hardware offload": ": ", "XDP native": ": ", "XDP generic": ": ", "XDP offload": ": ",
          "AF_XDP": " of "}  # fmt: skip
"""What stands between the kind and who; else " by "."""


def summary(found: Census) -> str:
    """The answer, in a sentence or two."""
    able = [poller for poller in found.pollers if poller.kind not in NO_BYPASS]
    idle = [each for each in able if each.really is not None and 0 in (each.really.port_packets, each.really.share)]
    bypass = [poller for poller in able if poller not in idle]
    busy = [poller for poller in found.pollers if poller.kind == "busy, no NIC"]
    unknown = [poller for poller in found.pollers if poller.kind == "not known"]
    past = [device.name for device in found.devices if _ways_past(device)]
    parts = []
    if bypass:
        parts.append(f"{_programs(bypass)} take{'s' * (len(bypass) == 1)} packets past the kernel")
    if past:
        parts.append(f"packets of {each(past)} go past the kernel's stack")
    if not parts:
        parts.append(f"no packet goes past the kernel{' as far as can be seen' * bool(unknown)}")
    if idle:
        parts.append(f"{_programs(idle)} could take packets past it, and do{'es' * (len(idle) == 1)} not")
    if busy:
        keep = "keeps a CPU" if len(busy) == 1 else "keep CPUs"
        parts.append(f"{_programs(busy)} {keep} busy without a NIC, which is no bypass")
    elif not able and not unknown:
        parts.append("no process spins")
    if unknown:
        parts.append(f"of {_programs(unknown)} it is not known")
    return f"{'; '.join(parts)} (in {found.seconds:.1f} s)"


def _ways_past(device: CensusDevice) -> bool:
    ways = (*device.handed, *(way for queue in device.queues for way in queue.handed))
    return any(way.kind in PAST for way in ways)


def _programs(pollers: Sequence[Poller]) -> str:
    if len(pollers) > 3:
        return f"{len(pollers)} processes"
    return each(f"{poller.name} ({poller.pid})" for poller in pollers)


def print_devices(found: Census) -> None:
    """One table; of very many devices those from which packets go past the stack, and the busiest."""
    shown: Sequence[CensusDevice] = found.devices
    if len(shown) > MOST_DEVICES:
        shown = sorted(shown, key=lambda device: (not _ways_past(device), -(device.rx_packets or 0)))[:MOST_DEVICES]
    rows = [row for device in shown for row in _rows(device, found.seconds)]
    if left := len(found.devices) - len(shown):
        rows.append((f"… {left} more", "", "devices with fewer packets (all: --json)", ""))
    if rows:
        print_table(("device", "queues", "how its packets are taken", "packets/s"), rows, left=3, whole=True)


def _rows(device: CensusDevice, seconds: float) -> Iterator[tuple[str, str, str, str]]:
    """The first bears the name; what holds for all queues stands before them."""
    name = device.name
    whole = [_told(way) for way in (*device.polled, *device.handed)]
    if device.up is False:
        whole.append("it is down")
    elif not device.queues and not whole:
        whole.append("not known: the driver reports neither NAPI instances nor queues")
    if whole or len(device.queues) > 1:
        yield name, "", "; ".join(whole), number(_rate(device.rx_packets, seconds))
        name = ""
    shown = _folded(device.queues)
    for queues, how, packets in shown[:MOST_QUEUES]:
        yield name, queues, how, number(_rate(packets, seconds))
        name = ""
    if left := shown[MOST_QUEUES:]:
        yield name, "", f"… {len(left)} more (all: --json)", ""


def _folded(ways: Sequence[QueueWay]) -> list[tuple[str, str, int | None]]:
    """Queues, how, packets: neighbours that are alike, and have no packet or are not counted, in one row."""
    found: list[tuple[list[QueueWay], str, int | None]] = []
    for way in ways:
        how = "; ".join(map(_told, (*filter(_counts, way.polled), *way.handed))) or "not known"
        before = found[-1] if found else None
        if before is not None and not way.packets and before[1] == how and before[2] == way.packets:
            before[0].append(way)
        else:
            found.append(([way], how, way.packets))
    return [(_queues(alike), how, packets) for alike, how, packets in found]


def _counts(way: TakenWay) -> bool:
    return way.share is None or way.share >= LEAST_SHARE


def _queues(ways: Sequence[QueueWay]) -> str:
    """Of one its queues; of many in a row the first and the last."""
    first, last = " ".join(ways[0].queues), " ".join(ways[-1].queues)
    if not first:
        return f"NAPI {ways[0].napi_id}" if ways[0].napi_id else ABSENT
    if len(ways) == 1 and len(ways[0].queues) > 2:
        return f"{ways[0].queues[0]} … {ways[0].queues[-1]}"
    return first if len(ways) == 1 else f"{first} … {last}"


def _told(way: TakenWay) -> str:
    what = WORDS.get(way.kind, way.kind)
    who = f"{JOINED.get(way.kind, ' by ')}{way.by}" if way.by else ""
    if way.share is not None:
        return f"{percent(way.share)} {what}{who}"
    return f"{what}{who}"


def _rate(packets: int | None, seconds: float) -> float | None:
    return None if packets is None else packets / seconds


def program_lines(poller: Poller, seconds: float) -> Iterator[str]:
    """What one program is, what shows it, what it does, and what there is to do."""
    devices = f", on {each(poller.devices)}" if poller.devices else ""
    yield from wrapped(f"{poller.name} ({poller.pid}): {poller.kind}{devices}", rest="  ")
    if poller.evidence:
        yield from _labelled("evidence", "; ".join(poller.evidence))
    if poller.really is not None:
        yield from _labelled("really", _really(poller, seconds))
    for thread in poller.threads:
        able = poller.kind not in NO_BYPASS
        yield from _labelled("spins" if able else "busy", _thread(thread, "polls at" if able else "has"))
    if poller.remedy:
        yield from _labelled("remedy", poller.remedy)
    if poller.trouble:
        yield from _labelled("not known", poller.trouble)


def _labelled(label: str, text: str) -> list[str]:
    return wrapped(text, first=f"  {label:<11}", rest=" " * 13)


def _really(poller: Poller, seconds: float) -> str:
    really = poller.really
    assert really is not None
    seconds = really.seconds or seconds
    port, kernel = (number(_rate(count, seconds)) for count in (really.port_packets, really.kernel_packets))
    share = "" if really.share is None else f"{percent(really.share)} of the packets go past the kernel: "
    source = f" ({really.source})" if really.source else ""
    lost = f"; it does not keep up: {number(_rate(really.lost, seconds))}/s lost" if really.lost else ""
    return f"{share}{port}/s by its port, {kernel}/s by the kernel{source}{lost}"


def _thread(thread: SpinningThread, does: str) -> str:
    """What of 100 % is work."""
    where = "" if thread.cpu is None else f" {thread.cpu}"
    polls = f"{thread.name} ({thread.tid}) {does} {percent(thread.run_share)} of CPU{where}"
    source = f" ({thread.source})" if thread.source else ""
    if thread.work_share is not None:
        return f"{polls}; {percent(thread.work_share)} of a CPU was work{source}"
    estimate = _estimate(thread)
    if thread.most_work_share is not None:
        return f"{polls}; at most {percent(thread.most_work_share)} of a CPU can be work{source}{estimate}"
    return f"{polls}; {thread.source}{estimate}" if thread.source else f"{polls}{estimate}"


def _estimate(thread: SpinningThread) -> str:
    """Why there is none is no news: most machines that are virtual have no counters (--json tells it)."""
    if thread.estimated_work_share is None:
        return ""
    return f"; estimated: at most {percent(thread.estimated_work_share)} ({thread.estimate_source})"
