"""Small videos of several containers to damage, and videos that are well formed and yet absurd, made in code."""

import zlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.container import OutputContainer
from av.video.stream import VideoStream

from tests.helpers.videos import mux, tone


def bases(folder: Path) -> dict[str, bytes]:
    """Whole videos of a second, by their names."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {
        "a.mp4": ("libx264", "aac"),
        "a.mkv": ("libx264", "flac"),
        "a.avi": ("mpeg4", "pcm_s16le"),
        "a.ts": ("libx264", "mp2"),
        "a.mov": ("mpeg4", "libmp3lame"),
    }
    stamps, sound = [40 * n for n in range(30)], tone(1.2, 48_000, 2)
    return {
        name: mux(folder / name, *codecs[:1], stamps, sound, codecs[1]).read_bytes() for name, codecs in kinds.items()
    }


def crafted(folder: Path, bases: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Files that are well formed and yet absurd, or no videos at all."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = bases["a.mp4"]
    picture = cv2.imencode(".png", np.zeros((40, 40, 3), np.uint8))[1].tobytes()
    yield "empty.mp4", b""
    yield "byte.mp4", b"\0"
    yield "zeros.mp4", bytes(50_000)
    yield "text.mp4", b"nothing of the kind\n" * 100
    yield "png.mp4", picture
    yield (
        "wav.mp4",
        b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\1\0\1\0\x80\x3e\0\0\0\x7d\0\0\2\0\x10\0data\xff\xff\xff\xff"
        + bytes(99),
    )
    yield "svg.mp4", b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/hostname'/></svg>"
    yield "twice.mp4", whole * 2
    yield "a codec of the future.mp4", whole.replace(b"avc1", b"zzz9")
    yield "a title in Latin-1.mkv", with_title(folder / "title.mkv").replace(b"Muenchen", b"M\xfcnchen\xe9")
    yield "sound that changes.mkv", changing_sound(folder / "changing.mkv")
    (folder / "secret.mp4").write_bytes(whole)
    # Lists that name other files, here or elsewhere.
    yield "list.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nsecret.mp4\n#EXT-X-ENDLIST\n"
    yield "far.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://192.0.2.1/a.ts\n#EXT-X-ENDLIST\n"
    yield "concat.mp4", b"ffconcat version 1.0\nfile secret.mp4\n"
    yield (
        "session.mp4",
        b"v=0\no=- 0 0 IN IP4 192.0.2.1\ns=x\nc=IN IP4 192.0.2.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
        b"a=rtpmap:96 H264/90000\n",
    )
    for rate in (Fraction(1, 1000), Fraction(1), Fraction(1000), Fraction(100_000), Fraction(30_000, 1001)):
        yield f"rate {float(rate):g}.mp4", odd(folder / "rate.mp4", rate=rate)
    for codec, size in (("mpeg4", (16, 8000)), ("mpeg4", (8000, 16)), ("png", (3, 1)), ("png", (1, 1))):
        yield f"{codec} {size[0]}x{size[1]}.mov", odd(folder / "size.mov", codec, size)
    yield "no sound.mp4", odd(folder / "silent.mp4")
    for start in (-1e5, 1e5, 1e9):
        yield f"stamps from {start:g}.mkv", odd(folder / "late.mkv", "mpeg4", start=start)
    yield "a hole of years.mkv", odd(folder / "hole.mkv", "mpeg4", stamps=[0, 40, 80, 10**11])
    yield "a hole of years.mp4", odd(folder / "hole.mp4", stamps=[0, 1, 2, 2_000_000_000])
    yield "one stamp.mkv", odd(folder / "one.mkv", "mpeg4", stamps=[0, 0, 0, 0])
    for hertz in (8000, 96_000):
        yield f"sound only {hertz}.mp4", sound_only(folder / "sound.mp4", hertz)
    yield "a day of slow sound.mkv", slow_sound(folder / "slow.mkv")
    yield "a wide picture.mov", wide_picture(folder / "wide.mov")


def odd(
    path: Path,
    codec: str = "libx264",
    size: tuple[int, int] = (48, 64),
    rate: Fraction = Fraction(25),
    stamps: list[int] | None = None,
    start: float = 0.0,
) -> bytes:
    """A silent video of a few black frames, at the given milliseconds if any."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=rate)
        assert isinstance(video, VideoStream)
        video.height, video.width = size
        video.pix_fmt = "rgb24" if codec == "png" else "yuv420p"
        packets = []
        for _ in stamps or range(4):
            frame = av.VideoFrame.from_ndarray(np.zeros((*size, 3), np.uint8), format="rgb24")
            packets += video.encode(frame)
        packets += video.encode(None)
        for number, packet in enumerate(packets):
            if stamps:
                packet.time_base, packet.pts = Fraction(1, 1000), stamps[number]
            elif start:
                packet.time_base, packet.pts = Fraction(1, 1000), round(start * 1000) + 40 * number
            packet.dts = packet.pts if stamps or start else packet.dts
            container.mux(packet)
    return path.read_bytes()


