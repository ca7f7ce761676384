"""Feeds hostile input to our readers in a process of its own, and watches what that process does.

The process may write in one folder only, run no program, unpickle no names but a tensor's, and must keep to a limit of
memory and of time. Of our own code nothing but InputError, in one short line, may come out.
"""

import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from utils.cli import InputError

MIB = 1 << 20
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
PROGRAMS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn")


@dataclass
class Tally:
    """What came of the inputs. grown: MiB by which the process's peak exceeded what it had at its start."""

    tried: int = 0
    refused: int = 0
    grown: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.tried} inputs, {self.refused} refused, {len(self.faults)} faults, {self.grown} MiB"


class Guard:
    """Handed to the work: where it may write, and how each input is tried."""

    def __init__(self, inside: Path, seconds: int, pipe: Connection):
        self.inside, self.seconds, self.pipe = inside, seconds, pipe
        self.tally = Tally()
        self.outside: list[str] = []  # what was done that must not be

    def attempt(self, name: str, use: Callable[[], object]) -> None:
        """Try one input; a fault is kept under its name, and the work goes on."""
        self.pipe.send(name)
        self.tally.tried += 1
        self.outside.clear()
        signal.alarm(self.seconds)
        try:
            use()
        except InputError as error:
            self.tally.refused += 1
            if not 0 < len(str(error)) < 800 or not all(map(str.isprintable, str(error))):
                self.fault(name, f"a message of {len(str(error))} characters: {str(error)[:400]!r}")
            # Behind an InputError this would hide a machine that runs full.
            if any(isinstance(cause, MemoryError) or "bad_alloc" in str(cause) for cause in _causes(error)):
                self.fault(name, "".join(traceback.format_exception(error)))
        except SystemExit as stop:
            self.tally.refused += 1
            if stop.code != 2:
                self.fault(name, f"exit code {stop.code}")
        except BaseException as error:
            self.fault(name, "".join(traceback.format_exception(error)))
        signal.alarm(0)
        if self.outside:
            self.fault(name, f"did {self.outside}")

    def fault(self, name: str, what: str) -> None:
        self.tally.faults.append(f"{name}\n{what}")

    def watch(self, event: str, words: tuple[Any, ...]) -> None:
        """An audit hook of Python's."""
        if event == "open":
            path, _, flags = words
            if isinstance(path, str | bytes | os.PathLike) and flags & WRITING:
                self._must_be_inside(event, path)
        elif event in CHANGES:
            self._must_be_inside(event, words[0])
        elif event in PROGRAMS or event.startswith("pickle.find_class"):
            self.outside.append(f"{event} {words[:2]}")

    def _must_be_inside(self, event: str, path: Any) -> None:
        place = os.path.realpath(os.fsdecode(path)) if not isinstance(path, int) else str(self.inside)
        if not place.startswith((f"{self.inside}{os.sep}", os.devnull, "/proc/")) and place != str(self.inside):
            self.outside.append(f"{event} {place}")


def guarded(work: Callable[[Guard], None], box: Path, *, memory: int = 1024, seconds: int = 20) -> Tally:
    """What came of the work, which tries inputs in a forked process. AssertionError if that process was lost.

    box: an empty folder; box/inside is where the work may write. memory: MiB that the process may reserve beyond what
    it starts with. seconds: that an input may take before the process is stopped.
    """
    inside, elsewhere = box.resolve() / "inside", box.resolve() / "elsewhere"
    inside.mkdir(parents=True, exist_ok=True)
    elsewhere.mkdir()
    ours, theirs = get_context("fork").Pipe(duplex=False)
    process = get_context("fork").Process(target=_child, args=(work, inside, elsewhere, memory, seconds, theirs))
    process.start()
    theirs.close()
    last: str | Tally = "nothing"
    try:
        while True:
            last = ours.recv()
    except EOFError:
        process.join()
    assert isinstance(last, Tally), f"the process was lost (exit code {process.exitcode}) by: {last}"
    strays = [str(path) for path in (*box.iterdir(), *elsewhere.iterdir()) if path.name not in ("inside", "elsewhere")]
    last.faults += [f"files outside: {strays}"] if strays else []
    return last


def _child(
    work: Callable[[Guard], None], inside: Path, elsewhere: Path, memory: int, seconds: int, pipe: Connection
) -> None:
    os.chdir(elsewhere)
    os.environ |= {"HOME": str(elsewhere), "TMPDIR": str(elsewhere)}
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    guard = Guard(inside, seconds, pipe)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process even inside a library
    sizes = [int(size) for size in Path("/proc/self/statm").read_text().split()]
    limit = sizes[0] * resource.getpagesize() + memory * MIB
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (128 * MIB, 128 * MIB))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.addaudithook(guard.watch)
    try:
        work(guard)
    except BaseException as error:
        guard.fault("outside any input", "".join(traceback.format_exception(error)))
    guard.tally.grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    pipe.send(guard.tally)
    pipe.close()
    os._exit(0)


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in found:
        found.append(following)
        following = following.__cause__ or following.__context__
    return found
