"""The configurations: the 48 of the study against their scripts' names and recipes, the four of AVSegFormer against its
own, all of them as valid runs."""

import re
from collections import Counter
from pathlib import Path

import pytest

from models.audioclip_segmentor import AudioCLIPSegmentor
from models.backbones import WIDTHS
from models.weights import list_checkpoints
from supervised.losses import AVMOptions
from supervised.model import AVSModel
from supervised.model_options import AVSegFormerOptions
from supervised.options import Options, check_options
from utils.config import from_yaml

CONFIGS = Path(__file__).parents[2] / "supervised" / "configs"
FILES = {path.stem: path for path in sorted(CONFIGS.glob("*.yaml")) if not path.stem.startswith("avss_")}
AVSS = {path.stem: path for path in sorted(CONFIGS.glob("avss_*.yaml"))}
SCRIPTS = {  # how many of the original's scripts each of its folders has
    "AVSBench/avs_s4": 2,  # one script, for either backbone
    "AVSBench/avs_ms3": 2,
    "Sam4AVS/avs_s4": 2,
    "Sam4AVS/avs_ms3": 2,
    "Sam4AVS/avs_s4_aclp": 8,
    "Sam4AVS/avs_ms3_aclp": 8,
    "Sam4AVS/avs_s4_aclp_backbone_ablation": 20,
    "Sam4AVS/avs_ms3_aclp_backbone_ablation": 20,
    "AVSegFormer/config/s4": 2,
    "AVSegFormer/config/ms3": 2,
}
TPAVI = {  # benchmark, backbone, its weights, fraction of the training clips, epochs, script
    "s4_tpavi_resnet50": ("s4", "resnet50", "resnet50", 1.0, 15, "AVSBench/avs_s4/train.sh"),
    "s4_tpavi_pvt": ("s4", "pvt_v2_b5", "pvt-v2-b5", 1.0, 15, "AVSBench/avs_s4/train.sh"),
    "s4_tpavi_resnet50_20_percent": (
        *("s4", "resnet50", "resnet50", 0.2, 50),
        "Sam4AVS/avs_s4/TPAVI_partial_test_20_percent.sh",
    ),
    "s4_tpavi_resnet50_50_percent": (
        *("s4", "resnet50", "resnet50", 0.5, 30),
        "Sam4AVS/avs_s4/TPAVI_partial_test_50_percent.sh",
    ),
    "ms3_tpavi_resnet50": ("ms3", "resnet50", "resnet50", 1.0, 30, "AVSBench/avs_ms3/train.sh"),
    "ms3_tpavi_pvt": ("ms3", "pvt_v2_b5", "pvt-v2-b5", 1.0, 30, "AVSBench/avs_ms3/train.sh"),
    "ms3_tpavi_resnet50_20_percent": (
        *("ms3", "resnet50", "resnet50", 0.2, 80),
        "Sam4AVS/avs_ms3/TPAVI_partial_20_percent.sh",
    ),
    "ms3_tpavi_resnet50_50_percent": (
        *("ms3", "resnet50", "resnet50", 0.5, 50),
        "Sam4AVS/avs_ms3/TPAVI_partial_50_percent.sh",
    ),
}
FPN = [name for name in FILES if "_fpn_" in name]
AVSEGFORMER = {  # benchmark, backbone, its weights, epochs, of these with a frozen backbone, configuration
    "s4_avsegformer_resnet50": ("s4", "resnet50", "resnet50", 30, 5, "AVSegFormer_res50_s4"),
    "s4_avsegformer_pvt": ("s4", "pvt_v2_b5", "pvt-v2-b5", 30, 5, "AVSegFormer_pvt2_s4"),
    "ms3_avsegformer_resnet50": ("ms3", "resnet50", "resnet50", 60, 10, "AVSegFormer_res50_ms3"),
    "ms3_avsegformer_pvt": ("ms3", "pvt_v2_b5", "pvt-v2-b5", 60, 10, "AVSegFormer_pvt2_ms3"),
}
FUSIONS = {  # by a part of the script's name; the first that is found counts
    "normed_concate": "normed_concate",
    "naive_concate": "naive_concate",
    "none_fusion": "none",
    "no_prior": "noprior",
    "score_fusion": "score_fusion",
    "concate": "concate",
}


def scripts(name: str, mark: str = "Script:") -> list[str]:
    """The original's scripts that a configuration names in its comments."""
    text = FILES[name].read_text(encoding="utf-8")
    return re.findall(rf"^# {re.escape(mark)} (\S+)$", text, re.MULTILINE)


