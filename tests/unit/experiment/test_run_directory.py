"""Promises of a run's directory: whole after a crash at any instruction, and one line for whatever is wrong with it."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from napctl.experiment.run_directory import RunDirectory, write_bytes
from napctl.model.errors import BadInput, NapctlError, RolledBack
from napctl.model.experiment import Cell
from napctl.report.summary import read_run
from tests.unit import runs

RUN = runs.run(rounds=1)


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return runs.written(tmp_path / "run", RUN)


def refused(what: str, *words: str) -> None:
    assert "\n" not in what
    assert all(word in what for word in words), what


def test_a_run_is_read_as_it_was_written(directory: RunDirectory) -> None:
    assert read_run(directory) == RUN
    assert (directory.path / "raw").is_dir()
    assert directory.raw(7).name == "0007.out"


def test_its_files_are_lines_that_diff_can_compare(directory: RunDirectory) -> None:
    for name in ("config.json", "machine.json", "summary.json"):
        assert len((directory.path / name).read_text().splitlines()) > 10
    assert len((directory.path / "cells.jsonl").read_text().splitlines()) == len(RUN.cells)


def test_a_directory_with_anything_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(BadInput) as error:
        RunDirectory(tmp_path).create(RUN.config, {})
    refused(str(error.value), str(tmp_path), "not empty")
    with pytest.raises(BadInput, match="there is a file of that name"):
        RunDirectory(tmp_path / "mine").create(RUN.config, {})


@pytest.mark.parametrize("path", ["nowhere", "a\0b", "file/below"])
def test_what_is_no_run_is_said_to_be_none(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput) as error:
        read_run(RunDirectory(tmp_path / path))
    refused(str(error.value), "no run")


@given(st.data())
def test_after_a_crash_amid_a_line_all_whole_cells_are_there_and_the_next_one_goes_on(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = RunDirectory(tmp_path_factory.mktemp("crash") / "run")
    directory.create(RUN.config, {})
    for cell in RUN.cells[:3]:
        directory.append(cell)
    file = directory.path / "cells.jsonl"
    whole = file.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    file.write_bytes(whole[:cut] + data.draw(st.sampled_from([b"", b"\0" * 70_000])))
    kept = whole[:cut].count(b"\n")
    assert directory.cells() == RUN.cells[:kept]
    directory.append(RUN.cells[5])
    assert directory.cells() == (*RUN.cells[:kept], RUN.cells[5])


def test_a_new_cell_removes_the_summary_that_does_not_know_it(directory: RunDirectory) -> None:
    assert directory.summary() == RUN.summary
    directory.append(RUN.cells[0])
    assert directory.summary() is None


def test_a_run_that_was_interrupted_is_summed_up_when_it_is_read(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.create(RUN.config, {})
    with pytest.raises(BadInput, match="nothing to report"):
        read_run(directory)
    for cell in RUN.cells:
        directory.append(cell)
    assert read_run(directory).summary.estimates
    assert not (directory.path / "summary.json").exists()


def test_a_figure_that_is_no_number_is_left_out_and_said_to_be(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.create(RUN.config, {})
    directory.append(replace(RUN.cells[0], metrics={"cpu_share": 0.5, "package_watts": float("nan")}))
    (cell,) = directory.cells()
    assert cell.metrics == {"cpu_share": 0.5}
    assert "package_watts" in cell.warnings[-1]


@pytest.mark.parametrize("name", ["config.json", "summary.json", "cells.jsonl"])
def test_another_schema_is_refused_before_anything_else(directory: RunDirectory, name: str) -> None:
    (directory.path / name).write_text('{"schema": 99, "novel": 1}\n')
    with pytest.raises(BadInput) as error:
        read_run(directory)
    refused(str(error.value), name, "schema 99", "reads 1")


def test_a_malformed_line_is_named(directory: RunDirectory) -> None:
    file = directory.path / "cells.jsonl"
    lines = file.read_text().splitlines()
    for wrong, words in (("{", "no JSON"), ('{"round": "one"}', "malformed"), ("", "no JSON"), ("[" * 9000, "no JSON")):
        file.write_text("\n".join([*lines[:2], wrong, *lines[2:]]) + "\n")
        with pytest.raises(BadInput) as error:
            directory.cells()
        refused(str(error.value), "cells.jsonl line 3", words)


def test_of_a_malformed_configuration_the_line_is_named(directory: RunDirectory) -> None:
    file = directory.path / "config.json"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:4], "oops", *lines[4:]]))
    with pytest.raises(BadInput) as error:
        directory.config()
    refused(str(error.value), "config.json line 5", "no JSON")
    file.write_bytes(b"\xff\xfe\n{")
    with pytest.raises(BadInput):
        directory.config()
    file.write_text(json.dumps({"schema": 1, "seed": "none"}))
    with pytest.raises(BadInput, match="malformed"):
        directory.config()


@given(st.binary(max_size=200) | st.text(max_size=80).map(str.encode))
def test_whatever_stands_in_a_file_the_answer_is_a_value_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes
) -> None:
    directory = RunDirectory(tmp_path_factory.mktemp("garbage"))
    for name in ("config.json", "machine.json", "cells.jsonl", "summary.json"):
        (directory.path / name).write_bytes(garbage)
    for read in (directory.config, directory.machine, directory.cells, directory.summary, partial(read_run, directory)):
        with suppress(NapctlError):
            read()


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Files can grow to that size only: the kernel writes what fits and refuses the rest, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_where_there_is_no_room_it_is_one_line_and_what_was_there_is_kept(directory: RunDirectory) -> None:
    cells, summary = directory.cells(), RUN.summary
    size = (directory.path / "cells.jsonl").stat().st_size
    with room_for(size + 100), pytest.raises(RolledBack) as error:
        directory.append(RUN.cells[0])
    refused(str(error.value), "cells.jsonl", "not written")
    assert directory.cells() == cells
    directory.write_summary(summary)
    with room_for(100), pytest.raises(RolledBack, match="not written"):
        directory.write_summary(summary)
    assert directory.summary() == summary
    with room_for(100), pytest.raises(RolledBack):
        write_bytes(directory.report, b"x" * 1000)
    assert sorted(path.name for path in directory.path.iterdir()) == [
        "cells.jsonl", "config.json", "machine.json", "raw", "summary.json",
    ]  # fmt: skip


KILLED = """
import os, sys, threading
from napctl.experiment.run_directory import RunDirectory
from tests.unit import runs
directory = RunDirectory(sys.argv[1])
asked = runs.config(rounds=1)
directory.create(asked, {})
print("made", flush=True)
for cell in runs.cells(asked) * 1000:
    directory.append(cell)
    print(len(cell.treatment), flush=True)
