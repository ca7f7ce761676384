"""Runs commands in processes that are killed at random moments; a kill costs the work lost, not an import of torch.

A process of its own, single-threaded and with everything imported, forks once per run.
"""

import contextlib
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
COMMANDS = ["synthetic.compose", "preprocess_s4", "zero_shot.evaluate", "supervised.train", "pretrained.download"]
COMMANDS += ["reproduce_tables", "demo"]


@dataclass
class Run:
    """A command to run, and when to kill it.

    after: seconds after the fork. at: moments, of which a run has four for each file that it writes: before it, with
    half of it written, before it gets its name, and with its name. whole: whether the command's own children are
    killed with it, or left behind for a while. settings: attributes of modules that are other than usual.
    """

    command: str
    argv: Sequence[str]
    after: float | None = None
    at: int | None = None
    whole: bool = True
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class End:
    """code: of the exit; negative for a signal. seconds: from the fork. moments: how many there were, if not killed."""

    code: int
    seconds: float
    moments: int
    said: str

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


class Forks:
    """The process that forks."""

    def __init__(self, log: Path):
        # Not in a git repository: a commit made meanwhile would be told in the results.
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GIT_DIR": str(log.parent)}
        command = [sys.executable, "-m", "tests.helpers.crash_injection", str(log)]
        self.process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.killed = 0

    def run(self, run: Run) -> End:
        """Run a command to its end, whichever it is."""
        assert self.process.stdin and self.process.stdout
        print(json.dumps(asdict(run)), file=self.process.stdin, flush=True)
        end = End(**json.loads(self.process.stdout.readline()))
        self.killed += end.killed
        return end

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        assert self.process.wait(20) == 0


def until_done(forks: Forks, run: Run, undisturbed: End, kills: int, chance: random.Random) -> None:
    """Run a command again and again into the same folder until it ends by itself; the first `kills` runs are killed,
    half of them at a moment of their writing and half at any time, unless they are done before that."""
    for number in range(kills + 1):
        run.after = run.at = None
        if number < kills and undisturbed.moments and chance.random() < 0.5:
            run.at = chance.randint(1, undisturbed.moments)
        elif number < kills:
            run.after = chance.uniform(0, undisturbed.seconds)
        run.whole = chance.random() < 0.7
        end = forks.run(run)
        assert end.killed or end.code == 0, end.said
        if not end.killed:
            return
    raise AssertionError("killed, though nobody did")


def left_behind(folder: Path, exempt: Sequence[str] = ()) -> dict[str, Any]:
    """What is below a folder, by name: bytes, but for the folder's own path in them; of metrics.json all but its
    seconds. Hidden temporary files and lock files, which killed runs leave, and the `exempt` names are left out."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or ".partial" in path.name or path.suffix == ".lock" or path.name in exempt:
            continue
        if path.name.startswith("metrics"):
            found[name] = {key: value for key, value in json.loads(path.read_text()).items() if key != "seconds"}
        else:
            found[name] = path.read_bytes().replace(bytes(folder), b"")
    return found


# --- the process that forks ------------------------------------------------------------------------------


class Moments:
    """Counts the moments of writing, and ends the process at one of them."""

    def __init__(self, last: int | None):
        self.count, self.last = 0, last
        write, replace = Path.write_bytes, Path.replace

        def writing(path: Path, content: bytes) -> int:
            self.pass_by()
            if self.count + 1 == self.last:
                write(path, content[: len(content) // 2])
            self.pass_by()
            return write(path, content)

        def renaming(path: Path, target: Path) -> Path:
            self.pass_by()
            renamed = replace(path, target)
            self.pass_by()
            return renamed

        Path.write_bytes, Path.replace = writing, renaming  # type: ignore[method-assign,assignment]

    def pass_by(self) -> None:
        self.count += 1
        if self.count == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


def child(run: Run, log: Path, report: int) -> None:
    """What the forked process does; it never returns."""
    os.setpgid(0, 0)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for name, value in run.settings.items():
        module, _, attribute = name.rpartition(".")
        kind = type(getattr(importlib.import_module(module), attribute))
        setattr(importlib.import_module(module), attribute, Path(value) if issubclass(kind, Path) else value)
    moments = Moments(run.at)
    code = importlib.import_module(run.command).main(list(run.argv))
    sys.stdout.flush()
    os.write(report, str(moments.count).encode())
    os._exit(code)


def fork(run: Run, log: Path, left: list[int]) -> End:
    """Fork, wait, kill. left: processes whose children may be alive; killed when the run after theirs is over."""
    begin, (reading, report) = time.monotonic(), os.pipe()
    if not (process := os.fork()):
        try:
            child(run, log, report)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(70)
    os.close(report)
    with contextlib.suppress(OSError):  # the child does so too, whichever is first
        os.setpgid(process, process)
    # Until it is reaped its number, which is that of its group, is not given to another.
    while not (end := os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT | os.WNOHANG)):
        if run.after is not None and time.monotonic() - begin > run.after:
            (os.killpg if run.whole else os.kill)(process, signal.SIGKILL)
        time.sleep(0.002)
    seconds, code = time.monotonic() - begin, end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
    moments = os.read(reading, 99) if code == 0 else b""
    os.close(reading)
    reap(left)
    left.append(process)
    return End(code, seconds, int(moments or 0), log.read_text()[-3000:])


def reap(left: list[int]) -> None:
    """End what killed processes have left behind."""
    for process in left:
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
    left.clear()


def serve(log: Path) -> None:
    """Answer each run on a line of standard input with its end on a line of standard output."""
    for command in COMMANDS:
        importlib.import_module(command)
    left: list[int] = []
    for line in sys.stdin:
        print(json.dumps(asdict(fork(Run(**json.loads(line)), log, left))), flush=True)
    reap(left)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
