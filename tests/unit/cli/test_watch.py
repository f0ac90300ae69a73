"""watch: windows follow one another without a gap, also the last one."""

from types import SimpleNamespace
from typing import Any

from napctl.cli.watch import _windows


def test_what_comes_while_a_window_is_read_at_ctrl_c_is_in_one_more() -> None:
    stop: Any = SimpleNamespace(asked=False, sleep_until=lambda due: None)
    read: list[str] = []

    def window() -> str:
        stop.asked |= len(read) == 1  # as the second one is read
        read.append(f"window {len(read)}")
        return read[-1]

    watched: Any = SimpleNamespace(observer=SimpleNamespace(gone=(), devices=("server0",)), window=window)

    shown: list[Any] = list(_windows(watched, stop, None, 0.2))

    assert shown == ["window 0", "window 1", "window 2"]
