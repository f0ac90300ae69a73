"""napctl daemon: keep a policy true, for as long as it runs."""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import click

from napctl.change.journal import state_directory
from napctl.cli.netns import netns_option
from napctl.cli.output_queue import missing_text, never_waiting
from napctl.cli.terminal import echo, echo_json
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.errors import ChangedMeanwhile, NapctlError
from napctl.model.policy import MetricsPlace
from napctl.observe.machine import take_machine
from napctl.service.daemon import Service
from napctl.service.decisions import ServiceDecision
from napctl.service.device_drift import wanted_of
from napctl.service.metrics import most_series
from napctl.service.metrics_drop_in import DAEMON_RELOAD, lets_others_in
from napctl.service.policy_file import POLICY_PATH, read_policy
from napctl.service.wake import Wake

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)


@click.command(
    epilog="\b\nExamples:\n  napctl daemon\n  napctl daemon --policy ./policy.toml --log-format json\n"
    "  systemctl reload napctl          # after a change of the policy"
)
@click.option(
    "--policy",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=POLICY_PATH,
    show_default=True,
    help="The policy; its drop-ins are beside it.",
)
@click.option(
    "--log-format",
    type=click.Choice(("text", "json")),
    default="text",
    show_default=True,
    help="Of the lines on standard output, one for each decision.",
)
@click.option("--check", is_flag=True, help="Read the policy, say how many metrics there will be, and end.")
@netns_option
def daemon(path: Path, log_format: str, check: bool, netns: NetworkNamespace) -> int:
    """Keep a policy true: attach its targets, set its devices, follow both, and say each decision with its reason.

    Ends at SIGTERM or Ctrl-C, and puts everything back then unless the policy says `on-stop = "keep"`. SIGHUP reads the
    policy again and changes only what differs; a changed file is noticed within 5 s too. SIGUSR2 executes napctl anew,
    for an upgrade, and changes nothing. Killed, it is followed by another one, which takes over what is there; if none
    comes within the policy's guard-wait, the guard puts everything back.
    """
    if check:
        echo(_checked(path, netns))
        return 0
    with suppress(OSError):
        Path("/proc/self/comm").write_text("napctl")  # executed anew, we would be called as the interpreter is
    wake = Wake()
    for number in SIGNALS:
        signal.signal(number, lambda number, _frame: _ask(wake, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # blocked by who has executed us
    tell = _tell_json if log_format == "json" else _tell
    with never_waiting(lambda lines: tell(_decision(missing_text(lines)))) as queue:
        end = Service(path, state_directory(), netns, tell).run(wake, queue)
    if end.renew:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        if wake.stop:  # asked meanwhile: whom we become shall hear it
            signal.raise_signal(signal.SIGTERM)
        try:
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - ourselves, as we were started
        except OSError as error:
            raise NapctlError(f"{sys.executable}: cannot be executed anew: {error.strerror}") from None
    return ChangedMeanwhile.exit_status if end.left else 0


def _checked(path: Path, netns: NetworkNamespace) -> str:
    """Of devices those count that are there now; of targets all."""
    policy = read_policy(path)
    words = f"{_counted(len(policy.attach), 'target')}, "
    machine = take_machine(netns, with_pollers=False)
    names = wanted_of(policy.devices, machine)
    devices = [each for each in machine.devices if each.name in names]
    words += _counted(len(devices), "device")
    if policy.service.metrics is None:
        return f"{words}; no metrics"
    napis = sum(len(each.napis) for each in devices) if policy.service.metrics_per_napi else None
    series = most_series(len(devices), len(policy.attach), napis=napis)
    return f"{words}; at most {series} series of metrics{_who_may_scrape(path, policy.service.metrics)}"


def _who_may_scrape(path: Path, place: MetricsPlace) -> str:
    """The unit lets in this machine alone, until systemd has heard of another policy: of the one that is its own."""
    if path != POLICY_PATH or not place.is_beyond_loopback or lets_others_in():
        return ""
    return f"; {DAEMON_RELOAD} {place.address}"


def _ask(wake: Wake, number: int) -> None:
    if number == signal.SIGHUP:
        wake.reload = True
    elif number == signal.SIGUSR2:
        wake.renew = True
    else:
        wake.stop = True
    wake.up()


def _decision(text: str) -> ServiceDecision:
    return ServiceDecision(unix_ns=time.time_ns(), about="", text=text)


def _tell(decision: ServiceDecision) -> None:
    about = f"{decision.about}: " if decision.about and not decision.text.startswith(f"{decision.about}: ") else ""
    clock = "" if "JOURNAL_STREAM" in os.environ else time.strftime("%H:%M:%S ", time.localtime(decision.unix_ns / 1e9))
    with suppress(OSError):  # nobody reads any more, or the disk is full: no reason to end
        echo(f"{clock}{about}{decision.text}")


def _tell_json(decision: ServiceDecision) -> None:
    with suppress(OSError):
        echo_json(decision)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
