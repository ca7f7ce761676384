"""A study's file as a list of jobs, and what is refused in it."""

from pathlib import Path
from typing import Any

import pytest

import reproduce_tables
from study.plan import load_study
from study.results import collect_results
from study.tables import build_tables
from tests.helpers.studies import FPN, HEAT, study_of, write_study
from utils.cli import InputError

SUPERVISED = Path(__file__).parents[2] / "supervised" / "configs"


def test_the_papers_study_has_every_row_once() -> None:
    study = load_study("paper")
    counts = [(job.regime, job.fidelity) for job in study.jobs]
    assert [counts.count(each) for each in (("zero_shot", "published"), ("zero_shot", "corrected"))] == [12, 12]
    trained = [job for job in study.jobs if job.regime == "supervised"]
    configs = {path.stem for path in SUPERVISED.glob("*.yaml") if not path.stem.startswith("avss_")}
    assert {job.config.stem for job in trained} == configs
    assert len(trained) == 48 + 4 + 4  # the study's, AVSegFormer's by its own recipe, and two by TPAVI's
    assert all(job.config.is_file() and job.options.fidelity == job.fidelity for job in study.jobs)
    for job in trained:
        assert job.fraction == job.options.data.fraction and job.benchmark == job.options.data.benchmark
    assert len({job.fingerprint for job in study.jobs}) == len({job.name for job in study.jobs}) == 80
    tables = {table.key: list(table.cells.index) for table in build_tables(study, collect_results(study, Path("none")))}
    assert {key: len(rows) for key, rows in tables.items()} == {
        **{"zero_shot": 6, "tpavi": 2, "fusion": 7},
        **{"initialization": 12, "fraction": 6, "avsegformer": 2, "models": 3},
    }
    assert list(tables) == list(study.tables) and tables["fraction"][0] == "TPAVI, ResNet-50, 20 % of the clips"


def test_a_row_of_the_paper_is_in_the_tables_that_its_options_belong_to() -> None:
    """The labels are written by hand: each must say what the configuration does."""
    visual = {"audioclip-full": "AudioCLIP", "clip-rn50": "CLIP", "resnet50": "ResNet-50 (ImageNet)"}
    audio = {"audioclip-full": "AudioCLIP", "esresnext-fbsp": "ESResNeXt (AudioSet)", "vggish": "VGGish"}
    backbones = {"resnet50": "TPAVI, ResNet-50", "pvt_v2_b5": "TPAVI, PVT-v2-B5"}
    as_tpavi = {"fpn": "AudioCLIP FPN, concate", "avsegformer": "AVSegFormer, ResNet-50"}
    for job in load_study("paper").jobs:
        if job.regime == "zero_shot":
            continue
        model, whole, expected = job.options.model, job.fraction == 1, {}
        if job.name.endswith("_as_tpavi"):
            expected = {"models": as_tpavi[model.segmentor]}
        elif model.segmentor == "avsegformer":
            assert job.fidelity == "published"
            expected = {"avsegformer": backbones[model.backbone].replace("TPAVI", "AVSegFormer")}
        elif model.segmentor == "tpavi":
            expected |= {"models": backbones[model.backbone]} if whole and model.backbone == "resnet50" else {}
            expected |= {"tpavi": backbones[model.backbone]} if whole else {}
            expected |= {"fraction": backbones[model.backbone]} if model.backbone == "resnet50" else {}
        else:
            fpn, trained = model.fpn, not model.freeze
            same = (fpn.visual, fpn.audio) == ("audioclip-full", "audioclip-full")
            if same and whole:
                label = "none (no audio)" if fpn.fusion == "none" else fpn.fusion
                expected["fusion"] = label + ", audio tower trained" * trained
            if fpn.fusion == "concate" and whole and not (same and trained):
                full_rate = job.config.stem.endswith("_full_rate")
                assert not full_rate or job.options.train.backbone_lr_mult == 1
                label = f"{visual[fpn.visual]} × {audio.get(fpn.audio, fpn.audio)}"
                expected["initialization"] = label + ", all at the full learning rate" * full_rate
            if same and fpn.fusion == "concate" and not trained:
                expected["fraction"] = "AudioCLIP FPN, concate"
        assert {row.table: row.label for row in job.rows} == expected, job.name


