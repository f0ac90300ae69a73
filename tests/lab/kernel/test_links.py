"""Devices asked for one by one, by index and by name, are those of the whole list."""

from collections.abc import Iterator

import pytest

from napctl.kernel.links import links, links_at, links_named
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.lab.bed import Lab
from napctl.model.settings import NapiSettings
from tests.lab.following import flap
from tests.lab.helpers import in_namespace, set_napi

pytestmark = pytest.mark.lab

LONG = "an-alternative-name-longer-than-names-are"


@pytest.fixture
def netns() -> Iterator[NetworkNamespace]:
    """With two pairs, of which one device has other names as well."""
    with NetworkNamespace.create() as netns:
        for number in range(2):
            in_namespace(netns, "ip", "link", "add", f"wire{number}", "type", "veth", "peer", f"end{number}")
        for name in (LONG, "short"):
            in_namespace(netns, "ip", "link", "property", "add", "dev", "wire0", "altname", name)
        yield netns


def test_by_index_those_that_are_there(netns: NetworkNamespace) -> None:
    every = links(netns)
    assert links_at(netns, [each.ifindex for each in every]) == every
    assert links_at(netns, [every[1].ifindex, 9_999]) == [every[1]]
    assert links_at(netns, []) == []


@pytest.mark.parametrize("names", [["wire0"], [LONG], ["short"], ["wire0", "short", LONG], ["wire1", "wire0"]])
def test_by_each_of_their_names_and_each_device_once(netns: NetworkNamespace, names: list[str]) -> None:
    expected = [each for each in links(netns) if {each.name, *each.alternative_names} & set(names)]
    assert expected
    assert links_named(netns, names) == expected


@pytest.mark.parametrize("name", ["", "nobody", "x" * 15, "x" * 16, "x" * 127, "x" * 500, "a/b", "\udcff", chr(65533)])
def test_what_nothing_is_called_is_not_there(netns: NetworkNamespace, name: str) -> None:
    assert links_named(netns, [name, "wire1"]) == [each for each in links(netns) if each.name == "wire1"]


def test_settings_that_change_are_read_by_who_has_read_them_before(lab: Lab) -> None:
    (napi,) = lab.server.napis()
    with Netdev(lab.server.namespace) as netdev:
        for ifindex in (napi.ifindex, None):
            assert netdev.napis(ifindex) == [napi] == netdev.napis(ifindex)
        set_napi(lab, napi.napi_id, NapiSettings(gro_flush_timeout_ns=20_000))
        for ifindex in (napi.ifindex, None):
            (now,) = netdev.napis(ifindex)
            assert now.settings.gro_flush_timeout_ns == 20_000
        flap(lab)
        for ifindex in (napi.ifindex, None):
            assert [each.napi_id for each in netdev.napis(ifindex)] == [each.napi_id for each in lab.server.napis()]
