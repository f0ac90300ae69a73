"""Promises of the netlink codec; the kernel itself answers in tests/lab."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.kernel.ethtool import COALESCE
from napctl.kernel.genetlink import Family
from napctl.kernel.netdev import NAPI
from napctl.kernel.netlink import Attr, decode, encode, table
from napctl.model.errors import Unsupported
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
