"""From what the user wrote to the devices that are meant: by name, or those that feed a server."""

from dataclasses import dataclass

from napctl.attach.inspect_target import examine
from napctl.attach.target import parse, resolve
from napctl.kernel.links import links
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.errors import BadInput

__all__ = ["Whom", "whom"]


@dataclass(frozen=True)
class Whom:
    """Devices of one network namespace."""

    netns: NetworkNamespace
    devices: tuple[str, ...]


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
