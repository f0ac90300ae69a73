"""What was learned of a server comes back as it was, or not at all; what others may have written is not believed."""

import os
from pathlib import Path

import pytest

from napctl.adapt.learned import Learned
from napctl.adapt.ways import INTERRUPTS, WayWindow
from napctl.attach import learned_file
from napctl.attach.learned_file import identity_of, keep_learned, kept_learned
from napctl.model.errors import BadInput

IDENTITY = "memcached, veth, 6.18, 1234"
SEEN = WayWindow(
    way=INTERRUPTS, seconds=0.5, at=1.0, packets=2_500, cpu_seconds=0.05, p99_ns=1e5, p50_ns=3e4, samples=500
)


def learned(identity: str = IDENTITY) -> Learned:
    return Learned(identity=identity).with_one(12, SEEN)


def the_file(state: Path) -> Path:
    (path,) = (state / "learned").iterdir()
    return path


def test_it_comes_back_as_it_was_kept(state: Path) -> None:
    keep_learned(state, learned())
    assert kept_learned(state, IDENTITY) == (learned(), "")
    assert the_file(state).stat().st_mode & 0o777 == 0o600


def test_of_another_server_nothing_is_known(state: Path) -> None:
    keep_learned(state, learned())
    assert kept_learned(state, "redis, veth, 6.18, 1234") == (Learned(identity="redis, veth, 6.18, 1234"), "")


@pytest.mark.parametrize("content", ["", "{", "{}", '{"identity": 7}', "[1]", '{"identity": "x", "more": 1}'])
def test_what_cannot_be_read_is_one_line_and_a_fresh_start(content: str, state: Path) -> None:
    keep_learned(state, learned())
    the_file(state).write_text(content)
    kept, line = kept_learned(state, IDENTITY)
    assert kept == Learned(identity=IDENTITY)
    assert "cannot be read" in line
    assert "\n" not in line
    keep_learned(state, learned())
    assert kept_learned(state, IDENTITY) == (learned(), "")


def test_what_others_may_write_is_not_believed(state: Path) -> None:
    keep_learned(state, learned())
    the_file(state).chmod(0o666)
    kept, line = kept_learned(state, IDENTITY)
    assert kept == Learned(identity=IDENTITY)
    assert "others may write to it" in line

    (state / "learned").chmod(0o777)
    assert "others may write to it" in kept_learned(state, IDENTITY)[1]
    with pytest.raises(BadInput, match="others may write"):
        keep_learned(state, learned())


def test_a_link_is_not_followed(state: Path, tmp_path: Path) -> None:
    keep_learned(state, learned())
    path = the_file(state)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    kept, line = kept_learned(state, IDENTITY)
    assert kept == Learned(identity=IDENTITY)
    assert "symbolic link" in line


def test_the_oldest_are_forgotten(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned_file, "MOST_FILES", 3)
    for number in range(5):
        keep_learned(state, learned(f"server {number}"))
        newest = max((state / "learned").iterdir(), key=lambda each: each.stat().st_mtime_ns)
        os.utime(newest, ns=(number * 10**9, number * 10**9))
    there = [number for number in range(5) if kept_learned(state, f"server {number}")[0].cells]
    assert there == [2, 3, 4]


def test_an_identity_tells_servers_apart_and_no_arguments(state: Path) -> None:
    mine = identity_of(os.getpid(), "pytest", "veth")
    assert mine == identity_of(os.getpid(), "pytest", "veth")
    assert mine != identity_of(1, "pytest", "veth")
    assert mine != identity_of(os.getpid(), "pytest", "ice")
    assert mine.startswith(f"pytest, veth, {os.uname().release}, ")
    assert len(mine.split(", ")[-1]) == 32
