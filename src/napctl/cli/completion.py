"""napctl completion: the script that a shell reads to complete napctl's words."""

import click
from click.shell_completion import get_completion_class


@click.command(
    epilog="\b\nExamples:\n  source <(napctl completion bash)\n"
    "  napctl completion fish > ~/.config/fish/completions/napctl.fish"
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for SHELL."""
    from napctl.cli.main import cli  # noqa: PLC0415 - main imports this module by name

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(cli, {}, "napctl", "_NAPCTL_COMPLETE")
    click.echo(script.source())
