"""VGGish on a sine of 1 kHz, which needs no file."""

import numpy as np
import torch
from torch import Tensor

from models.registry import create_model
from models.vggish import VGGish, log_mel
from pretrained.checks import Context, Outputs

FREQUENCY, SECONDS = 1000, 3  # Hz; of the sine


def sine_16k(context: Context) -> Outputs:
    """Before the last ReLU, at VGGish's own sample rate."""
    return _statistics(_outputs(context, np.arange(0, SECONDS, 1 / 16_000), 16_000)[0])


def sine_44k_linear(context: Context) -> Outputs:
    """Before the last ReLU, resampled."""
    return _statistics(_outputs(context, np.linspace(0, SECONDS, SECONDS * 44_100), 44_100)[0])


def sine_44k_relu(context: Context) -> Outputs:
    """After the last ReLU, resampled."""
    return _statistics(_outputs(context, np.linspace(0, SECONDS, SECONDS * 44_100), 44_100)[1])


def _outputs(context: Context, seconds: np.ndarray, rate: int) -> tuple[Tensor, Tensor]:
    """The last layer's outputs (3, 128) before and after its ReLU."""
    model: VGGish = create_model("vggish", context.weights).to(context.device)
    linear: list[Tensor] = []
    # A copy, because the ReLU works in place.
    model.embeddings[-2].register_forward_hook(lambda _, __, output: linear.append(output.clone()))
    examples = torch.from_numpy(log_mel(np.sin(2 * np.pi * FREQUENCY * seconds), rate))
    rectified = model(examples.to(context.device))
    return linear[0], rectified


def _statistics(values: Tensor) -> Outputs:
    return {"shape": list(values.shape), "mean": values.mean().item(), "std": values.std(correction=0).item()}
