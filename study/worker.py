"""A process that runs the commands of one job after another, and that can be lost without the others."""

import contextlib
import importlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from pathlib import Path

from utils.interrupts import EXIT_CODE, INTERRUPT_MESSAGE, block_interrupts, unblock_interrupts

REPOSITORY = Path(__file__).resolve().parents[1]
_child: subprocess.Popen[bytes] | None = None  # what the launcher runs, in the worker


class Worker:
    """Such a process, seen from the one that gives it work. It dies with that one, however that ends."""

    def __init__(self) -> None:
        context = get_context("spawn")  # a forked process would share the threads and the CUDA of its parent
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,))
        with block_interrupts():
            self.process.start()
        theirs.close()

    def submit(self, commands: Sequence[Sequence[str]], log: Path, launcher: Sequence[str]) -> None:
        """Start on commands, each `python -m MODULE ...`; with a launcher it takes the place of `python`."""
        self.pipe.send((commands, log, launcher))

    def result(self) -> int | None:
        """The exit code of what it was given, as soon as there is one; None if the process was lost."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            return None

    def close(self) -> None:
        """End it, with what it is doing."""
        self.pipe.close()  # which an idle one takes for the end
        self.process.join(2)
        self.process.terminate()
        self.process.join(5)
        self.process.kill()
        self.process.join()


def serve(pipe: Connection) -> None:
    """The worker's side: take commands, give exit codes."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    while True:
        try:
            unblock_interrupts()
            given = pipe.recv()
        except (EOFError, OSError, KeyboardInterrupt):
            return
        code = run(*given)
        with contextlib.suppress(OSError):  # nobody waits for it any more
            pipe.send(code)


def run(commands: Sequence[Sequence[str]], log: Path, launcher: Sequence[str]) -> int:
    """Run commands until one fails, with all that they say in the log file; returns the last exit code."""
    code = 0
    with log.open("ab") as file:
        for stream in (1, 2):  # so that what libraries write without Python is there too
            os.dup2(file.fileno(), stream)
    for _python, _m, module, *words in commands:
        print("$", shlex.join([*(launcher or ["python"]), "-m", module, *words]), flush=True)
        code = _launch([*launcher, "-m", module, *words]) if launcher else _call(module, words)
        if code:
            break
    return code


def _call(module: str, words: Sequence[str]) -> int:
    try:
        _one_thread()
        return importlib.import_module(module).main(list(words))
    except SystemExit as stop:  # bad usage
        return stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:  # while modules are imported
        print(INTERRUPT_MESSAGE, file=sys.stderr)
        return EXIT_CODE
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()


def _one_thread() -> None:
    """The processes share the cores; a GPU has one process, which keeps them all."""
    import torch

    if not torch.cuda.is_available():
        torch.set_num_threads(1)


def _launch(words: Sequence[str]) -> int:
    global _child
    signal.signal(signal.SIGTERM, lambda *_: _quit())
    # From any directory, and in its processes, the modules are found that are found here.
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    try:
        _child = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": path})
    except OSError as error:
        print(f"error: {words[0]}: {error.strerror}", flush=True)
        return 1
    return _child.wait()


def _die_with_parent() -> None:
    """Nobody is left to take results or to hold the study's lock: the next run must find no one at work."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    _quit()


def _quit() -> None:
    if _child is not None:
        with contextlib.suppress(OSError):
            _child.terminate()
    os._exit(1)
