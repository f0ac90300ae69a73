"""The binding of libbpf, as far as it goes without privileges."""

import pytest

from napctl.probe.libbpf import BpfObject, LibbpfError, LibbpfMissing, explaining


def test_what_libbpf_says_is_in_the_error_and_not_on_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    try:
        with explaining(), pytest.raises(LibbpfError) as caught:
            BpfObject.open(b"not an ELF file", "broken")
    except LibbpfMissing:
        pytest.skip("libbpf.so.1 is not installed")

    assert str(caught.value).startswith("open: elf: ")
    assert "broken" in str(caught.value)
    assert caught.value.number > 0
    assert capfd.readouterr() == ("", "")
