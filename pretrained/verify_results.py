"""Run the checks of pretrained.verify, and print and save their results."""

import dataclasses
import json
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from models.weights import find_weights, list_checkpoints, weights_dir
from pretrained.checks import Context, run_check
from pretrained.checks.audioclip import describe_amplitude
from pretrained.compare import Difference, compare
from pretrained.download import check_file
from pretrained.known_outputs import Check, Inputs, KnownOutputs
from utils.cli import InputError, one_line
from utils.files import write_text
from utils.results import git_commit, package_versions

FILE_CHECK = "file"  # size and sha256 of a checkpoint
FILE_VERDICTS = {"ok": "ok", "unverified": "unverified", "wrong": "mismatch"}


@dataclass(frozen=True)
class Result:
    """What came of a check.

    Attributes:
        check: its name, or FILE_CHECK.
        checkpoint: that it was run with.
        verdict: "ok", "mismatch", "read" (nothing is published that would decide), "unverified" (a file without a
            published checksum), "missing" (the checkpoint or an input), "not run" (the same, but not asked for by
            name) or "failed".
        source: of the published output.
        detail: what was compared or went wrong, in one line.
        differences: every published value beside ours, the worst first.
        found: all that was computed.
        notes: sentences and tables for the reader.
        caveats: of the published output.
        seconds: how long it took.
    """

    check: str
    checkpoint: str
    verdict: str
    source: str = ""
    detail: str = ""
    differences: Sequence[Difference] = ()
    found: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    caveats: Sequence[str] = ()
    seconds: float = 0.0


def verify(selected: Mapping[str, Sequence[Check]], inputs: Inputs, device: torch.device) -> Iterator[Result]:
    """Check the file of each checkpoint, then its outputs; a failure does not end the others.

    Args:
        selected: checks by the name of the checkpoint.
        inputs: of the checks.
        device: where the networks run.
    """
    for name, checks in selected.items():
        file = verify_file(name)
        yield file if checks else dataclasses.replace(file, detail=f"{file.detail}; no output of it is published")
        if file.verdict != "missing":
            yield from (verify_output(Context(check, name, inputs, device)) for check in checks)


def verify_file(name: str) -> Result:
    """Compare a checkpoint's size and sha256 with the published ones."""
    (checkpoint,) = (each for each in list_checkpoints() if each.name == name)
    status = check_file(checkpoint, weights_dir())
    verdict = FILE_VERDICTS.get(status.status, "missing")
    detail = f"get it: {status.detail}" if verdict == "missing" else status.detail
    return Result(FILE_CHECK, name, verdict, "pretrained/checkpoints.yaml", detail)


def verify_output(context: Context) -> Result:
    """Compute what a check expects and compare it."""
    check, started = context.check, time.monotonic()

    def result(verdict: str, **fields: Any) -> Result:
        seconds = time.monotonic() - started
        return Result(
            check.id, context.checkpoint, verdict, check.source, caveats=check.caveats, seconds=seconds, **fields
        )

    missing = [name for name in check.inputs if not context.inputs.has(name)]
    try:
        if missing and not (check.partial and len(missing) < len(check.inputs)):
            context.inputs.path(missing[0])
        found = run_check(context)
    except InputError as error:
        return result("missing" if missing else "failed", detail=str(error))
    except (ValueError, RuntimeError) as error:  # a network that cannot take the input
        return result("failed", detail=one_line(f"{type(error).__name__}: {error}"))
    if check.kind == "read":
        notes = [*format_amplitude(found), describe_amplitude(found, check.parameters["own_label"])]
        return result("read", detail="to be read: only train 1 has published numbers", found=found, notes=notes)
    differences = compare(check, found)
    if not differences:
        return result("failed", detail="nothing that is published was measured", found=found)
    worst = differences[0]
    detail = f"{_number(worst.expected)} → {_number(worst.found)}, {worst.quantity}"
    detail += f" (±{_number(worst.allowed)}" if worst.allowed else " (equal"
    detail += f"; worst of {len(differences)})" if len(differences) > 1 else ")"
    if not worst.agrees:
        wrong = sum(not difference.agrees for difference in differences)
        detail += f"; {wrong} of {len(differences)} differ" if len(differences) > 1 else ""
    if worst.inconclusive:
        detail += "; only a higher value would be a mismatch"
    verdict = "read" if worst.inconclusive else "ok" if worst.agrees else "mismatch"
    return result(verdict, detail=detail, differences=differences, found=found)


