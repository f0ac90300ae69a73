"""Changes of settings, as the journal keeps them: what was, what napctl made of it, and what became of that."""

from typing import Literal

from napctl.model.settings import EpollParams, NapiSettings
from napctl.model.value import Value


class NapiChange(Value, frozen=True, kw_only=True, tag="napi"):
    """Deferral and suspension of one NAPI instance. In `before` and `after`, None stands for: not touched."""

    netns: int
    """Inode number of the device's network namespace."""
    device: str
    ifindex: int
    napi_id: int
    before: NapiSettings
    after: NapiSettings

    @property
    def where(self) -> str:
        """For messages."""
        return f"NAPI {self.napi_id} of {self.device}"


class EpollChange(Value, frozen=True, kw_only=True, tag="epoll"):
    """Busy-poll parameters of one epoll instance of one process."""

    pid: int
    name: str
    started_ticks: int
    """Start of the process in clock ticks after boot: tells it from a later process with the same pid."""
    epoll_fd: int
    before: EpollParams
    after: EpollParams

    @property
    def where(self) -> str:
        """For messages."""
        return f"epoll {self.epoll_fd} of {self.name} ({self.pid})"


Change = NapiChange | EpollChange

State = Literal["changing", "attached", "restoring", "restored"]


class Transaction(Value, frozen=True, kw_only=True):
    """Changes that belong together. In `changing` and `restoring` any prefix of them may be in force."""

    number: int = 0
    """Given by the journal."""
    state: State = "changing"
    boot_id: str
    """Boot in which it was made: a reboot undoes everything."""
    made_unix_ns: int
    pid: int
    """The process attached to."""
    name: str
    started_ticks: int
    changes: tuple[Change, ...]


class Restored(Value, frozen=True, kw_only=True):
    """What became of one setting when its change was undone."""

    where: str
    setting: str
    outcome: Literal["restored", "unchanged", "left", "gone"]
    """`unchanged`: it already had its former value. `left`: somebody else changed it since. `gone`: its object is."""
    before: int | bool | None
    """Its former value."""
    found: int | bool | None
    """The value found just now; None if the object is gone."""
