"""Train a tiny SAM 2 to carry masks through composed clips, in minutes on one thread.

    python -m synthetic.train_tracker --out DIR [--steps 400] [--seed 0]
    python -m synthetic.train_tracker --out DIR --evaluate          IoU on scenes that it was not trained on

DIR becomes a folder as of transformers' save_pretrained: `--track both --tracking.weights DIR`. It tracks and does
nothing else: points and boxes are not among its training.
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare_process

    prepare_process()

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import trange

from synthetic.clips.assets import AssetLibrary, open_assets
from synthetic.clips.sampling import LEVELS, sample_objects, sample_scene
from synthetic.random_sam2 import GRIDS, image_processor, save_network, tiny_config
from synthetic.training.audioclip_data import CANVAS
from synthetic.training.sam_training import mask_loss
from utils.cli import InputError, Parser, cli_entry, progress_bar_options
from utils.files import write_text
from utils.layout import BENCHMARKS, FRAME_SIZE
from utils.option_ranges import POSITIVE_INT, SEED_INT
from utils.paths import expand_user
from zero_shot.segmenters.sam2 import Sam2Segmenter
from zero_shot.segmenters.sam2_families import FAMILIES, load_network
from zero_shot.segmenters.sam2_tracker import MaskTracker

STREAM = 6  # of random numbers; the other trainings and the composed clips use 0 to 5
EVALUATION_CLIPS = 60
BATCH, LENGTH = 8, 4  # clips in a step, and frames of them
POOL_CLIPS, NEW_CLIPS = 400, 0.5  # clips that are drawn while training and kept; the chance of another one
SAVE_STEPS = 50
LEARNING_RATE, WARMUP_STEPS, WEIGHT_DECAY, MAX_GRAD_NORM = 1e-3, 50, 0.01, 1.0


def draw_clip(assets: AssetLibrary, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    """A clip as synthetic.compose would make it, of either level.

    Returns:
        5 frames (224, 224, 3), and masks (5, K, 224, 224) of the objects that are visible in all of them.
    """
    level = LEVELS[rng.choice(list(LEVELS))]
    objects = sample_objects("ms3", str(rng.choice(assets.categories)), assets.categories, rng, level)
    times = [second + 0.5 for second in range(BENCHMARKS["s4"].max_seconds)]
    scene, fractions = sample_scene(objects, assets, CANVAS, times, rng, level)
    frames = [cv2.resize(scene.frame(each), FRAME_SIZE[::-1], interpolation=cv2.INTER_LINEAR) for each in times]
    masks = fractions > 0.5
    return frames, masks[:, (masks.mean((2, 3)) >= level.min_visible).all(axis=0)]


def new_network(seed: int) -> Any:
    """A tiny SAM 2 that gives one mask and takes every object to be visible."""
    import transformers

    torch.manual_seed(seed)
    config = tiny_config("sam2", video=True)
    config.multimask_output_in_sam = False
    config.mask_decoder_config.dynamic_multimask_via_stability = False
    model = transformers.Sam2VideoModel(config)
    visible = model.mask_decoder.pred_obj_score_head.proj_out
    torch.nn.init.zeros_(visible.weight)
    torch.nn.init.constant_(visible.bias, 10.0)
    return model


class MemoryState:
    """What a batch of tracks remembers: the steps of transformers' inference session, for many tracks at once.

    Args:
        model: the network.
        length: frames of a clip.
    """

    def __init__(self, model: Any, length: int) -> None:
        self.model, self.length = model, length
        self.memories: list[tuple[Tensor, Tensor]] = []  # (h·w, B, 64) of each frame, and their positions
        self.pointers: list[Tensor] = []  # (B, C) of each frame

    def remember(self, coarse: Tensor, masks: Tensor, output: Any, given: bool) -> None:
        """Add a frame: its coarsest map (h·w, B, C), mask logits (B, 1, S, S) and the decoder's output."""
        visible = torch.full((masks.shape[0], 1, 1), 10.0)
        self.memories.append(self.model._encode_new_memory(coarse, masks, visible, given))
        self.pointers.append(output.object_pointer[:, 0])

    def condition(self, coarse: Tensor, positions: Tensor) -> Tensor:
        """The coarsest map of the next frame after attention to the memory, (B, C, h, w)."""
        model, now, batch = self.model, len(self.memories), coarse.shape[1]
        # The first frame, which was given, has no place in time; of the others the last six are read.
        read = [(0, 0)] + [(now - t, t) for t in range(max(1, now - model.num_maskmem + 1), now)]
        tokens = [self.memories[t][0].float() for _, t in read]
        where = [self.memories[t][1] + model.memory_temporal_positional_encoding[offset - 1] for offset, t in read]
        offsets = [now - t for t in range(now)]
        pointers, pointer_positions = model._process_object_pointers(
            offsets, self.pointers, self.length, batch, model.hidden_dim, coarse.device
        )
        attended = model.memory_attention(
            current_vision_features=coarse,
            current_vision_position_embeddings=positions,
            memory=torch.cat([*tokens, pointers]),
            memory_posision_embeddings=torch.cat([*where, pointer_positions]),
            num_object_pointer_tokens=len(pointers),
        )
        return attended.reshape(batch, -1, model.hidden_dim).transpose(1, 2).unflatten(2, GRIDS[-1])


