"""The weights of whole models: of runs of this code, and of the original's and AVSBench's code.

| given                                      | loaded by        | used by                                 |
|--------------------------------------------|------------------|-----------------------------------------|
| run folder, or its `best.safetensors`      | strictly         | evaluate --run-dir, train --init-from   |
| state dict of the original's or AVSBench's | `load_reference` | evaluate --reference, train --init-from |

AVSBench's files hold no VGGish; it is loaded from `model.vggish.weights`, as AVSBench does. AVSegFormer's hold it.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from models.avsegformer import AVSegFormer
from models.checkpoints import describe_mismatch, load_checkpoint, load_strict
from supervised.initialization import InitRecord, init_module
from supervised.model import AVSModel
from supervised.options import Options
from supervised.state import check_architecture
from utils.cli import InputError
from utils.config import from_yaml
from utils.files import sha256
from utils.layout import BENCHMARKS

OWN_PREFIX = "segmentor."  # begins the names of every file of this code, and of no reference file


def load_run(run_dir: Path) -> tuple[AVSModel, Options, dict[str, str]]:
    """The model that a run has kept.

    Returns:
        The model, the run's options, and the sha256 of each file of weights, by its name.

    Raises:
        InputError: if the folder does not hold a trained run, or its files do not fit each other.
    """
    options = from_yaml(Options, run_dir / "config.yaml")
    checkpoint = run_dir / "best.safetensors"
    if not checkpoint.is_file():
        raise InputError(f"{checkpoint}: no such file; python -m supervised.train writes it after an epoch")
    model = _build(options)
    check_architecture(checkpoint, options.model, model.classes)
    load_checkpoint(model, checkpoint)
    return model, options, {checkpoint.name: sha256(checkpoint)}  # now: training may replace it during the evaluation


def load_reference(path: Path, options: Options) -> tuple[AVSModel, Options, dict[str, str]]:
    """A model trained by the original's or AVSBench's code.

    Args:
        path: the state dict that their training saved.
        options: of the row. Names do not tell fusions apart whose weights have equal shapes (concate and
            normed_concate), nor the attention of TPAVI, so the row must be the one that was trained.

    Returns:
        As `load_run`; the options have fidelity "published", by which such weights were trained.

    Raises:
        InputError: for a missing or damaged file, and for one that does not fit the row, naming keys.
    """
    options = replace(options, fidelity="published")
    model = _build(options)
    files = [record.file for record in _load_file(model, path, own=False) if record.file is not None]
    return model, options, {str(file): sha256(file) for file in files}


def _build(options: Options) -> AVSModel:
    return AVSModel(options.model, options.fidelity, BENCHMARKS[options.data.benchmark].classes)


def load_initial_weights(model: AVSModel) -> list[InitRecord]:
    """Load what a run starts from: the model of `model.init_from`, or the checkpoint of each tower.

    Returns:
        What each part starts from.

    Raises:
        InputError: if a checkpoint is missing or does not fit.
    """
    path = model.options.init_file
    return model.load_pretrained() if path is None else _load_file(model, path)


def _load_file(model: AVSModel, path: Path, own: bool = True) -> list[InitRecord]:
    """Fill a model from a file of the original's or AVSBench's code or, if `own`, of this code."""
    check_architecture(path, model.options, model.classes)
    is_own = has_vggish = False

    def load(state: Mapping[str, Tensor]) -> None:
        nonlocal is_own
        is_own = any(key.startswith(OWN_PREFIX) for key in state)
        if is_own and not own:
            raise RuntimeError("it was trained by this code; evaluate its run folder with --run-dir")
        if is_own:
            load_strict(model, state)
        elif isinstance(model.segmentor, AVSegFormer):
            nonlocal has_vggish
            has_vggish = _load_avsegformer(model, model.segmentor, state)
        else:
            model.segmentor.load_reference(state)

    load_checkpoint(model, path, load)
    records = [InitRecord("model", path)]
    if hasattr(model.segmentor, "fidelity"):
        model.segmentor.fidelity = model.fidelity  # of this run; load_reference has set the one of the file's training
    if model.vggish is not None and not is_own and not has_vggish:
        records.append(init_module("audio", model.vggish, model.options.vggish.weights))
    return records


def _load_avsegformer(model: AVSModel, segmentor: AVSegFormer, state: Mapping[str, Tensor]) -> bool:
    """Fill an AVSegFormer, and VGGish, which its files hold, from the original's state dict; returns whether it did."""
    if model.vggish is None:
        raise RuntimeError("the weights are of an AVSegFormer with VGGish; set model.audio to vggish")
    vggish = {key.removeprefix("vggish."): value for key, value in state.items() if key.startswith("vggish.")}
    problem = describe_mismatch(model.vggish, vggish) if vggish else ""
    segmentor.load_reference({key: value for key, value in state.items() if not key.startswith("vggish.")})
    if problem:
        raise RuntimeError(f"VGGish in it: {problem}")
    if vggish:
        load_strict(model.vggish, vggish)
    return bool(vggish)
