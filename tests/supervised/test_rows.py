"""The rows: the table against the facts of the original's scripts, and every YAML file against the table."""

from collections import Counter
from pathlib import Path

import pytest

from models.audioclip_segmentor import AudioCLIPSegmentor
from models.backbones import WIDTHS
from supervised import rows
from supervised.losses import AVMOptions
from supervised.model import AVSModel
from supervised.options import Options, check_options
from utils.config import from_yaml

CONFIGS = Path(__file__).parents[2] / "supervised" / "configs"
SCRIPTS = {  # how many of the original's scripts lie in each folder
    "AVSBench/avs_s4": 2,  # one script, for either backbone
    "AVSBench/avs_ms3": 2,
    "Sam4AVS/avs_s4": 2,
    "Sam4AVS/avs_ms3": 2,
    "Sam4AVS/avs_s4_aclp": 8,
    "Sam4AVS/avs_ms3_aclp": 8,
    "Sam4AVS/avs_s4_aclp_backbone_ablation": 20,
    "Sam4AVS/avs_ms3_aclp_backbone_ablation": 20,
}
TPAVI = [  # name, benchmark, backbone, share of the data, epochs
    ("s4_tpavi_resnet50", "s4", "resnet50", 1.0, 15),
    ("s4_tpavi_pvt", "s4", "pvt_v2_b5", 1.0, 15),
    ("s4_tpavi_resnet50_20_percent", "s4", "resnet50", 0.2, 50),
    ("s4_tpavi_resnet50_50_percent", "s4", "resnet50", 0.5, 30),
    ("ms3_tpavi_resnet50", "ms3", "resnet50", 1.0, 30),
    ("ms3_tpavi_pvt", "ms3", "pvt_v2_b5", 1.0, 30),
    ("ms3_tpavi_resnet50_20_percent", "ms3", "resnet50", 0.2, 80),
    ("ms3_tpavi_resnet50_50_percent", "ms3", "resnet50", 0.5, 50),
]
FPN = [row for row in rows.read_rows() if row.segmentor == "fpn"]


def test_every_script_is_in_the_table() -> None:
    lines = rows.read_table()
    assert Counter(line["folder"] for line in lines) == SCRIPTS
    stuck = [line for line in lines if not line["row"]]
    assert [(line["folder"], line["fusion"]) for line in stuck] == [("Sam4AVS/avs_s4_aclp_backbone_ablation", "none")]
    assert all(line["benchmark"] in line["folder"].split("_") for line in lines)
    table = rows.read_rows()
    assert len(table) == 48 and Counter(row.benchmark for row in table) == {"s4": 24, "ms3": 24}
    assert sum(len(row.scripts) for row in table) == len(lines) - 1
    # The second pair of folders repeats all scripts of the first, but for S4's that cannot run there.
    assert Counter(len(row.scripts) for row in FPN) == {2: 15, 1: 25}


@pytest.mark.parametrize("row", FPN, ids=lambda row: row.name)
def test_settings_agree_with_what_the_scripts_are_called(row: rows.Row) -> None:
    for script in row.scripts:
        name = Path(script).stem.removeprefix("train_fully_audiocliprealfpn_")
        assert ("fusion_bilinear" in name) or "concate_bilinear" in name or "no_prior_bilinear" in name
        fusions = {"normed_concate": "normed_concate", "naive_concate": "naive_concate", "none_fusion": "none"}
        fusions |= {"no_prior": "noprior", "score_fusion": "score_fusion", "": "concate"}
        assert row.fusion == next(fusion for word, fusion in fusions.items() if word in name)
        visual, audio = "audioclip-full", "audioclip-full"
        if "weights_from_" in name:
            words = name.split("weights_from_")[1].replace("not_init", "random").split("_")
            sources = {
                "AudioCLIP": "audioclip-full",
                "CLIP": "clip-rn50",
                "Resnet": "resnet50",
                "AudioSet": "esresnext-fbsp",
            }
            visual, audio = (sources.get(word, word) for word in words[:2])
        elif "vggish" in name.lower():
            visual, audio = "resnet50" if "Resnet" in name else "audioclip-full", "vggish"
        assert (row.visual, row.audio) == (visual, audio)
        share = {"20_percent": 0.2, "50_percent": 0.5}
        assert row.fraction == next((part for word, part in share.items() if word in name), 1.0)
        trained = name.startswith(("audio_visual", "visual_audio")) or audio == "random"
        assert row.freeze == ("" if trained else "audio")
        full = "backbone" in name or (row.benchmark, visual, audio) == ("ms3", "audioclip-full", "vggish")
        assert row.backbone_lr_mult == (1.0 if full else 0.1)
    assert (row.lr, row.batch_size, row.epochs) == (5e-5, 4, {"s4": 70, "ms3": 200}[row.benchmark])
    assert (row.avm, row.metric_batch) == ("none", 1)