def carry_batch(model: Any, video: Tensor, first: Tensor) -> Tensor:
    """Carry masks from the first frame through the others, as MaskTracker does, for many clips at once.

    Args:
        model: the network, in eval mode.
        video: its input (B, T, 3, S, S).
        first: mask of one object of each clip in its first frame, (B, S, S) float32.

    Returns:
        Logits of the other frames, (B, T - 1, h, w).
    """
    count, length = video.shape[:2]
    features = model.get_image_features(video.flatten(0, 1), return_dict=True)
    levels = [part.unflatten(1, (count, length)) for part in features.fpn_hidden_states]
    positions = features.fpn_position_encoding[-1].unflatten(1, (count, length))
    state, found = MemoryState(model, length), []
    for t in range(length):
        *fine, coarse = (part[:, :, t] for part in levels)  # (h·w, B, C)
        finer = [part.permute(1, 2, 0).unflatten(2, grid) for part, grid in zip(fine, GRIDS, strict=False)]
        if t:
            conditioned = state.condition(coarse, positions[:, :, t])
            output = model._single_frame_forward(image_embeddings=[*finer, conditioned], multimask_output=False)
            found.append(output.pred_masks[:, 0])
            state.remember(coarse, output.high_res_masks, output, given=False)
        else:
            given = (first[:, None] >= 0.5).float()
            plain = coarse.permute(1, 2, 0).unflatten(2, GRIDS[-1])
            output = model._single_frame_forward(
                input_masks=model.mask_downsample(given), image_embeddings=[*finer, plain], multimask_output=False
            )
            state.remember(coarse, 20 * given - 10, output, given=True)
    return torch.stack(found, dim=1)


def train(model: Any, seed: int, steps: int, folder: Path) -> None:
    """Train in place, saving now and then and at the end."""
    processor = image_processor(model)
    assets, rng = open_assets(None, None), np.random.default_rng([seed, STREAM])
    model.eval().requires_grad_(True)  # no dropout
    model.mask_decoder.pred_obj_score_head.requires_grad_(False)
    parameters = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98))
    pool: list[tuple[Tensor, Tensor]] = []
    for step in (bar := trange(steps, desc="train", unit="step", **progress_bar_options())):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(1, (step + 1) / WARMUP_STEPS) * (1 - step / steps)
        while len(pool) < POOL_CLIPS and (len(pool) < BATCH or rng.random() < NEW_CLIPS):
            pool.append(prepare_clip(processor, *draw_clip(assets, rng)))
        video, masks = sample_batch(pool, rng)
        logits = carry_batch(model, video, masks[:, 0])
        coarse = F.interpolate(masks[:, 1:], logits.shape[2:], mode="bilinear", antialias=True)
        loss = mask_loss(logits, coarse).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if (step + 1) % SAVE_STEPS == 0 or step + 1 == steps:
            _save(folder, model)


