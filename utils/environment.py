"""What environment variables may do to a run: nothing that its options do not say, and nothing that ends it.

| variables                                              | here                                                    |
|--------------------------------------------------------|---------------------------------------------------------|
| those of RESULT_CHANGING                                | ignored, with a note: config.yaml would not hold them   |
| those of INTERFERING                                    | ignored: notebooks and other programs leave them behind |
| WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT | as torchrun sets them, or one process: utils.accelerator |
| OMP_NUM_THREADS, MKL_*, ATEN_CPU_CAPABILITY,           | heeded: sums are taken in another order, as on another  |
| ONEDNN_MAX_CPU_ISA, CUBLAS_WORKSPACE_CONFIG, ...       | processor, and numbers agree up to rounding             |
| CUDA_VISIBLE_DEVICES, NCCL_*, PYTORCH_ALLOC_CONF, ...  | heeded: where a run takes place, not what it computes   |

Nothing heavy is imported here: a script calls `prepare` before it imports the libraries that read the variables.
"""

import codecs
import locale
import os
import sys
from fnmatch import fnmatchcase

from utils.interrupts import install_hook

RESULT_CHANGING = (  # by more than the order of sums; * is any ending
    "ACCELERATE_*",  # accumulated gradients, mixed precision, sharding, the device
    "PARALLELISM_CONFIG_*",
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",  # bfloat16 in place of float32 on a CPU
    "DNNL_DEFAULT_FPMATH_MODE",
    "PYTORCH_TUNABLEOP_*",  # chooses kernels by a race, and writes a file where it stands
    "TORCH_FORCE_WEIGHTS_ONLY_LOAD",
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD",  # with both, torch reads no file at all
    "TIMM_*",
)
INTERFERING = (
    "MPLBACKEND",  # plots are files here; the backend of a notebook cannot be loaded outside it
    "MATPLOTLIBRC",
    "JSONARGPARSE_*",  # would take options from the environment
    "JOBLIB_MULTIPROCESSING",
    "JOBLIB_START_METHOD",
    "LOKY_*",
)


def prepare_process() -> None:
    """What a script does first of all: from here on Ctrl-C ends it in a line; files are UTF-8; and `clean_environment`."""
    install_hook()
    ensure_utf8()
    clean_environment()


def ensure_utf8() -> None:
    """Start Python anew in its UTF-8 mode where the locale would have files and their names read otherwise."""
    usual = sys.flags.utf8_mode or codecs.lookup(locale.getpreferredencoding(False)).name == "utf-8"
    if usual or os.name != "posix" or os.environ.get("PYTHONUTF8") == "1":
        return
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def clean_environment() -> None:
    """Take away the variables that have no say, with a note of those that somebody may have meant; let output that
    the terminal's encoding lacks signs for be printed with replacements."""
    told = _take(RESULT_CHANGING)
    _take(INTERFERING)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if told and os.environ.get("RANK", "0") == "0":
        named = ", ".join(f"{name}={value}" for name, value in told.items())
        print(f"note: {named} has no effect: a run is what its options say", file=sys.stderr)


def _take(patterns: tuple[str, ...]) -> dict[str, str]:
    names = [name for name in os.environ if any(fnmatchcase(name, pattern) for pattern in patterns)]
    return {name: os.environ.pop(name) for name in sorted(names)}
