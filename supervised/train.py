"""Train a segmentor, such as a row of the study.

    python -m supervised.train --config supervised/configs/s4_tpavi_resnet50.yaml [--out DIR]
    python -m supervised.train --config FILE --data.root DIR --train.epochs 3      any option by name
    python -m supervised.train --config FILE --config supervised/configs/recipes/modern.yaml
    python -m supervised.train --config FILE --init-from RUN|FILE     from the weights of a run of this code (MS3 from
                                                                      S4), or a file of the original's or AVSBench's
    torchrun --nproc_per_node 2 -m supervised.train --config FILE                 several processes, same numbers
    torchrun --nnodes 2 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint HOST:PORT -m supervised.train ...
                                                                                  on each of two machines

After every epoch the model is validated (M_J over all frames of each clip, in AVSS mean IoU), and the best is saved.
The run folder (default runs/supervised/CONFIG-NAME; under --fidelity published the name ends in _published) contains
config.yaml, initial_weights.json, log.csv, curves.png, tensorboard/, best.safetensors and state.pt.

Running the same command again resumes a run that was killed at any step, with the same result. A finished run with a
constant learning rate continues if --train.epochs is increased.
Next: python -m supervised.evaluate --run-dir DIR
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare_process

    prepare_process()

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from supervised.options import Options
from supervised.trainer import Trainer
from utils.cli import cli_entry
from utils.config import option_parser, parse_options
from utils.lock import exclusive_lock
from utils.paths import expand_user, resolve_path
from utils.words import counted


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = option_parser(Options, __doc__, "python -m supervised.train")
    parser.add_argument(
        "--out", type=Path | None, default=None, metavar="DIR", help="run folder (default: runs/supervised/CONFIG-NAME)"
    )
    parser.add_argument(
        "--init-from", type=Path | None, default=None, metavar="RUN|FILE", help="short for --model.init_from"
    )
    options, namespace = parse_options(parser, Options, argv)
    if namespace.init_from is not None:
        options = replace(options, model=replace(options.model, init_from=resolve_path(namespace.init_from)))
    config = Path(str(namespace.config[0])) if namespace.config else None
    published = "_published" if options.fidelity == "published" else ""
    name = f"{config.stem if config else options.data.benchmark}{published}"
    out = expand_user(namespace.out or Path("runs") / "supervised" / name)
    trainer = Trainer(options, out)
    if trainer.progress.epoch >= options.train.epochs:
        print(f"{out}: finished, {counted(options.train.epochs, 'epoch')}")
    is_main = trainer.accelerator.is_main_process
    with exclusive_lock(trainer.out / ".lock", "trains in this folder") if is_main else nullcontext():
        trainer.run()
    if is_main:
        print(f"best on val {trainer.progress.best:.4f}. Next: python -m supervised.evaluate --run-dir {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
