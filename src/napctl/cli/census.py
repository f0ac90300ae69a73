"""napctl census: which packets are taken how, and which programs take them past the kernel, or spin."""

import click

from napctl.census.take_census import take_census
from napctl.cli.netns import netns_option
from napctl.cli.options import Seconds, devices_argument, json_option
from napctl.cli.terminal import SILENT_SECONDS, echo, echo_json, note
from napctl.cli.text.census_table import print_devices, program_lines, summary
from napctl.cli.text.table import paragraph, wrapped
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.census import Census


@click.command(
    epilog="\b\nExamples:\n  napctl census\n  napctl census eth0 --seconds 10\n"
    "  napctl census --json | jq '.pollers[] | {name, kind, evidence}'"
)
@devices_argument
@click.option("--seconds", type=Seconds(min=0.05, max=86400), default=1.0, show_default=True,
              help="How long to count.")  # fmt: skip
@netns_option
@json_option("One JSON object")
def census(devices: tuple[str, ...], seconds: float, netns: NetworkNamespace, as_json: bool) -> None:
    """Show who takes which packets: the kernel, and how, or a program past it.

    For each device (all but loopback by default, and NICs that a program drives itself) and each of its queues: how
    its packets are taken and with which share, by interrupt, deferral, suspension, busy polling, NAPI thread; and where
    they go past the kernel's stack: XDP, AF_XDP, io_uring, a lease, the NIC. Then each process that bypasses the kernel
    or spins: what it is, what shows it, whether it really does, how much of its 100 % can be work, and what there is to
    do. Changes nothing. docs/census.md says what each row means and what is not seen.
    """
    if seconds > SILENT_SECONDS:
        note(f"counting for {seconds:g} s")
    found = take_census(netns, devices, seconds)
    if as_json:
        echo_json(found)
    else:
        show(found)


def show(found: Census) -> None:
    """Print a Census: the answer, the devices, the programs, what is not known."""
    paragraph(summary(found), rest="  ")
    echo()
    print_devices(found)
    for poller in found.pollers:
        echo()
        for line in program_lines(poller, found.seconds):
            echo(line)
    if found.missing:
        echo()
    for lack in found.missing:
        for line in wrapped(f"not known: {lack}", rest="  "):
            echo(line)
