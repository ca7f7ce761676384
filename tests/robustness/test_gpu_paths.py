"""What is meant for GPUs, on a CPU: precisions, layouts, compilation, memory, transfers, and their benchmark."""

import json
import os
import subprocess
from collections import Counter as Tally
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import gpu, gpu_rows, roofline
from models.audioclip_segmentor import AudioCLIPSegmentor
from models.sam import SamConfig
from models.tpavi_segmentor import Segmentation
from reference.random_sam import random_sam
from supervised import objective, train, trainer
from supervised.losses import LossTerms, segmentation_loss
from supervised.model import AVSModel
from supervised.model_options import ModelOptions, VGGishOptions
from supervised.state import load_state
from tests.helpers.tiny_checkpoints import arguments, clip, folder, options, same
from utils import device
from utils.cache import Cache, get_or_compute
from utils.cli import InputError
from zero_shot import evaluate as zero_shot
from zero_shot.encoders.audioclip import AudioCLIPEncoder
from zero_shot.method_options import ProposalOptions
from zero_shot.model_options import AudioCLIPOptions
from zero_shot.proposal_scoring import prepare_crops
from zero_shot.segmenters import network
from zero_shot.segmenters import sam as segmenter
from zero_shot.segmenters import sam_encoder as fast_encoder
from zero_shot.segmenters.proposals import generate_proposals, pack_bits, pack_bits_with_torch
from zero_shot.segmenters.sam import SamSegmenter
from zero_shot.segmenters.sam_encoder import BIAS_ALIGNMENT, compiled_block, encode, relative_position_bias

__all__ = ["folder"]  # a fixture

PLACED = SamConfig(32, 2, 2, (1,), image_size=224, window=6, channels=16, decoder_mlp=32, decoder_heads=2, iou_hidden=8)
CUDA = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def float32_afterwards() -> Iterator[None]:
    """Start from float32 throughout, and leave the process as it was found."""
    convolutions = torch.backends.cudnn.allow_tf32
    device.set_matmul_precision("fp32")
    yield
    device.set_matmul_precision("fp32")
    torch.backends.cudnn.allow_tf32 = convolutions


def frame(seed: int = 0, size: int = 96) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


# --- memory ----------------------------------------------------------------------------------------------


def test_a_gpu_lends_half_of_what_is_free_or_only_kept() -> None:
    given = {"mem_get_info": (6_000, 80_000), "memory_reserved": 5_000, "memory_allocated": 1_000}
    with mock.patch.multiple(torch.cuda, **{name: mock.Mock(return_value=value) for name, value in given.items()}):
        assert device.free_memory(CUDA) == (6_000 + 4_000) // 2
    assert device.free_memory(torch.device("cpu")) == 2048 * 2**20


def test_batches_follow_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    sam = random_sam(PLACED)
    assert SamSegmenter(sam).memory == SamSegmenter(sam, memory_mib=2048).memory
    monkeypatch.setattr(SamSegmenter, "device", property(lambda _: CUDA))
    batches = []
    for free in (0, 10, 30, 90):
        monkeypatch.setattr(network, "free_memory", lambda _, free=free: free * 10**6)
        small = SamSegmenter(sam)
        batches.append((small.images_per_batch, small.prompts_per_batch(2), small.prompts_per_batch(2, (500, 500))))
        assert SamSegmenter(sam, memory_mib=1).memory == 2**20, "what is asked for goes before what is free"
    assert batches[0] == (1, 1, 1) and batches == sorted(batches)
    assert batches[3][0] in range(3 * batches[2][0], 3 * batches[2][0] + 3)
    assert batches[3][1] > batches[3][2] > batches[1][2]


# --- transfers -------------------------------------------------------------------------------------------


def test_a_gpu_copies_from_pinned_memory_without_being_waited_for() -> None:
    tensor = mock.Mock(is_cuda=False)
    moved = device.to_device(tensor, CUDA)
    tensor.pin_memory.return_value.to.assert_called_once_with(CUDA, non_blocking=True)
    assert moved is tensor.pin_memory.return_value.to.return_value
    here = torch.arange(3)
    assert device.to_device(here, torch.device("cpu")) is here


def test_values_are_read_only_when_they_have_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    event, tensor = mock.Mock(), mock.Mock(is_cuda=True, device=CUDA)
    monkeypatch.setattr(torch.cuda, "Event", lambda: event)
    monkeypatch.setattr(torch.cuda, "current_stream", mock.Mock(return_value="stream"))
    fetched = device.AsyncCopy(tensor)
    event.record.assert_called_once_with("stream")
    event.synchronize.assert_not_called()
    assert fetched.values() is tensor.detach().to.return_value
    event.synchronize.assert_called_once_with()
    tensor.detach().to.assert_called_once_with("cpu", non_blocking=True)
    assert device.AsyncCopy(torch.tensor([1.5], requires_grad=True)).values().tolist() == [1.5]


