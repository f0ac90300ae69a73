"""Promises about the busiest window that is kept."""

import os
from pathlib import Path

import pytest

from napctl.census.pollers import busiest_file
from napctl.census.pollers.busiest_file import MOST_THREADS, BusiestFiles, identity
from napctl.census.pollers.work_estimate import RestAndWork, Resting, Signature
from napctl.census.pollers.work_share import Busiest

BUSIEST = Busiest(packets_per_second=1e6, cpu_ns_per_packet=1000.0)


def test_what_is_kept_is_read_back_by_the_same_program_alone(tmp_path: Path) -> None:
    files = BusiestFiles(tmp_path)
    assert files.kept("one") is None
    files.keep("one", BUSIEST)
    assert BusiestFiles(tmp_path).kept("one") == BUSIEST
    assert files.kept("other") is None


def test_a_program_is_another_one_with_other_devices() -> None:
    assert identity(os.getpid(), "us", ("eth0",)) == identity(os.getpid(), "us", ("eth0",))
    assert identity(os.getpid(), "us", ("eth0",)) != identity(os.getpid(), "us", ("eth1",))


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b'{"version":2,"identity":"one","busiest":{"packets_per_second":1.0,"cpu_ns_per_packet":1.0}}',
     b'{"version":1,"identity":"two","busiest":{"packets_per_second":1.0,"cpu_ns_per_packet":1.0}}',
     b'{"version":1,"identity":"one","busiest":{"packets_per_second":1.0,"cpu_ns_per_packet":-1.0}}'],
)  # fmt: skip
def test_what_is_no_such_file_counts_for_nothing(tmp_path: Path, content: bytes) -> None:
    files = BusiestFiles(tmp_path)
    files.keep("one", BUSIEST)
    (path,) = (tmp_path / "pollers").iterdir()
    path.write_bytes(content)
    assert files.kept("one") is None


def test_a_directory_that_others_may_write_is_not_believed(tmp_path: Path) -> None:
    files = BusiestFiles(tmp_path)
    files.keep("one", BUSIEST)
    (tmp_path / "pollers").chmod(0o777)
    assert files.kept("one") is None


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    BusiestFiles(tmp_path / "file").keep("one", BUSIEST)


def test_they_do_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(busiest_file, "MOST_FILES", 3)
    files = BusiestFiles(tmp_path)
    for number in range(8):
        files.keep(str(number), BUSIEST)
    assert len(list((tmp_path / "pollers").iterdir())) == 3
    assert files.kept("7") == BUSIEST


def test_what_a_thread_executes_is_kept_beside_the_busiest_window(tmp_path: Path) -> None:
    rates = Signature(instructions_per_cycle=2.8, branches_per_instruction=0.25, misses_per_instruction=1e-5)
    one, other = (
        RestAndWork(resting=Resting(least=rates, most=rates)),
        RestAndWork(busiest=rates, cycles_per_packet=300.0),
    )
    files = BusiestFiles(tmp_path)
    assert files.learned("one") == {}
    files.learn("one", {"worker 1": one})
    files.keep("one", BUSIEST)
    files.learn("one", {"worker 2": other})
    again = BusiestFiles(tmp_path)
    assert (again.kept("one"), again.learned("one")) == (BUSIEST, {"worker 1": one, "worker 2": other})
    files.learn("one", {f"thread {number}": one for number in range(MOST_THREADS)})
    assert len(again.learned("one")) == 2
