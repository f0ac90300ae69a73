"""A plan in the words of other tools, for settings that shall survive a reboot; and what each tool has no words for.

A pure function: text out of a Plan. Deferral of single NAPI instances is in none of them: ethtool(8) does not have it,
and sysfs has it device-wide only. `napctl apply` has.
"""

import json
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from textwrap import indent
from typing import Any, Literal

from napctl.model.errors import BadInput, Unsupported
from napctl.model.machine import Coalescing
from napctl.model.plan import DevicePlan, Plan, settings, thread_setting
from napctl.model.settings import kernel_name
from napctl.model.units import duration_text, on_or_number
from napctl.plan.file import comment

__all__ = [
    "ETHTOOL_FIELDS",
    "LINK_NAMES",
    "MOST_QUEUES",
    "NM_FIELDS",
    "NOT_HERE",
    "NO_ETHTOOL_NAME",
    "Format",
    "ethtool_name",
    "export",
]


Format = Literal["ethtool", "systemd-link", "networkmanager", "ansible"]
NOT_HERE = "NOT HERE"
"""In comments: what of the plan the format has no words for."""
PLAIN_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
MOST_QUEUES = 4096
"""MAX_NUM_QUEUE in include/linux/ethtool.h: the mask of ethtool --per-queue has no more bits."""
NO_ETHTOOL_NAME = ("rx_profile", "tx_profile", "rx_cqe_frames", "rx_cqe_nsecs")
"""What ethtool(8) has no argument for."""


def export(plan: Plan, form: Format) -> str:
    """The text. Raises BadInput for what the format cannot hold, Unsupported if it has no word for any setting."""
    for device in plan.devices:
        if not re.fullmatch(PLAIN_NAME, device.name):
            raise BadInput(
                f"{device.name!a}: a device with such a name cannot be exported, as tools read it as something else"
            )
    text = FORMATS[form](plan)
    if NOT_HERE in text and not any(_expressible(device, form) for device in plan.devices):
        names = ", ".join(dict.fromkeys(name for device in plan.devices for name in _names(device)))
        raise Unsupported(f"{form} has no words for anything in this plan ({names}): `napctl apply` sets it")
    return text


def _needing_profiles(coalescing: Coalescing | None) -> list[str]:
    """Adaptation by levels of the plan's, which no format has words for: by the kernel's it would break the budget."""
    given = dict(settings(coalescing))
    return [
        f"use_adaptive_{kind}"
        for kind in ("rx", "tx")
        if f"{kind}_profile" in given and given.get(f"use_adaptive_{kind}")
    ]


def _sayable(coalescing: Coalescing | None) -> Iterator[tuple[str, Any]]:
    """(field, value) of what means the same without profiles."""
    needing = _needing_profiles(coalescing)
    return ((field, value) for field, value in settings(coalescing) if field not in needing)


def _names(device: DevicePlan) -> Iterator[str]:
    for block in (device.coalescing, *(each.coalescing for each in device.queues), device.deferral):
        yield from (kernel_name(field) for field, _ in settings(block))
    yield from (kernel_name(thread_setting(each.instance)) for each in device.threads)


def _expressible(device: DevicePlan, form: Format) -> bool:
    """Whether the format has words for anything of that device."""
    words = EXPRESSED[form]
    queues = device.queues if form in ("ethtool", "ansible") else ()
    blocks = [device.coalescing, *(each.coalescing for each in queues if each.queue < MOST_QUEUES)]
    return any(settings(device.rings)) or any(field in words for block in blocks for field, _ in _sayable(block))


def _head(plan: Plan, *lines: str) -> Iterator[str]:
    """What every export begins with, as comments."""
    budget = duration_text(plan.max_added_latency_ns)
    yield from comment(f"Made by napctl export. Goal {plan.goal}; packets may be delayed by up to {budget}.")
    for line in lines:
        yield from comment(line)