class Waits(TorchDispatchMode):
    """Counts what a GPU would be waited for: numbers that Python reads, and results whose size depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Tally[str] = Tally()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet, masks = str(func.overloadpacket), args[1] if len(args) > 1 and isinstance(args[1], list) else []
        by_mask = packet == "aten.index" and any(mask is not None and mask.dtype == torch.bool for mask in masks)
        if by_mask or packet in ("aten._local_scalar_dense", "aten.nonzero", "aten.unique_consecutive", "aten.equal"):
            self.found[packet] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["tpavi", "pvt", "fpn"])
def test_a_training_step_never_waits_for_the_device(kind: str, folder: Path) -> None:
    torch.manual_seed(0)
    if kind == "fpn":
        model = AVSModel(options(folder))
    else:
        backbone: Any = "pvt_v2_b0" if kind == "pvt" else "resnet18"
        ear = VGGishOptions("random", [4, 4, 4, 4], 8)
        model = AVSModel(ModelOptions(backbone=backbone, weights="random", vggish=ear, channels=16))
    model.train()
    size = model.segmentor.projection.in_features if isinstance(model.segmentor, AudioCLIPSegmentor) else 128
    batch = {"frames": torch.randn(2, 5, 3, 32, 32), "audio_features": torch.randn(2, 5, size)}
    masks = (torch.rand(2, 1, 224, 224) > 0.5).float()
    with Waits() as waits:
        segmentation_loss(model(batch, 1), masks).total.backward()
    assert not waits.found


def test_proposals_wait_thrice_for_a_batch_of_masks_and_never_for_one_mask() -> None:
    with Waits() as waits:
        records = generate_proposals(
            SamSegmenter(random_sam(seed=2)), [frame()], ProposalOptions(8, -1e9, -1e9, 1.0, 1.0)
        )[0]
    batches = waits.found["aten.unique_consecutive"]
    assert len(records) > 100 and batches <= 6
    # Once a frame, the encoder of prompts picks its points by their labels, and suppression goes through the boxes.
    assert sum(waits.found.values()) <= 8 + 3 * batches, waits.found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 4), st.integers(1, 70), st.integers(0, 10**6))
def test_masks_are_packed_on_a_gpu_as_numpy_packs_them(count: int, size: int, seed: int) -> None:
    bits = torch.from_numpy(np.random.default_rng(seed).random((count, size)) > 0.5)
    assert torch.equal(pack_bits_with_torch(bits), torch.from_numpy(np.packbits(bits.numpy(), axis=1)))
    assert torch.equal(pack_bits(bits), pack_bits_with_torch(bits))


def test_crops_are_made_on_the_device() -> None:
    crops = prepare_crops([frame(size=9), frame(size=40)], 32, "meta")  # a meta tensor would not mix with any other
    assert crops.is_meta and crops.shape == (2, 3, 32, 32)


# --- SAM's encoder ---------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(1, 15)] * 5), st.sampled_from([torch.float32, torch.bfloat16]))
def test_a_bias_is_laid_out_as_the_fused_kernel_takes_it(sizes: tuple[int, ...], dtype: torch.dtype) -> None:
    n, h, w, height, width = sizes
    vertical, horizontal = torch.randn(n, h, w, height, dtype=dtype), torch.randn(n, h, w, width, dtype=dtype)
    bias = relative_position_bias(vertical, horizontal)
    assert torch.equal(bias, (vertical[..., None] + horizontal[..., None, :]).flatten(3).flatten(1, 2))
    assert bias.dtype == dtype and bias.stride(-1) == 1 and bias.data_ptr() % 16 == 0
    sides = zip(bias.stride()[:-1], bias.shape[:-1], strict=True)
    assert all(stride % BIAS_ALIGNMENT == 0 for stride, size in sides if size > 1)


@pytest.mark.parametrize("most", [1, 3])
def test_heads_in_any_portions_give_the_same(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, images = random_sam(PLACED).image_encoder, torch.randn(1, 3, 224, 224)
    whole = encode(encoder, images, 2**29)
    monkeypatch.setattr(fast_encoder, "MAX_HEADS", most)
    torch.testing.assert_close(encode(encoder, images, 2**29), whole, atol=1e-5, rtol=1e-5)


def test_a_compiled_encoder_is_one_graph_a_kind_of_block_and_gives_the_same(tmp_path: Path) -> None:
    sam, frames = random_sam(PLACED), [frame(0), frame(1)]
    torch.compiler.reset()
    plain = SamSegmenter(sam, cache=tmp_path)
    with mock.patch.object(segmenter, "compiled_block", lambda: compiled_block("eager")):
        compiled = SamSegmenter(sam, cache=tmp_path, compiled=True)
    torch._dynamo.utils.counters.clear()
    for one, other in zip(plain.embed(frames), compiled.embed(frames), strict=True):
        torch.testing.assert_close(one.features, other.features, atol=1e-5, rtol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    assert not torch._dynamo.utils.counters["graph_break"]
    assert plain.parameters != compiled.parameters, "their rounding differs, and so must their places in a cache"


# --- precision, layout -----------------------------------------------------------------------------------


def test_tf32_is_asked_for_and_never_left_behind(composed: Path, folder: Path, tmp_path: Path) -> None:
    more = ["--train.epochs", "1", "--data.fraction", "0.3"]
    for precision, expected in (("tf32", "high"), ("fp32", "highest")):
        assert train.main(arguments(composed, folder, tmp_path / precision, *more, "--train.precision", precision)) == 0
        assert torch.get_float32_matmul_precision() == expected
        assert torch.backends.cudnn.allow_tf32 == (expected == "high")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_audioclip_by_pixel_gives_the_same(precision: Any, tmp_path: Path) -> None:
    frames, sounds = [frame(size=64), frame(1, 64)], torch.randn(2, 16_000).clamp(-3, 3) / 4
    found, whole = [], {"segmentation": np.ones((64, 64), bool), "bbox": [0, 0, 63, 63]}
    for by_pixel in (False, True):
        eye = AudioCLIPEncoder(
            clip(1),
            AudioCLIPOptions(image_size=64, crop_size=64, audio_repeats=1),
            cache=tmp_path,
            precision=precision,
            channels_last=by_pixel,
        )
        audio = eye.encode_audio(sounds)
        maps, _ = eye.similarity_maps(frames, audio)
        found.append((audio, maps, eye.encode_crops(frames[0], [whole], "corrected")[0]))
        assert eye.model.visual.layer1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last) or not by_pixel
    tolerance = 1e-4 if precision == "fp32" else 0.15
    for plain, other in zip(*found, strict=True):
        assert (plain - other).abs().max() < tolerance
    assert len([path for path in tmp_path.glob("*/*") if path.is_dir()]) == 6, "each layout has its own cache"


def test_a_zero_shot_run_takes_every_gpu_option(composed: Path, tmp_path: Path) -> None:
    words = f"--config zero_shot/configs/mini/s4_point_local.yaml --data.root {composed / 'Single-source'}"
    words += " --run.device cpu --data.max_clips 2 --data.num_workers 0 --run.use_cache false"
    numbers = []
    for name, more in (("plain", ""), ("gpu", "--run.precision bf16 --run.channels_last true --run.memory_mib 0")):
        assert zero_shot.main([*words.split(), *more.split(), "--out", str(tmp_path / name)]) == 0
        numbers.append(json.loads((tmp_path / name / "metrics.json").read_text()))
    assert numbers[0]["m_j"] == pytest.approx(numbers[1]["m_j"], abs=0.1)
    assert zero_shot.main([*words.split(), "--run.memory_mib", "-1", "--out", str(tmp_path / "no")]) == 1


# --- losses that are read a step late --------------------------------------------------------------------


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have training read its losses as late as on a GPU."""
    original = trainer.Trainer.__init__

    def start(self: trainer.Trainer, *words: Any) -> None:
        original(self, *words)
        self.async_steps = 1

    monkeypatch.setattr(trainer.Trainer, "__init__", start)


