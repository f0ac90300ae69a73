"""Changes of storm control, as the journal keeps them."""

from napctl.model.storm import StormLimits
from napctl.model.value import Value

__all__ = ["StormChange", "StormControlChange", "StormLimitsChange", "XdpProgram"]


class XdpProgram(Value, frozen=True, kw_only=True):
    """What a device hands each packet to before the stack."""

    xdp_program: int
    """By its id, which no other program gets until reboot; 0: none."""


class StormControlChange(Value, frozen=True, kw_only=True, tag="storm-control"):
    """The XDP program of one device: napctl's storm control, or none. What is attached stays when napctl ends."""

    netns: int
    """Inode number of the device's network namespace."""
    device: str
    ifindex: int
    generic: bool = False
    """Attached behind the driver, and not in it."""
    before: XdpProgram
    after: XdpProgram

    @property
    def where(self) -> str:
        """For messages."""
        return f"storm control of {self.device}"


class StormLimitsChange(Value, frozen=True, kw_only=True, tag="storm-limits"):
    """What an attached storm control limits. It goes with its program."""

    netns: int
    device: str
    ifindex: int
    program: int
    """Id of the program whose limits they are."""
    before: StormLimits
    after: StormLimits

    @property
    def where(self) -> str:
        """For messages."""
        return f"limits of storm control of {self.device}"


StormChange = StormControlChange | StormLimitsChange