def _left_out(device: DevicePlan, expressed: Iterable[str], tool: str, *, queues: bool = False) -> Iterator[str]:
    """Comments that name what the tool has no words for."""
    names = [kernel_name(field) for field, _ in settings(device.coalescing) if field not in expressed]
    if names:
        yield from comment(f"{NOT_HERE}: {', '.join(names)} of {device.name}: {tool} has no name for it.")
    for field in _needing_profiles(device.coalescing):
        yield from comment(
            f"{NOT_HERE}: {kernel_name(field)} of {device.name}: without its profile it would walk the kernel's "
            "levels, which know no budget."
        )
    for each in device.queues:
        missing = [
            kernel_name(field)
            for field, _ in settings(each.coalescing)
            if not queues or field not in expressed or field in _needing_profiles(each.coalescing)
        ]
        if missing or each.queue >= MOST_QUEUES:
            what = ", ".join(missing) or "settings"
            yield from comment(f"{NOT_HERE}: {what} of queue {each.queue} of {device.name}: {tool} cannot set it.")
    if device.deferral is not None and any(settings(device.deferral)):
        names = [kernel_name(field) for field, _ in settings(device.deferral)]
        yield from comment(
            f"{NOT_HERE}: {' and '.join(names)} of the NAPI instances of {device.name}: {tool} does not have them. "
            "sysfs has them for the whole device only, which reaches traffic that was not meant. napctl apply has them."
        )
    if device.threads:
        places = ", ".join(str(each.instance) for each in device.threads)
        yield from comment(
            f"{NOT_HERE}: the threads of NAPI instances {places} of {device.name}: {tool} does not have them. udev can "
            "write `threaded` to sysfs, for the whole device; but a thread is another one each time it begins, and "
            "renice(1) and taskset(1) would have to find it then. napctl apply has them."
        )


# ethtool


def _ethtool(plan: Plan) -> str:
    lines = [
        "#!/bin/sh",
        *_head(
            plan,
            "In force until the next boot, a reload of the driver or, with some drivers, a reset of the link: have it "
            "run at boot. A change of rings takes the link of many cards down for a moment.",
        ),
        "set -eu",
    ]
    for device in plan.devices:
        lines += ["", *_ethtool_commands(device)]
    return "\n".join(lines) + "\n"


def _ethtool_commands(device: DevicePlan) -> Iterator[str]:
    """Rings first: many drivers start their queues anew for them, and lose coalescing on the way."""
    yield from _left_out(device, EXPRESSED["ethtool"], "ethtool", queues=True)
    rings = " ".join(f"{name} {size}" for name, size in settings(device.rings))
    if rings:
        yield f"ethtool -G {shlex.quote(device.name)} {rings}"
    words = _ethtool_words(device.coalescing)
    if words:
        yield f"ethtool -C {shlex.quote(device.name)} {words}"
    for each in device.queues:
        words = _ethtool_words(each.coalescing)
        if words and each.queue < MOST_QUEUES:
            yield f"ethtool -Q {shlex.quote(device.name)} queue_mask {1 << each.queue:#x} --coalesce {words}"


def _ethtool_words(coalescing: Coalescing | None) -> str:
    words = []
    for field, value in _sayable(coalescing):
        if field not in NO_ETHTOOL_NAME:
            words.append(f"{ethtool_name(field)} {on_or_number(value)}")
    return " ".join(words)


def ethtool_name(field: str) -> str:
    """The argument of ethtool -C: rx-frames for rx_max_frames, adaptive-rx for use_adaptive_rx."""
    if field.startswith("tx_aggr_"):
        return kernel_name(field)
    return kernel_name(field.removeprefix("use_").removeprefix("rate_").replace("_max_frames", "_frames"))


# systemd


