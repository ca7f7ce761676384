"""The recipes with models of today: what each says that it downloads is what its run needs, and nothing is gated."""

import re
from pathlib import Path
from typing import get_args

import pytest

from models.weights import Checkpoint, checkpoint_name, command_for, find_weights, list_checkpoints
from study.plan import load_study
from utils.config import from_yaml, resolve_options
from zero_shot.demo_notes import SMALL_WEIGHTS_NOTE, models_used
from zero_shot.label_list import read_targets
from zero_shot.options import RECOMMENDED_CONFIG, EncoderName, Options, SegmenterName

REPOSITORY = Path(__file__).parents[2]
RECIPES = sorted((REPOSITORY / "zero_shot" / "configs" / "modern").glob("*.yaml"))
REGISTER = {entry.name: entry for entry in list_checkpoints()}


def needed(path: Path) -> list[Checkpoint]:
    return [REGISTER[checkpoint_name(file)] for file in from_yaml(Options, path).checkpoint_files()]


def comment(path: Path) -> str:
    """The comment at the top, in one line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))


def test_a_folder_has_its_name_on_the_hub_everywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SAM4AVS_WEIGHTS", str(tmp_path))
    for entry in REGISTER.values():
        if entry.hub:
            assert find_weights(entry.hub) == find_weights(entry.name) == tmp_path / str(entry.file)
            assert command_for(tmp_path / str(entry.file)) == f"python -m pretrained.download {entry.name}"


def test_there_are_recipes_for_both_benchmarks_and_two_demos() -> None:
    names = {path.stem for path in RECIPES}
    assert {"demo_small", "demo_large", "s4_concept_prompt", "ms3_concept_prompt"} <= names
    assert {name.removeprefix("s4_") for name in names if name.startswith("s4")} == {
        name.removeprefix("ms3_") for name in names if name.startswith("ms3")
    }


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_what_it_downloads(path: Path) -> None:
    said, entries = comment(path), needed(path)
    for entry in entries:
        megabytes = entry.megabytes if entry.size is None else entry.size / 1e6
        size = "size not known" if megabytes is None else f"{megabytes:.0f} MB"
        assert f"{entry.name} ({size}, {entry.license or 'no license stated'}" in said
        assert path.stem in entry.recipes and not entry.gated and not entry.non_commercial
    known = [entry.megabytes or (entry.size or 0) / 1e6 for entry in entries]
    if all(known):
        total = f"{sum(known):.0f} MB" if sum(known) < 1000 else f"{sum(known) / 1000:.1f} GB"
        assert f"gets {total}:" in said
    (command,) = re.findall(r"python -m pretrained\.download ([\w. -]+?) gets", said)
    assert command.split() == [entry.name for entry in entries]
    assert "To be tuned" in said and "Results: not measured." in said


def test_the_register_names_the_recipes_that_need_an_entry() -> None:
    found = {entry.name: {path.stem for path in RECIPES if entry in needed(path)} for entry in REGISTER.values()}
    assert {name: set(entry.recipes) for name, entry in REGISTER.items()} == found


def test_the_register_names_the_options_that_need_an_entry() -> None:
    choices = {
        ("no_prompt", "encoder"): get_args(EncoderName),
        ("no_prompt", "segmenter"): get_args(SegmenterName),
        ("no_prompt", "sam.model"): ("vit_h", "vit_l", "vit_b"),
        ("concept_prompt", "concept.classifier"): ("clap", "pe_a_frame"),
        ("concept_prompt", "concept.finder"): ("detector", "sam3"),
        ("foreground", "method"): ("foreground", "box_prompt"),
    }
    found: dict[str, set[str]] = {name: set() for name in REGISTER}
    for (method, option), values in choices.items():
        files = {}
        for value in values:
            options = resolve_options(Options, ["--method", method, f"--{option}", value])
            files[value] = {checkpoint_name(file) for file in options.checkpoint_files()}
        for value, names in files.items():
            for name in names - set.intersection(*files.values()):
                if name != "sam-vit-h" or option in ("segmenter", "sam.model"):  # which select it
                    found[name].add(f"--{option} {value}")
    assert {name: set(entry.selected_by) for name, entry in REGISTER.items()} == found


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_labels_exist_and_the_models_are_named_with_their_licenses(path: Path) -> None:
    options = from_yaml(Options, path)
    if options.method == "concept_prompt":
        assert len(read_targets(REPOSITORY / options.grounding.labels)) >= 70
    spoken = models_used(options)
    for entry in needed(path):
        assert any(f": {entry.name}" in line and entry.license in line for line in spoken)


def test_the_recommended_one_is_small_and_what_the_note_says() -> None:
    path = REPOSITORY / RECOMMENDED_CONFIG
    names = " ".join(entry.name for entry in needed(path))
    assert path.stem == "demo_small" and f"pretrained.download {names}, then --config" in SMALL_WEIGHTS_NOTE
    assert sum(entry.megabytes or 0 for entry in needed(path)) < 1500 and from_yaml(Options, path).track == "both"
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert f"python -m pretrained.download {names}" in readme and f"--config {RECOMMENDED_CONFIG}" in readme


def test_the_study_of_today_needs_nothing_gated() -> None:
    study = load_study("modern")
    assert {job.benchmark for job in study.jobs} == {"s4", "ms3"} and len(study.jobs) == 12
    for job in study.jobs:
        entries = [REGISTER[checkpoint_name(path)] for path in job.options.checkpoint_files()]
        assert entries and not any(entry.gated or entry.non_commercial for entry in entries)
    tracked = {job.name for job in study.jobs if job.options.track == "both"}
    assert tracked == {
        f"zero_shot/{benchmark}_concept_prompt_{name}" for benchmark in ("s4", "ms3") for name in ("tracked", "edgetam")
    }
