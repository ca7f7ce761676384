"""Train the miniature weights, which ship in pretrained/mini, anew.

  python -m pretrained.train_mini audioclip [--out DIR] [--seed S] [--steps N] [--minutes M]   drawn things
  python -m pretrained.train_mini audioclip --pictures DIR [...]    things from NAME.png + NAME.ogg or NAME.wav
  python -m pretrained.train_mini audioclip --data DIR [...]        the train split of preprocessed clips
  python -m pretrained.train_mini audioclip --evaluate [...]        measure what is in --out, train nothing

OUT gets audioclip.safetensors, audioclip.json (sizes, recipe, figures), audioclip.png (the loss) and, as long as
steps are left, audioclip.state.pt. A run that was stopped, by --minutes or otherwise, goes on when the same command
is given again, and ends as if nothing had happened. A fresh run needs an OUT without weights.
"""

import argparse
import io
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from avsbench_data.scene import DrawnCast, PictureCast
from models.audioclip import AudioCLIP
from models.checkpoints import load_checkpoint
from models.mini import MINI, load_mini_audioclip
from pretrained import mini_audioclip as mini
from utils.cli import InputError, command
from utils.files import sha256, write_bytes, write_text
from utils.layout import BENCHMARKS, AVSBench

SAVE_EVERY = 100  # steps
WEIGHT_DECAY = 0.05


@dataclass
class State:
    """How far a run has come."""

    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)


def open_benchmark(root: Path) -> AVSBench:
    """The benchmark whose meta CSV a folder holds."""
    for name, benchmark in BENCHMARKS.items():
        if (root / benchmark.meta).is_file():
            return AVSBench(root, name)
    raise InputError(f"{root}: holds no s4_meta_data.csv or ms3_meta_data.csv; see avsbench_data/README.md")


def recipe(args: argparse.Namespace) -> dict[str, Any]:
    """What the weights depend on, for the JSON; a run goes on only under the same recipe."""
    scenes = "avsbench_data.scene, drawn on the fly"
    if args.data:
        data = f"{open_benchmark(args.data).benchmark.name} clips of {args.data}, the train split"
    elif args.pictures:
        data = f"{scenes}, with the things of {args.pictures} ({pictures_digest(args.pictures)})"
    else:
        data = f"{scenes}, with the built-in things"
    start = f"the weights in {args.start}" if args.start else "random weights"
    plan = mini.Plan.of(args.steps, easy=not args.data)
    return {
        "data": data,
        "easy_until": plan.easy_until,
        "mosaics_from": plan.mosaics_from,
        "start": start,
        "seed": args.seed,
        "steps": args.steps,
        "batch": args.batch,
        "lr": args.lr,
        "supervision": "which sound belongs to which frame (InfoNCE); no category, mask or position",
        "sound": "1 s at 44.1 kHz that has been through a 16 kHz file; trained on 1 s, measured on 1 s tiled 5 times",
        "frames": f"{mini.FRAME_SIZE[0]} px; easy scenes {mini.EASY_SIDE} px at the same scale",
    }


def pictures_digest(folder: Path) -> str:
    """Names the contents of a folder of pictures in eight digits."""
    cast = PictureCast(folder)
    files = [path for kind in cast.kinds for path in (cast.picture(kind), cast.recording(kind))]
    return f"{len(cast.kinds)} kinds, {sum(int(sha256(path)[:8], 16) for path in files) % 16**8:08x}"


def training_pairs(args: argparse.Namespace) -> mini.ScenePairs | mini.ClipPairs:
    """Where the pairs come from."""
    if args.data:
        data = open_benchmark(args.data)
        mini.ClipPairs(data, "test", 0, 1)  # what is missing for the measures is told now, not after the training
        return mini.ClipPairs(data, "train", args.seed, args.batch)
    return mini.ScenePairs(PictureCast(args.pictures) if args.pictures else DrawnCast(), args.seed)


