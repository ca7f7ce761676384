"""What a demo says about a video and its masks, in sentences: notes for the page, and the summary of the command."""

from collections.abc import Sequence
from pathlib import Path

from models.weights import MINI_DIR, list_checkpoints
from utils.video_info import VideoInfo
from utils.words import counted
from zero_shot.demo_folder import DemoOutputs, MaskRecord, printable_path
from zero_shot.methods import Prediction
from zero_shot.options import RECOMMENDED_CONFIG, Options

MAX_CARDS = 600  # seconds shown on the page; of longer videos every n-th second is shown
SMALL_WEIGHTS_NOTE = (
    "Made by the small networks of this repository, which know fourteen drawings and nothing else: do not rely on what "
    "they mark in any other video. For that: python -m pretrained.download clap-htsat-unfused mm-grounding-dino-tiny "
    f"edgetam, then --config {RECOMMENDED_CONFIG}"
)
ENCODER_TITLES = {"audioclip": "AudioCLIP", "pe_av": "PE-AV"}
SEGMENTER_TITLES = {
    "sam": "Segment Anything",
    "sam2": "SAM 2.1",
    "edgetam": "EdgeTAM",
    "sam3_tracker": "SAM 3's tracker",
}
EMPTY_REASONS = {
    "no_prompt": "no proposal was similar enough",
    "concept_prompt": "no label was sure enough, or none stands for something visible, or it was not found",
}
SHOWN_LABELS = 3  # per second, on the page


def uses_small_weights(options: Options) -> bool:
    """Whether the networks are the small ones of this repository, which know drawings only."""
    return any(path.parent == MINI_DIR for path in options.checkpoint_files())


