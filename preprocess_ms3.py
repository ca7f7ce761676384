"""Preprocess AVSBench's raw MS3 videos into frames, 16 kHz audio and log-mel examples.

    python preprocess_ms3.py --root avsbench_data/Multi-sources [--fidelity published] [--jobs N] [--overwrite]

Reads ms3_meta_data.csv and ms3_data/raw_videos below the root; writes visual_frames, audio_wav and audio_log_mel
next to them, and ms3_preprocess_report.csv. Clips that are complete are skipped, so running it again resumes.
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
    return preprocess.main("ms3", argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
