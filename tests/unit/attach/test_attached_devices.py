"""Which threads poll the NAPI instances of an attachment."""

import pytest

from napctl.attach.attached_devices import polling_threads
from napctl.model.machine import Napi
from napctl.model.settings import NapiSettings


def napi(napi_id: int, thread_pid: int | None, threaded: str | None = None) -> Napi:
    return Napi(napi_id=napi_id, ifindex=2, irq=None, thread_pid=thread_pid, settings=NapiSettings(threaded=threaded))


@pytest.mark.parametrize(
    ("threaded", "of_device", "pids"),
    [
        (None, "disabled", []),
        (None, "enabled", [70]),
        (None, None, [70]),
        ("disabled", None, []),
        ("enabled", None, [70]),
        ("busy-poll", None, [70]),
    ],
)
def test_a_thread_that_was_switched_off_polls_nothing_though_it_is_there(
    threaded: str | None, of_device: str | None, pids: list[int]
) -> None:
    assert list(polling_threads([napi(1, 70, threaded), napi(2, None, threaded)], of_device)) == pids