def card_stride(video: VideoInfo) -> int:
    """The page shows every n-th second; this is n."""
    return -(-video.num_seconds // MAX_CARDS)


def models_used(options: Options) -> list[str]:
    """The networks of a demo: what each of them does, its weights and their license."""
    concept, grounding = options.concept, options.grounding
    found: list[tuple[str, str, str]] = []
    if options.method in ("box_prompt", "concept_prompt"):
        frames = options.method == "concept_prompt" and concept.classifier == "pe_a_frame"
        found.append(("names the sound", *(("PE-A-Frame", concept.pe_a_frame) if frames else ("CLAP", grounding.clap))))
        texts = options.method == "concept_prompt" and concept.finder == "sam3"
        found.append(
            ("segments what is named", "SAM 3", concept.sam3)
            if texts
            else ("finds what is named", "GroundingDINO", grounding.detector)
        )
    elif options.uses_encoder:
        weights = options.audioclip.weights if options.encoder == "audioclip" else options.pe_av.weights
        found.append(("compares audio and image", ENCODER_TITLES[options.encoder], weights))
    if options.uses_segmenter:
        weights = options.sam.checkpoint if options.segmenter == "sam" else options.sam2.name(options.segmenter)
        found.append(("segments", SEGMENTER_TITLES[options.segmenter], weights))
    lines = [f"{title} {role}: {_describe_weights(weights)}" for role, title, weights in found]
    if options.track != "none":
        weights = options.tracking.weights or options.sam2.name(options.segmenter)
        lines.append(f"tracking, {options.track}: {_describe_weights(weights)}")
    return lines


def _describe_weights(weights: str) -> str:
    """A checkpoint's name, or its path, and its license if that is stated."""
    known = next((each for each in list_checkpoints() if weights in (each.name, each.hub or each.name)), None)
    if known is None:
        return printable_path(Path(weights))
    return f"{known.name}, {known.license}" if known.license else known.name


def surest_labels(prediction: Prediction) -> dict[str, float]:
    """The SHOWN_LABELS most probable labels of a second, the most probable first; empty if no probability is known."""
    if set(prediction.label_scores.values()) <= {1.0}:  # of methods that name sounds without saying how surely
        return {}
    best = sorted(prediction.label_scores.items(), key=lambda item: -item[1])[:SHOWN_LABELS]
    return {label: round(score, 4) for label, score in best}


def describe_labels(record: MaskRecord) -> str:
    """What the sound of a second is called, and how surely, in words; empty if the method names no sounds."""
    if not record.label_scores:
        return f"labels “{'”, “'.join(record.labels)}”" if record.labels else ""
    named = [f"“{label}” {100 * score:.0f} %" for label, score in record.label_scores.items()]
    sure = [text for text, label in zip(named, record.label_scores, strict=True) if label in record.labels]
    rest = [text for text in named if text not in sure]
    if not sure:
        return f"no label is sure enough; at best {', '.join(named)}"
    return f"labels {', '.join(sure)}" + (f"; less surely {', '.join(rest)}" if rest else "")


def describe_certainty(prediction: Prediction) -> str:
    """How certain a mask is, in words; empty if the method does not say."""
    if not prediction.objects:
        return ""
    best = max(prediction.objects, key=lambda each: each.certainty)
    name = f"“{best.label}”: " if best.label else ""
    more = f", and {counted(len(prediction.objects) - 1, 'more object')}" if len(prediction.objects) > 1 else ""
    carried = "" if prediction.pivot is None else ", carried here by tracking"
    detected = f" × detected {best.detection_score:.2f}" if best.detection_score < 1 else ""
    return f"{name}predicted IoU {best.predicted_iou:.2f}{detected} × audio {best.audio_score:.2f}{more}{carried}"


def collect_notes(
    video: VideoInfo, options: Options, outputs: DemoOutputs, records: Sequence[MaskRecord], out: Path
) -> list[str]:
    """What a reader must know about the masks, one sentence each, the most important first."""
    notes = [*([SMALL_WEIGHTS_NOTE] if uses_small_weights(options) else []), *video.notes]
    if video.missing_frames:
        notes.append(f"The file is cut short by {counted(video.missing_frames, 'frame')}.")
    silent = sorted({record.second for record in records if record.silent})
    if not video.audio_rate:
        notes.append("The video has no audio track, so every mask is empty.")
    elif len(silent) == video.num_seconds:
        notes.append("The video is silent from beginning to end, so every mask is empty.")
    elif silent:
        notes.append(f"Silent at {format_times(silent)}: the masks are empty there.")
    empty = sum(not record.silent and record.area == 0 for record in records)
    if empty:
        reason = EMPTY_REASONS.get(options.method, "there was no prompt for SAM")
        if options.track != "none":
            reason += ", or the audio does not agree with the object that was tracked"
        notes.append(f"Empty although there is audio: {empty} of {counted(len(records), 'mask')} ({reason}).")
    for requested, folder, content in (
        (outputs.heatmaps, "heatmaps", "similarity map"),
        (outputs.prompts, "prompts", "prompt for SAM"),
    ):
        if requested and not (out / folder).is_dir():
            notes.append(f"There is no {content} to show: method {options.method} computed none for this video.")
    if (stride := card_stride(video)) > 1:
        notes.append(f"The video is long: the page shows one second in {stride}.")
    return notes


def summary(
    video: VideoInfo, records: Sequence[MaskRecord], notes: Sequence[str], outputs: DemoOutputs, page: Path
) -> str:
    """The output at the end of the command, less than a screen."""
    areas = [record.area for record in records if record.area > 0]
    coverage = f", covering {100 * sum(areas) / len(areas):.1f} % of the frame on average" if areas else ""
    labels = sorted({label for record in records for label in record.labels})
    lines = [
        f"{printable_path(video.path)}: {describe_video(video)}",
        f"masks: {len(records)}, one per {outputs.mask_rate}; {len(areas)} not empty{coverage}",
        *([f"labels: {', '.join(labels[:20])}"] if labels else []),
        *(f"note: {note}" for note in notes if note != SMALL_WEIGHTS_NOTE),  # which is printed at the beginning
        f"page: {printable_path(page)}",
    ]
    return "\n".join(lines)


def describe_video(video: VideoInfo) -> str:
    """Length, size, frame rate and audio of a video in one line."""
    layout = "mono" if video.channels == 1 else "stereo"
    audio = f"{layout}, {video.audio_rate / 1000:g} kHz" if video.audio_rate else "no audio"
    return f"{video.duration:.1f} s · {video.width}×{video.height} · {float(video.fps):.4g} fps · {audio}"


def format_times(seconds: Sequence[int]) -> str:
    """Sorted seconds, from 0, as intervals: "0:00–0:03, 0:07–0:08" for 0, 1, 2 and 7."""
    intervals: list[list[int]] = []
    for second in seconds:
        if intervals and intervals[-1][1] == second:
            intervals[-1][1] = second + 1
        else:
            intervals.append([second, second + 1])
    more = f" and {counted(len(intervals) - 8, 'more time')}" if len(intervals) > 8 else ""
    return ", ".join(f"{format_time(start)}–{format_time(end)}" for start, end in intervals[:8]) + more


def format_time(second: int) -> str:
    """A second as minutes:seconds, or hours:minutes:seconds."""
    minutes, rest = divmod(second, 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
