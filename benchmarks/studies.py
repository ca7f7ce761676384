"""Implementations of a whole zero-shot evaluation with the small weights, from loading clips to metrics."""

import shutil
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from segment_anything import SamAutomaticMaskGenerator, SamPredictor

import reference.images
import reference.metrics
import reference.prompts
from benchmarks import data
from benchmarks.harness import Output, Work
from models.registry import create_model
from utils.audio import load_clip_waveform
from utils.layout import AVSBench
from zero_shot.encoders.audioclip import SAMPLE_RATE
from zero_shot.evaluate import evaluate, open_split
from zero_shot.method_options import PromptOptions, ProposalOptions, RetrievalOptions
from zero_shot.methods import build_method
from zero_shot.model_options import AudioCLIPOptions, SamOptions
from zero_shot.options import DataOptions, Options, RunOptions
from zero_shot.proposal_scoring import crop_proposal, proposal_probabilities, select_proposals, union_masks
from zero_shot.similarity import similarity_map


def _options(method: str, count: int, bench: AVSBench, side: int, cache: Path) -> Options:
    """The options of zero_shot/configs/mini."""
    return Options(
        method="no_prompt" if method == "no_prompt" else "point",
        data=DataOptions(root=bench.root, max_clips=count, num_workers=0),
        audioclip=AudioCLIPOptions(weights="mini", crop_size=128, reverse=False, interpolation="bicubic"),
        sam=SamOptions(model="mini", weights="mini"),
        prompt=PromptOptions(threshold=0.95),
        retrieval=RetrievalOptions(rule="top1", max_area=0.5),
        proposals=ProposalOptions(side, 0.75, 0.9),
        run=RunOptions(cache=cache, device="cpu"),
    )


def study_cold(method: str, count: int, composed: int, side: int) -> Work:
    """zero_shot.evaluate with an empty cache."""
    return _study(method, count, composed, side, cold=True)


def study_warm(method: str, count: int, composed: int, side: int) -> Work:
    """zero_shot.evaluate with a full cache, as for every further threshold."""
    return _study(method, count, composed, side, cold=False)


def _study(method: str, count: int, composed: int, side: int, cold: bool) -> Work:
    cache = data.CLIPS_DIR / "avs_benchmark_cache"
    shutil.rmtree(cache, ignore_errors=True)
    options = _options(method, count, data.clips(composed), side, cache)
    built = build_method(options)
    dataset, accelerator = open_split(options, built), Accelerator(cpu=True)
    masks: list[np.ndarray] = []

    def work() -> Output:
        if cold:
            shutil.rmtree(cache, ignore_errors=True)
        masks.clear()
        metrics = evaluate(
            built,
            dataset,
            accelerator,
            1,
            0,
            lambda index, frames, predictions, ground_truth: masks.extend(p.mask for p in predictions),
        )
        found = metrics.result(1)
        return {"masks": np.stack(masks), "M_J": np.array([found["m_j"]]), "M_F": np.array([found["m_f"]])}

    return work


@torch.inference_mode()
def study_reference(method: str, count: int, composed: int, side: int) -> Work:
    """As in the original study: nothing is cached, each frame goes through segment-anything's predictor or generator,
    each crop through torchvision, maxima are found pixel by pixel, and M_F takes 255 passes over the pixels."""
    bench = data.clips(composed)
    options = _options(method, count, bench, side, Path())
    model, sam = create_model("audioclip", "mini"), create_model("sam_mini")
    predictor = SamPredictor(sam)
    generator = SamAutomaticMaskGenerator(sam, **vars(options.proposals))
    model.fidelity = "corrected"

    def mask_from_proposals(frame: np.ndarray, audio: torch.Tensor) -> np.ndarray:
        records = [r for r in generator.generate(frame) if r["area"] <= options.retrieval.max_area * 224 * 224]
        cropped = {index: crop_proposal(frame, record, "corrected") for index, record in enumerate(records)}
        kept = [index for index, crop in cropped.items() if crop is not None]
        if not kept:
            return np.zeros((224, 224), bool)
        size = options.audioclip.crop_size
        crops = torch.stack([reference.images.crop_image(crop, size) for crop in cropped.values() if crop is not None])
        scores = proposal_probabilities(model.encode_image(crops), audio, options.retrieval.logit_scale)
        chosen = select_proposals(scores, kept, len(records), rule="top1")
        return union_masks([records[index]["segmentation"] for index in chosen])

    def mask_from_points(frame: np.ndarray, similarity: np.ndarray) -> np.ndarray:
        positive, negative = reference.prompts.peak_points(similarity, options.prompt.threshold)
        predictor.set_image(frame)
        labels = np.array([1] * len(positive) + [0] * len(negative))
        masks, scores, _ = predictor.predict(np.array(positive + negative, float), labels)
        return masks[scores.argmax()]

    @torch.inference_mode()
    def work() -> Output:
        predictions, iou, f = [], [], []
        for clip in bench.split("test")[:count]:
            frames = [np.asarray(Image.open(path).convert("RGB")) for path in bench.frames(clip)]
            waveform = torch.from_numpy(
                load_clip_waveform(bench.wav(clip), SAMPLE_RATE, audio_repeats=options.audioclip.audio_repeats)
            )
            audio = torch.nn.functional.normalize(model.encode_audio(waveform), dim=1)
            if method == "no_prompt":
                masks = [mask_from_proposals(*pair) for pair in zip(frames, audio, strict=True)]
            else:
                images = reference.images.normalize_frames(torch.from_numpy(np.stack(frames)), "clip")
                dense = model.image_pyramid(images, surgery=True)[1]
                maps = similarity_map(audio, dense, mode="bicubic").numpy()
                masks = [mask_from_points(*pair) for pair in zip(frames, maps, strict=True)]
            ground_truth = torch.stack([reference.images.read_mask(path, "s4") for path in bench.masks(clip)])
            predicted = torch.from_numpy(np.stack(masks)).float()
            iou.append(reference.metrics.mean_iou(predicted, ground_truth))
            f.append(reference.metrics.f_score(predicted, ground_truth))
            predictions += masks
        return {"masks": np.stack(predictions), "M_J": np.array([np.mean(iou)]), "M_F": np.array([np.mean(f)])}

    return work
