"""The rows of the table that `python -m benchmarks` prints."""

from typing import Any

from benchmarks.harness import Row

DATA, SEGMENTORS = "benchmarks.data:", "benchmarks.segmentors:"
ATTENTION = "benchmarks.attention:"
SEGMENTERS = "benchmarks.segmenters:"
ZERO_SHOT, STUDIES, TUNING = "benchmarks.zero_shot:", "benchmarks.studies:", "benchmarks.tuning:"
CLIPS, TINY_CLIPS = {"count": 48}, {"count": 4}


def _preprocess(jobs: int) -> Row:
    return Row(
        "preprocessing",
        f"48 clips of 480×360, {jobs} process{'es' if jobs > 1 else ''}",
        "all frames converted to RGB, files opened twice, 1 process",
        DATA + "preprocess_reference",
        DATA + "preprocess_optimized",
        {**CLIPS, "jobs": jobs},
        {**TINY_CLIPS, "jobs": jobs},
        optimized_calls=2,
        clock="cpu" if jobs == 1 else "wall",
        memory=jobs == 1,
        prepare=DATA + "prepare_clips",
    )


def _block(stage: int, seconds: int, slow: bool = False) -> Row:
    side = 112 >> stage
    return Row(
        "TPAVI block, forward + backward",
        f"stage {stage}, {seconds} s: {seconds}×{side}×{side}",
        "attention matrix, pixels × pixels",
        SEGMENTORS + "block_reference",
        SEGMENTORS + "block_optimized",
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
        f"deformable attention{', compared with dense' if dense else ''}, forward + backward",
        f"a frame of {image}×{image}: {side**2 * 21 // 16} pixels of three maps",
        "dense attention of the same width; outputs not compared" if dense else "grid_sample, level by level",
        ATTENTION + ("dense" if dense else "deformable_reference"),
        ATTENTION + ("deformable_cost" if dense else "deformable_optimized"),
        {"side": side, "channels": 256},
        {"side": 8, "channels": 32},
        reference_calls=5,
        optimized_calls=5,
        tolerance=1e-3,
    )


def _step(name: str, min_gib: float, segmentor: str, backbone: str = "", grad_checkpointing: bool = False) -> Row:
    plain = {"tpavi": ", attention matrix", "avsegformer": ", grid_sample level by level, map of all queries"}
    return Row(
        f"training step, {name}",
        "4 videos of 5 frames, 224×224, S4" + (", grad_checkpointing" if grad_checkpointing else ""),
        "audio tower in every step, all frames decoded" + plain.get(segmentor, ""),
        SEGMENTORS + "step_reference",
        SEGMENTORS + ("step_grad_checkpointing" if grad_checkpointing else "step_optimized"),
        {"segmentor": segmentor, "backbone": backbone, "size": "full", "batch": 4},
        {"segmentor": segmentor, "backbone": backbone, "size": "tiny", "batch": 1},
        reference_calls=0,
        optimized_calls=0,
        min_gib=min_gib,
        tolerance=1e-2,
    )


def _proposals(model: str, side: int, photograph: bool = False, **more: Any) -> Row:
    options = {"model": model, "side": side, "photograph": photograph, "device": more.get("device", "cpu")}
    return Row(
        "proposals",
        f"a {'photograph' if photograph else 'frame'}, {'small weights' if model == 'mini' else model}, "
        f"{side} points per side",
        "segment-anything's SamAutomaticMaskGenerator",
        ZERO_SHOT + "proposals_reference",
        ZERO_SHOT + "proposals_optimized",
        options,
        {"model": "mini", "side": 4, "photograph": photograph},
        prepare=ZERO_SHOT + "iou_threshold",
        **{"tolerance": 1e-3, "optimized_calls": 1, **more},
    )


