"""What the service must not forget when it ends: kept beside the journal, written as a whole."""

import json
from pathlib import Path

from msgspec.structs import replace

from napctl.kernel import running_kernel
from napctl.kernel.trusted_paths import read_own, write_whole
from napctl.model.errors import BadInput
from napctl.model.value import Value, from_json, to_json

__all__ = ["ServiceMemory", "keep_memory", "kept_memory"]


FILE = "service.json"
STATE_VERSION = 1


class ServiceMemory(Value, frozen=True, kw_only=True):
    """Of one state directory."""

    version: int = STATE_VERSION
    policy: str = ""
    """Digest of the policy that it is about: another policy begins with nothing left out."""
    detached: tuple[str, ...] = ()
    """Targets, as the policy names them, that an administrator has detached by hand."""
    left: tuple[str, ...] = ()
    """Settings of devices that somebody else insists on."""
    left_of_targets: tuple[str, ...] = ()
    """The same of targets: by ids, pids and descriptors of that boot."""
    kept: int = 0
    """Number of the devices' transaction that a stop has left in force without a keeper; 0: there is none."""
    boot_id: str = ""
    """Of the boot in which it was kept."""
    paused_until_boot_ns: int = 0
    """On CLOCK_BOOTTIME of that boot; 0: it is not paused."""

    def since_boot(self) -> "ServiceMemory":
        """What still holds: in another boot ids and pids mean other objects, and a pause has ended."""
        boot_id = running_kernel.boot_id()
        if self.boot_id == boot_id:
            return self
        return replace(self, boot_id=boot_id, left_of_targets=(), paused_until_boot_ns=0)

    def anew(self) -> "ServiceMemory":
        """Everything of the policy is tried anew."""
        return replace(self, detached=(), left=(), left_of_targets=())

    def paused_ns(self, now_boot_ns: int) -> int:
        """How much longer it stays out, ns; a reboot ends every pause."""
        return max(0, self.paused_until_boot_ns - now_boot_ns) if self.boot_id == running_kernel.boot_id() else 0


def kept_memory(directory: Path) -> ServiceMemory:
    """As it was kept; nothing at first. Raises BadInput for one of a newer napctl, one that cannot be read, and one
    that another user may have written."""
    path = directory / FILE
    try:
        text = read_own(path)
    except FileNotFoundError:
        return ServiceMemory()
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    try:
        version = json.loads(text)["version"]
        if isinstance(version, int) and version > STATE_VERSION:
            raise BadInput(
                f"{path}: of version {version}, which a newer napctl has written; this one reads {STATE_VERSION}"
            )
        return from_json(text, ServiceMemory)
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: {error}; `rm` it, and everything of the policy is tried anew") from None


def keep_memory(directory: Path, state: ServiceMemory) -> None:
    """After a crash it is the old one or the new one. Raises OSError."""
    write_whole(directory / FILE, to_json(state))
