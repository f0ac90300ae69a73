"""No rules and rules that cannot be read are two things: only a kernel without nf_tables has none to be read."""

import errno
from collections.abc import Iterator
from typing import cast

import pytest

from napctl.kernel import netfilter
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netlink import Refused

NETNS = cast("NetworkNamespace", None)
GENERATION_7 = netfilter.NFGENMSG.pack(0, 0, 0) + b"\x08\x00\x01\x00" + (7).to_bytes(4, "big")


def refusing(monkeypatch: pytest.MonkeyPatch, **by_message: int) -> None:
    """The kernel refuses these messages with that error, and answers the other."""

    def asked(_netns: NetworkNamespace, message: int, *, dump: bool) -> Iterator[memoryview]:
        code = by_message.get("rules" if dump else "generation")
        if code is not None:
            raise Refused("reading the rules of nftables", code, None)
        yield from () if message == netfilter.NFT_MSG_GETRULE else (memoryview(GENERATION_7),)

    monkeypatch.setattr(netfilter, "_asked", asked)


def test_a_kernel_without_nf_tables_has_no_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, rules=errno.EINVAL, generation=errno.EINVAL)
    assert netfilter.nft_expressions(NETNS) == frozenset()
    assert netfilter.nft_generation(NETNS) == 0


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP, errno.EPERM])
def test_rules_that_a_kernel_with_nf_tables_does_not_tell_are_not_known(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing(monkeypatch, rules=code)
    with pytest.raises(Refused):
        netfilter.nft_expressions(NETNS)
    assert netfilter.nft_generation(NETNS) == 7


def test_a_generation_that_may_not_be_asked_for_is_no_kernel_without_nf_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, rules=errno.EINVAL, generation=errno.EPERM)
    for ask in (netfilter.nft_expressions, netfilter.nft_generation):
        with pytest.raises(Refused):
            ask(NETNS)
