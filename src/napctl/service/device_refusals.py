"""What the kernel or a driver refuses of the devices' settings: told once for each kind, and tried again ever later."""

from collections.abc import Iterable, Mapping, Sequence

from napctl.attach.follow_words import TellOf
from napctl.model.backoff import UNATTENDED, Backoff
from napctl.model.change import Change
from napctl.model.errors import NapctlError
from napctl.model.units import duration_text
from napctl.service.device_plan import without_idle

__all__ = ["DeviceRefusals", "Refused", "device_of"]


Refused = Mapping[tuple[object, ...], tuple[Change, NapctlError]]
"""By object."""
LOOKING = "devices"
"""The key of a look at them, which can fail as a whole."""


class DeviceRefusals:
    """Times are handed in; `tell` receives (device, line)."""

    def __init__(self, tell: TellOf):
        self._tell = tell
        self._backoff = Backoff[str](UNATTENDED)
        self._refused: set[str] = set()
        """What is to be tried again, by the key of the backoff."""

    def try_anew(self, device: str = "") -> None:
        """What was refused of that device, or of all, and the look at them are due, for the first time."""
        if not device:
            self._backoff.forget_all()
            return
        for key in (LOOKING, *(each for each in self._refused if _device_in(each) == device)):
            self._backoff.forget(key)

    def may_look(self, now: float) -> bool:
        """Whether the last look went well, or it is time for another one."""
        return self._backoff.is_due(LOOKING, now)

    def could_not_look(self, error: NapctlError | OSError, now: float) -> None:
        """As a whole."""
        self._try_again(LOOKING, "", f"devices: {error}", now)

    def could_look(self) -> None:
        """As it should."""
        self._backoff.forget(LOOKING)

    def seconds_left(self, now: float) -> float:
        """Until something is due; never less than the first pause, as something else may keep it from its try."""
        return max(UNATTENDED.first_seconds, self._backoff.next_at() - now)

    def due(self, asked: Sequence[Change], now: float) -> list[Change]:
        """Without what was refused, and is not to be tried again yet."""
        return without_idle([each for each in asked if self._backoff.is_due(_key(each), now)])

    def forget_all_but(self, asked: Iterable[Change]) -> None:
        """Of what is not asked for any more."""
        for key in self._refused - set(map(_key, asked)):
            self._succeeded(key)

    def settle(self, more: Iterable[Change], refused: Refused, now: float) -> None:
        """What has become of `more`. One line for each kind of object, of however many NAPI instances."""
        failed = {_key(change): (change, error) for change, error in refused.values()}
        for key in {_key(each) for each in more} - failed.keys():
            self._succeeded(key)
        for key, (change, error) in failed.items():
            self._refused.add(key)
            self._try_again(key, device_of(change), str(error), now)

    @property
    def any(self) -> bool:
        """Whether something waits to be tried again."""
        return bool(self._refused)

    def count(self, device: str) -> int:
        """Kinds of objects of that device that were refused."""
        return sum(_device_in(key) == device for key in self._refused)

    def _succeeded(self, key: str) -> None:
        self._backoff.forget(key)
        self._refused.discard(key)

    def _try_again(self, key: str, device: str, why: str, now: float) -> None:
        if not self._backoff.is_due(key, now):
            return  # it was not tried: that is told already
        pause = self._backoff.failed(key, now)
        self._tell(device, f"{why}; tried again in {duration_text(int(pause * 1e9))}", "retry")


def device_of(change: Change) -> str:
    """Its name; "" for a change of no device."""
    return getattr(change, "device", "")


def _key(change: Change) -> str:
    """NAPI instances of a device as one."""
    return f"{type(change).__name__} {device_of(change)} {getattr(change, 'queue', None)}"


def _device_in(key: str) -> str:
    return key.split(" ")[1]
