"""Read the frames of any video as a stream, displayed upright and at a constant rate. FFmpeg through PyAV.

Memory does not grow with the length of the video: frames and audio (utils.audio_stream) are read in separate passes
over the file, so that neither is buffered for the other.
"""

from collections.abc import Iterator

import av
import cv2
import numpy as np

from utils.timestamps import ROUNDING, SAMPLE_POINT, decode_frames
from utils.video import open_media
from utils.video_frame import to_rgb
from utils.video_info import VideoInfo

LUMA_STRIDE = 61  # prime, so that samples do not lie in columns


def read_frames(video: VideoInfo) -> Iterator[tuple[int, av.VideoFrame]]:
    """Read the video at its constant rate.

    Frames are decoded one at a time; `frame_to_rgb` converts those that are needed. Frames that cannot be decoded are
    replaced by the one before.

    Yields:
        The index of each frame, from 0, and the decoded frame that is nearest to it in time.
    """
    index, current = 0, None
    for time, frame in _timed_frames(video):
        position = round(time * float(video.fps))
        if current is None:
            current = frame
        while index < min(position, video.num_frames):
            yield index, current
            index += 1
        current = frame
    while current is not None and index < video.num_frames:
        yield index, current
        index += 1


def read_frame_per_second(video: VideoInfo) -> Iterator[tuple[int, av.VideoFrame]]:
    """Read one frame per second.

    Yields:
        Each second, from 0, and the frame that is displayed at 15/16 of it (utils.timestamps.displayed_frames).
    """
    second, current = 0, None
    for time, frame in _timed_frames(video):
        while current is not None and second < video.num_seconds and second + SAMPLE_POINT + ROUNDING < time:
            yield second, current
            second += 1
        current = frame
    while current is not None and second < video.num_seconds:
        yield second, current
        second += 1


def frame_to_rgb(video: VideoInfo, frame: av.VideoFrame) -> np.ndarray:
    """Convert a frame to RGB as it is displayed: uint8 (video.height, video.width, 3)."""
    return resize_to_video(video, to_rgb(frame))


def resize_to_video(video: VideoInfo, rgb: np.ndarray) -> np.ndarray:
    """Resize an image to the video's displayed size, since pixels may not be square and the frame size may change."""
    if rgb.shape[:2] == (video.height, video.width):
        return rgb
    shrinks = rgb.shape[0] > video.height and rgb.shape[1] > video.width
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(rgb, (video.width, video.height), interpolation=interpolation)


def _timed_frames(video: VideoInfo) -> Iterator[tuple[float, av.VideoFrame]]:
    """The frames of a video, each with the seconds from the first at which it is displayed."""
    with open_media(video.path) as (container, stream, audio):
        stream.thread_type = "AUTO"
        first, is_still, changes_size = None, video.num_frames > 1, False
        for number, frame in enumerate(
            decode_frames(container, stream, stream, audio, in_decode_order=video.in_decode_order)
        ):
            assert isinstance(frame, av.VideoFrame)
            time = number / float(video.fps)
            if video.has_timestamps and frame.time is not None:
                time = frame.time - video.start_time
            first = first or frame
            if not changes_size and (frame.width, frame.height) != (first.width, first.height):
                changes_size = True
                video.add_note(f"The size of the frames changes, first at {time:.1f} s: all are resized to the first.")
            is_still = is_still and _looks_same(first, frame)
            yield time, frame
        if is_still:
            video.add_note("The image never changes: the video is a single image with audio.")


def _looks_same(one: av.VideoFrame, other: av.VideoFrame) -> bool:
    """Whether two frames differ only by coding noise, from one in LUMA_STRIDE samples of luma."""
    planes = [np.frombuffer(frame.planes[0], np.uint8)[::LUMA_STRIDE].astype(int) for frame in (one, other)]  # type: ignore[call-overload]
    if len(planes[0]) != len(planes[1]):
        return False
    difference = np.abs(planes[0] - planes[1])
    return bool(difference.max() <= 24 and difference.mean() <= 1.5)