def test_models_are_compared_on_equal_terms() -> None:
    """The same clips, steps and resolution, and on the synthetic clips the same towers."""
    for name, count in (("paper", 3), ("models", 3)):
        for benchmark in ("s4", "ms3"):
            jobs = [job for job in load_study(name).jobs if job.benchmark == benchmark]
            jobs = [job for job in jobs if "models" in [row.table for row in job.rows]]
            assert {job.options.model.segmentor for job in jobs} == {"tpavi", "fpn", "avsegformer"}
            assert len(jobs) == count * max(1, len({job.seed for job in jobs}))
            data = {(o.image_size, o.mask_size, o.fraction) for o in (job.options.data for job in jobs)}
            train = {(o.epochs, o.batch_size, o.freeze_backbone_epochs) for o in (job.options.train for job in jobs)}
            assert len(data) == len(train) == 1
            if name == "models":
                models = [job.options.model for job in jobs]
                towers = {(m.fpn.visual, m.fpn.audio) for m in models if m.segmentor == "fpn"}
                towers |= {(m.weights, m.audio) for m in models if m.segmentor != "fpn"}
                assert towers == {("mini", "mini")} and {tuple(m.freeze) for m in models} == {("audio",)}
                assert {m.channels for m in models} == {64} and len({job.options.train.lr for job in jobs}) == 1


def test_the_synthetic_study_can_be_read() -> None:
    study = load_study("mini")
    assert all(job.config.is_file() and job.options.data.num_workers == 0 for job in study.jobs)
    assert len({job.fingerprint for job in study.jobs}) == len(study.jobs)
    local = [job for job in study.jobs if job.rows[0].label == "Point-Prompt local"]
    assert {(job.benchmark, job.fidelity) for job in local} == {
        (benchmark, fidelity) for benchmark in ("s4", "ms3") for fidelity in ("published", "corrected")
    }


def test_a_row_stands_for_several_jobs(tmp_path: Path) -> None:
    row = {
        "supervised": "fpn_mini",
        "tables": {"fusion": "FPN", "fraction": "FPN"},
        "benchmarks": ["s4"],
        "seeds": [0, 1],
        "fractions": [0.2, 1],
        "options": {"train.epochs": 4},
        "s4": {"train.lr": 0.001},
        "audio": ["original", "shuffled"],
    }
    options = {"supervised": {"train.epochs": 2, "train.batch_size": 3}}
    study = study_of(tmp_path, row, options=options, gallery_clips=2)
    assert [job.name for job in study.jobs] == [
        f"supervised/s4_fpn_mini{part}_seed{seed}" for part in ("_20_percent", "") for seed in (0, 1)
    ]
    first = study.jobs[0]
    train = first.options.train
    assert (train.epochs, train.batch_size, train.lr, train.seed) == (4, 3, 0.001, 0)
    assert first.options.data.fraction == first.fraction == 0.2
    assert [row.table for row in first.rows] == ["fusion", "fraction"]
    training, evaluation = first.commands(Path("R"))
    assert training[:3] == ["python", "-m", "supervised.train"] and training[-2:] == ["--out", "R/" + first.name]
    assert evaluation[3:5] == ["--run-dir", "R/" + first.name]  # torchrun claims --run
    assert evaluation[5:] == ["--strips", "2", "--audio", "original", "shuffled", "--audio-seeds", "0"]


def test_data_of_the_command_line_replace_the_files(tmp_path: Path) -> None:
    path = write_study(tmp_path / "own.yaml", {**FPN, "benchmarks": ["s4", "ms3"]}, data={"s4": "there"})
    s4, ms3 = load_study(path, {"s4": None, "ms3": Path("elsewhere")}).jobs
    assert (s4.root, ms3.root) == (Path("there"), Path("elsewhere")) and ms3.options.data.root == Path("elsewhere")


