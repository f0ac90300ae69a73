"""Promises of the netlink codec; the kernel itself answers in tests/lab."""

import contextlib
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.kernel.ethtool import COALESCE
from napctl.kernel.genetlink import Family
from napctl.kernel.netdev import NAPI
from napctl.kernel.netlink import (
    DUMPS,
    HEADER,
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    Attr,
    NetlinkSocket,
    Refused,
    decode,
    encode,
    table,
)
from napctl.model.errors import NapctlError, Unsupported
from napctl.model.machine import Coalescing

EVERY_KIND = table(
    {"a": "u8", "b": "u16", "c": "u32", "d": "u64", "e": "uint", "f": "s32", "g": "string", "h": "binary"}
)
NESTED = EVERY_KIND | {20: Attr("level", "nest", nest=EVERY_KIND, many=True)}

values = st.fixed_dictionaries(
    {},
    optional={
        "a": st.integers(0, 2**8 - 1),
        "b": st.integers(0, 2**16 - 1),
        "c": st.integers(0, 2**32 - 1),
        "d": st.integers(0, 2**64 - 1),
        "e": st.integers(0, 2**64 - 1),
        "f": st.integers(-(2**31), 2**31 - 1),
        "g": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
        "h": st.binary(),
    },
)


@given(values, st.lists(values, min_size=1, max_size=4))
def test_what_is_encoded_decodes_to_the_same(flat: dict[str, object], levels: list[dict[str, object]]) -> None:
    whole = flat | {"level": tuple(levels)}
    assert decode(NESTED, encode(NESTED, whole)) == whole


@given(st.binary(max_size=200))
def test_no_bytes_from_outside_make_the_decoder_loop_or_read_past_the_end(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        decode({number: Attr(str(number), "binary") for number in range(30)}, data)


def test_attributes_of_newer_kernels_are_passed_over() -> None:
    newer = table({f"n{number}": "u32" for number in range(1, 40)})
    assert decode(NAPI, encode(newer, {"n1": 4, "n39": 1})) == {"ifindex": 4}


def test_every_coalescing_attribute_has_a_field() -> None:
    names = {attr.name.replace("-", "_") for number, attr in COALESCE.items() if number > 1}
    assert names == set(Coalescing.__struct_fields__)
    assert sorted(COALESCE) == list(range(1, 33))


def test_a_family_that_this_kernel_lacks_is_named() -> None:
    with pytest.raises(Unsupported, match="this kernel has no netlink family 'napctl-none'"):
        Family("napctl-none")


LIST = 18


class Kernel:
    """Answers dumps as it is told, one list of (type, flags, payload) for each, over a socket of this process."""

    def __init__(self, answers: list[list[tuple[int, int, bytes]]]):
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._answers, self.requests = iter(answers), 0
        self.recv = self._ours.recv

    def send(self, request: bytes) -> int:
        self.requests += 1
        sequence = HEADER.unpack_from(request)[3]
        for kind, flags, payload in next(self._answers):
            self._theirs.send(HEADER.pack(16 + len(payload), kind, flags, sequence, 0) + payload)
        return len(request)

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()

    def list(self, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
        with NetlinkSocket(0) as asked, contextlib.closing(self), monkeypatch.context() as replaced:
            replaced.setattr(asked, "_socket", self)
            asked_for = asked.ask(LIST, b"", what="listing devices", dump=True)
            return [bytes(part) for part in asked_for]


DONE = (NLMSG_DONE, 2, bytes(4))
TORN = [(LIST, 2, b"aaaa"), (LIST, 2 | NLM_F_DUMP_INTR, b"aaaa"), DONE]
TORN_AT_THE_END = [(LIST, 2, b"aaaa"), (NLMSG_DONE, 2 | NLM_F_DUMP_INTR, bytes(4))]
WHOLE = [(LIST, 2, b"aaaa"), (LIST, 2, b"bbbb"), DONE]


@pytest.mark.parametrize("torn", [TORN, TORN_AT_THE_END])
def test_a_list_that_changed_while_it_was_read_is_read_again(
    monkeypatch: pytest.MonkeyPatch, torn: list[tuple[int, int, bytes]]
) -> None:
    kernel = Kernel([torn, torn, WHOLE])
    assert kernel.list(monkeypatch) == [b"aaaa", b"bbbb"]
    assert kernel.requests == 3


def test_a_list_that_never_stands_still_is_an_error_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel([TORN] * DUMPS)
    with pytest.raises(NapctlError, match=f"listing devices: it changed during each of {DUMPS} attempts"):
        kernel.list(monkeypatch)
    assert kernel.requests == DUMPS


def test_a_refusal_amid_a_list_that_changes_is_the_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = [TORN[1], (NLMSG_DONE, 2, (-19).to_bytes(4, "little", signed=True))]
    with pytest.raises(Refused, match="No such device"):
        Kernel([refused]).list(monkeypatch)
