"""The rows of the table."""

from typing import Any

from benchmarks.harness import Row

D, S, Z, E = "benchmarks.data:", "benchmarks.segmentors:", "benchmarks.zero_shot:", "benchmarks.studies:"
A = "benchmarks.attention:"
CLIPS = {"count": 48}
FEW = {"count": 4}


def _preprocess(jobs: int) -> Row:
    return Row(
        "preprocessing",
        f"48 clips of 480×360, {jobs} process{'es' if jobs > 1 else ''}",
        "every frame converted, files opened twice, 1 process",
        D + "preprocess_reference",
        D + "preprocess_optimized",
        {**CLIPS, "jobs": jobs},
        {**FEW, "jobs": jobs},
        optimized_calls=2,
        clock="processor" if jobs == 1 else "wall",
        memory=jobs == 1,
        prepare=D + "made",
    )


def _block(stage: int, seconds: int, slow: bool = False) -> Row:
    side = 112 >> stage
    return Row(
        "TPAVI block, forward + backward",
        f"stage {stage}, {seconds} s: {seconds}×{side}×{side}",
        "matrix of all pixels with all pixels",
        S + "block_reference",
        S + "block_optimized",
        {"seconds": seconds, "side": side, "channels": 256},
        {"seconds": 5, "side": 7, "channels": 16},
        optimized_calls=10,
        min_gib=3.0,
        slow=slow,
        tolerance=1e-3,
    )


def _deformable(image: int, dense: bool) -> Row:
    side = image // 8
    return Row(
        f"deformable attention{' beside dense' if dense else ''}, forward + backward",
        f"a frame of {image}×{image}: {side**2 * 21 // 16} pixels of three maps",
        "dense attention of the same width, only the cost" if dense else "grid_sample, level by level",
        A + ("dense" if dense else "deformable_plain"),
        A + ("deformable_cost" if dense else "deformable_ours"),
        {"side": side, "channels": 256},
        {"side": 8, "channels": 32},
        reference_calls=5,
        optimized_calls=5,
        tolerance=1e-3,
    )


def _step(row: str, name: str, needs: float, again: bool = False) -> Row:
    return Row(
        f"training step, {name}",
        "4 videos of 5 frames, 224×224, S4" + (", recompute" if again else ""),
        "sounds heard in the step, all frames decoded" + ("" if row == "fpn" else ", TPAVI's matrix"),
        S + "step_reference",
        S + ("step_grad_checkpointing" if again else "step_optimized"),
        {"row": row, "size": "full", "batch": 4},
        {"row": row, "size": "tiny", "batch": 1},
        reference_calls=0,
        optimized_calls=0,
        min_gib=needs,
        tolerance=1e-2,
    )


def _proposals(model: str, side: int, **more: Any) -> Row:
    options = {"model": model, "side": side, "device": more.get("device", "cpu")}
    return Row(
        "proposals",
        f"a frame, {'the miniature' if model == 'mini' else model}, {side} points a side",
        "segment-anything's generator",
        Z + "proposals_reference",
        Z + "proposals_optimized",
        options,
        {"model": "mini", "side": 4},
        prepare=Z + "threshold",
        **{"tolerance": 1e-3, "optimized_calls": 1, **more},
    )


def _study(setting: str, name: str, videos: int) -> list[Row]:
    options = {"setting": setting, "count": videos, "composed": 48, "side": 16}
    return [
        Row(
            f"zero-shot, {name}, {kind}",
            f"{videos} video{'s' if videos > 1 else ''}, the miniature",
            "the original's way, stock SAM, nothing kept",
            E + "study_reference",
            E + f"study_{kind}",
            options,
            {**options, "count": 1, "composed": 4, "side": 2},
            optimized_calls=2 if kind == "cold" else 5,
            tolerance=1e-3,
        )
        for kind in ("cold", "warm")
    ]


ROWS = [
    _preprocess(1),
    _preprocess(2),
    Row(
        "log-mel",
        "5 s, 20 times",
        "librosa's spectrogram",
        D + "log_mel_reference",
        D + "log_mel_optimized",
        {"calls": 20},
        {"calls": 1},
    ),
    Row(
        "loading",
        "20 training clips, one worker",
        "compressed PNG, PIL, torchvision, pickle",
        D + "load_reference",
        D + "load_optimized",
        {**CLIPS, "split": "train"},
        {**FEW, "split": "train"},
        optimized_calls=10,
        prepare=D + "made",
    ),
    Row(
        "M_J and M_F",
        "4 videos of 5 frames",
        "255 passes over the pixels",
        S + "metrics_reference",
        S + "metrics_optimized",
        {"videos": 4},
        {"videos": 1},
        3,
        30,
    ),
    *(_block(stage, 5) for stage in (1, 2, 3, 4)),
    *(_block(2, seconds) for seconds in (10, 20)),
    *(_deformable(image, dense) for dense in (False, True) for image in (224, 384, 512)),
    _step("resnet50", "TPAVI ResNet-50", 11.0),
    _step("resnet50", "TPAVI ResNet-50", 11.0, again=True),
    _step("pvt_v2_b5", "TPAVI PVT-v2-b5", 15.0),
    _step("pvt_v2_b5", "TPAVI PVT-v2-b5", 15.0, again=True),
    _step("fpn", "AudioCLIP FPN", 5.0),
    _step("fpn", "AudioCLIP FPN", 5.0, again=True),
    Row(
        "AudioCLIP's audio tower",
        "5 s",
        "filters made anew",
        Z + "audio_reference",
        Z + "audio_optimized",
        {"size": "full"},
        {"size": "mini"},
        3,
        3,
    ),
    Row(
        "AudioCLIP's image pyramid",
        "a frame",
        "encode_image, which gives no maps",
        Z + "image_reference",
        Z + "image_optimized",
        {"size": "full"},
        {"size": "mini"},
        5,
        5,
    ),
    Row(
        "similarity and prompts",
        "20 frames",
        "peaks pixel by pixel",
        Z + "prompts_reference",
        Z + "prompts_optimized",
        {"frames": 20},
        {"frames": 1},
        1,
        10,
    ),
    _proposals("mini", 32),
    _proposals("vit_b", 8, slow=True, reference_calls=0, optimized_calls=0),
    _proposals("vit_h", 32, slow=True, device="cuda"),
    *_study("no_prompt", "No-Prompt", 1),
    *_study("point", "Point-Prompt local", 2),
]