def _link_names() -> Mapping[str, str]:
    """Keys of systemd.link(5) since systemd 250, by field."""
    names = {
        "use_adaptive_rx": "UseAdaptiveRxCoalesce",
        "use_adaptive_tx": "UseAdaptiveTxCoalesce",
        "pkt_rate_low": "CoalescePacketRateLow",
        "pkt_rate_high": "CoalescePacketRateHigh",
        "stats_block_usecs": "StatisticsBlockCoalesceSec",
    }
    for kind in ("rx", "tx"):
        for case in ("", "_irq", "_low", "_high"):
            word = case.removeprefix("_").capitalize()
            names[f"{kind}_usecs{case}"] = f"{kind.capitalize()}Coalesce{word}Sec"
            names[f"{kind}_max_frames{case}"] = f"{kind.capitalize()}MaxCoalesced{word}Frames"
    return names


LINK_NAMES = _link_names()
"""CoalescePacketRateSampleIntervalSec= is not among them: systemd hands it on in µs, and drivers take seconds."""


def _systemd_link(plan: Plan) -> str:
    if len(plan.devices) != 1:
        names = ", ".join(device.name for device in plan.devices) or "none"
        raise BadInput(f"a .link file is for one device, and the plan has {names}: choose one with --device")
    (device,) = plan.devices
    lines = [
        *_head(
            plan,
            f"For /etc/systemd/network/10-napctl-{device.name}.link; systemd 250 or newer. The first .link file that "
            "matches a device is the only one: merge this into yours if the device has one.",
            "systemd-udevd sets it when the device appears. Since systemd 256 nothing sets it again on a change event "
            "(systemd issue 33619): to have it at once, udevadm trigger --action=move /sys/class/net/" + device.name,
        ),
        *_left_out(device, LINK_NAMES, "systemd.link(5)"),
        "",
        "[Match]",
        *_match(device),
        "",
        "[Link]",
        "# As in systemd's own 99-default.link, which no longer applies to this device.",
        "NamePolicy=keep kernel database onboard slot path",
        "AlternativeNamesPolicy=database onboard slot path",
        "MACAddressPolicy=persistent",
    ]
    for name, size in settings(device.rings):
        if size:  # 0 is not allowed there
            lines.append(f"{name.capitalize()}BufferSize={size}")
    for field, value in _sayable(device.coalescing):
        if field in LINK_NAMES:
            lines.append(f"{LINK_NAMES[field]}={_link_value(field, value)}")
    return "\n".join(lines) + "\n"


