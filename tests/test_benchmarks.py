"""The benchmark: in every row the two implementations agree, and the table shows what was measured."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as program
from benchmarks import harness
from benchmarks.harness import BenchmarkRunner, Cost, Result, Row, relative_difference
from benchmarks.rows import ROWS

# One row of each pair of implementations: rows that differ in size alone run once.
DISTINCT_ROWS = {(row.reference, row.optimized, repr(row.tiny)): row for row in ROWS if row.device == "cpu"}.values()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmark")


@pytest.mark.parametrize("row", DISTINCT_ROWS, ids=lambda row: f"{row.component}, {row.size}")
def test_the_implementations_agree_at_a_tiny_size(row: Row, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.data.CLIPS_DIR", folder)
    monkeypatch.setattr("benchmarks.scoring.FOLDER", folder)
    result = BenchmarkRunner(tiny=True).run(dataclasses.replace(row, reference_calls=0, optimized_calls=0))
    assert result.reference.output and all(array.size for array in result.reference.output.values())
    assert result.reference.wall_s > 0 and result.optimized.wall_s > 0


def plus(value: float) -> harness.Work:
    """An implementation that does almost nothing."""
    return lambda: {"array": np.full(3, 1 + value)}


ROW = Row("a component", "a size", "nothing", f"{__name__}:plus", f"{__name__}:plus", {"value": 0.0}, {"value": 0.0})


def test_the_table_and_its_json_file_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        ROW,
        dataclasses.replace(ROW, component="another", memory=False, clock="wall"),
        dataclasses.replace(ROW, component="a slow one", slow=True),
        dataclasses.replace(ROW, component="a large one", min_gib=1e6),
    ]
    monkeypatch.setattr(program, "ROWS", rows)
    out = tmp_path / "table.md"
    assert program.main(["--tiny", "--quick", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.out == out.read_text()
    assert "left out: a large one, a size: needs 1000000 GiB" in printed.err
    heading, _, head, _, *lines = out.read_text().splitlines()
    assert "cores" in heading and "torch" in heading
    cells = [line.strip("|").split("|") for line in (head, *lines)]
    assert [row[0].strip() for row in cells] == ["component", "a component", "another"] and len(
        {len(row) for row in cells}
    ) == 1
    written = json.loads(out.with_suffix(".json").read_text())["rows"]
    assert [row["component"] for row in written] == ["a component", "another"]
    assert written[0]["reference"].keys() == {"wall_s", "cpu_s", "peak_mib"} and written[1]["reference"].keys() == {
        "wall_s"
    }
    assert program.main(["--tiny", "--only", "slow"]) == 0
    assert re.findall(r"^\| (a[\w ]*) \|", capsys.readouterr().out, re.M) == ["a slow one"]


def wrong() -> harness.Work:
    """An implementation whose output is wrong."""
    return lambda: {"array": np.array([1.0, 1.0, 1.1])}


def test_a_row_fails_if_the_outputs_differ() -> None:
    row = dataclasses.replace(ROW, optimized=f"{__name__}:wrong", options={}, tiny={}, reference=f"{__name__}:wrong")
    assert BenchmarkRunner(tiny=True).run(row).difference == 0
    with pytest.raises(AssertionError, match=r"a component, a size: outputs differ by 1\.0e-01"):
        BenchmarkRunner(tiny=True).run(dataclasses.replace(row, reference=f"{__name__}:ones"))


def test_a_row_that_fails_is_told_and_the_others_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = dataclasses.replace(ROW, component="wrong", optimized=f"{__name__}:wrong", options={}, tiny={})
    rows = [ROW, dataclasses.replace(failing, reference=f"{__name__}:ones"), dataclasses.replace(ROW, size="last")]
    monkeypatch.setattr(program, "ROWS", rows)
    out = tmp_path / "table.md"
    assert program.main(["--tiny", "--out", str(out)]) == 1
    assert "failed: wrong, a size: outputs differ by 1.0e-01" in capsys.readouterr().err
    assert [row["size"] for row in json.loads(out.with_suffix(".json").read_text())["rows"]] == ["a size", "last"]


def ones() -> harness.Work:
    """An implementation whose output is right, and read back after the clock has stopped."""
    return lambda: lambda: {"array": np.ones(3)}


def test_a_reference_that_rows_share_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []
    monkeypatch.setattr(harness, "measure", lambda name, *_: measured.append(name) or Cost(1.0, 1.0, 1.0))
    runner = BenchmarkRunner(rounds=2)
    monkeypatch.setattr(runner, "_in_subprocess", lambda function, *arguments: harness.measure(*arguments))
    runner.run(dataclasses.replace(ROW, reference="shared", optimized="one"))
    runner.run(dataclasses.replace(ROW, reference="shared", optimized="other"))
    assert measured == ["shared", "one", "shared", "one", "other", "other"]


def test_relative_difference() -> None:
    numbers, masks = np.array([2.0, -4.0]), np.array([True, False, True, True])
    assert relative_difference({"a": numbers, "b": masks}, {"a": numbers.copy(), "b": masks.copy()}) == 0
    assert relative_difference({"a": numbers}, {"a": np.array([2.0, -3.0])}) == 0.25
    assert relative_difference({"b": masks}, {"b": ~masks}) == 1
    for other in ({"a": numbers[:1]}, {"b": numbers}, {"a": masks[:2]}):
        with pytest.raises(AssertionError):
            relative_difference({"a": numbers}, other)


def test_every_row_has_its_own_component_and_size() -> None:
    assert len({(row.component, row.size) for row in ROWS}) == len(ROWS)


def test_implementations_are_measured_in_their_own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "MODULES", [])
    result = BenchmarkRunner(rounds=1).run(dataclasses.replace(ROW, optimized_calls=2))
    assert isinstance(result, Result) and result.difference == 0
    assert result.reference.output["array"].tolist() == [1, 1, 1]
    assert result.optimized.peak_mib >= 0 and result.memory_ratio is not None