@pytest.mark.parametrize("row", rows.read_rows(), ids=lambda row: row.name)
def test_yaml_is_the_table(row: rows.Row) -> None:
    path = CONFIGS / f"{row.name}.yaml"
    assert path.read_text() == row.yaml()
    options = from_yaml(Options, path)
    check_options(options)
    data, model, train = options.data, options.model, options.train
    assert (data.benchmark, data.fraction, data.image_size, data.audio_repeats) == (row.benchmark, row.fraction, 224, 5)
    assert (train.epochs, train.batch_size, train.lr, train.seed) == (row.epochs, row.batch_size, row.lr, 123)
    assert (train.optimizer, train.schedule, train.precision) == ("adam", "constant", "fp32")
    assert (train.warmup_steps, train.max_grad_norm, train.ema_decay, train.channels_last, train.compile) == (
        0,
        0,
        0,
        False,
        False,
    )
    assert (model.segmentor, model.channels) == (row.segmentor, 256)
    assert list(model.freeze) == ([row.freeze] if row.freeze else [])
    assert options.metric_batch == row.metric_batch and options.fidelity == "corrected"
    if row.segmentor == "fpn":
        fpn = model.fpn
        assert (fpn.fusion, fpn.visual, fpn.audio) == (row.fusion, row.visual, row.audio)
        assert (fpn.upsample, fpn.variant) == ("bilinear", "published")
        assert train.backbone_lr_mult == row.backbone_lr_mult and options.loss == AVMOptions()


@pytest.mark.parametrize("name, benchmark, backbone, fraction, epochs", TPAVI)
def test_tpavi_rows(name: str, benchmark: str, backbone: str, fraction: float, epochs: int) -> None:
    options = from_yaml(Options, CONFIGS / f"{name}.yaml")
    assert (options.data.benchmark, options.model.backbone, options.data.fraction) == (benchmark, backbone, fraction)
    assert (options.train.epochs, options.train.batch_size, options.train.lr, options.train.seed) == (
        epochs,
        4,
        1e-4,
        123,
    )
    assert options.metric_batch == 4 and options.train.backbone_lr_mult == 1.0
    expected = AVMOptions("kl", 0.5, [0, 1, 2, 3]) if benchmark == "ms3" else AVMOptions()
    assert options.loss == expected
    assert (options.model.attention, list(options.model.stages)) == ("va", [0, 1, 2, 3])


def test_every_other_config_is_a_valid_run() -> None:
    files = sorted({*CONFIGS.rglob("*.yaml")} - {*CONFIGS.glob("*.yaml")})
    assert {f"{b}_fpn_{kind}" for b in ("s4", "ms3") for kind in ("mini", "random", "none")} <= {f.stem for f in files}
    for file in files:
        options = from_yaml(Options, file)
        check_options(options)
        assert options.model.backbone in WIDTHS


def test_miniature_rows_differ_in_what_they_compare_only() -> None:
    for benchmark in ("s4", "ms3"):
        found = {
            kind: from_yaml(Options, CONFIGS / "mini" / f"{benchmark}_fpn_{kind}.yaml")
            for kind in ("mini", "random", "none")
        }
        assert found["mini"].train == found["random"].train == found["none"].train
        assert found["mini"].data == found["random"].data == found["none"].data
        models = {kind: AVSModel(options.model) for kind, options in found.items()}
        assert isinstance(models["mini"].segmentor, AudioCLIPSegmentor)
        assert models["mini"].state_dict().keys() == models["random"].state_dict().keys()
        assert models["none"].audio_tower is None


def test_as_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rows.main(["--check"]) == 0
    assert rows.main([]) == 0
    assert "s4_fpn_concate_clip_esresnext" in capsys.readouterr().out
    assert rows.main(["--write", "--out", str(tmp_path)]) == 0
    assert rows.main(["--check", "--out", str(tmp_path)]) == 0
    edited = tmp_path / "ms3_fpn_none.yaml"
    edited.write_text(edited.read_text().replace("epochs: 200", "epochs: 20"))
    (tmp_path / "stranger.yaml").touch()
    capsys.readouterr()
    assert rows.main(["--check", "--out", str(tmp_path)]) == 1
    assert "differs from rows.csv: ms3_fpn_none, stranger" in capsys.readouterr().err


def test_scripts_of_a_row_must_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = rows.ROWS_CSV.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("s4_fpn_naive_concate,"))
    lines[first] = lines[first].replace(",70,", ",71,")
    changed = tmp_path / "rows.csv"
    changed.write_text("\n".join(lines))
    monkeypatch.setattr(rows, "ROWS_CSV", changed)
    with pytest.raises(ValueError, match="the scripts of s4_fpn_naive_concate have different"):
        rows.read_rows()
