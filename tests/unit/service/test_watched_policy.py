"""Whether a policy's files have become others, and ask for something else."""

from pathlib import Path

import pytest

from napctl.model.errors import BadInput
from napctl.service.watched_policy import FILE_SECONDS, KEPT, WatchedPolicy

ONE = '[[attach]]\ntarget = "a"\n'


def written(path: Path, text: str) -> Path:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o644)
    return new.replace(path)


def later(policy: WatchedPolicy, looks: list[float]) -> bool:
    """Whether another look, and one more, shows that files have changed and are written to the end."""
    looks[0] += FILE_SECONDS
    first = policy.have_files_changed(looks[0])
    looks[0] += FILE_SECONDS
    return not first and policy.have_files_changed(looks[0])


def test_another_file_is_noticed_and_what_it_asks_for_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "policy.toml", ONE)
    policy, looks = WatchedPolicy(path, tmp_path), [0.0]
    assert not later(policy, looks)
    written(path, f"# the same\n{ONE}")
    assert not policy.have_files_changed(looks[0] + FILE_SECONDS / 2), "not so soon"
    assert later(policy, looks)
    assert not policy.read(), "it stands elsewhere, that is all"
    assert not later(policy, looks)

    (tmp_path / "policy.d").mkdir()
    written(tmp_path / "policy.d/10.toml", ONE.replace('"a"', '"b"'))
    assert later(policy, looks)
    assert policy.read()
    assert [each.target for each in policy.now.attach] == ["a", "b"]


def test_files_that_somebody_is_writing_at_are_not_read_yet(tmp_path: Path) -> None:
    path = written(tmp_path / "policy.toml", ONE)
    policy = WatchedPolicy(path, tmp_path)
    for look in range(1, 6):
        written(path, ONE[: 2 * look])
        assert not policy.have_files_changed(look * FILE_SECONDS)
    assert policy.have_files_changed(6 * FILE_SECONDS)


@pytest.mark.parametrize("text", ["[[attach", "surprise = 1\n", None])
def test_one_that_cannot_be_read_leaves_the_one_before(text: str | None, tmp_path: Path) -> None:
    path = written(tmp_path / "policy.toml", ONE)
    policy = WatchedPolicy(path, tmp_path)
    before = policy.now, policy.digest
    if text is None:
        path.unlink()
    else:
        written(path, text)
    assert later(policy, [0.0])
    assert not policy.read()
    assert str(path) in policy.error
    assert (policy.now, policy.digest) == before
    written(path, ONE)
    assert not policy.read()
    assert policy.error == ""


def test_at_first_it_must_be_readable(tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        WatchedPolicy(tmp_path / "policy.toml", tmp_path)


def test_later_the_one_that_was_kept_stands_for_one_that_cannot_be_read(tmp_path: Path) -> None:
    path = written(tmp_path / "policy.toml", ONE)
    first = WatchedPolicy(path, tmp_path)
    first.keep()
    written(path, "[[attach")
    policy = WatchedPolicy(path, tmp_path)
    assert str(path) in policy.error
    assert (policy.now, policy.digest) == (first.now, first.digest)

    (tmp_path / KEPT).chmod(0o666)
    with pytest.raises(BadInput):
        WatchedPolicy(path, tmp_path)
