"""What the files of other managers say that they set: tuned's profile, NetworkManager's connections, .link files.

Read as they stand, by nobody's leave but the file system's; what cannot be read, or makes no sense, says nothing.
"""

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from napctl.model.other_manager import Concern, Touch

__all__ = ["FILES_OF"]


MOST_BYTES = 1 << 16
"""Of a file: none that is meant for these programs is longer."""
MOST_FILES = 500
MOST_INCLUDED = 20
"""Profiles of tuned that lead from one to the next."""
LONGEST = 64
"""Characters of a pattern of device names; a device has 15."""

Lines = Iterator[tuple[str, str, str]]
"""Section, key, value."""
Section = Mapping[str, tuple[str, str]]
"""Of merged profiles, by key: its value, and the file that has it."""
INCLUDED = re.compile(r"[\s,;]+")
"""Between names of profiles."""


def tuned_touches(root: Path) -> Iterator[Touch]:
    """Of its active profiles, with those that they include (tuned.conf(5)): what one says, goes for the sections of
    the same name of those before it."""
    with suppress(OSError):
        merged: dict[str, Section] = {}
        for path, found in _chain(root, _read(root / "etc/tuned/active_profile").split(), []):
            source = f"/{path.relative_to(root)}"
            for name in dict.fromkeys(section for section, _, _ in found):
                own = {key: (value, source) for section, key, value in found if section == name}
                before: Section = {} if _text(own, "replace").lower() in TRUE else merged.get(name, {})
                merged[name] = {key: each for key, each in before.items() if key not in OF_THE_LAST} | own
        for name, section in merged.items():
            yield from _of_section(name, section)


def _chain(root: Path, names: Iterable[str], seen: list[str]) -> Iterator[tuple[Path, list[tuple[str, str, str]]]]:
    """Profiles, each behind those that it includes."""
    for name in names:
        if not name or name in seen or "/" in name or name.startswith(".") or len(seen) >= MOST_INCLUDED:
            continue
        seen.append(name)
        path = next((each for each in _profiles(root, name) if each.is_file()), None)
        if path is not None:
            found = list(_lines(path))
            included = [each for words in _values(found, "main", "include") for each in INCLUDED.split(words)]
            yield from _chain(root, included, seen)
            yield path, found


def _profiles(root: Path, name: str) -> Iterator[Path]:
    for where in ("etc/tuned/profiles", "etc/tuned", "usr/lib/tuned/profiles", "usr/lib/tuned"):
        yield root / where / name / "tuned.conf"


NET_KEYS: Mapping[str, Concern] = {"coalesce": "coalescing", "ring": "rings", "channels": "channels"}
SCHEDULER_KEYS = ("isolated_cores", "default_irq_smp_affinity")
OF_THE_LAST = ("type", "enabled", "devices")
"""What a later section of a name says of itself, or leaves at the default, goes for all of it (merger.py in tuned)."""
TRUE, FALSE = ("1", "true", "yes"), ("0", "false", "no")


def _of_section(name: str, section: Section) -> Iterator[Touch]:
    """Its plugin is its `type`, or its name."""
    if _text(section, "enabled").lower() in FALSE:
        return
    plugin = _text(section, "type") or name
    if plugin == "net":
        devices = _patterns(_text(section, "devices") or "*", ",")
        for key, what in NET_KEYS.items():
            if _text(section, key):
                yield Touch(what=what, devices=devices, source=section[key][1])
    elif plugin in ("irq", "scheduler"):
        keys = [key for key in section if plugin == "irq" or (key in SCHEDULER_KEYS and _text(section, key))]
        if keys:
            yield Touch(what="interrupt affinity", source=section[keys[0]][1])


def _text(section: Section, key: str) -> str:
    return section.get(key, ("", ""))[0]


