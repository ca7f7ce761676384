"""FBSP: a learnable bank of complex frequency B-spline wavelets, the first layer of AudioCLIP's audio tower.

Filter k is a complex exponential of frequency ``fc[k]`` under a window ``sinc(fb[k]·t / m[k]) ** m[k]`` of
order ``m[k]`` and bandwidth ``fb[k]``. At initialisation (m = 0, fb = 1, fc = k) the layer is a plain Fourier
transform of the frame. Source: Guzhov et al., "ESResNe(X)t-fbsp: Learning Robust Time-Frequency
Transformation of Audio" (2021).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-8
FLOOR = 1e-30  # keeps powers and roots off 0, where their gradients are not finite


class FBSP(nn.Module):
    """Time frames to complex spectra by ``n_fft // 2 + 1`` learnable filters.

    Building the filters costs more than applying them to one clip. They depend on the parameters alone, so as
    long as no gradient is wanted they are built once and kept (two float32 tables of ``n_fft // 2 + 1`` by
    ``n_fft``: 16.8 MB at 2048). The kept filters never enter the state dict or a pickle.

    Args:
        n_fft: filter length in samples, at least 2.
    """

    def __init__(self, n_fft: int = 2048) -> None:
        super().__init__()
        if n_fft < 2:
            raise ValueError(f"n_fft must be at least 2, got {n_fft}")
        self.n_fft = n_fft
        self.n_filters = n_fft // 2 + 1
        self.m = nn.Parameter(torch.zeros(self.n_filters))
        self.fb = nn.Parameter(torch.ones(self.n_filters))
        self.fc = nn.Parameter(torch.arange(self.n_filters, dtype=torch.float32))
        self.bias = nn.Parameter(torch.empty(0))  # unused; published checkpoints carry this empty entry
        self._kept: tuple[Tensor, Tensor] | None = None  # (parameter values, filters built from them)

    def forward(self, frames: Tensor) -> Tensor:
        """Spectra (..., 2, n_filters), real and imaginary parts, of ``frames`` (..., samples).

        A frame shorter than ``n_fft`` is centred in zeros.

        Raises:
            ValueError: a frame is longer than ``n_fft``.
        """
        missing = self.n_fft - frames.shape[-1]
        if missing < 0:
            raise ValueError(f"frames of {frames.shape[-1]} samples are longer than the {self.n_fft}-tap filters")
        filters = self.filters()
        # Leaving the zeros out would save a fifth of this product but sum in another order. Rounding in weak
        # bins is what the rest of the tower amplifies most, so the order stays that of the original program.
        padded = F.pad(frames.to(filters.dtype), (missing // 2, missing - missing // 2))
        return F.linear(padded, filters.flatten(0, 1)).unflatten(-1, (2, self.n_filters))

    def filters(self) -> Tensor:
        """Filters (2, n_filters, n_fft), real and imaginary parts, in float32 (float64 for a double model).

        Rebuilt with gradients in train mode, and in eval mode too where autograd is on and a parameter asks
        for it: fine-tuning with frozen statistics must not lose gradients unnoticed. Otherwise built once.
        """
        if self.training or (torch.is_grad_enabled() and any(p.requires_grad for p in self._learnt())):
            self._kept = None
            self._normalise_gradients()
            return self.build_filters()
        # Comparing the values themselves (3 short vectors) also notices what version counters miss: writes
        # through `.data`, parameters replaced by load_state_dict(assign=True), moves to a device or dtype.
        values = torch.stack(self._learnt()).detach()
        if self._kept is None or not _same(self._kept[0], values):
            # Plain tensors even under inference_mode, so that a later backward pass may save them.
            with torch.inference_mode(False), torch.no_grad():
                self._kept = (values.clone(), self.build_filters())
        return self._kept[1]

    def build_filters(self) -> Tensor:
        """Filters (2, n_filters, n_fft) of the present parameters: differentiable, nothing kept.

        Raises:
            ValueError: parameters in bfloat16, which rounds the frequencies above 256 to other ones.
        """
        if self.m.dtype == torch.bfloat16:
            raise ValueError("FBSP frequencies do not survive bfloat16; keep float32 weights and use torch.autocast")
        dtype = torch.promote_types(self.m.dtype, torch.float32)
        m, fb, fc = (p.to(dtype).unsqueeze(-1) for p in self._learnt())
        time = unit_axis(self.n_fft, dtype).to(m.device) * math.pi + EPS

        order = m + EPS
        base = _sinc(fb * time / torch.where(order == 0, EPS, order))
        # The real power of a negative base is complex: its phase is pi times the exponent.
        magnitude = base.square().clamp_min(FLOOR) ** (m / 2)
        window_real = magnitude * torch.where(base < 0, (math.pi * m).cos(), 1.0)
        window_imag = magnitude * torch.where(base < 0, (math.pi * m).sin(), 0.0)

        angle = fc * time  # of the carrier exp(-i·angle)
        cos, sin = angle.cos(), angle.sin()
        filters = torch.stack((window_real * cos + window_imag * sin, window_imag * cos - window_real * sin))
        # A bandwidth driven below zero silences its filter instead of filling it with NaN.
        return filters * fb.clamp_min(FLOOR).sqrt() / math.sqrt(self.n_fft)

    def norm_penalty(self) -> Tensor:
        """Mean over the filters of (||W_k||_2 - 1)^2, the term of the training loss that holds their norm."""
        norms = torch.linalg.vector_norm(self.filters(), dim=(0, 2))
        return F.mse_loss(norms, torch.ones_like(norms))

    def _learnt(self) -> list[Tensor]:
        return [self.m, self.fb, self.fc]

    def _normalise_gradients(self) -> None:
        """Have each parameter's gradient scaled to a maximum of 1 in training, as published.

        Of several processes that train together, it is the gradient of all that is scaled.
        """

        def scaled(gradient: Tensor) -> Tensor:
            if not self.training:
                return gradient
            if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
                gradient = gradient.clone()
                dist.all_reduce(gradient)
                gradient /= dist.get_world_size()
            return gradient / (gradient.abs().max() + EPS)

        for parameter in self._learnt():
            # The mark lives and dies with the tensor, as its hooks do: a deep copy or an assigned parameter
            # has neither and gets both at its first call.
            if parameter.requires_grad and not hasattr(parameter, "_gradient_is_scaled"):
                parameter.register_hook(scaled)
                parameter._gradient_is_scaled = True  # type: ignore[attr-defined]

    def train(self, mode: bool = True) -> FBSP:
        """Switch mode; training drops the kept filters, which would only hold memory."""
        if mode:
            self._kept = None
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> FBSP:
        self._kept = None  # also frees filters left on the device that the module moves away from
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}

    def extra_repr(self) -> str:
        return f"n_fft={self.n_fft}, n_filters={self.n_filters}"


def unit_axis(steps: int, dtype: torch.dtype) -> Tensor:
    """``torch.linspace(-1, 1, steps)``, the same on every processor, on the CPU.

    PyTorch rounds once per value where multiply and add are one operation (GPUs, AVX2) and twice elsewhere; the
    highest filters turn that unit in the last place into a phase of 2e-4. Here it is once everywhere.
    """
    step = torch.tensor(2 / (steps - 1), dtype=dtype, device="cpu").double()
    i = torch.arange(steps, dtype=torch.float64, device="cpu")
    return torch.where(i < steps // 2, step * i - 1, 1 - step * (steps - 1 - i)).to(dtype)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)


def _sinc(x: Tensor) -> Tensor:
    """sin(x) / x with value 1 and a finite gradient at 0 (torch.sinc would round x through pi)."""
    safe = torch.where(x == 0, 1.0, x)
    return torch.where(x == 0, 1.0, safe.sin() / safe)