def _match(device: DevicePlan) -> Iterator[str]:
    """By its place: a name that udev gave is not yet there when the file is matched."""
    if device.bus and re.fullmatch(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", device.bus):
        yield f"Path=pci-{device.bus}"
        return
    yield from comment(
        f"This is the name that the kernel gives. If udev named {device.name}, match MACAddress= or Path= instead."
    )
    yield f"OriginalName={device.name}"


def _link_value(field: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value}us" if "usecs" in field else str(value)


# NetworkManager

NM_FIELDS = tuple(
    field
    for field in Coalescing.__struct_fields__
    if field not in NO_ETHTOOL_NAME and not field.startswith(("tx_aggr_", "use_cqe_"))
)
"""What nm-settings-nmcli(5) has in its `ethtool` setting, since NetworkManager 1.26."""


def _networkmanager(plan: Plan) -> str:
    lines = [
        "#!/bin/sh",
        *_head(
            plan,
            "Adds the settings to the profile that is active on each device, where NetworkManager (1.26 or newer) "
            "keeps them and sets them whenever it activates the profile. They come into force then, not at once: nmcli "
            "connection up PROFILE activates it anew, and interrupts its traffic.",
        ),
        "set -eu",
    ]
    for device in plan.devices:
        name = shlex.quote(device.name)
        words = [f"ethtool.ring-{ring} {size}" for ring, size in settings(device.rings)]
        for field, value in _sayable(device.coalescing):
            if field in NM_FIELDS:
                words.append(f"ethtool.coalesce-{ethtool_name(field)} {int(value)}")
        lines += ["", *_left_out(device, NM_FIELDS, "NetworkManager")]
        if words:
            lines.append(f"profile=$(nmcli --get-values GENERAL.CON-UUID device show {name})")
            lines.append('nmcli connection modify uuid "$profile" \\\n    ' + " \\\n    ".join(words))
    return "\n".join(lines) + "\n"


# Ansible


def _ansible(plan: Plan) -> str:
    """Tasks that install the ethtool script and a unit that runs it.

    community.general.nmcli has no coalescing, and .link files set rings before some drivers can (systemd issue 28696):
    a unit of its own works with every network manager.
    """
    lines = [
        *_head(
            plan,
            "Tasks for ansible-core. A systemd unit per device runs ethtool when the device is there and the network "
            "is up: that works with every network manager, and community.general.nmcli has no coalescing.",
        ),
        "---",
    ]
    for device in plan.devices:
        if not _expressible(device, "ansible"):
            lines += _left_out(device, ETHTOOL_FIELDS, "ethtool", queues=True)
            continue
        alone = Plan(goal=plan.goal, max_added_latency_ns=plan.max_added_latency_ns, devices=(device,))
        script = f"/usr/local/sbin/napctl-{device.name}"
        unit = f"napctl-{device.name}.service"
        lines += [
            *_copy(
                f"Settings of {device.name}",
                script,
                "0755",
                _ethtool(alone),
                f"napctl_script_{_identifier(device.name)}",
            ),
            *_copy(
                f"Unit that sets them on {device.name}",
                f"/etc/systemd/system/{unit}",
                "0644",
                _unit(device.name, script),
                f"napctl_unit_{_identifier(device.name)}",
            ),
            f"- name: Set them on {device.name}, now and at boot",
            "  ansible.builtin.systemd:",
            f"    name: {unit}",
            "    daemon_reload: true",
            "    enabled: true",
            f"    state: \"{{{{ 'restarted' if napctl_script_{_identifier(device.name)} is changed",
            f"      or napctl_unit_{_identifier(device.name)} is changed else 'started' }}}}\"",
        ]
    some = any(_expressible(device, "ansible") for device in plan.devices)
    return "\n".join(lines if some else [*lines, "[]"]) + "\n"


def _copy(task: str, path: str, mode: str, text: str, register: str) -> Iterator[str]:
    yield f"- name: {json.dumps(task)}"
    yield "  ansible.builtin.copy:"
    yield f"    dest: {path}"
    yield f'    mode: "{mode}"'
    yield "    content: |"
    yield indent(text.rstrip("\n"), " " * 6)
    yield f"  register: {register}"


def _unit(device: str, script: str) -> str:
    escaped = "".join(letter if re.match(r"[A-Za-z0-9:_.]", letter) else f"\\x{ord(letter):02x}" for letter in device)
    there = f"sys-subsystem-net-devices-{escaped}.device"
    return f"""\
[Unit]
Description=Interrupt coalescing of {device}
BindsTo={there}
After={there} network-online.target
Wants=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={script}

[Install]
WantedBy={there}
"""


def _identifier(device: str) -> str:
    """For the name of a variable: every other character as its number."""
    return "".join(letter if letter.isalnum() else f"_{ord(letter)}_" for letter in device)


ETHTOOL_FIELDS = tuple(field for field in Coalescing.__struct_fields__ if field not in NO_ETHTOOL_NAME)
EXPRESSED: Mapping[Format, Collection[str]] = {
    "ethtool": ETHTOOL_FIELDS,
    "systemd-link": LINK_NAMES,
    "networkmanager": NM_FIELDS,
    "ansible": ETHTOOL_FIELDS,
}
FORMATS: Mapping[Format, Callable[[Plan], str]] = {
    "ethtool": _ethtool,
    "systemd-link": _systemd_link,
    "networkmanager": _networkmanager,
    "ansible": _ansible,
}
