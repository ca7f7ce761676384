"""Plant small faults in the numeric core, one at a time, and see whether the tests notice: mutation testing.

    make mutants                                            a sample of every module
    python -m tests.mutation utils/frame_counts.py --each 1000   all faults of one module
    python -m tests.mutation --again                        only those that the last run did not catch

A fault that no test notices is printed. It gets a test, or a line in equivalent.csv that says why none could notice it.
Every fault is tried in a fork of a process that has imported the libraries, so it costs little more than its tests do.
"""

import argparse
import ast
import csv
import gc
import importlib
import importlib.util
import json
import os
import random
import shlex
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from joblib.externals.loky import get_reusable_executor

from tests.mutation.operators import Mutant, mutants

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "runs" / "mutants"
EQUIVALENT = Path(__file__).with_name("equivalent.csv")
TESTS = {  # the tests that concern each module, quick ones first; what passes them is shown to the next
    "utils/frame_counts.py": ["tests/utils/test_metrics.py"],
    "utils/dataset.py": ["tests/utils/test_dataset.py"],
    "utils/audio.py": ["tests/utils/test_audio.py"],
    "utils/audio_track.py": ["tests/utils/test_audio_track.py"],
    "utils/masks.py": ["tests/utils/test_masks.py"],
    "utils/video.py": [f"tests/utils/test_{name}.py" for name in ("video", "preprocess")],
    "utils/video_frame.py": [f"tests/utils/test_{name}.py" for name in ("video_frame", "chroma", "video_reader")],
    "utils/timestamps.py": [f"tests/utils/test_{name}.py" for name in ("timestamps", "video_reader")],
    "zero_shot/prompts.py": ["tests/zero_shot/test_prompts.py"],
    "zero_shot/similarity.py": ["tests/zero_shot/test_similarity.py"],
    "zero_shot/proposal_scoring.py": ["tests/zero_shot/test_proposal_scoring.py"],
    "zero_shot/segmenters/sam.py": ["tests/zero_shot/test_sam_segmenter.py"],
    "zero_shot/segmenters/proposals.py": [
        "tests/zero_shot/test_proposals.py",
        "tests/robustness/test_gpu_paths.py -k 'proposals or pack'",
    ],
    "supervised/losses.py": ["tests/models/test_tpavi.py"],
    "supervised/objective.py": ["tests/supervised/test_trainer_steps.py", "tests/supervised/test_avss.py"],
    "supervised/optim.py": ["tests/supervised/test_training.py"],
    "supervised/trainer.py": [
        "tests/supervised/test_trainer_steps.py",
        "tests/supervised/test_avsegformer.py -k 'as_many_epochs or not_finite'",
        "tests/supervised/test_runs.py",
    ],
    "models/tpavi.py": ["tests/models/test_tpavi.py"],
    "models/fbsp.py": ["tests/models/test_audioclip.py"],
    "models/decoder.py": ["tests/models/test_tpavi.py"],
}
OPEN = ("missed", "timeout")
BROKEN, GRACE = 99, 10  # exit code of a fault that ends the import; seconds that every fault is given


class Planted(MetaPathFinder, SourceFileLoader):
    """Gives the import of a module another text."""

    def __init__(self, path: Path, code: str):
        super().__init__(".".join(path.relative_to(ROOT).with_suffix("").parts), str(path))
        self.code = code

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, fullname: str) -> Any:
        return compile(self.code, self.path, "exec", dont_inherit=True)


class Composed:
    """Pytest plugin: the benchmark that the first run composes serves the forks as well."""

    folder: Path | None = None

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Any:
        if fixturedef.argname == "composed" and self.folder:
            fixturedef.func = lambda **_: self.folder
        found = yield
        if fixturedef.argname == "composed":
            self.folder = found
        return found


def run_tests(tests: list[str], composed: Composed, folder: Path) -> int:
    """Pytest in this process, once for each of `tests` until one fails; returns its exit code, or 0."""
    codes = (
        pytest.main(["-xq", "-p", "no:cacheprovider", f"--basetemp={folder / str(i)}", *shlex.split(words)], [composed])
        for i, words in enumerate(tests)
    )
    return int(next(filter(None, codes), 0))


def attempt(module: str, code: str, composed: Composed, limit: float) -> str:
    """How a module of this text fares: "caught", "missed", "timeout", or "broken" if it cannot be imported."""
    with tempfile.TemporaryDirectory() as folder, (RESULTS / f"{module.replace('/', '.')}.log").open("wb") as log:
        child = os.fork()
        if not child:
            status = BROKEN
            try:
                os.setsid()
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
                planted = Planted(ROOT / module, code)
                forget(planted.name)
                gc.freeze()  # what the parent made need not be looked through by every collection
                sys.meta_path.insert(0, planted)
                importlib.import_module(planted.name)
                status = run_tests(TESTS[module], composed, Path(folder))
            finally:
                os._exit(status)
        status = wait(child, limit)
    return {0: "missed", BROKEN: "broken", None: "timeout"}.get(status, "caught")


