"""What is read of a file is all of it."""

from pathlib import Path

import pytest

from napctl.kernel.small_files import MOST_BYTES, read_small


@pytest.mark.parametrize("size", [0, 1, MOST_BYTES - 1, MOST_BYTES, MOST_BYTES + 1, 2 * MOST_BYTES, 5 * MOST_BYTES + 7])
def test_all_of_it_is_read_however_long_it_is(size: int, tmp_path: Path) -> None:
    data = bytes(each % 251 for each in range(size))
    (tmp_path / "file").write_bytes(data)
    assert read_small(str(tmp_path / "file")) == data
