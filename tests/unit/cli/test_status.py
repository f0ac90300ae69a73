"""What status says of a NAPI instance."""

import pytest

from napctl.cli.status import _napi_row
from napctl.model.machine import Device, Napi
from napctl.model.settings import NapiSettings


@pytest.mark.parametrize(
    ("threaded", "pid", "words"),
    [
        ("busy-poll", 812, "812 busy-polls"),
        ("enabled", 812, "812"),
        ("busy-poll", None, "busy-poll"),
        ("disabled", None, "disabled"),
        (None, None, "–"),
    ],
)
def test_a_thread_that_busy_polls_is_shown_as_such(threaded: str | None, pid: int | None, words: str) -> None:
    """It takes a whole CPU, with traffic and without."""
    napi = Napi(napi_id=8193, ifindex=2, irq=None, thread_pid=pid, settings=NapiSettings(threaded=threaded))
    device = Device(name="eth0", ifindex=2, up=True, napis=(napi,))
    assert _napi_row(device, napi)[4] == words
