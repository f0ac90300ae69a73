"""The policy's file, and the drop-ins beside it: text in, one Policy out. Each error is a line with its place."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napctl.attach.target import parse
from napctl.kernel.trusted_paths import read_own, refuse_foreign_directory
from napctl.model.errors import BadInput
from napctl.model.policy import (
    POLICY_VERSION,
    AttachEntry,
    DeviceEntry,
    Origin,
    Policy,
    ProtectEntry,
    ServiceEntry,
)
from napctl.model.strict_table import Wrong, read_table, table, tables, version
from napctl.model.text import printable
from napctl.model.toml_lines import key_lines, line_of
from napctl.service.policy_keys import (
    attach_entry,
    device_entry,
    protect_values,
    refuse_beyond_loopback,
    service_values,
    set_by,
)

__all__ = ["POLICY_PATH", "drop_ins", "policy_of", "read_policy"]


POLICY_PATH = Path("/etc/napctl/policy.toml")
MOST_BYTES = 1 << 20
"""Far more than any policy."""


def read_policy(path: Path = POLICY_PATH) -> Policy:
    """The policy in a file and its drop-ins. Raises BadInput: one line with file, line and what is allowed."""
    return policy_of((str(each), _read(each)) for each in (path, *drop_ins(path)))


def drop_ins(path: Path) -> list[Path]:
    """policy.d/*.toml beside policy.toml, in order; of another file, the directory that has its name."""
    directory = path.with_suffix(".d") if path.name else path
    try:
        refuse_foreign_directory(directory)
        return sorted(each for each in directory.glob("*.toml") if not each.name.startswith("."))
    except PermissionError as error:
        raise BadInput(f"{directory}: {error.strerror}") from None


def _read(path: Path) -> bytes:
    try:
        data = read_own(path)
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(f"{path}: no such file; `napctl policy init` writes one") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise BadInput(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > MOST_BYTES:
        raise BadInput(f"{path}: too large for a policy")
    return data


def policy_of(files: Iterable[tuple[str, bytes]]) -> Policy:
    """All files together, given as (name, content). Raises BadInput as read_policy()."""
    found = _Merged()
    for name, data in files:
        _File(name, _decoded(name, data)).add_to(found)
    return Policy(
        attach=tuple(found.attach),
        devices=tuple(found.devices),
        protect=found.protect_entry(),
        service=found.service_entry(),
    )


def _decoded(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _refusal(Origin(file=name, line=line), "this is no text in UTF-8, and that alone is allowed") from None


def _refusal(origin: Origin, what: str) -> BadInput:
    return BadInput(printable(f"{origin}: {what}"))


@dataclass
class _Merged:
    """What the files before have, and whether the next one goes with it."""

    attach: list[AttachEntry] = field(default_factory=list)
    devices: list[DeviceEntry] = field(default_factory=list)
    service: dict[str, tuple[Any, Origin]] = field(default_factory=dict)
    """By key: the value, and where it stands. A later file's takes the place of an earlier one's."""
    protect: dict[str, Any] = field(default_factory=dict)
    """The same, without the places."""
    protected_at: Origin | None = None
    """Where the first [protect] stands."""
    targets: dict[tuple[str, str], Origin] = field(default_factory=dict)
    named: dict[tuple[str | None, str], Origin] = field(default_factory=dict)
    """By name of a device and what is set of it."""

    def add_attach(self, entry: AttachEntry) -> None:
        """Raises BadInput for a target that has an entry already."""
        meant = parse(entry.target)
        there = self.targets.setdefault((meant.kind, meant.value), entry.origin)
        if there is not entry.origin:
            raise _refusal(entry.origin, f"{entry.target} has an [[attach]] already ({there}); one for each is allowed")
        self.attach.append(entry)

    def add_device(self, entry: DeviceEntry) -> None:
        """Raises BadInput for what is set already for that device by its name."""
        for each in set_by(entry) if entry.name is not None else ():
            there = self.named.setdefault((entry.name, each), entry.origin)
            if there is not entry.origin:
                raise _refusal(
                    entry.origin, f"{each} of {entry.name} is set already ({there}); once for each device is allowed"
                )
        self.devices.append(entry)

    def protect_entry(self) -> ProtectEntry | None:
        """[protect] of all files; None if none has it. Raises BadInput for one that says not whom."""
        if self.protected_at is None:
            return None
        if "devices" not in self.protect:
            raise _refusal(self.protected_at, 'the key devices is missing: a list of names, or "all"')
        values = {key.replace("-", "_"): value for key, value in self.protect.items()}
        return ProtectEntry(origin=self.protected_at, **values)

    def service_entry(self) -> ServiceEntry:
        """[service] of all files. Raises BadInput for metrics that would leave the machine unasked."""
        values = {key: value for key, (value, _) in self.service.items()}
        beyond = values.pop("metrics-beyond-loopback", False)
        if "metrics" in values:
            try:
                refuse_beyond_loopback(values["metrics"], "", beyond=beyond)
            except Wrong as error:
                raise _refusal(self.service["metrics"][1], f"metrics: {error.what}") from None
        fields = {"guard-wait": "guard_wait_ns"}
        return ServiceEntry(**{fields.get(key, key.replace("-", "_")): value for key, value in values.items()})


class _File:
    """One file's text."""

    def __init__(self, name: str, text: str):
        self._name, self._text = name, text
        self._lines: Mapping[str, int] = {}

    def add_to(self, found: _Merged) -> None:
        """Read it. Raises BadInput."""
        try:
            self._read(tomllib.loads(self._text), found)
        except Wrong as error:
            raise _refusal(self._origin(error.where), _words(error)) from None
        except (ValueError, RecursionError) as error:
            raise self._no_toml(error) from None

    def _read(self, tables_of_file: Mapping[str, Any], found: _Merged) -> None:
        self._lines = key_lines(self._text)
        version(POLICY_VERSION)(tables_of_file.get("version", POLICY_VERSION), "version")  # may have other keys
        known = {
            "version": version(POLICY_VERSION),
            "attach": tables,
            "device": tables,
            "protect": table,
            "service": table,
        }
        read = read_table(tables_of_file, "", known)
        for value, where in read.get("attach", ()):
            found.add_attach(attach_entry(value, where, self._origin(where)))
        for value, where in read.get("device", ()):
            found.add_device(device_entry(value, where, self._origin(where)))
        if "protect" in read:
            found.protected_at = found.protected_at or self._origin("protect")
            found.protect |= protect_values(read["protect"], "protect")
        for key, value in service_values(read.get("service", {}), "service").items():
            found.service[key] = value, self._origin(f"service.{key}")

    def _origin(self, path: str) -> Origin:
        return Origin(file=self._name, line=line_of(self._lines, path))

    def _no_toml(self, error: ValueError | RecursionError) -> BadInput:
        """tomllib ends its messages with the place, but for a few: there the longest line is as good as told."""
        lines = self._text.split("\n")
        match = re.search(r" \(at line (\d+), column \d+\)$", str(error))
        if match:
            line, what = int(match[1]), str(error)[: match.start()]
        elif str(error).endswith(" (at end of document)"):
            line, what = len(lines), str(error)
        else:
            line, what = (
                max(range(len(lines)), key=lambda each: len(lines[each])) + 1,
                str(error) or "nested too deeply",
            )
        return _refusal(Origin(file=self._name, line=line), f"this is no TOML: {what}")


def _words(error: Wrong) -> str:
    """The key without the number of its table, which the line tells."""
    key = re.sub(r"^(attach|device)\[\d+\]\.?|^(service|protect)\.", "", error.where)
    return f"{key}: {error.what}" if key else error.what