def network_manager_touches(root: Path) -> Iterator[Touch]:
    """Of its connection profiles in keyfile format, whichever of them are active (nm-settings-keyfile(5))."""
    directories = ("etc/NetworkManager", "run/NetworkManager", "usr/lib/NetworkManager")
    for path in _files([root / each / "system-connections" for each in directories], ""):
        found = list(_lines(path))
        names = [*_values(found, "connection", "interface-name"), *_values(found, "match", "interface-name")]
        devices = tuple(each for text in names for each in _patterns(text, ";"))
        yield from _by_beginning(
            [key for section, key, _ in found if section == "ethtool"],
            {"coalesce-": "coalescing", "ring-": "rings", "channels-": "channels"}, devices, path, root,
        )  # fmt: skip


LINK_KEYS: Mapping[str, Concern] = {
    "RxBufferSize": "rings",
    "RxMiniBufferSize": "rings",
    "RxJumboBufferSize": "rings",
    "TxBufferSize": "rings",
    "RxChannels": "channels",
    "TxChannels": "channels",
    "OtherChannels": "channels",
    "CombinedChannels": "channels",
    "CoalescePacketRateLow": "coalescing",
    "CoalescePacketRateHigh": "coalescing",
    "CoalescePacketRateSampleIntervalSec": "coalescing",
    "StatisticsBlockCoalesceSec": "coalescing",
    "UseAdaptiveRxCoalesce": "coalescing",
    "UseAdaptiveTxCoalesce": "coalescing",
    "RxCoalesce": "coalescing",
    "TxCoalesce": "coalescing",
    "RxMaxCoalesced": "coalescing",
    "TxMaxCoalesced": "coalescing",
}
"""By how a key begins (systemd.link(5))."""


def link_file_touches(root: Path) -> Iterator[Touch]:
    """Of .link files. By which devices they are matched (their first name, their path, …) is not told by a name."""
    directories = ("etc", "run", "usr/local/lib", "usr/lib")
    seen: set[str] = set()
    for path in _files([root / each / "systemd/network" for each in directories], ".link"):
        if path.name in seen:  # one in /etc takes the place of those with its name elsewhere
            continue
        seen.add(path.name)
        yield from _by_beginning(
            [key for section, key, _ in _lines(path) if section == "Link"], LINK_KEYS, (), path, root
        )


def nothing(_root: Path) -> Iterator[Touch]:
    """It has no such files."""
    return iter(())


FILES_OF: Mapping[str, Callable[[Path], Iterator[Touch]]] = {
    "irqbalance": nothing,
    "tuned": tuned_touches,
    "NetworkManager": network_manager_touches,
    "systemd-networkd": nothing,
    "systemd-udevd": link_file_touches,
}
"""By the name of the manager: what its files below a root say."""


def _by_beginning(
    keys: list[str], table: Mapping[str, Concern], devices: tuple[str, ...], path: Path, root: Path
) -> Iterator[Touch]:
    found = {what: None for key in keys for beginning, what in table.items() if key.startswith(beginning)}
    for what in found:
        yield Touch(what=what, devices=devices, source=f"/{path.relative_to(root)}")


def _patterns(text: str, separator: str) -> tuple[str, ...]:
    """Those that name devices. One that only excludes some leaves the others: then any may be meant."""
    found = [each for each in (part.strip() for part in text.split(separator)) if each]
    return tuple(each[:LONGEST] for each in found) if not any(each.startswith("!") for each in found) else ("*",)


def _files(directories: list[Path], ending: str) -> list[Path]:
    found: list[Path] = []
    for each in directories:
        with suppress(OSError):
            found += sorted(
                path for path in each.iterdir() if path.name.endswith(ending) and not path.name.startswith(".")
            )
    return found[:MOST_FILES]


def _values(found: list[tuple[str, str, str]], section: str, key: str) -> list[str]:
    return [value for name, other, value in found if (name, other) == (section, key)]


def _lines(path: Path) -> Lines:
    """Of a file in the format that all of them have: [section], key=value, comments."""
    section = ""
    text = ""
    with suppress(OSError):
        text = _read(path)
    for line in (each.strip() for each in text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif "=" in line and line[0] not in "#;":
            key, _, value = line.partition("=")
            yield section, key.strip(), value.strip()


def _read(path: Path) -> str:
    """The beginning of a regular file. Raises OSError."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(file, "rb") as opened:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return ""
        return opened.read(MOST_BYTES).decode(errors="replace")
