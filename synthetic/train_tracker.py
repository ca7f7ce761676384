"""Train a tiny SAM 2 to carry masks through composed clips, in minutes on one thread.

    python -m synthetic.train_tracker --out DIR [--minutes 15] [--seed 1]
    python -m synthetic.train_tracker --out DIR --evaluate          IoU on scenes that it was not trained on

DIR becomes a folder as of transformers' save_pretrained: `--track both --tracking.weights DIR`. It tracks and does
nothing else: points and boxes are not among its training. Running the command again trains for as long again.
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare_process

    prepare_process()

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from synthetic.clips.assets import AssetLibrary, open_assets
from synthetic.clips.sampling import sample_objects, sample_scene
from synthetic.random_sam2 import image_processor, save_network, tiny_config
from synthetic.training.audioclip_data import CANVAS
from utils.cli import Parser, cli_entry, progress_bar_options
from utils.files import write_text
from utils.layout import CLIP_SECONDS, FRAME_SIZE
from utils.option_ranges import SEED_INT, bounded_number
from utils.paths import expand_user
from zero_shot.segmenters.sam2 import Sam2Segmenter
from zero_shot.segmenters.sam2_families import FAMILIES, load_network
from zero_shot.segmenters.sam2_tracker import MaskTracker

STREAM = 6  # of random numbers; the other trainings and the composed clips use 0 to 5
EVALUATION_CLIPS = 60
BATCH = 4  # clips in a step
LEARNING_RATE, WARMUP_STEPS, WEIGHT_DECAY, MAX_GRAD_NORM = 1e-3, 50, 0.01, 1.0
MAX_OBJECTS = 2  # of a clip that are tracked in training


def draw_clip(assets: AssetLibrary, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    """A clip as synthetic.compose would make it: 5 frames (224, 224, 3), and masks of its objects (5, K, 224, 224)."""
    objects = sample_objects("ms3", str(rng.choice(assets.categories)), assets.categories, rng)
    times = [second + 0.5 for second in range(CLIP_SECONDS)]
    scene, fractions = sample_scene(objects, assets, CANVAS, times, rng)
    frames = [cv2.resize(scene.frame(each), FRAME_SIZE[::-1], interpolation=cv2.INTER_LINEAR) for each in times]
    return frames, fractions > 0.5


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
    for parameter in visible.parameters():
        parameter.requires_grad_(False)
    return model


def clip_loss(model: Any, processor: Any, frames: Sequence[np.ndarray], masks: np.ndarray) -> Tensor:
    """Cross-entropy and Dice loss of the masks (T, K, H, W) carried from the first frame through the others."""
    side = int(model.prompt_encoder.input_image_size)
    tensors = [torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1) for frame in frames]
    video = torch.cat([processor(each, return_tensors="pt")["pixel_values"] for each in tensors])
    target = torch.from_numpy(masks).float()
    session = _session(video)
    for number, mask in enumerate(F.interpolate(target[0][:, None], (side, side), mode="bilinear", antialias=True)):
        session.add_mask_inputs(session.obj_id_to_idx(number), 0, (mask[None] >= 0.5).float())
        session.obj_with_new_inputs.append(number)
    forward = type(model).forward.__wrapped__  # without its inference mode
    losses = []
    for index in range(len(frames)):
        logits = forward(model, session, frame_idx=index).pred_masks[:, 0]
        if index:
            losses.append(_mask_loss(logits, target[index]))
    return torch.stack(losses).mean()


def _session(video: Tensor) -> Any:
    import transformers

    height, width = FRAME_SIZE
    session = transformers.Sam2VideoInferenceSession(
        video=video, video_height=height, video_width=width, dtype=torch.float32
    )
    session.cache.max_vision_features_cache_size = len(video)
    return session


def _mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Loss of logits (K, h, w) against masks (K, H, W)."""
    coarse = F.interpolate(target[:, None], logits.shape[1:], mode="bilinear", antialias=True)[:, 0]
    probabilities = logits.sigmoid()
    shared = 2 * (probabilities * coarse).sum((1, 2)) + 1
    dice = 1 - shared / (probabilities.sum((1, 2)) + coarse.sum((1, 2)) + 1)
    return 5 * F.binary_cross_entropy_with_logits(logits, coarse) + dice.mean()


def train(model: Any, processor: Any, seed: int, minutes: float) -> int:
    """Train in place for a number of minutes; returns the number of steps."""
    assets, rng = open_assets(None, None), np.random.default_rng([seed, STREAM])
    model.eval()  # no dropout, and sessions need it
    parameters = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98))
    begin, step = time.monotonic(), 0
    with tqdm(desc="train", unit="step", **progress_bar_options()) as bar:
        while (done := (time.monotonic() - begin) / (60 * minutes)) < 1:
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(1, (step + 1) / WARMUP_STEPS) * (1 - done)
            losses = []
            for _ in range(BATCH):
                frames, masks = draw_clip(assets, rng)
                chosen = rng.permutation(masks.shape[1])[:MAX_OBJECTS]
                order = slice(None, None, int(rng.choice([1, -1])))
                loss = clip_loss(model, processor, frames[order], np.ascontiguousarray(masks[order][:, chosen]))
                (loss / BATCH).backward()
                losses.append(loss.item())
            torch.nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            bar.update()
            bar.set_postfix(loss=f"{np.mean(losses):.3f}", refresh=False)
            if step % 50 == 0:
                print(f"step {step}, {done:.0%} of the time, loss {np.mean(losses):.3f}", flush=True)
    return step


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
    parser.add_argument("--minutes", type=bounded_number(float, 0.01, 600), default=15.0, help="default %(default)s")
    parser.add_argument("--seed", type=SEED_INT, default=1, help="default %(default)s")
    parser.add_argument("--evaluate", action="store_true", help="evaluate, without training")
    args = parser.parse_args(argv)
    if not args.evaluate:
        if (args.out / "config.json").is_file():
            model, _ = load_network(args.out, "sam2", tracks=True)
            model.requires_grad_(True)
        else:
            model = new_network(args.seed)
        steps = train(model, image_processor(model), args.seed, args.minutes)
        save_network(model, args.out)
        print(f"{args.out}: {steps} steps of {BATCH} clips")
    iou = evaluate(args.out)
    write_text(args.out / "evaluation.txt", f"{iou}\n")
    print(f"{args.out}: IoU of carried masks {iou['carried']:.3f}, of masks left where they are {iou['still']:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
