"""What can go wrong, as exceptions that carry the exit status the command line promises."""

__all__ = [
    "Away",
    "BadInput",
    "Busy",
    "ChangedMeanwhile",
    "NapctlError",
    "NotPermitted",
    "NotRunning",
    "NotTakenBack",
    "RolledBack",
    "Unsupported",
]


class NapctlError(Exception):
    """One line for a person: what, on which object, why, what to do. `exit_status` is what napctl ends with.

    Its own means: failed, and nothing is left changed.
    """

    exit_status = 6
    leaves_changed = False
    """Whether something that was changed could not be put back."""


class BadInput(NapctlError):
    """The request itself is wrong: no such device, no such process, a malformed file."""

    exit_status = 2


class Busy(NapctlError):
    """Another napctl is changing settings; it may be over in a moment."""


class NotRunning(BadInput):
    """Nothing of what is named runs now; it may come, or come back."""


class Unsupported(NapctlError):
    """This kernel, driver or process cannot do what was asked."""

    exit_status = 3


class Away(Unsupported):
    """A device is down: its NAPI instances are hidden, and may come back with the settings that they had."""


class NotPermitted(NapctlError):
    """A capability is missing; the message names it."""

    exit_status = 4


class ChangedMeanwhile(NapctlError):
    """Somebody else changed a setting since napctl did, which was left alone; or took away what napctl looked at."""

    exit_status = 5


class RolledBack(NapctlError):
    """The operation failed on the way; what had been changed was put back."""

    because: NapctlError | None = None
    """What it failed by, where a change was refused."""


class NotTakenBack(NapctlError):
    """What a treatment changed may still be in force: whatever is measured from then on would be measured under it."""