def sound_only(path: Path, rate: int) -> bytes:
    """A tone of a second, without pictures."""
    with av.open(str(path), "w") as container:
        audio = container.add_stream("aac", rate=rate, layout="mono")
        block = av.AudioFrame.from_ndarray(tone(1.0, rate).T.astype(np.float32), format="fltp", layout="mono")
        block.sample_rate = rate
        container.mux(audio.encode(block))
        container.mux(audio.encode(None))
    return path.read_bytes()


def with_title(path: Path) -> bytes:
    """A second of black with a title."""
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Muenchen"
        fill(container, ["stereo"])
    return path.read_bytes()


def changing_sound(path: Path) -> bytes:
    """A second of mono, then a second of stereo in the same track."""
    with av.open(str(path), "w") as container:
        fill(container, ["mono", "stereo"])
    return path.read_bytes()


def fill(container: OutputContainer, layouts: Sequence[str]) -> None:
    """A second of black, and a second of tone in each of the layouts, one after the other in one track."""
    track = container.add_stream("mp2", rate=48_000, layout=layouts[0])
    video = container.add_stream("mpeg4", rate=25)
    assert isinstance(video, VideoStream)
    video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
    for _ in range(25):
        container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
    container.mux(video.encode(None))

    for second, layout in enumerate(layouts):
        codec = av.CodecContext.create("mp2", "w")
        assert isinstance(codec, AudioCodecContext)
        codec.sample_rate, codec.layout, codec.format, codec.time_base = 48_000, layout, "s16", Fraction(1, 48_000)
        wave = (tone(1.0, 48_000, codec.layout.nb_channels) * 32767).astype(np.int16)
        for begin in range(0, 48_000 - 1152, 1152):
            piece = np.ascontiguousarray(wave[begin : begin + 1152]).reshape(1, -1)
            block = av.AudioFrame.from_ndarray(piece, format="s16", layout=layout)
            block.sample_rate, block.pts, block.time_base = 48_000, second * 48_000 + begin, Fraction(1, 48_000)
            for packet in codec.encode(block):
                packet.stream = track
                container.mux(packet)


def slow_sound(path: Path, rate: int = 8, seconds: int = 100_000) -> bytes:
    """A second of pictures and a day of sound at a few samples a second, which at 16 kHz would be gigabytes."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        assert isinstance(video, VideoStream)
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        for _ in range(25):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(video.encode(None))
        for begin in range(0, rate * seconds, 4096):
            frame = av.AudioFrame.from_ndarray(np.ones((1, 4096), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, begin, Fraction(1, rate)
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    return path.read_bytes()


def wide_picture(path: Path, side: int = 20_000) -> bytes:
    """A video of one black PNG, small as a file and more than a gigabyte as RGB."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("png", rate=25)
        assert isinstance(video, VideoStream)
        video.height = video.width = 16  # the container says
        video.pix_fmt = "rgb24"
        packet = av.Packet(wide_png(side))
        packet.stream, packet.pts, packet.dts, packet.time_base = video, 0, 0, Fraction(1, 25)
        container.mux(packet)
    return path.read_bytes()


def wide_png(side: int) -> bytes:
    """A black picture of one bit a pixel."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    head = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    rows = zlib.compress(bytes((1 + -(-side // 8)) * side), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
