"""Each packaged BPF object is what its source says."""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROBE = ROOT / "src" / "napctl" / "probe"
HEADERS = sorted(PROBE.glob("*.bpf.h"))
NAMES = sorted(source.name.removesuffix(".c") for source in PROBE.glob("*.bpf.c"))
each = pytest.mark.parametrize("name", NAMES)


def packaged(name: str) -> bytes:
    return (PROBE / f"{name}.o").read_bytes()


def recorded(fact: str, image: bytes) -> str:
    """From the section napctl.build, which scripts/build-bpf writes."""
    found = re.search(rf"{fact} (.*)\n".encode(), image)
    assert found, f"an object does not tell its {fact}: run scripts/build-bpf"
    return found[1].decode()


@each
def test_it_was_built_from_this_source(name: str) -> None:
    headers = [header for header in HEADERS if header.stem in {"common.bpf", name}]
    source = hashlib.sha256(b"".join(file.read_bytes() for file in (*headers, PROBE / f"{name}.c"))).hexdigest()

    assert recorded("built-from-sha256", packaged(name)) == source, f"{name}.c was edited: run scripts/build-bpf"


@each
def test_it_is_bpf_of_little_endian(name: str) -> None:
    # ELF64, least significant byte first; e_machine 247 is EM_BPF.
    assert packaged(name)[:6] == b"\x7fELF\x02\x01"
    assert int.from_bytes(packaged(name)[18:20], "little") == 247


@each
def test_it_does_not_tell_where_it_was_built(name: str) -> None:
    assert str(ROOT).encode() not in packaged(name)


def test_building_them_elsewhere_gives_the_same_bytes(tmp_path: Path) -> None:
    for tool in ("clang", "llvm-strip", "llvm-objcopy"):
        if not shutil.which(tool) and not shutil.which(f"{tool}-14"):
            pytest.skip(f"{tool} is not installed")
    if not Path("/usr/include/bpf/bpf_helpers.h").exists():
        pytest.skip("libbpf-dev is not installed")
    elsewhere = tmp_path / "a" / "checkout" / "elsewhere"
    for path in (
        "scripts/build-bpf",
        *(str(each.relative_to(ROOT)) for each in HEADERS),
        *(f"src/napctl/probe/{name}.c" for name in NAMES),
    ):
        (elsewhere / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, elsewhere / path)

    subprocess.run([elsewhere / "scripts" / "build-bpf", tmp_path / "rebuilt"], check=True, timeout=60)

    for name in NAMES:
        rebuilt = (tmp_path / "rebuilt" / f"{name}.o").read_bytes()
        compilers = recorded("built-by", packaged(name)), recorded("built-by", rebuilt)
        if compilers[0] != compilers[1]:
            pytest.skip(f"built by {compilers[0]}; here is {compilers[1]}")
        assert rebuilt == packaged(name)
