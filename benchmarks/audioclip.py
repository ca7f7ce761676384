"""AudioCLIP's towers beside their textbook forms: python -m benchmarks.audioclip [--repeats N] [--threads N]

Audio: FBSP filters kept in eval mode beside filters rebuilt at every call. Image: encode_image beside
image_pyramid, which adds the four feature maps and the 49 dense embeddings. Weights are random: time and
memory do not depend on them.

Each variant is measured in a process of its own that builds the model, warms up once and runs its input
`--repeats` times; rounds alternate between the variants, so that a slow spell of the machine hits all alike.
"ms per item" is the median of all calls. "peak MB" is how far the process's highest resident memory (VmHWM,
Linux) rises over the memory held just before the first call, i.e. activations, workspace and kept filters.
The variants' outputs are compared as well.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from models.audioclip import SAMPLE_RATE, AudioCLIP

SECONDS = 5
VARIANTS = {
    "audio-kept": "audio, filters kept",
    "audio-rebuilt": "audio, filters rebuilt",
    "image-plain": "image, encode_image",
    "image-pyramid": "image, image_pyramid",
}


def resident_mb(field: str) -> float:
    """VmRSS (now) or VmHWM (peak since start or reset) of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def encoder(variant: str, model: AudioCLIP) -> Callable[[Tensor], Tensor]:
    """The function to time: a batch to its embeddings."""
    if variant == "image-pyramid":
        return lambda images: model.image_pyramid(images)[2]
    if variant == "audio-rebuilt":
        model.audio.fbsp.train()  # this layer alone: it then builds its filters at every call
    return model.encode_image if variant == "image-plain" else model.encode_audio


@torch.inference_mode()
def measure(variant: str, batch: int, repeats: int, threads: int) -> dict[str, list[float] | float]:
    """Seconds of each call, peak memory in MB and the first item's embedding, in this process."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = AudioCLIP(text=False).eval()
    if variant.startswith("audio"):
        inputs = 0.2 * torch.randn(batch, SECONDS * SAMPLE_RATE).clamp(-3, 3)
    else:
        inputs = torch.randn(batch, 3, 224, 224)
    encode = encoder(variant, model)
    before = resident_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to the present size
    output = encode(inputs)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        encode(inputs)
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "peak": resident_mb("VmHWM") - before, "output": output[0].tolist()}


def measure_apart(variant: str, batch: int, repeats: int, threads: int) -> dict:
    """The same in a fresh process."""
    numbers = ["--batch", str(batch), "--repeats", str(repeats), "--threads", str(threads)]
    command = [sys.executable, "-m", "benchmarks.audioclip", "--variant", variant, *numbers]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1, help="items per call (default 1)")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls per round (default 5)")
    parser.add_argument("--rounds", type=int, default=2, help="processes per variant (default 2)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = (options.batch, options.repeats, options.threads)
    if options.variant:
        print(json.dumps(measure(options.variant, *sizes)))
        return

    runs: dict[str, list[dict]] = {variant: [] for variant in VARIANTS}
    for _ in range(options.rounds):
        for variant, measured in runs.items():
            measured.append(measure_apart(variant, *sizes))

    print(f"batch {options.batch}, {options.threads} thread(s), torch {torch.__version__}")
    print(f"a clip is {SECONDS} s at {SAMPLE_RATE} Hz, an image 224 x 224")
    print(f"{'variant':<26}{'ms per item':>12}{'fastest':>10}{'peak MB':>10}")
    for variant, name in VARIANTS.items():
        calls = [1000 * s / options.batch for run in runs[variant] for s in run["seconds"]]
        peak = max(run["peak"] for run in runs[variant])
        print(f"{name:<26}{statistics.median(calls):>12.1f}{min(calls):>10.1f}{peak:>10.0f}")
    for kind, (one, other) in {
        "audio": ("audio-kept", "audio-rebuilt"),
        "image": ("image-plain", "image-pyramid"),
    }.items():
        a, b = (torch.tensor(runs[variant][0]["output"]) for variant in (one, other))
        print(f"{kind}: relative difference of the two embeddings {((a - b).norm() / b.norm()).item():.1e}")


if __name__ == "__main__":
    main()
