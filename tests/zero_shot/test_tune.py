"""zero_shot.tune: the sets that it searches, what it computes once, and that its numbers are those of evaluate."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthetic.random_grounding import save_clap, save_detector
from utils.cli import InputError
from utils.config import from_yaml, resolve_options
from utils.files import read_image
from utils.memo import Memo
from zero_shot import evaluate, tune
from zero_shot.detectors.grounding_dino import GroundingDinoDetector
from zero_shot.encoders.audioclip import AudioCLIPEncoder
from zero_shot.encoders.clap import ClapClassifier
from zero_shot.options import Options
from zero_shot.search import Search
from zero_shot.search_space import (
    DEFAULT_VALUES,
    EXTRA_VALUES,
    USED,
    get_option,
    option_sets,
    parse_values,
    set_options,
)
from zero_shot.segmenters.sam import SamSegmenter
from zero_shot.shared_components import SharedComponents
from zero_shot.tune_report import best_per_cell, heatmap_options, ranking

MINI = "--audioclip.weights mini --audioclip.reverse false --sam.model mini --sam.weights mini --run.device cpu"
FEW = "--proposals.points_per_side 6 --proposals.pred_iou_thresh 0.5 --proposals.stability_score_thresh 0.6"
FEW += " --audioclip.crop_size 128 --retrieval.rule top1 --data.num_workers 0 --data.max_clips 2 --run.batch_size 1"
METRICS = ("m_j", "m_f", "m_f_whole_set", "iou_dataset", "frames", "videos")


def words(composed: Path, method: str, cache: Path) -> list[str]:
    root = str(composed / "Single-source")
    return [*MINI.split(), *FEW.split(), "--method", method, "--data.root", root, "--run.cache", str(cache)]


def as_word(name: str, value: Any) -> str:
    """An option on a command line."""
    return f"--{name}={str(value).lower() if isinstance(value, bool) else value}"


def table(out: Path) -> list[dict[str, str]]:
    with (out / "sets.csv").open() as file:
        return list(csv.DictReader(file))


def summary(out: Path) -> dict[str, Any]:
    return json.loads((out / "tune.json").read_text())


# --- the sets --------------------------------------------------------------------------------------------


def test_every_method_with_options_has_values_that_its_options_take() -> None:
    for method, defaults in DEFAULT_VALUES.items():
        base = resolve_options(Options, ["--method", method])
        known = defaults | EXTRA_VALUES.get(method, {})
        for name, values in known.items():
            for value in values:
                assert get_option(resolve_options(Options, [as_word(name, value)]), name) == value
                assert type(get_option(base, name)) is type(value), name
    assert set(USED) <= {name for part in (DEFAULT_VALUES, EXTRA_VALUES) for values in part.values() for name in values}


def test_sets_differ_in_what_has_an_effect_and_begin_with_the_rows_own() -> None:
    base = resolve_options(Options, ["--method", "point", "--prompt.points", "local", "--prompt.threshold", "0.6"])
    found = parse_values(["prompt.points", "prompt.threshold=0.5,0.7", "sam.multimask", "sam.mask_selection"], base)
    assert found["prompt.threshold"] == [0.5, 0.7, 0.6], "the row's own is always among them"
    sets = option_sets(found, base, 0, 0)
    assert sets[0] == {name: get_option(base, name) for name in found}
    # Global points have no threshold; a single mask leaves nothing to select.
    assert len(sets) == (2 * 3 + 1) * (2 + 1) == len({tuple(each.items()) for each in sets})
    for each in sets:
        assert each["prompt.points"] != "global" or each["prompt.threshold"] == 0.6
        assert each["sam.multimask"] or each["sam.mask_selection"] == "max_score"
    drawn = option_sets(found, base, 9, 1)
    assert len(drawn) == 9 and drawn[0] == sets[0] and all(each in sets for each in drawn)
    assert drawn == option_sets(found, base, 9, 1) != option_sets(found, base, 9, 2)
    assert sorted(map(str, option_sets(found, base, 500, 3))) == sorted(map(str, sets)), "there are no more"


def test_a_grid_that_is_too_large_is_refused() -> None:
    base = resolve_options(Options, ["--method", "point"])
    values = {f"prompt.threshold{i}": [0.1] * 100 for i in range(3)}
    with pytest.raises(InputError, match="the grid has 1000000 sets; draw some of them with --budget N"):
        option_sets(values, base, 0, 0)
    assert len(option_sets(parse_values([], base), base, 200, 0)) == 200


def test_a_search_of_concept_prompt_fits_its_labels_and_its_finder(tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text("dog\ncat\n")
    words = ["--method", "concept_prompt", "--grounding.labels", str(tmp_path / "few.txt")]
    assert parse_values([], resolve_options(Options, words))["grounding.top_k"] == [1, 2]
    found = {}
    for finder in ("detector", "sam3"):
        base = resolve_options(Options, [*words, "--concept.finder", finder])
        found[finder] = len(option_sets(parse_values(["concept.min_presence"], base), base, 0, 0))
    assert found == {"detector": 1, "sam3": 3}  # only SAM 3 has a presence score


def test_options_are_set_by_name() -> None:
    options = set_options(Options(), {"audioclip.reverse": False, "data.split": "val", "metric_batch": 3})
    assert not options.audioclip.reverse and options.data.split == "val" and options.metric_batch == 3
    assert Options().audioclip.reverse and get_option(options, "audioclip.reverse") is False


def test_the_heat_map_shows_the_best_of_each_cell() -> None:
    values = {"a": [1, 2], "b": [False, True], "c": [0], "audioclip.amplitude": ["unit", "int16"]}
    assert heatmap_options(values, None) == ["a", "b"] and heatmap_options(values, ["b", "a"]) == ["b", "a"]
    assert heatmap_options(values | {"audioclip.reverse": [True, False]}, None)[1] == "audioclip.reverse"
    for asked, message in ((["a", "c"], "c: does not vary"), (["a", "a"], "a twice"), (["a", "d"], "d: does not vary")):
        with pytest.raises(InputError, match=message):
            heatmap_options(values, asked)
    sets = [{"a": 1, "b": True}, {"a": 1, "b": True}, {"a": 2, "b": False}]
    results = [{"m_j": 0.25}, {"m_j": 0.75}, {"m_j": 0.5}]
    np.testing.assert_array_equal(best_per_cell(values, ["a", "b"], sets, results), [[np.nan, 0.75], [0.5, np.nan]])
    assert ranking(results) == [1, 2, 0] and ranking([{"m_j": 0.5}] * 3) == [0, 1, 2]


# --- the numbers -----------------------------------------------------------------------------------------

SEARCHES = {
    "point": ["audioclip.amplitude", "audioclip.reverse", "prompt.points=global,local", "sam.mask_selection"],
    "no_prompt": ["audioclip.amplitude", "retrieval.score", "retrieval.max_area=0.3,1.0", "audioclip.noise=none,rand"],
    "heatmap_box": ["audioclip.surgery", "prompt.boxes", "prompt.threshold=0.7"],
    "heatmap": ["audioclip.interpolation", "audioclip.image_size=224,64", "prompt.threshold=0.7"],
}


@pytest.mark.parametrize("method", SEARCHES)
@pytest.mark.parametrize("fidelity", ["corrected", "published"])
def test_its_numbers_are_those_of_evaluate_to_the_bit(
    composed: Path, tmp_path: Path, method: str, fidelity: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, row = tmp_path / "tune", [*words(composed, method, tmp_path / "a"), "--fidelity", fidelity]
    assert tune.main([*row, "--budget", "8", "--search", *SEARCHES[method], "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    sets, found = json.loads((out / "sets.json").read_text()), table(out)
    assert len(sets) == len(found) == 8 and [float(line["m_j"]) for line in found] == sorted(
        (float(line["m_j"]) for line in found), reverse=True
    )
    best = next(line for line in found if line["m_j"] == found[0]["m_j"])
    # Without a cache, and in a process that has not searched, the tuned options give the same on both splits.
    tuned = ["--config", str(out / "tuned.yaml"), "--run.use_cache", "false"]
    for split in ("val", "test"):
        assert evaluate.main([*tuned, "--data.split", split, "--out", str(tmp_path / split)]) == 0
        alone = json.loads((tmp_path / split / "metrics.json").read_text())
        assert {name: alone[name] for name in METRICS} == {name: summary(out)[split]["tuned"][name] for name in METRICS}
        assert split == "test" or alone["m_j"] == float(best["m_j"])
    # So does any other set.
    number = int(found[-1]["set"])
    last = [as_word(name, value) for name, value in sets[number].items()]
    assert evaluate.main([*row, *last, "--data.split", "val", "--out", str(tmp_path / "last")]) == 0
    alone = json.loads((tmp_path / "last" / "metrics.json").read_text())
    assert [alone[name] for name in METRICS[:4]] == [float(found[-1][name]) for name in METRICS[:4]]
    assert from_yaml(Options, out / "tuned.yaml").data.split == "test"
    row_m_j = summary(out)["test"]["row"]["m_j"]
    assert f"test, row: M_J {row_m_j:.4f}" in printed and "8 option sets on 2 clips" in printed
    assert read_image(out / "heatmap.png").shape[2] == 3


def test_box_prompt_is_tuned_too(composed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "labels.json").write_text(json.dumps(["dog", "cat", "drum"]))
    save_clap(tmp_path / "clap")
    save_detector(tmp_path / "detector")
    row = [*words(composed, "box_prompt", tmp_path / "cache"), "--data.max_clips", "1"]
    row += ["--grounding.clap", str(tmp_path / "clap"), "--grounding.detector", str(tmp_path / "detector")]
    row += ["--grounding.labels", str(tmp_path / "labels.json"), "--grounding.threshold", "0.01"]
    calls = count_calls(monkeypatch, (ClapClassifier, "_similarities"), (GroundingDinoDetector, "_detect"))
    out = tmp_path / "out"
    search = ["grounding.top_k=1,2", "grounding.threshold=0.01,0.02,0.5"]
    assert tune.main([*row, "--search", *search, "--out", str(out)]) == 0
    assert len(table(out)) == 6
    assert calls["_similarities"] == 1 + 2 and calls["_detect"] <= 5 * 2 + 2 * 5 * 2, "once on val, twice on test"
    tuned = ["--config", str(out / "tuned.yaml"), "--data.split", "val"]
    assert evaluate.main([*tuned, "--out", str(tmp_path / "alone")]) == 0
    alone = json.loads((tmp_path / "alone" / "metrics.json").read_text())
    assert alone["m_j"] == summary(out)["val"]["tuned"]["m_j"]


# --- nothing twice ---------------------------------------------------------------------------------------


def count_calls(monkeypatch: pytest.MonkeyPatch, *functions: tuple[type, str]) -> Counter[str]:
    """Count the calls of methods."""
    calls: Counter[str] = Counter()

    def counted(owner: type, name: str) -> None:
        original = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            calls[name] += 1
            return original(*arguments, **named)

        monkeypatch.setattr(owner, name, call)

    for owner, name in functions:
        counted(owner, name)
    return calls


def run_search(composed: Path, tmp_path: Path, method: str, search: list[str], out: str) -> Search:
    base = resolve_options(Options, words(composed, method, tmp_path / "cache"))
    base = set_options(base, {"audioclip.amplitude": "int16"})
    sets = option_sets(parse_values(search, base), base, 0, 0)
    found = Search(base, sets, "val", tune.make_accelerator("cpu"), tmp_path / out)
    found.run()
    return found


def test_networks_run_once_for_all_sets(composed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_calls(
        monkeypatch,
        (SamSegmenter, "embed"),
        (SamSegmenter, "prompt"),
        (AudioCLIPEncoder, "_run"),
        (AudioCLIPEncoder, "_embed"),
    )
    search = ["audioclip.amplitude", "audioclip.reverse", "prompt.points=global", "sam.mask_selection"]
    search += ["audioclip.surgery", "audioclip.interpolation"]
    found = run_search(composed, tmp_path, "point", [*search, "prompt.threshold=0.6,0.9"], "point")
    # Two clips in batches of one. Global points have no threshold, and both choices of mask share a decoding; with
    # the row's own local points there are three prompts for each map.
    assert len(found.sets) == 2 * 2 * 2 * 2 * (1 + 2) * 2
    assert calls["embed"] == 2 and calls["_run"] == 2 * (2 + 2), "audio by amplitude, cells by surgery"
    assert calls["prompt"] <= 2 * 5 * 16 * 3
    calls.clear()
    search = [
        "audioclip.amplitude",
        "retrieval.rule",
        "retrieval.threshold",
        "retrieval.max_area",
        "retrieval.logit_scale",
    ]
    found = run_search(composed, tmp_path, "no_prompt", search, "no_prompt")
    assert len(found.sets) == 2 * 3 * (1 + 7 * 3)
    # The audio is in the cache already.
    assert calls["_run"] == calls["_embed"] == 2 * 5 and calls["embed"] <= 2


def test_a_memo_tells_objects_apart_and_keeps_them() -> None:
    memo = Memo()
    assert memo("kind", 1, [object()], lambda: "first") == "first"
    draws = iter(range(9))
    assert [memo("kind", 1, [object()], lambda: next(draws)) for _ in range(9)] == list(range(9)), "all are others"
    same = [0.5]
    assert memo("kind", 1, [same], lambda: "kept") == memo("kind", 1, [same], lambda: "other") == "kept"
    assert memo("kind", 2, [same], lambda: "another key") == "another key"
    assert memo("second", 1, [same], lambda: "another kind") == "another kind"
    memo.forget("second")
    assert memo("kind", 1, [same], lambda: "new") == "kept" and memo("second", 1, [same], lambda: "new") == "new"
    memo.forget()
    assert memo("kind", 1, [same], lambda: "new") == "new"


def test_sets_share_networks_but_not_options(composed: Path, tmp_path: Path) -> None:
    one = resolve_options(Options, words(composed, "heatmap", tmp_path / "cache"))
    shared = SharedComponents(one, "cpu", Memo())
    other = set_options(one, {"audioclip.amplitude": "unit", "audioclip.reverse": True})
    encoders = [shared.encoder(), shared.with_options(other).encoder()]
    assert all(isinstance(encoder, AudioCLIPEncoder) for encoder in encoders)
    first, second = (encoder for encoder in encoders if isinstance(encoder, AudioCLIPEncoder))
    assert first.model.visual is second.model.visual and first.memo is second.memo
    assert (first.model.fidelity, second.model.fidelity) == ("corrected", "published")
    assert (first.options.reverse, second.options.reverse) == (False, True)


# --- interrupted and refused -----------------------------------------------------------------------------


def test_interrupted_it_resumes(composed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = [*words(composed, "heatmap", tmp_path / "cache"), "--search", "audioclip.reverse", "prompt.threshold=0.6,0.9"]
    assert tune.main([*row, "--out", str(tmp_path / "whole")]) == 0
    count, original = iter(range(100)), Search._count_batch

    def interrupted(*arguments: Any) -> Any:
        if next(count) == 1:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(Search, "_count_batch", interrupted)
    assert tune.main([*row, "--out", str(tmp_path / "cut")]) == 130
    assert len(list((tmp_path / "cut" / "counts").iterdir())) == 1 and not (tmp_path / "cut" / "tuned.yaml").exists()
    assert tune.main([*row, "--out", str(tmp_path / "cut")]) == 0
    assert next(count) == 3, "only the second clip was missing"
    (tmp_path / "cut" / "counts" / "00000.npy").write_bytes(b"damaged")
    assert tune.main([*row, "--out", str(tmp_path / "cut")]) == 0 and next(count) == 5
    for name in ("sets.csv", "tune.json", "tuned.yaml", "heatmap.png"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_another_search_in_its_folder_is_refused(
    composed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = [*words(composed, "heatmap", tmp_path / "cache"), "--data.max_clips", "1", "--out", str(tmp_path / "out")]
    assert tune.main([*row, "--search", "prompt.threshold=0.6,0.9"]) == 0
    assert tune.main([*row, "--search", "prompt.threshold=0.6,0.8"]) == 1
    assert "holds a search of other option sets; choose another --out" in capsys.readouterr().err
    assert tune.main([*row, "--search", "prompt.threshold=0.6,0.9", "--audioclip.surgery", "false"]) == 1
    assert "holds a run with other options: audioclip.surgery" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more, message",
    [
        (["--search", "retrieval.rule"], "--search retrieval.rule: method heatmap does not have it; it has audioclip"),
        (["--search", "prompt.treshold=0.5"], "does not have it"),
        (["--search", "prompt.threshold=1.5"], "prompt.threshold is 1.5; it must be at least 0 and at most 1"),
        (["--search", "audioclip.noise=white"], "audioclip.noise"),
        (["--search", "prompt.threshold=0.5,"], "give values as prompt.threshold=VALUE,VALUE"),
        (["--method", "foreground"], "method foreground has no option to tune; choose a row of no_prompt"),
        (["--heatmap", "prompt.threshold", "sam.multimask"], "--heatmap sam.multimask: does not vary in this search"),
        (["--data.split", "val"], "data.split is val, on which options are chosen"),
        (["--track", "forward"], "--track forward: options are chosen by the masks of single seconds"),
        (["--audioclip.weights", "nowhere.pt"], "no such checkpoint"),
        (["--data.root", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_line(
    composed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    out = tmp_path / "out"
    assert tune.main([*words(composed, "heatmap", tmp_path / "cache"), "--out", str(out), *more]) == 1
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1 and not (out / "tuned.yaml").exists()
