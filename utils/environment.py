"""Make a run independent of environment variables that its options do not mention.

| variables                                              | treatment                                                   |
|--------------------------------------------------------|-------------------------------------------------------------|
| RESULT_CHANGING                                        | removed with a note: config.yaml would not record them      |
| INTERFERING                                            | removed: notebooks and other programs leave them behind     |
| WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT | used if torchrun set all of them (utils.accelerator)        |
| OMP_NUM_THREADS, MKL_*, ATEN_CPU_CAPABILITY,           | used: they change the order of summation, so results differ |
| ONEDNN_MAX_CPU_ISA, CUBLAS_WORKSPACE_CONFIG, ...       | by rounding, as between processors                          |
| CUDA_VISIBLE_DEVICES, NCCL_*, PYTORCH_ALLOC_CONF, ...  | used: they change where a run computes, not what            |

Scripts call `prepare_process` before they import libraries that read these variables, so imports here are light.
"""

import codecs
import locale
import os
import sys
from fnmatch import fnmatchcase

from utils.interrupts import install_hook

RESULT_CHANGING = (  # by more than rounding; * matches any ending
    "ACCELERATE_*",  # gradient accumulation, mixed precision, sharding, the device
    "PARALLELISM_CONFIG_*",
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",  # bfloat16 in place of float32 on a CPU
    "DNNL_DEFAULT_FPMATH_MODE",
    "PYTORCH_TUNABLEOP_*",  # selects kernels by timing them, and writes a file to the current directory
    "TORCH_FORCE_WEIGHTS_ONLY_LOAD",
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD",  # with both set, torch.load fails
    "TIMM_*",
)
INTERFERING = (
    "MPLBACKEND",  # a notebook's backend cannot be loaded elsewhere; plots are only written to files here
    "MATPLOTLIBRC",
    "JSONARGPARSE_*",  # would set options
    "JOBLIB_MULTIPROCESSING",
    "JOBLIB_START_METHOD",
    "LOKY_*",
)


def prepare_process() -> None:
    """Call first in every script: sets up Ctrl-C handling, UTF-8 files and a clean environment."""
    install_hook()
    ensure_utf8()
    clean_environment()


def ensure_utf8() -> None:
    """Restart Python in UTF-8 mode if the locale's encoding is another one (POSIX only)."""
    is_utf8 = sys.flags.utf8_mode or codecs.lookup(locale.getpreferredencoding(False)).name == "utf-8"
    if is_utf8 or os.name != "posix" or os.environ.get("PYTHONUTF8") == "1":
        return
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def clean_environment() -> None:
    """Remove RESULT_CHANGING (with a note) and INTERFERING variables; print unencodable characters as "?"."""
    removed = _remove(RESULT_CHANGING)
    _remove(INTERFERING)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if removed and os.environ.get("RANK", "0") == "0":
        variables = ", ".join(f"{name}={value}" for name, value in removed.items())
        print(f"note: {variables} has no effect; use the command's options instead", file=sys.stderr)


def _remove(patterns: tuple[str, ...]) -> dict[str, str]:
    names = [name for name in os.environ if any(fnmatchcase(name, pattern) for pattern in patterns)]
    return {name: os.environ.pop(name) for name in sorted(names)}