def test_every_script_has_its_configuration() -> None:
    assert len(FILES) == 52 and len(FPN) == 40 and set(FILES) == {*FPN, *TPAVI, *AVSEGFORMER}
    assert Counter(name.split("_")[0] for name in FILES) == {"s4": 26, "ms3": 26}
    stuck = scripts(
        "s4_fpn_concate_train_audio", 'Script that cannot run (it sets fusion "none", which its model lacks):'
    )
    assert [Path(script).parent.name for script in stuck] == ["avs_s4_aclp_backbone_ablation"]
    named = [*stuck, *(script for name in FILES for script in scripts(name))]
    assert Counter(str(Path(script).parent) for script in named) == SCRIPTS
    assert all(script.count("/") == 2 + script.startswith("AVSegFormer/") for script in named)
    fpn = [script for script in named if "_aclp" in script]
    assert len(set(fpn)) == len(fpn) == 56  # TPAVI's train.sh stands for both backbones
    # The second pair of folders repeats all scripts of the first; of S4's, one cannot run there.
    assert Counter(len(scripts(name)) for name in FPN) == {2: 15, 1: 25}


@pytest.mark.parametrize("name", FPN)
def test_fpn_settings_are_those_of_the_scripts_names(name: str) -> None:
    options = from_yaml(Options, FILES[name])
    data, model, train = options.data, options.model, options.train
    towers = (model.fpn.visual, model.fpn.audio)
    for script in scripts(name):
        assert f"avs_{data.benchmark}_aclp" in script
        stem = Path(script).stem.removeprefix("train_fully_audiocliprealfpn_")
        assert "fusion_bilinear" in stem or "concate_bilinear" in stem or "no_prior_bilinear" in stem
        assert model.fpn.fusion == next(fusion for part, fusion in FUSIONS.items() if part in stem)
        visual, audio = "audioclip-full", "audioclip-full"
        if "weights_from_" in stem:
            sources = {"AudioCLIP": "audioclip-full", "CLIP": "clip-rn50", "Resnet": "resnet50"}
            sources |= {"AudioSet": "esresnext-fbsp"}
            parts = stem.split("weights_from_")[1].replace("not_init", "random").split("_")
            visual, audio = (sources.get(part, part) for part in parts[:2])
        elif "vggish" in stem.lower():
            visual, audio = "resnet50" if "Resnet" in stem else "audioclip-full", "vggish"
        assert towers == (visual, audio)
        fractions = {"20_percent": 0.2, "50_percent": 0.5}
        assert data.fraction == next((value for part, value in fractions.items() if part in stem), 1.0)
        trained = stem.startswith(("audio_visual", "visual_audio")) or audio == "random"
        assert list(model.freeze) == ([] if trained else ["audio"])
        full_rate = "backbone" in stem or (data.benchmark, *towers) == ("ms3", "audioclip-full", "vggish")
        assert train.backbone_lr_mult == (1.0 if full_rate else 0.1)
    assert (model.segmentor, model.fpn.upsample, model.fpn.variant) == ("fpn", "bilinear", "published")
    assert (train.lr, train.epochs) == (5e-5, {"s4": 70, "ms3": 200}[data.benchmark])
    assert options.metric_batch == 1 and options.loss == AVMOptions()


@pytest.mark.parametrize("name", TPAVI)
def test_tpavi_settings_are_those_of_the_scripts(name: str) -> None:
    benchmark, backbone, weights, fraction, epochs, script = TPAVI[name]
    options = from_yaml(Options, FILES[name])
    data, model, train = options.data, options.model, options.train
    assert (model.segmentor, list(model.freeze)) == ("tpavi", ["audio"]) and scripts(name) == [script]
    assert (data.benchmark, data.fraction) == (benchmark, fraction)
    assert (model.backbone, model.weights, model.vggish.weights) == (backbone, weights, "vggish")
    assert (model.attention, list(model.stages)) == ("va", [0, 1, 2, 3])
    assert (train.epochs, train.lr, train.backbone_lr_mult) == (epochs, 1e-4, 1.0) and options.metric_batch == 4
    assert options.loss == (AVMOptions("kl", 0.5, [0, 1, 2, 3]) if benchmark == "ms3" else AVMOptions())


@pytest.mark.parametrize("name", AVSEGFORMER)
def test_avsegformer_settings_are_those_of_its_configurations(name: str) -> None:
    benchmark, backbone, weights, epochs, frozen, script = AVSEGFORMER[name]
    options = from_yaml(Options, FILES[name])
    data, model, train = options.data, options.model, options.train
    assert scripts(name) == [f"AVSegFormer/config/{benchmark}/{script}.py"]
    assert (data.benchmark, data.image_size, data.mask_size) == (benchmark, 512, 512)
    assert (model.segmentor, list(model.freeze)) == ("avsegformer", ["audio"])
    assert (model.backbone, model.weights, model.vggish.weights) == (backbone, weights, "vggish")
    assert model.audio == "vggish" and model.avsegformer == AVSegFormerOptions(8, 6, 300, 2048, 0.1, "dice")
    assert (train.epochs, train.freeze_backbone_epochs) == (epochs, frozen)
    assert (train.optimizer, train.lr, train.backbone_lr_mult, train.weight_decay) == ("adamw", 2e-5, 1.0, 1e-2)
    assert (train.batch_size, options.metric_batch) == (2, 2)


