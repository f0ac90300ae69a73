"""Whether a policy's files have become others, and ask for something else."""

from pathlib import Path

import pytest

from napctl.model.errors import BadInput
from napctl.service.watched_policy import FILE_SECONDS, WatchedPolicy

ONE = '[[attach]]\ntarget = "a"\n'


def written(path: Path, text: str) -> Path:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o644)
    return new.replace(path)


def test_another_file_is_noticed_and_what_it_asks_for_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "policy.toml", ONE)
    policy = WatchedPolicy(path)
    assert not policy.have_files_changed(0)
    written(path, f"# the same\n{ONE}")
    assert not policy.have_files_changed(FILE_SECONDS / 2), "not so soon"
    assert policy.have_files_changed(FILE_SECONDS)
    assert not policy.read(), "it stands elsewhere, that is all"
    assert not policy.have_files_changed(2 * FILE_SECONDS)

    (tmp_path / "policy.d").mkdir()
    written(tmp_path / "policy.d/10.toml", ONE.replace('"a"', '"b"'))
    assert policy.have_files_changed(3 * FILE_SECONDS)
    assert policy.read()
    assert [each.target for each in policy.now.attach] == ["a", "b"]


@pytest.mark.parametrize("text", ["[[attach", "surprise = 1\n", None])
def test_one_that_cannot_be_read_leaves_the_one_before(text: str | None, tmp_path: Path) -> None:
    path = written(tmp_path / "policy.toml", ONE)
    policy = WatchedPolicy(path)
    before = policy.now, policy.digest
    if text is None:
        path.unlink()
    else:
        written(path, text)
    assert policy.have_files_changed(1)
    assert not policy.read()
    assert str(path) in policy.error
    assert (policy.now, policy.digest) == before
    written(path, ONE)
    assert not policy.read()
    assert policy.error == ""


def test_at_first_it_must_be_readable(tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        WatchedPolicy(tmp_path / "policy.toml")