"""


def test_every_cell_that_was_told_to_be_written_survives_a_kill(tmp_path: Path) -> None:
    for told in (1, 9):
        path = tmp_path / f"run{told}"
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]
        )
        assert process.stdout
        for _ in range(told + 1):
            assert process.stdout.readline()
        process.kill()
        process.wait()
        process.stdout.close()
        found = RunDirectory(path).cells()
        assert len(found) >= told
        assert all(isinstance(cell, Cell) for cell in found)


def test_a_report_goes_into_a_pipe_too_and_never_replaces_a_directory(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    write_bytes(f"/dev/fd/{writer}", b"page")
    os.close(writer)
    assert os.read(reader, 10) == b"page"
    os.close(reader)
    with pytest.raises(BadInput, match="directory"):
        write_bytes(tmp_path, b"page")
    with pytest.raises(NapctlError):
        write_bytes(tmp_path / "no" / "such", b"page")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_sudo_made_is_handed_over_to_who_typed_it_and_nothing_that_a_link_leads_to(tmp_path: Path) -> None:
    uid, gid = 12345, 23456
    others = tmp_path / "others"
    others.write_text("of somebody else")
    directory = runs.written(tmp_path / "run", RUN)
    directory.report.write_text("page")
    directory.raw(3).symlink_to(others)
    (directory.path / "hard").hardlink_to(others)
    (directory.path / "link").symlink_to(tmp_path)
    os.mkfifo(directory.path / "pipe")

    directory.hand_over(uid, gid)

    for each in (directory.path, directory.path / "raw", directory.report, directory.path / "cells.jsonl"):
        assert (each.stat().st_uid, each.stat().st_gid) == (uid, gid), each
    assert others.stat().st_uid == tmp_path.stat().st_uid == os.geteuid()
    assert directory.raw(3).lstat().st_uid == os.geteuid()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_directory_that_a_link_leads_to_or_that_is_not_ours_is_not_handed_over(tmp_path: Path) -> None:
    directory = runs.written(tmp_path / "run", RUN)
    (tmp_path / "link").symlink_to(directory.path)
    with pytest.raises(BadInput):
        RunDirectory(tmp_path / "link").hand_over(12345, 23456)
    assert directory.path.stat().st_uid == os.geteuid()
    os.chown(directory.path, 12345, 23456)
    with pytest.raises(BadInput, match="not ours"):
        directory.hand_over(0, 0)
    assert directory.path.stat().st_uid == 12345
