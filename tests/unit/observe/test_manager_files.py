"""What the files of other managers say: as these programs have them, and whatever else may stand there."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.model.other_manager import KNOWN_MANAGERS, Touch
from napctl.observe.manager_files import FILES_OF, MOST_BYTES


def written(root: Path, path: str, text: str) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def said(manager: str, root: Path) -> list[Touch]:
    return list(FILES_OF[manager](root))


def test_each_known_manager_has_its_files() -> None:
    assert FILES_OF.keys() == {each.name for each in KNOWN_MANAGERS}


def test_of_tuned_the_active_profile_counts_with_what_it_includes_and_the_administrators_one_first(
    tmp_path: Path,
) -> None:
    written(tmp_path, "etc/tuned/active_profile", "web\n")
    written(tmp_path, "etc/tuned/web/tuned.conf", "[main]\nsummary=x\ninclude=fast,\n[net]\ncoalesce=rx-usecs 50\n")
    written(tmp_path, "usr/lib/tuned/profiles/web/tuned.conf", "[net]\nring=rx 4096\n")
    written(
        tmp_path,
        "usr/lib/tuned/profiles/fast/tuned.conf",
        "[main]\ninclude=web\n# [net]\n[nics]\ntype=net\ndevices=eth0,ens*\nring=rx 4096\nchannels=combined 4\n"
        "features=tso on\n[scheduler]\nisolated_cores=2-3\n[off]\ntype=net\nenabled=false\ncoalesce=rx-usecs 1\n",
    )
    written(tmp_path, "usr/lib/tuned/profiles/other/tuned.conf", "[net]\ncoalesce=rx-usecs 1\n")
    fast = "/usr/lib/tuned/profiles/fast/tuned.conf"

    assert said("tuned", tmp_path) == [
        Touch(what="rings", devices=("eth0", "ens*"), source=fast),
        Touch(what="channels", devices=("eth0", "ens*"), source=fast),
        Touch(what="interrupt affinity", source=fast),
        Touch(what="coalescing", devices=("*",), source="/etc/tuned/web/tuned.conf"),
    ]


def test_what_a_profile_of_tuned_says_goes_for_the_section_that_it_includes(tmp_path: Path) -> None:
    place = "etc/tuned/profiles"
    base = "[net]\ndevices=eth0\ncoalesce=rx-usecs 50\nring=rx 4096\n[nics]\ntype=net\nchannels=rx 2\n[irq]\nmode=set\n"
    written(tmp_path, f"{place}/base/tuned.conf", base)
    written(tmp_path, "etc/tuned/active_profile", "web\n")
    web = f"{place}/web/tuned.conf"
    cases: list[tuple[str, list[Touch]]] = [
        ("[net]\nenabled=0\n[nics]\nenabled=false\n[irq]\nenabled=no\n", []),
        (
            "[net]\nring=\n[nics]\ntype=cpu\n[irq]\nenabled=0\n",
            [Touch(what="coalescing", devices=("*",), source=f"/{place}/base/tuned.conf")],
        ),
        (
            "[net]\nreplace=1\nring=rx 256\ndevices=ens3\n[nics]\nreplace=true\n[irq]\nenabled=0\n",
            [Touch(what="rings", devices=("ens3",), source=f"/{web}")],
        ),
    ]
    for own, touches in cases:
        written(tmp_path, web, f"[main]\ninclude=base\n{own}")
        assert said("tuned", tmp_path) == touches, own


def test_a_profile_of_tuned_that_sets_no_device_touches_nothing(tmp_path: Path) -> None:
    assert said("tuned", tmp_path) == []
    written(tmp_path, "etc/tuned/active_profile", "../../../../etc throughput-performance\n")
    written(tmp_path, "usr/lib/tuned/throughput-performance/tuned.conf", "[cpu]\ngovernor=performance\n[net]\n")
    assert said("tuned", tmp_path) == []


def test_of_network_manager_the_ethtool_keys_of_connections_count(tmp_path: Path) -> None:
    place = "etc/NetworkManager/system-connections"
    written(
        tmp_path,
        f"{place}/wired.nmconnection",
        "[connection]\nid=wired\ninterface-name=eth0\n[ethtool]\ncoalesce-rx-usecs=50\nring-rx=4096\nfeature-tso=true\n",
    )
    written(tmp_path, "run/NetworkManager/system-connections/any.nmconnection", "[ethtool]\nchannels-rx=2\n")
    written(tmp_path, f"{place}/plain.nmconnection", "[connection]\nid=plain\n[ethtool]\npause-rx=false\n")

    assert said("NetworkManager", tmp_path) == [
        Touch(what="coalescing", devices=("eth0",), source=f"/{place}/wired.nmconnection"),
        Touch(what="rings", devices=("eth0",), source=f"/{place}/wired.nmconnection"),
        Touch(what="channels", source="/run/NetworkManager/system-connections/any.nmconnection"),
    ]


def test_of_link_files_each_key_of_the_kind_counts_and_etc_hides_the_others(tmp_path: Path) -> None:
    written(
        tmp_path, "etc/systemd/network/10-nic.link", "[Match]\nDriver=ice\n[Link]\nRxCoalesceSec=50us\nRxChannels=4\n"
    )
    written(tmp_path, "usr/lib/systemd/network/10-nic.link", "[Link]\nRxBufferSize=4096\n")
    written(tmp_path, "usr/lib/systemd/network/99-default.link", "[Link]\nNamePolicy=keep kernel\nMACAddressPolicy=x\n")
    written(tmp_path, "etc/systemd/network/20-eth.network", "[Link]\nRxBufferSize=4096\n")

    assert said("systemd-udevd", tmp_path) == [
        Touch(what="coalescing", source="/etc/systemd/network/10-nic.link"),
        Touch(what="channels", source="/etc/systemd/network/10-nic.link"),
    ]
    assert said("systemd-networkd", tmp_path) == []


@pytest.mark.parametrize("manager", FILES_OF)
def test_what_is_no_file_or_has_no_end_says_nothing(manager: str, tmp_path: Path) -> None:
    for path in ("etc/tuned/active_profile", "etc/tuned/x/tuned.conf", "etc/systemd/network/x.link"):
        (tmp_path / path).mkdir(parents=True)
    place = tmp_path / "etc/NetworkManager/system-connections"
    place.mkdir(parents=True)
    (place / "endless").symlink_to("/dev/zero")
    written(place, "long", "x" * MOST_BYTES + "\n[ethtool]\nring-rx=1\n")
    os.mkfifo(place / "pipe")
    held = os.open(place / "pipe", os.O_RDWR)  # somebody could write, and does not
    assert said(manager, tmp_path) == []
    os.close(held)


@given(st.text() | st.from_regex(r"(\[(net|main|Link|ethtool)\]\n([a-z-]+=[^\n]*\n)*)*", fullmatch=True))
def test_whatever_stands_in_a_file_nothing_is_raised(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    root = tmp_path_factory.mktemp("root")
    written(root, "etc/tuned/active_profile", "x")
    for path in (
        "etc/tuned/x/tuned.conf", "etc/systemd/network/x.link", "etc/NetworkManager/system-connections/x",
    ):  # fmt: skip
        file = written(root, path, "")
        file.write_bytes(text.encode(errors="surrogatepass"))
    for manager in FILES_OF:
        assert all(each.source.startswith("/") for each in said(manager, root))
