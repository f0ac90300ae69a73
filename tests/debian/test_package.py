"""The package in a root of Debian 13 that has nothing but apt."""

from pathlib import Path

import pytest

from tests.debian.conftest import InRoot

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

INSTALL = (
    "apt-get -qq update >/dev/null; apt-get -qq install --no-install-recommends /shared/napctl_*.deb >/dev/null 2>&1"
)
LEFT = "find / -xdev -path '*napctl*'"


def test_lintian_has_nothing_to_say(in_root: InRoot) -> None:
    assert in_root("build", "lintian --allow-root /shared/napctl_*.deb") == ""


def test_it_installs_what_debian_has_and_runs_there(in_root: InRoot) -> None:
    said = in_root(
        "fresh", f"{INSTALL}; ! command -v pip pip3; napctl status; napctl --version; napctl doctor lo", "--network"
    )
    assert "napctl, version" in said


def test_its_probe_was_compiled_from_its_sources_by_debians_compiler(in_root: InRoot, package: Path) -> None:
    script = f"""
        dpkg --extract /shared/{package.name} /x
        grep --text --no-filename built-by /x/usr/lib/python3/dist-packages/napctl/probe/*.bpf.o | sort --unique
        clang --version | head -n 1
    """
    *built, compiler = in_root("build", script).splitlines()
    assert built == [f"built-by {compiler}"]


def test_man_pages_and_completion_are_where_they_belong(in_root: InRoot) -> None:
    script = f"""{INSTALL}
        test -e /usr/share/man/man1/napctl-attach.1.gz || dpkg --listfiles napctl | grep -q man1/napctl-attach.1.gz
        grep -q '#compdef napctl' /usr/share/zsh/vendor-completions/_napctl
        grep -q napctl /usr/share/fish/vendor_completions.d/napctl.fish
        source /usr/share/bash-completion/completions/napctl
        complete -p napctl
        COMP_WORDS=(napctl sta) COMP_CWORD=1 COMP_LINE='napctl sta' COMP_POINT=10
        _napctl_completion napctl && echo "${{COMPREPLY[@]}}"
    """
    assert in_root("fresh", script, "--network").splitlines()[-1] == "status"


def test_removal_leaves_policy_and_journal_and_purge_nothing(in_root: InRoot) -> None:
    script = f"""{INSTALL}
        napctl status >/dev/null
        mkdir -p /etc/napctl/policy.d /var/lib/napctl
        touch /etc/napctl/policy.toml /var/lib/napctl/kept
        apt-get -qq remove napctl >/dev/null 2>&1
        {LEFT} -type f -not -path '/var/lib/dpkg/*' -not -path '/var/lib/systemd/*'
        apt-get -qq purge napctl >/dev/null 2>&1
        echo then
        {LEFT}
    """
    kept, left = in_root("fresh", script, "--network").split("then\n")
    assert {"/etc/napctl/policy.toml", "/var/lib/napctl/kept"} <= set(kept.split())
    assert all(each.startswith(("/etc/napctl/", "/var/lib/napctl/")) for each in kept.split()), kept
    assert left == ""