class Run:
    """One training, from the command line to its files."""

    def __init__(self, args: argparse.Namespace):
        self.args, self.state, self.recipe = args, State(), recipe(args)
        self.plan = mini.Plan.of(args.steps, easy=not args.data)
        self.done = False
        self.weights, self.notes, self.saved, self.curve = (
            args.out / f"audioclip{suffix}" for suffix in (".safetensors", ".json", ".state.pt", ".png")
        )
        try:
            self.sizes = json.loads(args.sizes) if args.sizes else mini.SIZES
            self.model = mini.build(self.sizes, args.seed)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"--sizes: {error}") from error
        if args.start:
            load_mini_audioclip(args.start)  # its notes and weights fit each other
            load_checkpoint(self.model, args.start / "audioclip.safetensors")
        learnt = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learnt, lr=args.lr, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98))
        self.resume()

    def resume(self) -> None:
        """Go on from the state if there is one; refuse to write over other weights."""
        if not self.notes.is_file():
            if self.weights.is_file():
                raise InputError(f"{self.weights} is there without its notes ({self.notes.name}); give another --out")
            return
        try:
            found = json.loads(self.notes.read_text(encoding="utf-8"))
            same = found["recipe"] == self.recipe and found["model"] == self.sizes
            self.done = bool(found["figures"])
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{self.notes}: unreadable; give another --out, or delete it first") from None
        if not same:
            raise InputError(f"{self.args.out} holds weights of another recipe ({self.notes.name}); give another --out")
        if self.done:
            return
        if not self.saved.is_file():
            raise InputError(f"{self.saved}: is gone, so the run cannot go on; give another --out")
        try:
            kept = torch.load(self.saved, map_location="cpu", weights_only=True)
            self.model.load_state_dict(kept["model"])
            self.optimizer.load_state_dict(kept["optimizer"])
            self.state = State(**kept["state"])
        except Exception as error:  # torch.load's errors have no common base
            raise InputError(f"{self.saved}: damaged, so the run cannot go on; give another --out") from error

    def train(self) -> bool:
        """Train until the steps or the minutes are over; whether the steps are."""
        args, state = self.args, self.state
        pairs = training_pairs(args)
        stream = mini.Stream(pairs, self.plan, args.batch, state.step)
        loader = DataLoader(stream, batch_size=args.batch, num_workers=args.workers)
        mini.training_mode(self.model)
        begin, before = time.perf_counter(), state.seconds
        bar = tqdm(loader, initial=state.step, total=args.steps, desc="train", unit="step")
        try:
            for frames, sounds in bar:
                for group in self.optimizer.param_groups:
                    group["lr"] = args.lr * self.plan.rate(state.step)
                loss = mini.contrastive_loss(self.model, frames, sounds, self.plan.mosaic(state.step))
                if not torch.isfinite(loss):
                    raise InputError(f"the loss is {loss.item()} in step {state.step + 1}; lower --lr")
                self.optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], 1.0)
                self.optimizer.step()
                state.step += 1
                state.losses.append(round(loss.item(), 4))
                state.seconds = before + time.perf_counter() - begin
                bar.set_postfix(loss=f"{np.mean(state.losses[-20:]):.3f}", refresh=False)
                if state.step % SAVE_EVERY == 0:
                    self.save({})
                if time.perf_counter() - begin > 60 * args.minutes:
                    break
        except KeyboardInterrupt:
            self.save({})
            raise
        self.save({})
        return state.step >= args.steps

    def save(self, figures: dict[str, Any]) -> None:
        """Write the state first: whatever else is there, it can be gone on from."""
        model: dict[str, Tensor] = {name: value.contiguous() for name, value in self.model.state_dict().items()}
        notes = {
            "model": self.sizes,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "recipe": self.recipe,
            "steps_done": self.state.step,
            "minutes": round(self.state.seconds / 60, 1),
            "logit_scale": round(self.model.logit_scale_ai.exp().item(), 2),
            "figures": figures,
        }
        buffer = io.BytesIO()
        state = vars(self.state)
        torch.save({"model": model, "optimizer": self.optimizer.state_dict(), "state": state}, buffer)
        write_bytes(self.saved, buffer.getvalue())
        write_text(self.notes, json.dumps(notes, indent=1) + "\n")
        write_bytes(self.weights, safetensors_bytes(model))
        draw_curve(self.state.losses, self.plan, self.curve)


def draw_curve(losses: Sequence[float], plan: mini.Plan, path: Path) -> None:
    """The loss over the steps, as a picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.add_subplot()
    steps = np.arange(1, len(losses) + 1)
    axes.plot(steps, losses, color="0.8", linewidth=0.5)
    window = min(25, len(losses))
    axes.plot(steps[window - 1 :], np.convolve(losses, np.ones(window) / window, "valid"), color="C0")
    for begin, what in ((plan.easy_until, " whole frames"), (plan.mosaics_from, " mosaics")):
        if begin < len(losses):
            axes.axvline(begin, color="0.4", linestyle=":")
            axes.annotate(what, (begin, max(losses)), va="top", fontsize=8)
    axes.set(xlabel="step", ylabel="contrastive loss", ylim=(0, None))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_bytes(path, buffer.getvalue())


def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the weights in OUT on unseen seconds, of clips (their test split) or of scenes."""
    model: AudioCLIP = load_mini_audioclip(args.out)
    if args.data:
        data = open_benchmark(args.data)
        pairs = mini.ClipPairs(data, "test", 0, 1)
        return {f"test clips, second {k}": mini.measure(model, mini.clip_rounds(pairs, k)) for k in (0, 2, 4)}
    scenes = mini.ScenePairs(PictureCast(args.pictures) if args.pictures else DrawnCast(), 0)
    found = {}
    for easy, title in ((True, "one thing a frame"), (False, "whole frames")):
        for seed in args.evaluation_seeds:
            rounds = mini.scene_rounds(scenes, seed, args.rounds, easy)
            found[f"{title}, seed {seed}"] = mini.measure(model, rounds)
    return found