def test_long_options_survive_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 90)
    options = {"model.fpn": {"fusion": "none", "variant": "mini", "visual": str(path), "audio": "random"}}
    assert study_of(tmp_path, {**FPN, "options": options}).jobs[0].options.model.fpn.visual == str(path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rows": "none"}, "field rows"),
        ({"rows": []}, "no list of rows"),
        ({"rows": [{**HEAT, "sedes": [1]}]}, "row 1: no field sedes"),
        ({"rows": [HEAT, {"tables": {"zero_shot": "x"}}]}, "row 2 (x): must have exactly one of zero_shot, supervised"),
        ({"rows": [{**FPN, **HEAT}]}, "must have exactly one of"),
        ({"rows": ["x"]}, "field rows"),
        ({"rows": [{"supervised": "fpn_mini"}]}, "row 1 (fpn_mini): tables: names no table"),
        ({"rows": [{**FPN, "tables": {"fusions": "x"}}]}, "tables: no table 'fusions'; choose from zero_shot, tpavi"),
        ({"rows": [{**HEAT, "fidelities": ["true"]}]}, "field fidelities"),
        ({"rows": [{**HEAT, "benchmarks": ["s5"]}]}, "field benchmarks"),
        ({"rows": [{**HEAT, "seeds": [1]}]}, "seeds and fractions are of supervised rows"),
        ({"audio": []}, "audio and audio_seeds must not be empty"),
        ({"rows": [{**HEAT, "audio": ["quiet"]}]}, "field audio"),
        ({"rows": [{**FPN, "audio": ["real"]}]}, "field audio"),
        ({"rows": [{**FPN, "fractions": [0]}]}, "fractions is 0"),
        ({"rows": [HEAT, HEAT]}, "give one of them another `name`"),
        ({"data": {"s4": "x"}}, "data: has no folder of ms3, which row point_global needs"),
        ({"data": {"s5": "x"}}, "field data"),
        ({"data": ["x"]}, "field data"),
        ({"configs": {}}, "configs: has no folder of zero_shot"),
        ({"rows": [{**HEAT, "options": "x"}]}, "field options"),
        ({"rows": [{**HEAT, "seconds_per_clip": "fast"}]}, "field seconds_per_clip"),
        ({"startup_seconds": -1}, "startup_seconds is -1"),
        ({"seeds": [1]}, "no field seeds"),
    ],
)
def test_a_wrong_study_is_refused_in_a_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        study_of(tmp_path, HEAT, **change) if "rows" not in change else write_and_load(tmp_path, change)
    assert message in str(caught.value) and "\n" not in str(caught.value) and "own.yaml" in str(caught.value)


def write_and_load(folder: Path, fields: dict[str, Any]) -> None:
    rows = fields["rows"]
    path = write_study(folder / "own.yaml", *(rows if isinstance(rows, list) else []))
    if not isinstance(rows, list):
        path.write_text(path.read_text().replace("rows: []", f"rows: {rows}"))
    load_study(path)


@pytest.mark.parametrize("text", ["rows: [", "rows: &a [*a]", "rows: !!python/object:os.system x", "- x", ""])
def test_a_file_that_is_no_study_is_refused_in_a_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(InputError, match=r"own\.yaml: (not YAML|has no list of rows)"):
        load_study(tmp_path / "own.yaml")


@pytest.mark.parametrize(
    "options, message",
    [({"prompt.treshold": 1}, "treshold"), ({"method": "telepathy"}, "telepathy"), ({"sam": 3}, "sam")],
)
def test_a_wrong_option_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: dict[str, Any], message: str
) -> None:
    path = write_study(tmp_path / "own.yaml", HEAT, {**HEAT, "name": "other", "options": options})
    assert reproduce_tables.main(["--study", str(path), "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "runs" / "zero_shot").exists()
    assert reproduce_tables.main(["--study", str(tmp_path / "none.yaml")]) == 1
    assert reproduce_tables.main(["--study", str(path), "--only", "nothing"]) == 1
    assert "no run of own matches; the runs are zero_shot/s4_heat" in capsys.readouterr().err
