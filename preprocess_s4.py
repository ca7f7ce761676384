"""Preprocess AVSBench's raw S4 videos into frames, 16 kHz audio and log-mel examples.

    python preprocess_s4.py --root avsbench_data/Single-source [--fidelity published] [--jobs N] [--overwrite]

Reads s4_meta_data.csv and s4_data/raw_videos below the root; writes visual_frames, audio_wav and audio_log_mel
next to them, and s4_preprocess_report.csv. Clips that are complete are skipped, so running it again resumes.
"""

if __name__ == "__main__":  # before slow imports
    from utils.environment import prepare_process

    prepare_process()

import sys
from collections.abc import Sequence

from utils import preprocess
from utils.cli import cli_entry


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return preprocess.main("s4", argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