def test_late_losses_change_nothing(composed: Path, folder: Path, tmp_path: Path, request: Any) -> None:
    more = ["--train.batch_size", "2"]
    assert train.main(arguments(composed, folder, tmp_path / "one", *more)) == 0
    request.getfixturevalue("late")
    assert train.main(arguments(composed, folder, tmp_path / "two", *more)) == 0
    same(tmp_path / "one", tmp_path / "two")
    logs = [pd.read_csv(tmp_path / run / "log.csv").drop(columns="seconds") for run in ("one", "two")]
    pd.testing.assert_frame_equal(logs[0], logs[1], check_exact=True)


def test_logits_without_a_value_are_seen_in_the_loss() -> None:
    # What binary cross-entropy says to them would end a program on a GPU before the loss was read.
    logits, masks = torch.randn(2, 1, 8, 8), (torch.rand(2, 1, 8, 8) > 0.5).float()
    plain = segmentation_loss(Segmentation(logits, [], []), masks)
    assert plain.total == F.binary_cross_entropy(logits.sigmoid(), masks)
    logits[1, 0, 3, 3] = float("nan")
    assert segmentation_loss(Segmentation(logits, [], []), masks).total.isnan()


@pytest.mark.parametrize(("minutes", "kept"), [("0", 2), ("10", None)])
def test_a_late_nan_is_named_by_its_step(
    late: None,
    composed: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    minutes: str,
    kept: int | None,
) -> None:
    steps, original = iter(range(100)), objective.segmentation_loss

    def loss(*words: Any) -> LossTerms:
        terms = original(*words)
        return LossTerms(terms.total * (float("nan") if next(steps) == 2 else 1), terms.bce, terms.avm)

    monkeypatch.setattr(objective, "segmentation_loss", loss)
    more = ["--train.checkpoint_minutes", minutes, "--train.batch_size", "2"]
    assert train.main(arguments(composed, folder, tmp_path / "run", *more)) == 1
    assert "the loss is nan at step 3 of epoch 1; lower --train.lr" in capsys.readouterr().err
    state = tmp_path / "run" / "state.pt"
    assert state.exists() == (kept is not None)
    if kept is not None:
        assert load_state(state)[0].step == kept


