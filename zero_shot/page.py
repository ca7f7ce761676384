"""The page of a demo: an HTML file that opens from disk, without a server or the network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.files import write_text
from utils.pages import render_page
from utils.video_info import VideoInfo
from zero_shot.demo_folder import DemoOutputs, MaskRecord, printable_path
from zero_shot.demo_notes import describe_labels, describe_video, format_time

TEMPLATE = Path(__file__).parent / "templates" / "demo.html"
VIEWS = {  # in the order in which a card shows them
    "frame": "the frame",
    "heatmap": "the similarity map (red is high) and SAM's prompts (white foreground, black background, yellow box)",
    "mask": "the mask",
}


def write_page(
    path: Path,
    video: VideoInfo,
    records: Sequence[MaskRecord],
    notes: Sequence[str],
    outputs: DemoOutputs,
    *,
    models: Sequence[str],
    configuration: str,
    small_weights: bool,
) -> None:
    """Write the page next to overlay.mp4 and the images.

    Args:
        path: of the page.
        video: by `utils.video_info.open_video`.
        records: the masks, of which those with images are shown.
        notes: sentences shown above the video, the most important first.
        outputs: what the demo consists of.
        models: the networks that were used, by `demo_notes.models_used`.
        configuration: the options as YAML.
        small_weights: state in the headline that the networks know fourteen drawings only.
    """
    cards = [_card(record) for record in records if record.images]
    shown = {view for card in cards for view, _ in card.images}
    html = render_page(
        TEMPLATE,
        video_name=printable_path(Path(video.path.name)),
        small_weights=small_weights,
        notes=notes,
        facts=describe_video(video),
        mask_rate=outputs.mask_rate,
        views=[caption for view, caption in VIEWS.items() if view in shown],
        cards=cards,
        models=models,
        configuration=configuration,
    )
    write_text(path, html)


@dataclass(frozen=True)
class _Card:
    """What the page shows of a second. images: (view, path from the page)."""

    second: int
    time: str
    summary: str
    images: list[tuple[str, str]]


def _card(record: MaskRecord) -> _Card:
    if record.silent:
        summary = "silent, so the mask is empty"
    elif record.area == 0:
        summary = "the mask is empty"
    else:
        summary = f"{100 * record.area:.1f} % of the frame"
    if named := describe_labels(record):
        summary += f" · {named}"
    if record.certain:
        summary += f" · {record.certain}"
    images = [(view, record.images[view]) for view in VIEWS if view in record.images]
    return _Card(record.second, format_time(record.second), summary, images)
