"""Activations that are computed again instead of kept: the same numbers in less memory."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from supervised import train
from supervised.grad_checkpointing import enable_grad_checkpointing
from supervised.losses import segmentation_loss
from supervised.model import AVSModel
from supervised.model_options import ModelOptions, VGGishOptions
from supervised.options import Options
from tests.helpers.tiny_checkpoints import arguments, folder, options
from utils.config import from_yaml

__all__ = ["folder"]  # a fixture

NETWORKS = ("fpn", "resnet18", "pvt_v2_b0")


def model(network: str, folder: Path) -> AVSModel:
    torch.manual_seed(0)
    if network == "fpn":
        return AVSModel(options(folder)).train()
    vggish = VGGishOptions("random", [4, 4, 4, 8], 16, 12)
    return AVSModel(ModelOptions(backbone=network, weights="random", channels=8, vggish=vggish)).train()


def step(network: AVSModel) -> tuple[Tensor, dict[str, Tensor], int]:
    """Loss, gradients, and the bytes that the forward pass keeps for the backward one."""
    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(2, 5, 3, 64, 64, generator=generator)
    masks = (torch.rand(2, 1, 224, 224, generator=generator) > 0.5).float()
    width = 12 if network.vggish is not None else network.segmentor.projection.in_features
    audio_features = torch.randn(2, 5, width, generator=generator)
    kept: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        kept[value.data_ptr()] = value.untyped_storage().nbytes()
        return value

    torch.manual_seed(2)  # of stochastic depth
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        loss = segmentation_loss(network({"frames": frames, "audio_features": audio_features}, 1), masks).total
    network.zero_grad()
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    return loss.detach(), gradients, sum(kept.values())


@pytest.mark.parametrize("network", NETWORKS)
def test_the_same_step_in_less_memory(folder: Path, network: str) -> None:
    plain, again = model(network, folder), model(network, folder)
    again.load_state_dict(plain.state_dict())
    enable_grad_checkpointing(again.visual_tower)
    for _ in range(2):
        (loss, gradients, much), (same, equal, less) = step(plain), step(again)
        assert torch.equal(loss, same) and gradients.keys() == equal.keys()
        assert all(torch.equal(value, equal[name]) for name, value in gradients.items())
        assert less < 0.6 * much
    # Each batch was counted once.
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in plain.state_dict().items())


def test_a_copy_has_its_own_weights(folder: Path) -> None:
    network = model("fpn", folder)
    enable_grad_checkpointing(network.visual_tower)
    frames = torch.randn(2, 3, 64, 64)
    other = copy.deepcopy(network)
    for parameter in network.parameters():
        parameter.data.zero_()
    assert network.visual_tower.pyramid(frames)[3].abs().max() == 0  # type: ignore[operator]
    assert other.visual_tower.pyramid(frames)[3].abs().max() > 0  # type: ignore[operator]


def test_a_run_is_the_same_with_and_without(composed: Path, folder: Path, tmp_path: Path) -> None:
    few = ["--data.fraction", "0.4", "--train.batch_size", "2", "--train.ema_decay", "0.9", "--model.freeze", "[]"]
    yes = ["--train.grad_checkpointing", "true"]
    assert train.main([*arguments(composed, folder, tmp_path / "plain"), *few]) == 0
    assert train.main([*arguments(composed, folder, tmp_path / "again"), *few, *yes]) == 0
    # It may be chosen anew when a run goes on.
    assert train.main([*arguments(composed, folder, tmp_path / "mixed"), *few, "--train.epochs", "1"]) == 0
    assert train.main([*arguments(composed, folder, tmp_path / "mixed"), *few, *yes]) == 0
    plain = torch.load(tmp_path / "plain" / "state.pt", weights_only=True)
    for name in ("again", "mixed"):
        other = torch.load(tmp_path / name / "state.pt", weights_only=True)
        for kind in ("model", "average"):
            assert all(torch.equal(value, other[kind][key]) for key, value in plain[kind].items())
        assert from_yaml(Options, tmp_path / name / "config.yaml").train.grad_checkpointing


def test_not_with_compile(composed: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = ["--train.grad_checkpointing", "true", "--train.compile", "true"]
    assert train.main([*arguments(composed, folder, tmp_path / "run"), *both]) == 1
    assert "train.grad_checkpointing and train.compile cannot be combined" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