def table(figures: dict[str, dict[str, float]]) -> str:
    """The figures, a line for each measure and a column for each set."""
    names = list(dict.fromkeys(name for column in figures.values() for name in column))
    width = max(map(len, names))
    lines = [f"{n + 1}: {title}" for n, title in enumerate(figures)]
    lines.append(" " * width + "".join(f"{n + 1:>8}" for n in range(len(figures))))
    for name in names:
        lines.append(name.ljust(width) + "".join(f"{column.get(name, math.nan):8.4g}" for column in figures.values()))
    return "\n".join(lines)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m pretrained.train_mini", description=__doc__, formatter_class=style)
    models = parser.add_subparsers(dest="model", required=True)
    one = models.add_parser("audioclip", help="the contrastive AudioCLIP", description=__doc__, formatter_class=style)
    source = one.add_mutually_exclusive_group()
    source.add_argument("--data", type=Path, help="folder of preprocessed clips, with its meta CSV")
    source.add_argument("--pictures", type=Path, help="folder of pictures and sounds instead of the drawn things")
    one.add_argument("--out", type=Path, default=MINI, help="default pretrained/mini")
    one.add_argument("--start", type=Path, help="folder of miniature weights to start from, instead of random ones")
    one.add_argument("--seed", type=int, default=0, help="default 0")
    one.add_argument("--steps", type=int, default=1000, help="of the whole schedule, default 1000")
    one.add_argument("--minutes", type=float, default=math.inf, help="stop after so long; the same command goes on")
    one.add_argument("--batch", type=int, default=32, help="default 32")
    one.add_argument("--lr", type=float, default=2e-3, help="default 2e-3")
    one.add_argument("--sizes", help="JSON of AudioCLIP's arguments, for another miniature")
    one.add_argument("--threads", type=int, default=1, help="default 1: small networks gain little by more")
    one.add_argument("--workers", type=int, default=1, help="processes that make pairs, default 1")
    one.add_argument("--evaluate", action="store_true", help="only measure the weights in --out")
    one.add_argument("--rounds", type=int, default=15, help="of one scene a kind, to measure on; default 15")
    one.add_argument("--evaluation-seeds", type=int, nargs="+", default=[0, 1, 2], help="default 0 1 2")
    args = parser.parse_args(argv)
    if min(args.seed, args.workers, *args.evaluation_seeds) < 0 or min(args.steps, args.threads, args.rounds) < 1:
        parser.error(
            "--seed, --workers and --evaluation-seeds are 0 or more; --steps, --threads and --rounds 1 or more"
        )
    if args.batch < 4 or args.batch % 4 or not args.lr > 0 or not args.minutes > 0:
        parser.error("--batch must be a multiple of 4, for the mosaics; --lr and --minutes above 0")
    if args.evaluate and args.start:
        parser.error("--evaluate trains nothing, so it takes no --start")
    return args


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Train or measure as the command line asks."""
    args = parse(argv)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)  # before OpenCV starts threads, which a forked worker would wait for in vain
    if args.evaluate:
        print(table(evaluate(args)))
        return 0
    try:
        run = Run(args)
        if run.done:
            print(f"{args.out}: all {args.steps} steps are done; --evaluate measures them")
            return 0
        if not run.train():
            print(f"{args.out}: {run.state.step} of {args.steps} steps are done; the same command goes on")
            return 0
        figures = evaluate(args)
        run.save(figures)
        run.saved.unlink()  # nothing is left to go on with
    except OSError as error:
        raise InputError(f"cannot write into {args.out}: {error}; mend that and run the command again") from error
    print(table(figures))
    size = run.weights.stat().st_size / 1e6
    print(f"{run.weights}: {size:.1f} MB, {run.state.step} steps in {run.state.seconds / 60:.1f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
