"""Finding enumerators in BTF without walking it."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.probe.btf import enum_value


def btf_of(enumerators: dict[str, int], types_before: bytes = b"") -> bytes:
    """BTF with one anonymous enum."""
    strings, types = b"\0", types_before + struct.pack("=III", 0, 6 << 24 | len(enumerators), 4)
    for name, value in enumerators.items():
        types += struct.pack("=Ii", len(strings), value)
        strings += name.encode() + b"\0"
    return struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings


names = st.text(st.sampled_from("ABC_"), min_size=1, max_size=4)


@given(st.dictionaries(names, st.integers(0, 2**31 - 1), min_size=2), st.binary(max_size=64))
def test_every_enumerator_but_the_first_is_found(enumerators: dict[str, int], noise: bytes) -> None:
    noise = b"\xff" * (len(noise) // 4 * 4)
    btf = btf_of(enumerators, noise)
    for after, name in zip(list(enumerators), list(enumerators)[1:], strict=False):
        assert enum_value(btf, name, after) == enumerators[name]


def test_a_name_elsewhere_is_not_taken_for_the_enumerator() -> None:
    btf = btf_of({"NET_TX_SOFTIRQ": 2, "OTHER": 7, "NET_RX_SOFTIRQ": 3})

    assert enum_value(btf, "NET_RX_SOFTIRQ", after="NET_TX_SOFTIRQ") is None


def test_a_part_of_a_name_is_not_the_name() -> None:
    assert enum_value(btf_of({"A_ONE": 1, "A_TWO": 2}), "TWO", after="A_ONE") is None


def test_an_absent_name_is_none() -> None:
    assert enum_value(btf_of({"ONE": 1, "TWO": 2}), "THREE", after="TWO") is None


@pytest.mark.parametrize("data", [b"", bytes(24), b"\xeb\x9f" + bytes(30)])
def test_what_is_not_btf_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="BTF"):
        enum_value(data, "ONE", after="TWO")
