"""What every command shares: how its options are told, how bad input is told, and how a run ends.

Exit codes: 0 done, 1 failed work or bad input, 2 bad usage, 130 interrupted, 141 where nobody reads the output.
"""

import argparse
import functools
import os
import select
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

from utils.environment import clean_environment
from utils.interrupts import EXIT_CODE, INTERRUPT_MESSAGE

MAX_MESSAGE_LENGTH = 700  # characters of a message; what it cites of a file may have any length
EXIT_BROKEN_PIPE = 141  # what a shell gives for a program that wrote into a closed pipe
LOG_INTERVAL = 60.0  # seconds between two lines of a progress bar in a file


class InputError(Exception):
    """Something the user gave cannot be used; the message is one line that says what and how to mend it.

    Whatever a message cites, of a file from a stranger say, it stays one line of printable signs.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class Main(Protocol):
    """A script's entry: takes the command line (default: sys.argv), returns the exit code."""

    def __call__(self, argv: Sequence[str] | None = None) -> int: ...


class Parser(argparse.ArgumentParser):
    """argparse's, with help as it was written and bad usage told in a line."""

    def __init__(self, description: str | None = None, **kwargs: Any) -> None:
        style = argparse.RawDescriptionHelpFormatter
        super().__init__(description=description, formatter_class=style, **kwargs)

    def error(self, message: str) -> NoReturn:
        """End the command with exit code 2."""
        self.exit(2, f"error: {one_line(message)}; --help tells what there is\n")


def one_line(text: str) -> str:
    """A text as one line of printable signs, cut where it is too long."""
    line = "".join(sign if sign.isprintable() else " " for sign in text).strip()
    return line if len(line) <= MAX_MESSAGE_LENGTH else f"{line[:MAX_MESSAGE_LENGTH]} ..."


def os_error_message(error: OSError) -> str:
    """What the system refused, in a line: the file and why."""
    named = f"{error.filename}: " if error.filename else ""
    return named + (error.strerror or str(error) or type(error).__name__)


def progress_bar_options() -> dict[str, Any]:
    """Options of tqdm by which a progress bar in a file is a line a minute, and nothing in the first."""
    return {} if sys.stderr.isatty() else {"mininterval": LOG_INTERVAL, "delay": LOG_INTERVAL}


def cli_entry(main: Main) -> Main:
    """Wrap a script's `main(argv) -> exit code` so that bad input, a full disk or a file that may not be read or
    written ends in one line, not in a traceback, and the environment has no say (utils.environment)."""

    @functools.wraps(main)
    def wrapped(argv: Sequence[str] | None = None) -> int:
        clean_environment()
        try:
            try:
                code = main(argv)
            except SystemExit:  # --help
                sys.stdout.flush()
                raise
            sys.stdout.flush()
            return code
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except BrokenPipeError as error:
            if not _nobody_reads():
                return _refused(error)
            return EXIT_BROKEN_PIPE
        except OSError as error:
            return _refused(error)
        except UnicodeEncodeError as error:
            shown = ascii(error.object)
            print(
                f"error: {one_line(shown)} has signs that this locale ({error.encoding}) has not; "
                "set LC_ALL=C.UTF-8 and run the same command again",
                file=sys.stderr,
            )
            return 1
        except RuntimeError as error:
            # torch raises this wherever the main process happens to be when one that reads for it is gone.
            if not str(error).startswith("DataLoader worker"):
                raise
            what = str(error).splitlines()[0].rstrip(". ")
            print(f"error: a process that reads clips was lost ({what}); try fewer --data.num_workers", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print(INTERRUPT_MESSAGE, file=sys.stderr)
            return EXIT_CODE

    return wrapped


def _refused(error: OSError) -> int:
    print(f"error: {os_error_message(error)}; mend that and run the same command again", file=sys.stderr)
    return 1


def _nobody_reads() -> bool:
    """Whether standard output is a pipe that was closed, as by `| head`. What is left for it is thrown away."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())  # for the interpreter's own last flush
    os.close(nowhere)
    return True