# --- the benchmark ---------------------------------------------------------------------------------------

CARD = roofline.Card("a card", {"fp32": 1e9, "tf32": 4e9, "bf16": 1e10}, 1e9)


def counted(work: Any) -> roofline.Work:
    with torch.no_grad(), roofline.Counter(CARD) as counter:
        work()
    return counter.work


def test_products_and_bytes_are_counted() -> None:
    one, other = torch.randn(200, 300), torch.randn(300, 100)
    work = counted(lambda: one @ other)
    flops, moved = 2 * 200 * 300 * 100, 4 * (200 * 300 + 300 * 100 + 200 * 100)
    assert work.flops == {torch.float32: flops} and work.bytes == moved and work.least == flops / 1e9
    device.set_matmul_precision("tf32")
    assert counted(lambda: one @ other).least == flops / 4e9
    device.set_matmul_precision("fp32")
    half = counted(lambda: one.bfloat16() @ other.bfloat16())
    assert half.flops == {torch.bfloat16: flops}
    assert half.bytes == 4 * (200 * 300 + 300 * 100) * 1.5 + moved / 2
    # Bounded by what it moves, and an expanded tensor moves no more than it holds.
    assert counted(lambda: one + torch.zeros(1).expand(200, 300)).bytes == pytest.approx(2 * one.nbytes, abs=16)
    assert counted(lambda: one.T[3:].unflatten(0, (-1, 3))).bytes == 0
    in_place = counted(lambda: torch.zeros(2, 8, 8).baddbmm_(torch.ones(2, 8, 4), torch.ones(2, 4, 8)))
    assert sum(in_place.flops.values()) == 2 * 2 * 8 * 8 * 4
    attended = counted(lambda: F.scaled_dot_product_attention(*torch.randn(3, 1, 2, 16, 8)))
    assert sum(attended.flops.values()) == 2 * 2 * 2 * 16 * 16 * 8


def test_backward_is_counted() -> None:
    weight, given = torch.randn(30, 20, requires_grad=True), torch.randn(10, 20)
    with roofline.Counter(CARD) as counter:
        F.linear(given, weight).sum().backward()
    assert sum(counter.work.flops.values()) == 2 * (2 * 10 * 20 * 30)


