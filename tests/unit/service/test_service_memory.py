"""What the service keeps of itself."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from napctl.kernel import running_kernel
from napctl.model.errors import BadInput
from napctl.service.service_memory import FILE, ServiceMemory, keep_memory, kept_memory


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert kept_memory(tmp_path) == ServiceMemory()
    state = ServiceMemory(
        policy="abc", detached=("memcached",), left=("eth0 rx-usecs",), left_of_targets=("NAPI 5 of eth0 for nginx",),
        paused_until_boot_ns=7,
    )  # fmt: skip
    keep_memory(tmp_path, state)
    keep_memory(tmp_path, state)
    assert kept_memory(tmp_path) == state
    assert [each.name for each in tmp_path.iterdir()] == [FILE]
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"version": 2, "new": true}', "of version 2, which a newer napctl has written"),
        ("", "is tried anew"),
        ("[]", "is tried anew"),
        ('{"version": 1, "odd": 1}', "is tried anew"),
        ('{"version": "1"}', "is tried anew"),
    ],
)
def test_what_cannot_be_used_is_one_line(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(BadInput, match=words) as error:
        kept_memory(tmp_path)
    assert "\n" not in str(error.value)


def test_one_of_another_user_is_not_believed(tmp_path: Path) -> None:
    keep_memory(tmp_path, ServiceMemory())
    (tmp_path / FILE).chmod(0o666)
    with pytest.raises(BadInput, match="others may write"):
        kept_memory(tmp_path)


def test_a_pause_ends_with_its_time_and_with_a_reboot() -> None:
    paused = ServiceMemory(boot_id=running_kernel.boot_id(), paused_until_boot_ns=100)
    assert (paused.paused_ns(40), paused.paused_ns(100), paused.paused_ns(200)) == (60, 0, 0)
    assert ServiceMemory(boot_id="another", paused_until_boot_ns=100).paused_ns(40) == 0


def test_after_a_reboot_what_was_known_by_an_id_or_a_pid_is_forgotten() -> None:
    state = ServiceMemory(
        policy="abc", detached=("memcached",), left=("eth0 rx-usecs",), left_of_targets=("NAPI 5 of eth0 for nginx",),
        boot_id="another", paused_until_boot_ns=7,
    )  # fmt: skip
    now = state.since_boot()
    assert (now.policy, now.detached, now.left) == (state.policy, state.detached, state.left)
    assert (now.left_of_targets, now.paused_until_boot_ns) == ((), 0)
    assert now.boot_id == running_kernel.boot_id()
    same = replace(state, boot_id=now.boot_id)
    assert same.since_boot() == same
    assert (same.anew().detached, same.anew().left, same.anew().left_of_targets) == ((), (), ())
