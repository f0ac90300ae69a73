"""The packaged BPF object is what its source says."""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROBE = ROOT / "src" / "napctl" / "probe"
OBJECT = (PROBE / "napi.bpf.o").read_bytes()


def recorded(fact: str, image: bytes) -> str:
    """From the section napctl.build, which scripts/build-bpf writes."""
    found = re.search(rf"{fact} (.*)\n".encode(), image)
    assert found, f"napi.bpf.o does not tell its {fact}: run scripts/build-bpf"
    return found[1].decode()


def test_it_was_built_from_this_source() -> None:
    source = hashlib.sha256((PROBE / "napi.bpf.c").read_bytes()).hexdigest()

    assert recorded("built-from-sha256", OBJECT) == source, "napi.bpf.c was edited: run scripts/build-bpf"


def test_it_is_bpf_of_little_endian() -> None:
    # ELF64, least significant byte first; e_machine 247 is EM_BPF.
    assert OBJECT[:6] == b"\x7fELF\x02\x01"
    assert int.from_bytes(OBJECT[18:20], "little") == 247


def test_it_does_not_tell_where_it_was_built() -> None:
    assert str(ROOT).encode() not in OBJECT


def test_building_it_elsewhere_gives_the_same_bytes(tmp_path: Path) -> None:
    for tool in ("clang", "llvm-strip", "llvm-objcopy"):
        if not shutil.which(tool) and not shutil.which(f"{tool}-14"):
            pytest.skip(f"{tool} is not installed")
    if not Path("/usr/include/bpf/bpf_helpers.h").exists():
        pytest.skip("libbpf-dev is not installed")
    elsewhere = tmp_path / "a" / "checkout" / "elsewhere"
    for name in ("scripts/build-bpf", "src/napctl/probe/napi.bpf.c"):
        (elsewhere / name).parent.mkdir(parents=True)
        shutil.copy(ROOT / name, elsewhere / name)

    subprocess.run([elsewhere / "scripts" / "build-bpf", tmp_path / "rebuilt.o"], check=True, timeout=60)

    rebuilt = (tmp_path / "rebuilt.o").read_bytes()
    compilers = recorded("built-by", OBJECT), recorded("built-by", rebuilt)
    if compilers[0] != compilers[1]:
        pytest.skip(f"built by {compilers[0]}; here is {compilers[1]}")
    assert rebuilt == OBJECT
