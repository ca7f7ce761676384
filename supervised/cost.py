"""What training costs: parameters, time of a step and memory, which a run folder keeps in cost.json."""

import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from utils.files import write_text
from utils.peak_memory import PeakMemory

COST = "cost.json"  # in a run folder


class TrainingCost:
    """Measures a process that trains, from its construction on.

    Args:
        device: on which the model is trained. On a CPU the time is processor time, which depends less on what else
            runs; on a GPU it is wall time, since its steps are asynchronous.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.memory = PeakMemory(device.type)
        self.seconds: list[float] = []  # of a step, the mean of each epoch

    def clock(self) -> float:
        """The time in seconds."""
        return time.process_time() if self.device.type == "cpu" else time.perf_counter()

    def add_epoch(self, seconds: float, steps: int) -> None:
        """Note what the steps of an epoch took."""
        if steps:
            self.seconds.append(seconds / steps)

    def write(self, run_dir: Path, model: nn.Module, trained: int, batch_size: int) -> None:
        """Write cost.json.

        Args:
            run_dir: the run folder.
            model: what is trained, with its frozen towers.
            trained: number of parameters that the optimizer has.
            batch_size: videos per step.
        """
        memory = self.memory.mib()
        content: dict[str, Any] = {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "trained_parameters": trained,
            "step_seconds": round(median(self.seconds), 6) if self.seconds else None,
            "clock": "processor" if self.device.type == "cpu" else "wall",
            "memory_mib": None if memory is None else round(memory, 1),
            "batch_size": batch_size,
            "device": "cpu" if self.device.type == "cpu" else torch.cuda.get_device_name(self.device),
        }
        write_text(run_dir / COST, json.dumps(content, indent=1) + "\n")