def _encode(network: str, name: str, cached: str) -> list[Row]:
    """Rows of encoding and prompting a frame. cached: what the cache keeps of a frame."""
    options, tiny = {"network": network}, {"network": network, "tiny": True}
    size = f"a frame and a box, {name}, {cached} a frame in the cache"
    common: dict[str, Any] = {"reference_calls": 0, "optimized_calls": 0, "slow": True}
    bf16 = Row(
        "segmenter in bf16",
        size,
        "the same in float32",
        SEGMENTERS + "segment",
        SEGMENTERS + "segment_bf16",
        options,
        tiny,
        tolerance=0.2,
        **common,
    )
    other = Row(
        "segmenter, compared with SAM",
        size,
        "SAM ViT-B, 4.2 MB in the cache; outputs not compared",
        SEGMENTERS + "segment_sam",
        SEGMENTERS + "segment_cost",
        options,
        tiny,
        **common,
    )
    return [bf16] if network == "vit_b" else [other, bf16]


def _demo(network: str, name: str, short: int, long: int, *, track: bool = False) -> Row:
    """A row that shows that a demo's memory does not grow with the video."""
    options = {"network": network, "track": track}
    return Row(
        "demo of a longer video" + (", tracked" if track else ""),
        f"{long} masks instead of {short}, {name}",
        f"{short} masks; outputs not compared",
        "benchmarks.demos:short_demo",
        "benchmarks.demos:long_demo",
        {**options, "short": short, "long": long},
        {"network": "edgetam" if track else "mini", "track": track, "short": 2, "long": 3, "tiny": True},
        reference_calls=0,
        optimized_calls=0,
        slow=True,
    )


def _study(method: str, name: str, videos: int) -> list[Row]:
    options = {"method": method, "count": videos, "composed": 48, "side": 16}
    return [
        Row(
            f"zero-shot, {name}, {cache} cache",
            f"{videos} video{'s' if videos > 1 else ''}, small weights",
            "frame by frame, segment-anything, nothing cached",
            STUDIES + "study_reference",
            STUDIES + f"study_{cache}",
            options,
            {**options, "count": 1, "composed": 4, "side": 2},
            optimized_calls=2 if cache == "cold" else 5,
            tolerance=1e-3,
        )
        for cache in ("cold", "warm")
    ]


def _tuning(method: str, name: str) -> list[Row]:
    """A search over 200 option sets, beside 200 evaluations (10 of them measured) and beside a single one."""
    options = {"method": method, "count": 0, "composed": 48, "side": 16, "sets": 200}
    tiny = {"method": "point", "count": 1, "composed": 4, "side": 2, "sets": 4, "compared": 2, "cold": True}
    size = "200 option sets, 14 validation videos, small weights"
    comparisons = [
        (f"zero_shot.tune, {name}, warm cache", "200 times zero_shot.evaluate (10 measured)", 10, False, 20.0),
        (f"zero_shot.tune, {name}, cold cache", "zero_shot.evaluate once", 1, True, 1.0),
    ]
    return [
        Row(
            component,
            size,
            compared_with,
            TUNING + "one_by_one",
            TUNING + "search",
            {**options, "compared": compared, "cold": cold},
            tiny,
            reference_calls=0 if cold else 1,
            optimized_calls=0 if cold else 1,
            tolerance=0.0,
            memory=False,
            slow=True,
            reference_scale=scale,
        )
        for component, compared_with, compared, cold, scale in comparisons
    ]


