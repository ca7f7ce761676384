"""Create the Accelerator of a run: one process, or several started by torchrun."""

import os

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs

from utils.cli import InputError
from utils.device import select_device
from utils.environment import clean_environment
from utils.option_ranges import DeviceName

LAUNCHED = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # set by torchrun
COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")  # read by accelerate
HINT = "start several processes with torchrun, which sets all of them, or unset them for a single process"


def make_accelerator(device: DeviceName = "auto", mixed_precision: str = "no") -> Accelerator:
    """Create the Accelerator of a run, which holds its device and processes.

    Args:
        device: "auto" takes a GPU if there is one.
        mixed_precision: as Accelerator takes it: no, bf16 or fp16.

    Raises:
        InputError: if "cuda" is asked for without a GPU, or the environment has some but not all of the variables
            that torchrun sets.
    """
    clean_environment()
    check_launcher()
    AcceleratorState._reset_state()  # an earlier run in this process may have used another precision
    return Accelerator(
        mixed_precision=mixed_precision,
        cpu=select_device(device).type == "cpu",
        # Batch statistics are already the same in every process.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )


def check_launcher() -> None:
    """Remove the environment variables of distributed runs unless torchrun has set all of them.

    A single-process job often inherits some of them from a cluster's scheduler.

    Raises:
        InputError: The variables indicate several processes, but some are missing or invalid.
    """
    given = {name: os.environ[name] for name in (*LAUNCHED, *COUNTS) if os.environ.get(name)}
    missing = [name for name in LAUNCHED if name not in given]
    numbers = {name: _number(name, value) for name, value in given.items() if name != "MASTER_ADDR"}
    several = [f"{name}={numbers[name]}" for name in COUNTS if numbers.get(name, 1) > 1]
    if not missing:
        if not 0 <= numbers["RANK"] < numbers["WORLD_SIZE"]:
            raise InputError(f"RANK={numbers['RANK']} is not below WORLD_SIZE={numbers['WORLD_SIZE']}; {HINT}")
    elif several:
        raise InputError(f"{several[0]} is set in the environment, but not {', '.join(missing)}; {HINT}")
    else:
        for name in (*LAUNCHED, *COUNTS, "LOCAL_WORLD_SIZE"):
            os.environ.pop(name, None)


def _number(name: str, value: str) -> int:
    if not value.isdecimal():
        raise InputError(f"{name}={value} in the environment is not a number; {HINT}")
    return int(value)
