"""The entry point. Until the command line is loaded there is nothing to put back: Ctrl-C just ends the process."""

import signal

__all__ = ["main"]


def main() -> None:
    """Run napctl and exit."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not if the parent has it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from napctl.cli.main import run  # noqa: PLC0415 - see above

    run()


if __name__ == "__main__":
    main()