def forget(changed: str) -> None:
    """Have a module imported anew, and with it what imports it at any remove, and every test."""
    ours = {path.stem for path in ROOT.iterdir()}
    needs = {
        name: imports(Path(module.__file__))
        for name, module in sys.modules.items()
        if name.partition(".")[0] in ours and getattr(module, "__file__", None)
    }
    # Folders without __init__.py too: they look for their path in the module of their parent.
    forgotten = {changed, *(name for name in sys.modules if name.startswith("tests."))}
    while more := {name for name in needs.keys() - forgotten if needs[name] & forgotten}:
        forgotten |= more
    for name in forgotten & sys.modules.keys():
        package, _, own = name.rpartition(".")
        if package in sys.modules:
            vars(sys.modules[package]).pop(own, None)  # `from package import module` looks there first
        del sys.modules[name]


def imports(path: Path) -> set[str]:
    """The modules that a file imports anywhere, and names that may be modules."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def wait(child: int, limit: float) -> int | None:
    """A child's exit code; None if it had to be ended after `limit` seconds."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def sample(found: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """At most `count`, one drawn from each of as many equal stretches of the module."""
    if len(found) <= count:
        return found
    draw, ends = random.Random(seed), [len(found) * i // count for i in range(count + 1)]
    return [found[draw.randrange(begin, end)] for begin, end in pairwise(ends)]


def equivalents() -> dict[tuple[str, str, str], str]:
    """Why nothing can notice a fault, by module, its statement, and what becomes of that."""
    with EQUIVALENT.open(newline="") as file:
        return {(row["module"], row["was"], row["becomes"]): row["reason"] for row in csv.DictReader(file)}


def examine(module: str, each: int, seed: int, again: bool) -> list[dict[str, Any]]:
    """Try a module's faults, and write down how they fared in runs/mutants/."""
    known, record = equivalents(), RESULTS / f"{module.replace('/', '.')}.json"
    source = (ROOT / module).read_text()
    chosen = sample(mutants(source), each, seed)
    if again:
        missed = {(row["was"], row["becomes"]) for row in json.loads(record.read_text()) if row["fate"] in OPEN}
        lines = source.splitlines()
        near = [mutant for mutant in mutants(source) if any(lines[mutant.line - 1].strip() in was for was, _ in missed)]
        chosen = [mutant for mutant in near if mutant.difference in missed]
    composed, begin = Composed(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        if run_tests(TESTS[module], composed, Path(folder)):
            raise SystemExit(f"{module}: its tests fail before any fault is planted")
        limit = GRACE + 3 * (time.monotonic() - begin)
        get_reusable_executor().shutdown(wait=True)  # a fork cannot use the workers of its parent
        if attempt(module, source, composed, limit) != "missed":
            raise SystemExit(f"{module}: its tests fail in a fork in which no fault is planted; see {RESULTS}")
        rows = []
        for mutant in chosen:
            start, (was, becomes) = time.monotonic(), mutant.difference
            same = (module, was, becomes) in known
            fate = "equivalent" if same else attempt(module, mutant.code, composed, limit)
            if fate in OPEN:
                print(f"{fate}: {module}:{mutant.line}\n    - {was}\n    + {becomes}", flush=True)
            row = {"line": mutant.line, "was": was, "becomes": becomes, "fate": fate}
            rows.append({**row, "seconds": round(time.monotonic() - start, 1)})
            record.write_text(json.dumps(rows, indent=1, ensure_ascii=False))
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 1 if a fault was missed that is not known to be equivalent."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="*", default=list(TESTS), metavar="MODULE", help=", ".join(TESTS))
    parser.add_argument("--each", type=int, default=25, help="faults of a module, evenly over its lines")
    parser.add_argument("--seed", type=int, default=1, help="of the draw")
    parser.add_argument("--again", action="store_true", help="only those that the last run missed")
    options = parser.parse_args(argv)
    RESULTS.mkdir(parents=True, exist_ok=True)
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = tempfile.mkdtemp()  # what fails under a fault is no finding
    table = ["| module | tried | caught | timeout | equivalent | missed | s |", "|---|---|---|---|---|---|---|"]
    missed = 0
    for module in options.modules:
        rows = [row for row in examine(module, options.each, options.seed, options.again) if row["fate"] != "broken"]
        count = Counter(row["fate"] for row in rows)
        missed += count["missed"]
        fates = " | ".join(str(count[fate]) for fate in ("caught", "timeout", "equivalent", "missed"))
        table.append(f"| {module} | {len(rows)} | {fates} | {sum(row['seconds'] for row in rows):.0f} |")
    print("\n".join(table))
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