def format_amplitude(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    """A table of the most probable label of each sound, by mode and amplitude."""
    settings = list(found)
    lines = [f"{'sound':18}" + "".join(f"{setting:>26}" for setting in settings)]
    for sound in found[settings[0]]:
        cells = []
        for setting in settings:
            labels = found[setting][sound]
            label = max(labels, key=labels.__getitem__)
            cells.append(f"{label} {labels[label]:.2f} %")
        lines.append(f"{sound:18}" + "".join(f"{cell:>26}" for cell in cells))
    return lines


def format_row(result: Result) -> list[str]:
    """The lines of the table for a result: verdict, check, checkpoint, expected → found, source; then its notes."""
    source = f"  [{result.source}]" if result.source else ""
    row = f"{result.verdict:10} {result.check:30} {result.checkpoint:20} {result.detail}{source}"
    return [row, *(f"{'':10} {note}" for note in result.notes)]


def is_asked_for(result: Result, named: Collection[str], known: KnownOutputs, inputs: Inputs) -> bool:
    """Whether what a result lacks was asked for by a name.

    It was not if it is a checkpoint of a named check and another checkpoint of the check is there, nor if it is an
    input that no program can get, such as a data set, and only the checkpoint of its check is named.

    Args:
        result: of verdict "missing".
        named: checkpoints and checks.
        known: the checks.
        inputs: of the checks.
    """
    if result.check == FILE_CHECK:
        checks = [check for check in known.checks if check.id in named and result.checkpoint in check.checkpoints]
        alone = [check for check in checks if not any(_exists(name) for name in check.checkpoints)]
        return result.checkpoint in named or bool(alone)
    (check,) = (check for check in known.checks if check.id == result.check)
    absent = [known.inputs[name] for name in check.inputs if not inputs.has(name)]
    return check.id in named or any(entry.downloadable for entry in absent)


def _exists(checkpoint: str) -> bool:
    path = find_weights(checkpoint)
    return path is not None and path.exists()


def describe_missing(results: Sequence[Result]) -> list[str]:
    """What could not be checked because a file is missing, and what to do, in a line for checkpoints and for inputs."""
    missing = [result for result in results if result.verdict == "missing"]
    files = [result.checkpoint for result in missing if result.check == FILE_CHECK]
    outputs = list(dict.fromkeys(result.check for result in missing if result.check != FILE_CHECK))
    lines = []
    if files:
        how = "python -m pretrained.download NAME gets one, --list says what needs it"
        lines.append(f"not checked, because they are not there: {', '.join(files)}; {how}")
    if outputs:
        how = "python -m pretrained.download --inputs gets them, --inputs --list names those to ask for"
        lines.append(f"not checked, because inputs are missing: {', '.join(outputs)}; {how}")
    return lines


def write_json(path: Path, results: Sequence[Result], device: str) -> None:
    """Write all results, with every published value beside ours."""
    rows = []
    for result in results:
        row = dataclasses.asdict(result)
        row["differences"] = [{**dataclasses.asdict(each), "agrees": each.agrees} for each in result.differences]
        rows.append({**row, "seconds": round(result.seconds, 1)})
    content = {"weights": str(weights_dir()), "device": device, "commit": git_commit(), "versions": package_versions()}
    write_text(path, json.dumps(_finite({**content, "results": rows}), indent=1, ensure_ascii=False) + "\n")


def _finite(value: Any) -> Any:
    """The same with NaN and infinity as text, which JSON has no numbers for."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: float | str | None) -> str:
    return f"{value:.6g}" if isinstance(value, int | float) else str(value)
