"""napctl completion: the script that a shell reads to complete napctl's words."""

import os
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from napctl.cli.terminal import echo_text

__all__ = ["complete"]


VARIABLE = "_NAPCTL_COMPLETE"


class Bash(BashComplete):
    """click's, for words with ":" in them, such as unit:nginx.service.

    bash splits words at each ":" (COMP_WORDBREAKS), and replaces what stands behind the last one. So the line is split
    here, up to the cursor, and what bash has already is left out of the answer.
    """

    source_template = BashComplete.source_template.replace(
        'COMP_WORDS="${COMP_WORDS[*]}"', 'COMP_WORDS="${COMP_LINE:0:$COMP_POINT}"'
    )

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is to be completed, and what there is of that."""
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)[1:]
        incomplete = words.pop() if words and not line.endswith((" ", "\t")) else ""
        head, colon, _ = incomplete.rpartition(":")
        self._there = head + colon
        return words, incomplete

    def format_completion(self, item: "CompletionItem[Any]") -> str:
        """One line of the answer."""
        return f"{item.type},{str(item.value).removeprefix(self._there)}"


def complete(program: click.Command) -> None:
    """Let click answer a shell that asks about it, as the environment says; it exits then."""
    add_completion_class(Bash)
    program.main(prog_name="napctl")


@click.command(
    epilog="\b\nExamples:\n  source <(napctl completion bash)\n"
    "  napctl completion fish > ~/.config/fish/completions/napctl.fish"
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script by which SHELL completes napctl's commands and options."""
    add_completion_class(Bash)
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(click.get_current_context().find_root().command, {}, "napctl", VARIABLE)
    echo_text(script.source())
