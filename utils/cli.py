"""What every command shares: how bad input is told, and how a run ends.

Exit codes: 0 done, 1 failed work or bad input, 2 bad usage (argparse's own), 130 interrupted.
"""

import functools
import sys
from collections.abc import Sequence
from typing import Protocol

LONGEST = 700  # characters of a message; what it cites of a file may have any length


class InputError(Exception):
    """Something the user gave cannot be used; the message is one line that says what and how to mend it.

    Whatever a message cites, of a file from a stranger say, it stays one line of printable signs.
    """

    def __init__(self, message: str) -> None:
        line = "".join(sign if sign.isprintable() else " " for sign in message).strip()
        super().__init__(line if len(line) <= LONGEST else f"{line[:LONGEST]} ...")


class Main(Protocol):
    """A script's entry: takes the command line (default: sys.argv), returns the exit code."""

    def __call__(self, argv: Sequence[str] | None = None) -> int: ...


def reason(error: OSError) -> str:
    """What the system refused, in a line: the file and why."""
    named = f"{error.filename}: " if error.filename else ""
    return named + (error.strerror or str(error) or type(error).__name__)


def command(main: Main) -> Main:
    """Wrap a script's `main(argv) -> exit code` so that bad input, a full disk or a file that may not be read or
    written ends in one line, not in a traceback."""

    @functools.wraps(main)
    def wrapped(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except OSError as error:
            print(f"error: {reason(error)}; mend that and run the same command again", file=sys.stderr)
            return 1
        except RuntimeError as error:
            # torch raises this wherever the main process happens to be when one that reads for it is gone.
            if not str(error).startswith("DataLoader worker"):
                raise
            what = str(error).splitlines()[0].rstrip(". ")
            print(f"error: a process that reads clips was lost ({what}); try fewer --data.workers", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("interrupted; run the same command again to go on", file=sys.stderr)
            return 130

    return wrapped
