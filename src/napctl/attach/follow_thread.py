"""What has become of the attached thread of a NAPI instance. Pure."""

from collections.abc import Iterator
from typing import Any, Literal

from napctl.attach.inspect_target import Examination
from napctl.model.change import ThreadChange
from napctl.model.plan import settings
from napctl.model.settings import NapiSettings, ThreadSettings

__all__ = ["state_of_thread", "thread_there"]


def thread_there(change: ThreadChange, found: Examination) -> ThreadSettings | None:
    """All that it has by now; None: this examination does not tell."""
    located = found.napis.get(change.napi_id)
    return located.napi.thread if located is not None and located.netns == change.netns else None


def state_of_thread(
    change: ThreadChange, there: NapiSettings | None, thread: ThreadSettings | None, *, down: bool
) -> Literal["stays", "gone", "lost"]:
    """`there`: what its instance has, which tells of the switch alone; None: there is none, maybe as its device is
    `down`. `thread`: all that it has, where that is known.

    A reset that leaves the instance its id and its switch begins another thread, which has neither the nice value nor
    the CPUs: that is lost like what somebody puts back. What has values of somebody else's is left to him.
    """
    if there is None:
        return "stays" if down else "gone"
    now = ThreadSettings(threaded=there.threaded) if thread is None else thread
    pairs = list(_differing(change, now))
    return "lost" if pairs and all(value == before for value, before in pairs) else "stays"


def _differing(change: ThreadChange, now: ThreadSettings) -> Iterator[tuple[Any, Any]]:
    """What is not as it was set, each beside its former value."""
    for name, value in settings(change.after):
        found = getattr(now, name)
        if found is not None and found != value:
            yield found, getattr(change.before, name)
