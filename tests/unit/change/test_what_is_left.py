"""What the error of a change that was refused says to who goes on: by what it failed, and whether anything is left."""

from contextlib import nullcontext
from typing import Any

import pytest

from napctl.change import transaction as module
from napctl.change.journal import Journal
from napctl.change.transaction import apply, begun, undo_all
from napctl.model.change import NapiChange, Restored
from napctl.model.errors import NapctlError, NotPermitted, RolledBack, Unsupported
from napctl.model.settings import NapiSettings

CHANGE = NapiChange(
    netns=1, device="eth0", ifindex=2, napi_id=300, before=NapiSettings(defer_hard_irqs=0),
    after=NapiSettings(defer_hard_irqs=9),
)  # fmt: skip
BACK = Restored(where=CHANGE.where, setting="defer_hard_irqs", outcome="restored", before=0, found=9)
PLACES: Any = None


def refuses(error: NapctlError) -> Any:
    def fails(*_: object, **__: object) -> None:
        raise error

    return fails


def test_what_could_not_be_put_back_is_known_as_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "undo", refuses(Unsupported("refused")))
    with pytest.raises(Unsupported, match="napctl recover") as raised:
        undo_all(begun("attach", "server", (CHANGE,)), PLACES)
    assert raised.value.leaves_changed
    assert not Unsupported("another").leaves_changed


def test_what_was_put_back_tells_by_what_it_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    cause = NotPermitted("CAP_SYS_NICE")
    monkeypatch.setattr(module, "Places", nullcontext)
    monkeypatch.setattr(module, "make", refuses(cause))
    monkeypatch.setattr(module, "undo", lambda *_, **__: [BACK])
    with Journal(tmp_path) as journal, pytest.raises(RolledBack) as raised:
        apply(journal, begun("attach", "server", (CHANGE,)), then="attached")
    assert (raised.value.because, raised.value.leaves_changed) == (cause, False)
