"""From what the user wrote to the devices that are meant: by name, or those that feed a server."""

from collections.abc import Iterable
from dataclasses import dataclass

from napctl.attach.inspect_target import examine
from napctl.attach.target import attached_of, parse, resolve
from napctl.change.journal import Journal
from napctl.kernel.links import links
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.processes import Process
from napctl.model.change import Transaction
from napctl.model.errors import BadInput

__all__ = ["Whom", "whom"]


@dataclass(frozen=True)
class Whom:
    """Devices of one network namespace."""

    netns: NetworkNamespace
    devices: tuple[str, ...]
    needs_nothing: str = ""
    """Why nothing is to be done for them; empty: it is."""


def whom(text: str, netns: NetworkNamespace) -> Whom:
    """What is meant by the name of a device there, or by a target as `napctl attach` takes it.

    Raises BadInput, and what resolve() and examine() raise.
    """
    if any(text in (each.name, *each.alternative_names) for each in links(netns)):
        return Whom(netns, (text,))
    meant = parse(text)
    try:
        found = resolve(meant)
    except BadInput as error:
        if meant.kind != "name":
            raise
        raise BadInput(f"{error}, nor is there such a network device here") from None
    if (attachment := _attachment_of(found)) is not None:
        return Whom(netns, (), f"{attachment.title} is attached with suspension, and protected by that: what it has no "
                    "time for is dropped in the ring, for nothing; it needs nothing more")  # fmt: skip
    examined = examine(text, found)
    feeding = examined.feeding
    located = [each for (_, napi_id) in feeding for each in [examined.napis[napi_id]]]
    if not located:
        raise BadInput(f"{text}: no connection came to it over a device with NAPI instances yet; name the device")
    inode = located[0].netns
    place = NetworkNamespace.find(inode)
    if place is None:
        raise BadInput(f"{text}: its network namespace has gone")
    return Whom(place, tuple(sorted({each.device.name for each in located if each.netns == inode})))


def _attachment_of(found: Iterable[Process]) -> Transaction | None:
    live = [each for each in Journal.read(live=True) if each.kind == "attach" and each.state == "attached"]
    return next((each for each in attached_of(found, live) if each.suspends), None)
