"""Shared by all commands: argument parsing, one-line error messages and exit codes.

Exit codes: 0 success, 1 failed work or bad input, 2 bad usage, 130 interrupted, 141 closed output pipe.
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

MAX_MESSAGE_LENGTH = 700  # characters: messages may quote text of any length from a file
EXIT_BROKEN_PIPE = 141  # the shell's exit code for a program that wrote to a closed pipe
LOG_INTERVAL = 60.0  # seconds between two lines of a progress bar that is written to a file


class InputError(Exception):
    """Unusable input. The message is a single line that says what is wrong and how to fix it."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class Main(Protocol):
    """A script's `main`: takes the command-line arguments (default: sys.argv) and returns the exit code."""

    def __call__(self, argv: Sequence[str] | None = None) -> int: ...


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that keeps the line breaks of its description and reports bad usage in one line."""

    def __init__(self, description: str | None = None, **kwargs: Any) -> None:
        style = argparse.RawDescriptionHelpFormatter
        # A shortened option is misspelt as likely as meant, and what looks for its whole name misses it.
        super().__init__(description=description, formatter_class=style, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(2, f"error: {one_line(message)}; run with --help for usage\n")


def one_line(text: str) -> str:
    """Make a text a single line of printable characters, shortened to MAX_MESSAGE_LENGTH."""
    line = "".join(character if character.isprintable() else " " for character in text).strip()
    return line if len(line) <= MAX_MESSAGE_LENGTH else f"{line[:MAX_MESSAGE_LENGTH]} ..."


def os_error_message(error: OSError) -> str:
    """Describe an OSError in one line: the file and the reason."""
    file_name = f"{error.filename}: " if error.filename else ""
    return file_name + (error.strerror or str(error) or type(error).__name__)


def progress_bar_options() -> dict[str, Any]:
    """Options for tqdm: a progress bar that is written to a file gets one line a minute, none in the first."""
    return {} if sys.stderr.isatty() else {"mininterval": LOG_INTERVAL, "delay": LOG_INTERVAL}


def cli_entry(main: Main) -> Main:
    """Wrap a script's `main`: expected failures end in a one-line message and an exit code, not in a traceback.

    Expected are bad input, any OSError (a full disk, missing permissions, a closed pipe), text that the locale cannot
    encode, a lost data-loading process and Ctrl-C. Environment variables that would change results are removed.
    """

    @functools.wraps(main)
    def wrapped(argv: Sequence[str] | None = None) -> int:
        clean_environment()
        try:
            try:
                code = main(argv)
                end_process_group()
            except SystemExit:  # --help
                sys.stdout.flush()
                raise
            sys.stdout.flush()
            return code
        except InputError as error:
            return _fail(str(error))
        except OSError as error:
            if isinstance(error, BrokenPipeError) and _stdout_is_closed():
                return EXIT_BROKEN_PIPE
            return _fail(f"{os_error_message(error)}; fix this and run the same command again")
        except UnicodeEncodeError as error:
            text = one_line(ascii(error.object))
            return _fail(
                f"{text} has characters that this locale ({error.encoding}) cannot encode; "
                "set LC_ALL=C.UTF-8 and run the same command again"
            )
        except RuntimeError as error:
            # torch raises this at an arbitrary place in the main process when a data-loading process has died.
            if not str(error).startswith("DataLoader worker"):
                raise
            reason = str(error).splitlines()[0].rstrip(". ")
            return _fail(f"a data-loading process was lost ({reason}); try fewer --data.num_workers")
        except KeyboardInterrupt:
            print(INTERRUPT_MESSAGE, file=sys.stderr)
            return EXIT_CODE

    return wrapped


def end_process_group() -> None:
    """Wait for the other processes of a distributed run and close its connections; nothing if there are none.

    A process that exits with open connections can make the others abort (gloo raises in a background thread).
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


def _stdout_is_closed() -> bool:
    """Whether standard output is a closed pipe, as with `| head`. If so, further output is discarded."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())  # for the interpreter's last flush
    os.close(devnull)
    return True