def test_avsegformer_on_avss_is_trained_as_its_configurations_say() -> None:
    for name, (backbone, weights) in {"resnet50": ("resnet50",) * 2, "pvt": ("pvt_v2_b5", "pvt-v2-b5")}.items():
        options = from_yaml(Options, AVSS[f"avss_avsegformer_{name}"])
        data, model, train = options.data, options.model, options.train
        assert (data.benchmark, data.image_size, data.mask_size) == ("avss", 224, 224)
        assert (model.segmentor, model.backbone, model.weights) == ("avsegformer", backbone, weights)
        assert model.avsegformer == AVSegFormerOptions() and list(model.freeze) == ["audio"]
        assert (train.epochs, train.freeze_backbone_epochs, train.batch_size, train.seed) == (30, 0, 4, 123)
        assert (train.optimizer, train.lr, train.weight_decay) == ("adamw", 2e-5, 1e-2)
        validated = [e for e in range(30) if e >= train.validate_from and e % train.validate_every == 0]
        assert validated == list(range(10, 30, 2))


@pytest.mark.parametrize("name", [*FPN, *TPAVI])
def test_what_the_rows_of_the_study_share(name: str) -> None:
    options = from_yaml(Options, FILES[name])
    data, train = options.data, options.train
    assert (data.image_size, data.mask_size, train.batch_size, train.freeze_backbone_epochs) == (224, 224, 4, 0)
    assert train.optimizer == "adam"


@pytest.mark.parametrize("name", FILES)
def test_what_all_rows_share(name: str) -> None:
    options = from_yaml(Options, FILES[name])
    check_options(options)
    data, model, train = options.data, options.model, options.train
    folder = {"s4": "Single-source", "ms3": "Multi-sources"}[data.benchmark]
    assert name.startswith(f"{data.benchmark}_") and str(data.root).endswith(f"avsbench_data/{folder}")
    assert (data.audio_repeats, model.channels, options.fidelity, train.seed) == (5, 256, "corrected", 123)
    assert (train.schedule, train.precision) == ("constant", "fp32")
    assert (train.warmup_steps, train.max_grad_norm, train.ema_decay) == (0, 0, 0)
    assert not train.channels_last and not train.compile
    registered = {checkpoint.name for checkpoint in list_checkpoints()} | {"random"}
    assert {model.weights, model.vggish.weights, model.fpn.visual, model.fpn.audio} <= registered


def test_tpavi_on_avss_is_trained_as_its_script_says() -> None:
    tpavi, avsegformer = ({f"avss_{name}_{kind}" for kind in ("resnet50", "pvt")} for name in ("tpavi", "avsegformer"))
    assert set(AVSS) == {*tpavi, *avsegformer, "avss_fpn_concate"}
    for name, (backbone, weights) in {"resnet50": ("resnet50",) * 2, "pvt": ("pvt_v2_b5", "pvt-v2-b5")}.items():
        options = from_yaml(Options, AVSS[f"avss_tpavi_{name}"])
        data, model, train = options.data, options.model, options.train
        assert (data.benchmark, data.fraction, model.backbone, model.weights) == ("avss", 1.0, backbone, weights)
        assert options.loss == AVMOptions("kl", 0.5, [0, 1, 2, 3]) and list(model.freeze) == ["audio"]
        assert (train.epochs, train.lr, train.batch_size, train.seed) == (60, 1e-4, 4, 123)
        assert (train.optimizer, train.schedule, train.precision) == ("adam", "constant", "fp32")
        validated = [e for e in range(60) if e >= train.validate_from and e % train.validate_every == 0]
        assert validated == list(range(16, 60, 2))


def test_every_other_config_is_a_valid_run() -> None:
    files = sorted({*CONFIGS.rglob("*.yaml")} - {*FILES.values()})
    assert {f"{b}_fpn_{kind}" for b in ("s4", "ms3") for kind in ("mini", "random", "none")} <= {f.stem for f in files}
    for file in files:
        options = from_yaml(Options, file)
        check_options(options)
        assert options.model.backbone in (*WIDTHS, "audioclip")


def test_small_configurations_differ_in_what_they_compare_only() -> None:
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
