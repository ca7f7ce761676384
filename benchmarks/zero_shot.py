"""Contestants: AudioCLIP's towers, prompts, SAM's proposals, and the zero-shot study end to end."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from segment_anything import SamAutomaticMaskGenerator, SamPredictor

from benchmarks.data import clips
from benchmarks.harness import Output, Work
from models.audioclip import AudioCLIP
from models.mini import load_mini_audioclip
from models.sam import SIZES
from tests import plain
from tests.lively_sam import MINI, lively_sam
from utils.audio import five_seconds
from utils.layout import AVSBench
from zero_shot.build import build_setting, load_sam
from zero_shot.evaluate import evaluate, open_split
from zero_shot.options import AudioCLIPOptions, Options, PromptOptions, RetrievalOptions, RunOptions, SamOptions
from zero_shot.options import DataOptions as Data
from zero_shot.prompts import peak_points
from zero_shot.proposals import ProposalOptions, propose
from zero_shot.retrieval import crop_proposal, proposal_probabilities, select, union
from zero_shot.segmenter import Segmenter
from zero_shot.similarity import similarity_map

RATE = 44_100  # Hz
STABILITY = 0.5  # random weights make masks less sure of themselves than trained ones
SHARE = 0.1  # of the candidates that are to be above the threshold


def _audioclip(size: str) -> AudioCLIP:
    torch.manual_seed(0)
    return AudioCLIP(text=False).eval() if size == "full" else load_mini_audioclip()


def audio_plain(size: str) -> Work:
    """Filters are made anew at every call, as in the original."""
    model = _audioclip(size)
    model.audio.fbsp.train()  # this layer alone
    return _hear(model)


def audio_ours(size: str) -> Work:
    """Filters are made once."""
    return _hear(_audioclip(size))


def _hear(model: AudioCLIP) -> Work:
    sound = 0.2 * torch.randn(1, 5 * RATE).clamp(-3, 3)

    @torch.inference_mode()
    def work() -> Output:
        return {"embedding": model.encode_audio(sound).numpy()}

    return work


def image_plain(size: str) -> Work:
    """The pooled embedding alone, by `encode_image`."""
    model, image = _audioclip(size), torch.randn(1, 3, 224, 224)

    @torch.inference_mode()
    def work() -> Output:
        return {"embedding": model.encode_image(image).numpy()}

    return work


def image_ours(size: str) -> Work:
    """The pooled embedding with the four maps and an embedding for each of 49 places."""
    model, image = _audioclip(size), torch.randn(1, 3, 224, 224)

    @torch.inference_mode()
    def work() -> Output:
        return {"embedding": model.image_pyramid(image)[2].numpy()}

    return work


def _pairs(frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(frames, 1024), torch.randn(frames, 1024, 7, 7)


def prompts_plain(frames: int) -> Work:
    """Peaks and troughs pixel by pixel, in Python as in the original."""
    sounds, dense = _pairs(frames)

    def work() -> Output:
        found = [plain.peaks(heat.numpy(), 0.6) for heat in similarity_map(sounds, dense)]
        return {"points": np.concatenate([np.array(points, float).reshape(-1, 2) for pair in found for points in pair])}

    return work


def prompts_ours(frames: int) -> Work:
    """The same, array by array."""
    sounds, dense = _pairs(frames)

    def work() -> Output:
        found = [peak_points(heat, 0.6).points for heat in similarity_map(sounds, dense)]
        return {"points": np.concatenate([points for points in found if points is not None])}

    return work


def _frame(seed: int) -> np.ndarray:
    """Plain fields, (224, 224, 3)."""
    fields = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return fields.repeat(32, axis=0).repeat(32, axis=1)


def _sam(model: str, device: str) -> Any:
    return lively_sam(MINI if model == "mini" else SIZES[model], seed=2).to(device)


def threshold(model: str, side: int, device: str = "cpu") -> dict[str, float]:
    """A predicted IoU that a share of the candidates is above, in the widest gap near there."""
    everything = ProposalOptions(min(side, 8), -1e9, 0.0, 1.0, 1.0)
    records = propose(Segmenter(_sam(model, device)), [_frame(0)], everything)[0]
    scores = np.sort([record["predicted_iou"] for record in records])
    place = round((1 - SHARE) * (len(scores) - 1))
    near = scores[max(0, place - 3) : place + 4]
    widest = np.diff(near).argmax()
    return {"above": float(near[widest : widest + 2].mean())}


def _proposals(side: int, above: float) -> ProposalOptions:
    return ProposalOptions(side, above, STABILITY, 1.0, 1.0)  # boxes are not suppressed: all masks are compared


def _records(records: list[dict[str, Any]]) -> Output:
    return {
        "masks": np.array([record["segmentation"] for record in records]),
        "scores": np.array([record["predicted_iou"] for record in records]),
    }


def proposals_plain(model: str, side: int, above: float, device: str = "cpu") -> Work:
    """segment-anything's SamAutomaticMaskGenerator."""
    generator = SamAutomaticMaskGenerator(_sam(model, device), **vars(_proposals(side, above)))
    return lambda: _records(generator.generate(_frame(1)))


