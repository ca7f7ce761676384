"""Deformable attention: the original's figures, the textbook form, and what makes it exact at every border."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.deformable_attention import DeformableAttention, deformable_attention, reference_points
from reference import deformable_attention as textbook
from tests import golden_values as golden

FIGURES = np.load(Path(__file__).parent / "golden" / "avsegformer_modules_seed1.npz")
RECTANGLES = np.load(Path(__file__).parent / "golden" / "avsegformer_rect_seed1.npz")
SQUARES = [(28, 28), (14, 14), (7, 7)]
SMALL = [(5, 7), (3, 4), (1, 2)]


def relative(ours: Tensor, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours.detach().numpy() - theirs) / np.linalg.norm(theirs))


def pixels(shapes: list[tuple[int, int]]) -> int:
    return sum(height * width for height, width in shapes)


def filled() -> DeformableAttention:
    module = DeformableAttention()
    module.load_state_dict(golden.fill(module.state_dict(), 1))
    return module


def test_golden_module_and_gradients() -> None:
    module = filled()
    shape = (2, pixels(SQUARES), 256)
    query, value = (golden.tensor(1, f"deform_{name}", shape).requires_grad_() for name in ("query", "value"))
    out = module(query, value, reference_points(SQUARES), SQUARES)
    assert relative(out[:, ::21, ::4], FIGURES["deform_out"]) < 1e-5
    assert relative(torch.stack([out.mean(), out.std()]), FIGURES["deform_out_mean_std"]) < 1e-5
    out.backward(golden.tensor(1, "deform_grad", shape))
    assert query.grad is not None and value.grad is not None and module.sampling_offsets.weight.grad is not None
    # Where a point falls on a pixel exactly, its gradient depends on the side that rounding puts it on.
    assert relative(query.grad[:, ::21, ::8], FIGURES["deform_grad_query"]) < 1e-4
    assert relative(value.grad[:, ::21, ::8], FIGURES["deform_grad_value"]) < 1e-5
    assert relative(module.sampling_offsets.weight.grad[::6, ::8], FIGURES["deform_grad_offset_weight"]) < 1e-4


def test_golden_on_maps_that_are_not_square() -> None:
    shapes = [(12, 20), (6, 10), (3, 5)]
    query, value = (golden.tensor(1, f"rect_{name}", (2, 315, 256)) for name in ("query", "value"))
    out = filled()(query, value, reference_points(shapes), shapes)
    assert relative(out[:, ::7, ::4], RECTANGLES["deform_rect_out"]) < 1e-5


@pytest.mark.parametrize("form", [deformable_attention, textbook.deformable_attention], ids=["ours", "textbook"])
def test_golden_core_with_most_points_outside(form) -> None:  # type: ignore[no-untyped-def]
    value = golden.tensor(1, "core_value", (2, pixels(SQUARES), 8, 32))
    locations = 1.6 * golden.tensor(1, "core_loc", (2, 50, 8, 3, 4, 2), "uniform") - 0.3
    weights = golden.tensor(1, "core_weight", (2, 50, 8, 12)).softmax(-1).unflatten(-1, (3, 4))
    out = form(value, SQUARES, locations, weights)
    assert relative(out[:, :, ::4], FIGURES["core_out"]) < 1e-5


def test_golden_initialization_and_reference_points() -> None:
    module = DeformableAttention()
    assert relative(module.sampling_offsets.bias, FIGURES["init_offset_bias"]) < 1e-6
    zero = [module.sampling_offsets.weight, module.attention_weights.weight, module.attention_weights.bias]
    zero += [module.value_proj.bias, module.output_proj.bias]
    assert all(not parameter.any() for parameter in zero)
    points = reference_points(SQUARES)[:, None].expand(-1, 3, -1)
    assert relative(points[::41], FIGURES["reference"]) < 1e-6


def scene(kind: torch.dtype = torch.float64, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Values, locations up to two maps' widths outside, weights, for `SMALL`, 11 queries, 2 heads of 3 channels."""
    torch.manual_seed(0)
    value = torch.randn(batch, pixels(SMALL), 2, 3, dtype=kind)
    locations = torch.rand(batch, 11, 2, 3, 4, 2, dtype=kind) * 3 - 1
    weights = torch.rand(batch, 11, 2, 3, 4, dtype=kind)
    return value, locations, weights


def outputs_and_gradients(form, value: Tensor, locations: Tensor, weights: Tensor) -> list[Tensor]:  # type: ignore[no-untyped-def]
    inputs = [x.clone().requires_grad_() for x in (value, locations, weights)]
    out = form(inputs[0], SMALL, *inputs[1:])
    direction = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out).cos()
    return [out.detach(), *torch.autograd.grad((out * direction).sum(), inputs)]


def test_equals_the_textbook_form() -> None:
    for ours, plain in zip(
        outputs_and_gradients(deformable_attention, *scene()),
        outputs_and_gradients(textbook.deformable_attention, *scene()),
        strict=True,
    ):
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("only", [0, 1, 2])
def test_gradient_of_one_input_alone(only: int) -> None:
    """Each gradient is there when the others are not asked for, and differences of the function give it too."""
    inputs = list(scene(batch=1))
    inputs[only].requires_grad_()
    assert torch.autograd.gradcheck(lambda value, *points: deformable_attention(value, SMALL, *points), inputs)


@pytest.mark.parametrize("x", [-1.0, -0.5, 0.0, 6.0, 6.5, 7.0])
@pytest.mark.parametrize("y", [-1.0, -0.5, 0.0, 4.0, 4.5, 5.0])
def test_at_the_borders(x: float, y: float) -> None:
    """Points on the outermost pixels, half a pixel and a pixel beyond; the neighbours in the table must not show."""
    value, locations, weights = scene()
    locations[:, :, :, 0] = torch.tensor([(x + 0.5) / 7, (y + 0.5) / 5], dtype=torch.float64)
    ours = deformable_attention(value, SMALL, locations, weights)
    torch.testing.assert_close(ours, textbook.deformable_attention(value, SMALL, locations, weights))


def test_far_outside_is_nothing_and_nan_is_seen() -> None:
    value, locations, weights = scene()
    for far in (-1e30, 1e30, float("inf")):
        assert not deformable_attention(value, SMALL, torch.full_like(locations, far), weights).any()
    locations[1, 5, 1, 2, 3, 0] = torch.nan
    out = deformable_attention(value, SMALL, locations, weights)
    touched = torch.zeros_like(out, dtype=torch.bool)
    touched[1, 5, 3:] = True
    assert torch.equal(out.isnan(), touched)


def test_elements_of_a_batch_and_heads_do_not_mix() -> None:
    value, locations, weights = scene()
    together = deformable_attention(value, SMALL, locations, weights)
    for element in range(2):
        for head in range(2):
            one = (slice(element, element + 1), slice(None), slice(head, head + 1))
            alone = deformable_attention(value[one], SMALL, locations[one], weights[one])
            torch.testing.assert_close(together[element : element + 1, :, 3 * head : 3 * head + 3], alone)


def test_half_precision_is_summed_in_float32() -> None:
    value, locations, weights = scene(torch.float32)
    half = value.bfloat16()
    expected = deformable_attention(half.float(), SMALL, locations, weights)
    out, gradient, *_ = outputs_and_gradients(deformable_attention, half, locations, weights)
    assert out.dtype == gradient.dtype == torch.bfloat16
    torch.testing.assert_close(out, expected.bfloat16())


def test_a_second_time_gives_the_same_bits() -> None:
    one, other = (outputs_and_gradients(deformable_attention, *scene(torch.float32)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