def _save(folder: Path, model: Any) -> None:
    """Save the network as a folder; each file is complete or the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial") as partial:
        for path in sorted(save_network(model, Path(partial)).iterdir()):
            path.replace(folder / path.name)


def prepare_clip(processor: Any, frames: Sequence[np.ndarray], masks: np.ndarray) -> tuple[Tensor, Tensor]:
    """The network's input (T, 3, S, S) and the masks of the objects (T, K, S, S) of a clip."""
    tensors = [torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1) for frame in frames]
    video = torch.cat([processor(each, return_tensors="pt")["pixel_values"] for each in tensors])
    return video, F.interpolate(torch.from_numpy(masks).float(), video.shape[-2:], mode="bilinear", antialias=True)


def sample_batch(pool: Sequence[tuple[Tensor, Tensor]], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """BATCH clips of the pool, each with one object, some played backwards, mirrored or in other colors."""
    videos, masks = [], []
    for index in rng.integers(len(pool), size=BATCH):
        video, objects = pool[index]
        order = torch.arange(len(video))
        order = order.flip(0) if rng.random() < 0.5 else order
        start = int(rng.integers(len(video) - LENGTH + 1))
        chosen = order[start : start + LENGTH]
        part, mask = video[chosen], objects[chosen, int(rng.integers(objects.shape[1]))]
        if rng.random() < 0.5:
            part, mask = part.flip(3), mask.flip(2)
        part = part[:, torch.from_numpy(rng.permutation(3))] * rng.uniform(0.8, 1.2)
        videos.append(part)
        masks.append(mask)
    return torch.stack(videos).float(), torch.stack(masks)


def evaluate(folder: Path) -> dict[str, float]:
    """Mean IoU in the other four seconds, of masks carried from the middle one and of its masks left where they are."""
    tracker = MaskTracker(Sam2Segmenter(*load_network(folder, "sam2", tracks=True)), FAMILIES["sam2"])
    assets, rng = open_assets(None, None), np.random.default_rng([0, STREAM, 1])
    carried, still = [], []
    for _ in range(EVALUATION_CLIPS):
        frames, masks = draw_clip(assets, rng)
        found = tracker.carry(frames, 2, masks[2])
        for index in (0, 1, 3, 4):
            carried.append(_iou(found[index], masks[index]))
            still.append(_iou(masks[2], masks[index]))
    return {"carried": float(np.concatenate(carried).mean()), "still": float(np.concatenate(still).mean())}


def _iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """IoU (K,) of masks (K, H, W)."""
    return (one & other).sum((1, 2)) / np.maximum((one | other).sum((1, 2)), 1)


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = Parser(__doc__, prog="python -m synthetic.train_tracker")
    parser.add_argument("--out", type=expand_user, required=True, metavar="DIR", help="folder of the network")
    parser.add_argument("--steps", type=POSITIVE_INT, default=400, help="default %(default)s")
    parser.add_argument("--seed", type=SEED_INT, default=0, help="default %(default)s")
    parser.add_argument("--evaluate", action="store_true", help="evaluate, without training")
    args = parser.parse_args(argv)
    if not args.evaluate:
        if (args.out / "config.json").is_file():
            raise InputError(f"{args.out} holds a network already; choose another --out, or --evaluate it")
        train(new_network(args.seed), args.seed, args.steps, args.out)
    iou = evaluate(args.out)
    write_text(args.out / "evaluation.txt", f"{iou}\n")
    print(f"{args.out}: IoU of carried masks {iou['carried']:.3f}, of masks left where they are {iou['still']:.3f}")
    if iou["carried"] < iou["still"]:
        print(
            "note: it carries masks worse than leaving them where they are; train for more --steps, or another --seed"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