ROWS = [
    _preprocess(1),
    _preprocess(2),
    Row(
        "log-mel",
        "5 s, 20 times",
        "librosa's spectrogram",
        DATA + "log_mel_reference",
        DATA + "log_mel_optimized",
        {"calls": 20},
        {"calls": 1},
    ),
    Row(
        "loading",
        "20 training clips, one worker",
        "compressed PNG, PIL, torchvision, pickled log-mel",
        DATA + "load_reference",
        DATA + "load_optimized",
        {**CLIPS, "split": "train"},
        {**TINY_CLIPS, "split": "train"},
        optimized_calls=10,
        prepare=DATA + "prepare_clips",
    ),
    Row(
        "M_J and M_F",
        "4 videos of 5 frames",
        "255 passes over the pixels",
        SEGMENTORS + "metrics_reference",
        SEGMENTORS + "metrics_optimized",
        {"videos": 4},
        {"videos": 1},
        3,
        30,
    ),
    Row(
        "scoring saved masks",
        "740 clips of 5 masks",
        "PIL, 255 passes over the pixels",
        "benchmarks.scoring:reference_loop",
        "benchmarks.scoring:optimized",
        {"count": 740},
        {"count": 2},
        reference_calls=0,
        optimized_calls=2,
        prepare="benchmarks.scoring:prepare",
    ),
    Row(
        "mIoU and F of 71 classes",
        "10 frames of AVSS",
        "softmax, three histograms per frame",
        SEGMENTORS + "semantic_metrics_reference",
        SEGMENTORS + "semantic_metrics_optimized",
        {"frames": 10, "size": 224},
        {"frames": 2, "size": 16},
        3,
        10,
    ),
    *(_block(stage, 5) for stage in (1, 2, 3, 4)),
    *(_block(2, seconds) for seconds in (10, 20)),
    *(_deformable(image, dense) for dense in (False, True) for image in (224, 384, 512)),
    _step("TPAVI ResNet-50", 11.0, "tpavi", "resnet50"),
    _step("TPAVI ResNet-50", 11.0, "tpavi", "resnet50", grad_checkpointing=True),
    _step("TPAVI PVT-v2-b5", 15.0, "tpavi", "pvt_v2_b5"),
    _step("TPAVI PVT-v2-b5", 15.0, "tpavi", "pvt_v2_b5", grad_checkpointing=True),
    _step("AudioCLIP FPN", 5.0, "fpn"),
    _step("AudioCLIP FPN", 5.0, "fpn", grad_checkpointing=True),
    _step("AVSegFormer ResNet-50", 15.0, "avsegformer", "resnet50"),
    _step("AVSegFormer ResNet-50", 15.0, "avsegformer", "resnet50", grad_checkpointing=True),
    _step("AVSegFormer PVT-v2-b5", 18.0, "avsegformer", "pvt_v2_b5"),
    Row(
        "AudioCLIP audio tower",
        "5 s",
        "filters rebuilt in every call",
        ZERO_SHOT + "audio_reference",
        ZERO_SHOT + "audio_optimized",
        {"size": "full"},
        {"size": "mini"},
        3,
        3,
    ),
    Row(
        "AudioCLIP image pyramid",
        "a frame",
        "encode_image, without feature maps",
        ZERO_SHOT + "image_reference",
        ZERO_SHOT + "image_optimized",
        {"size": "full"},
        {"size": "mini"},
        5,
        5,
    ),
    Row(
        "similarity and prompts",
        "20 frames",
        "local maxima pixel by pixel",
        ZERO_SHOT + "prompts_reference",
        ZERO_SHOT + "prompts_optimized",
        {"frames": 20},
        {"frames": 1},
        1,
        10,
    ),
    _proposals("mini", 32),
    _proposals("vit_b", 8, slow=True, reference_calls=0, optimized_calls=0),
    _proposals("vit_b", 32, photograph=True, slow=True, reference_calls=0, optimized_calls=0),  # as in the study
    _proposals("vit_h", 32, slow=True, device="cuda"),
    *_encode("vit_b", "SAM ViT-B", "4.2 MB"),
    *_encode("sam2.1-hiera-tiny", "SAM 2.1 tiny", "8.4 MB"),
    *_encode("edgetam", "EdgeTAM", "8.4 MB"),
    Row(
        "proposals without the encoder",
        "a frame, SAM 2.1 tiny, 8 points per side",
        "transformers' mask decoder, in batches",
        SEGMENTERS + "proposals_batched",
        SEGMENTERS + "proposals_fast",
        {"network": "sam2.1-hiera-tiny"},
        {"network": "sam2.1-hiera-tiny", "tiny": True},
        tolerance=1e-3,
        slow=True,
    ),
    _demo("mini", "small SAM", 40, 200),
    _demo("vit_b", "SAM ViT-B", 4, 12),
    _demo("sam2.1-hiera-tiny", "SAM 2.1 tiny", 10, 40),
    _demo("sam2.1-hiera-tiny", "SAM 2.1 tiny", 20, 60, track=True),
    _demo("edgetam", "EdgeTAM", 10, 40),
    _demo("edgetam", "EdgeTAM", 20, 60, track=True),
    *_study("no_prompt", "No-Prompt", 1),
    *_study("point", "Point-Prompt local", 2),
    *_tuning("no_prompt", "No-Prompt"),
    *_tuning("point", "Point-Prompt"),
]