def proposals_ours(model: str, side: int, above: float, device: str = "cpu") -> Work:
    """zero_shot.proposals, without a cache."""
    segmenter = Segmenter(_sam(model, device))
    return lambda: _records(propose(segmenter, [_frame(1)], _proposals(side, above))[0])


def _options(setting: str, count: int, data: AVSBench, side: int, cache: Path) -> Options:
    """Those of zero_shot/configs/mini."""
    return Options(
        setting="no_prompt" if setting == "no_prompt" else "point",
        data=Data(root=data.root, first=count, workers=0),
        audioclip=AudioCLIPOptions(weights="mini", reverse=False, interpolation="bicubic"),
        sam=SamOptions(size="mini", weights="mini"),
        prompt=PromptOptions(threshold=0.95),
        retrieval=RetrievalOptions(rule="best", crop_size=128, largest=0.5),
        proposals=ProposalOptions(side, 0.75, 0.9),
        run=RunOptions(cache=cache, cpu=True),
    )


def study_cold(setting: str, count: int, composed: int, side: int) -> Work:
    """zero_shot.evaluate from an empty cache, which it fills."""
    return _study(setting, count, composed, side, cold=True)


def study_warm(setting: str, count: int, composed: int, side: int) -> Work:
    """zero_shot.evaluate from a full cache, as for every further threshold."""
    return _study(setting, count, composed, side, cold=False)


def _study(setting: str, count: int, composed: int, side: int, cold: bool) -> Work:
    cache = Path(tempfile.mkdtemp(prefix="avs_benchmark_cache_"))
    options = _options(setting, count, clips(composed), side, cache)
    built = build_setting(options)
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
            lambda index, frames, answers, truth: masks.extend(a.mask for a in answers),
        )
        found = metrics.result(1)
        return {"masks": np.stack(masks), "M_J": np.array([found["m_j"]]), "M_F": np.array([found["m_f"]])}

    return work


@torch.inference_mode()
def study_plain(setting: str, count: int, composed: int, side: int) -> Work:
    """As the original: nothing is kept, each frame goes through the stock predictor or generator and each proposal
    through torchvision, peaks are sought pixel by pixel, and M_F passes 255 times over the pixels."""
    data = clips(composed)
    options = _options(setting, count, data, side, Path())
    model, sam = load_mini_audioclip(), load_sam(options.sam)
    predictor = SamPredictor(sam)
    generator = SamAutomaticMaskGenerator(sam, **vars(options.proposals))
    model.fidelity = "corrected"

    def pick(frame: np.ndarray, sound: torch.Tensor) -> np.ndarray:
        records = [r for r in generator.generate(frame) if r["area"] <= options.retrieval.largest * 224 * 224]
        cut = {place: crop_proposal(frame, record, "corrected") for place, record in enumerate(records)}
        kept = [place for place, crop in cut.items() if crop is not None]
        if not kept:
            return np.zeros((224, 224), bool)
        size = options.retrieval.crop_size
        crops = torch.stack([plain.crop_image(crop, size) for crop in cut.values() if crop is not None])
        scores = proposal_probabilities(model.encode_image(crops), sound, options.retrieval.scale)
        chosen = select(scores, kept, len(records), rule="best")
        return union([records[place]["segmentation"] for place in chosen])

    def ask(frame: np.ndarray, heat: np.ndarray) -> np.ndarray:
        wanted, unwanted = plain.peaks(heat, options.prompt.threshold)
        predictor.set_image(frame)
        labels = np.array([1] * len(wanted) + [0] * len(unwanted))
        masks, scores, _ = predictor.predict(np.array(wanted + unwanted, float), labels)
        return masks[scores.argmax()]

    @torch.inference_mode()
    def work() -> Output:
        answers, iou, f = [], [], []
        for clip in data.split("test")[:count]:
            frames = [np.asarray(Image.open(path).convert("RGB")) for path in data.frames(clip)]
            heard = torch.from_numpy(five_seconds(data.wav(clip), RATE, tile=options.audioclip.tile))
            sounds = torch.nn.functional.normalize(model.encode_audio(heard), dim=1)
            if setting == "no_prompt":
                masks = [pick(frame, sound) for frame, sound in zip(frames, sounds, strict=True)]
            else:
                images = plain.normalise(torch.from_numpy(np.stack(frames)), "clip")
                dense = model.image_pyramid(images, surgery=True)[1]
                heats = similarity_map(sounds, dense, mode="bicubic").numpy()
                masks = [ask(frame, heat) for frame, heat in zip(frames, heats, strict=True)]
            truth = torch.stack([plain.read_mask(path, "s4") for path in data.masks(clip)])
            predicted = torch.from_numpy(np.stack(masks)).float()
            iou.append(plain.iou(predicted, truth))
            f.append(plain.f_measure(predicted, truth))
            answers += masks
        return {"masks": np.stack(answers), "M_J": np.array([np.mean(iou)]), "M_F": np.array([np.mean(f)])}

    return work
