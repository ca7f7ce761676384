"""A process that runs the commands of jobs; if it dies, the study and the other workers go on."""

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
_child: subprocess.Popen[bytes] | None = None  # the launcher's process, in the worker


class Worker:
    """The parent's end of a worker process, which ends when its parent does, however that ends.

    Attributes:
        pipe: ready to be read when a result is there.
        process: the worker.
    """

    def __init__(self) -> None:
        context = get_context("spawn")  # a forked process would share the threads and the CUDA of its parent
        self.pipe, child_end = context.Pipe()
        self.process = context.Process(target=serve, args=(child_end,))
        with block_interrupts():
            self.process.start()
        child_end.close()

    def submit(self, commands: Sequence[Sequence[str]], log: Path, launcher: Sequence[str]) -> None:
        """Start running commands.

        Args:
            commands: each `python -m MODULE ...`.
            log: the file for their output.
            launcher: a command in place of `python`; empty runs the modules in the worker.
        """
        self.pipe.send((commands, log, launcher))

    def result(self) -> int | None:
        """Wait for the exit code of the submitted commands; None if the process died."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            return None

    def close(self) -> None:
        """Stop the process and what it is running."""
        self.pipe.close()  # ends an idle worker
        self.process.join(2)
        self.process.terminate()
        self.process.join(5)
        self.process.kill()
        self.process.join()


def serve(pipe: Connection) -> None:
    """The main loop of the worker: receive commands, send exit codes."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    while True:
        try:
            unblock_interrupts()
            task = pipe.recv()
        except (EOFError, OSError, KeyboardInterrupt):
            return
        code = run_commands(*task)
        with contextlib.suppress(OSError):  # the parent has gone
            pipe.send(code)


def run_commands(commands: Sequence[Sequence[str]], log: Path, launcher: Sequence[str]) -> int:
    """Run commands until one fails, with their output in the log file; the arguments are those of `Worker.submit`.

    Returns:
        The last exit code.
    """
    code = 0
    with log.open("ab") as file:
        for stream in (1, 2):  # also what libraries write without Python
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
    """On the CPU the workers share the cores; with a GPU there is one worker, which has them all."""
    import torch

    if not torch.cuda.is_available():
        torch.set_num_threads(1)


def _launch(words: Sequence[str]) -> int:
    global _child
    signal.signal(signal.SIGTERM, lambda *_: _quit())
    # The modules of this checkout, from any current directory and in all processes of the launcher.
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    try:
        _child = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": path})
    except OSError as error:
        print(f"error: {words[0]}: {error.strerror}", flush=True)
        return 1
    return _child.wait()


def _die_with_parent() -> None:
    """End this process when its parent has died: the lock on the study is gone, so another run may begin."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    _quit()


def _quit() -> None:
    terminate_child()
    os._exit(1)


def terminate_child() -> None:
    """End the launcher's process, if there is one."""
    if _child is not None:
        with contextlib.suppress(OSError):
            _child.terminate()
