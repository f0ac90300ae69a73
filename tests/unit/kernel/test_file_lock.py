import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from napctl.kernel.file_lock import let_go, lock_file, taken


def test_one_holds_it_until_it_lets_go(tmp_path: Path) -> None:
    mine, another = lock_file(tmp_path / "lock"), lock_file(tmp_path / "lock")
    try:
        assert taken(mine)
        assert not taken(another)
        assert not taken(another, shared=True)
        let_go(mine)
        assert taken(another, shared=True)
        assert taken(mine, shared=True)
        assert not taken(mine)
    finally:
        os.close(mine)
        os.close(another)


def test_it_is_waited_for_so_long_and_no_longer(tmp_path: Path) -> None:
    mine, another = lock_file(tmp_path / "lock"), lock_file(tmp_path / "lock")
    try:
        assert taken(mine)
        begun = time.monotonic()
        assert not taken(another, patience_seconds=0.2)
        assert time.monotonic() - begun >= 0.2
    finally:
        os.close(mine)
        os.close(another)


def test_it_ends_with_its_process(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from napctl.kernel.file_lock import lock_file, taken;"
        "taken(lock_file(Path(sys.argv[1]))); print('held', flush=True); sys.stdin.read()"
    )
    mine = lock_file(tmp_path / "lock")
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert not taken(mine)
        holder.kill()
        assert taken(mine, patience_seconds=10)
    os.close(mine)


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        lock_file(tmp_path / "lock")
    assert not (tmp_path / "elsewhere").exists()