@pytest.mark.parametrize("groups", [1, 4, 8])
def test_each_gradient_of_a_convolution_costs_as_much_as_the_convolution(groups: int) -> None:
    convolution, given = torch.nn.Conv2d(8, 16, 3, padding=1, groups=groups), torch.randn(2, 8, 10, 10)
    forward = 2 * (2 * 10 * 10) * 16 * (8 // groups) * 9
    for asked, times in ((False, 2), (True, 3)):
        with roofline.Counter(CARD) as counter:
            convolution(given.requires_grad_(asked)).sum().backward()
        assert sum(counter.work.flops.values()) == times * forward


def test_without_a_gpu_it_says_so_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 1
    told = capsys.readouterr()
    assert told.err.startswith("error: no CUDA device here") and told.err.count("\n") == 1 and not told.out


FORMS = {
    "training step, TPAVI ResNet-50 tf32": ["tf32"],
    "AudioCLIP FPN bf16": ["bf16", "bf16, channels last", "bf16, compiled"],
    "encoder, 4 images": ["stock, fp32", "stock, tf32", "stock, bf16", "fp32", "tf32", "bf16", "bf16, compiled"],
    "proposals": ["stock, fp32", "stock, tf32", "fp32", "tf32", "bf16"],
    "image tower": ["fp32", "tf32", "bf16", "bf16, channels last"],
    "audio tower": ["fp32", "tf32", "bf16", "bf16, channels last"],
}


@pytest.mark.parametrize(
    "part",
    [
        "training step, TPAVI ResNet-50",
        pytest.param("training step, TPAVI PVT-v2-b5", marks=pytest.mark.slow),
        "training step, AudioCLIP FPN",
    ],
)
def test_training_steps_run_at_full_size_where_nothing_is_computed(part: str) -> None:
    place = gpu_rows.Target(torch.device("meta"), False, "eager")
    row = next(row for row in gpu_rows.ROWS if row.part == part)
    with torch.device("meta"):
        step = row.make(gpu_rows.Variant(), place)
    with mock.patch.object(gpu_rows.Target, "autocast", lambda *_: nullcontext()), roofline.Counter(CARD) as counter:
        step()
    # Four videos of five frames, forward and backward: the image network alone takes 4 to 12 GFLOP · 2 · 3 a frame.
    assert 20 * 4e9 * 6 < sum(counter.work.flops.values()) < 5e12


@pytest.mark.parametrize("only", FORMS)
def test_every_form_runs_and_agrees(only: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "gpu.md"
    words = ["--device", "cpu", "--tiny", "--calls", "1", "--only", only, "--out", str(table)]
    assert gpu.main(words) == 0
    assert table.read_text() == capsys.readouterr().out
    rows = json.loads(table.with_suffix(".json").read_text())["rows"]
    assert [row["form"] for row in rows] == FORMS[only]
    for row in rows:
        assert row["ms"] > 0 and row["gflop"] > 0 and row["gb"] > 0 and row["least_ms"] > 0
        rounding = 0.05 if "bf16" in row["form"] else 1e-4
        assert row["apart"] < (1 if only == "proposals" and "bf16" in row["form"] else rounding), row
    ours = {row["form"]: row for row in rows}
    if only == "proposals":  # what is spared is work, whatever the machine
        assert ours["fp32"]["gb"] < 0.6 * ours["stock, fp32"]["gb"]


def test_a_form_that_fails_is_told_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def make(form: gpu_rows.Variant, place: gpu_rows.Target) -> gpu_rows.Step:
        if form.compiled:
            raise torch.OutOfMemoryError("out of memory: 3 GB\nsecond line")
        return lambda: torch.ones(3) @ torch.ones(3, 3)

    forms = [gpu_rows.Variant(compiled=True), gpu_rows.Variant()]
    monkeypatch.setattr(gpu, "ROWS", [gpu_rows.Row("a part", make, forms)])
    assert gpu.main(["--device", "cpu", "--tiny", "--calls", "1"]) == 1
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert "| fp32, compiled | OutOfMemoryError: out of memory: 3 GB |" in lines[0] and "second" not in lines[0]
    assert "| a part | fp32 |" in lines[1] and len({line.count("|") for line in lines}) == 1


def test_the_script_starts_the_program_from_anywhere(tmp_path: Path) -> None:
    script, environment = Path(gpu.__file__).with_suffix(".sh"), {**os.environ, "PYTHON": "echo"}
    done = subprocess.run(["sh", script, "--calls", "2"], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.stdout == "-m benchmarks.gpu --calls 2\n" and done.returncode == 0


# --- writing while working -------------------------------------------------------------------------------


def test_entries_are_all_there_in_the_end(tmp_path: Path) -> None:
    cache, keys = Cache(tmp_path, "kind", {}), [f"{i:064x}" for i in range(7)]

    def make(some: list[int]) -> list[dict[str, Tensor]]:
        return [{"value": torch.tensor(float(i))} for i in some]

    found = get_or_compute(cache, keys, make, 2)
    assert [entry["value"].item() for entry in found] == list(range(7))
    assert all(cache.get(key) is not None for key in keys)


def test_a_fault_in_writing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path, "kind", {})
    monkeypatch.setattr(cache, "put", mock.Mock(side_effect=InputError("the disk is full")))
    with pytest.raises(InputError, match="the disk is full"):
        get_or_compute(cache, ["0" * 64], lambda some: [{"value": torch.ones(1)}], 1)
