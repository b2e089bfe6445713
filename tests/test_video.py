"""Videos: what is kept, what is smoothed, what a stop or a bad file leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")

import av
from click.testing import CliRunner
from films import UNIT, packets, scene, shown, times, write_film
from halves import add_halves

from impasto.cli import main
from impasto.errors import PictureError, WrongCall
from impasto.inference import stylize_video, video, video_looks, video_track

FILM = [scene(index // 6) for index in range(12)]
"""Two shots of six frames each."""


@pytest.fixture
def pack(tiny: Path) -> Path:
    return add_halves(tiny)


def paint(source: Path, output: Path, **options):
    options = {"style": "red", "threads": 1, "provider": "cpu"} | options
    return stylize_video(source, output, **options)


def nothing_left(folder: Path, *names: str) -> bool:
    return sorted(path.name for path in folder.iterdir() if path.name != "packs") == sorted(names)


class TestKept:
    @pytest.mark.parametrize(
        ("name", "encoder"),
        [("a.mp4", None), ("a.mkv", "ffv1"), ("a.webm", None), ("a.mp4", "libsvtav1"), ("a.mov", None)],
    )
    @pytest.mark.parametrize("size", [(48, 64), (47, 65)])
    def test_size_and_times_and_count(self, pack, tmp_path, name, encoder, size):
        pts = [0, 3600, 4000, 13000, 13001, 20000, 29000]
        film = [scene(1, *size)] * len(pts)
        source = write_film(tmp_path / "in.mp4", film, pts=pts, format="yuv444p")
        report = paint(source, tmp_path / name, encoder=encoder)
        expected = [pts_ * UNIT for pts_ in pts]
        if name.endswith((".mkv", ".webm")):
            expected = [Fraction(round(time * 1000), 1000) for time in expected]
            assert any("rounded to the millisecond" in note for note in report.notes)
        assert times(tmp_path / name) == expected
        assert shown(tmp_path / name).shape == (7, *size, 3)
        assert (report.frames, report.height, report.width, report.damage) == (7, *size, None)
        assert nothing_left(tmp_path, "in.mp4", name)

    def test_odd_sides_are_said(self, pack, tmp_path):
        source = write_film(tmp_path / "in.mp4", [scene(1, 47, 64)] * 2, format="yuv444p")
        report = paint(source, tmp_path / "a.mp4")
        assert report.pixel_format == "yuv444p" and any("yuv444p" in note for note in report.notes)
        assert paint(source, tmp_path / "b.mp4", encoder="libsvtav1").pixel_format == "yuv420p"

    @pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.mkv", "aac"), ("a.mov", "pcm_s16le")])
    def test_sound_is_equal_to_the_byte(self, pack, tmp_path, name, codec):
        source = write_film(tmp_path / f"in{Path(name).suffix}", FILM, audio=codec)
        paint(source, tmp_path / name)
        before, after = packets(source), packets(tmp_path / name)
        assert len(before) > 2 and [data for _, data in after] == [data for _, data in before]
        assert [time for time, _ in after] == [time for time, _ in before]

    def test_subtitles_metadata_and_chapters(self, pack, tmp_path):
        chapters = [{"id": 1, "start": 0, "end": 200, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}}]
        film = write_film(tmp_path / "film.mkv", FILM, metadata={"title": "A film"}, chapters=chapters)
        text = tmp_path / "text.srt"
        text.write_text("1\n00:00:00,100 --> 00:00:00,300\nHello\n")
        source = tmp_path / "in.mkv"
        with av.open(str(film)) as one, av.open(str(text)) as two, av.open(str(source), "w") as out:
            streams = [out.add_stream_from_template(container.streams[0]) for container in (one, two)]
            streams[1].metadata["language"] = "deu"
            out.metadata.update(one.metadata)
            out.set_chapters(one.chapters())
            for container, stream in zip((one, two), streams, strict=True):
                for packet in container.demux():
                    if packet.size:
                        packet.stream = stream
                        out.mux(packet)
        paint(source, tmp_path / "a.mkv")
        assert packets(tmp_path / "a.mkv", "subtitles") == packets(source, "subtitles")
        with av.open(str(tmp_path / "a.mkv")) as made:
            assert made.metadata["title"] == "A film"
            assert made.streams.subtitles[0].language == "deu"
            assert [(c["start"] * c["time_base"], c["metadata"]["title"]) for c in made.chapters()] == [(0, "One")]

    @pytest.mark.parametrize("rotation", [90, 180, -90])
    def test_a_turned_film_is_upright(self, pack, tmp_path, rotation):
        picture = scene(3)
        source = write_film(tmp_path / "in.mp4", [picture] * 3, rotation=rotation)
        with av.open(str(source)) as film:
            told = next(film.decode(video=0)).rotation
        assert told % 360 == rotation % 360
        paint(source, tmp_path / "a.mkv", strength=0, encoder="ffv1")
        with av.open(str(tmp_path / "a.mkv")) as film:
            assert next(film.decode(video=0)).rotation == 0
        expected = np.rot90(picture, rotation // 90)
        assert np.abs(shown(tmp_path / "a.mkv")[1].astype(float) - expected).mean() < 3.5

    @pytest.mark.parametrize(
        ("matrix", "expected"),
        [  # x' = a x + c y, y' = b x + d y of a b . c d .
            ((1, 0, 0, 0, 1), [[1, 2, 3], [4, 5, 6]]),
            ((-1, 0, 0, 0, 1), [[3, 2, 1], [6, 5, 4]]),
            ((1, 0, 0, 0, -1), [[4, 5, 6], [1, 2, 3]]),
            ((0, 1, 0, 1, 0), [[1, 4], [2, 5], [3, 6]]),
            ((0, 1, 0, -1, 0), [[4, 1], [5, 2], [6, 3]]),
            ((0, -1, 0, 1, 0), [[3, 6], [2, 5], [1, 4]]),
        ],
    )
    def test_mirrored_and_turned_by_hand(self, matrix, expected):
        assert video_looks.upright(np.array([[1, 2, 3], [4, 5, 6]]), matrix).tolist() == expected

    @pytest.mark.parametrize("range", [1, 2])
    @pytest.mark.parametrize("matrix", [1, 5])
    def test_colours_are_what_they_were(self, pack, tmp_path, range, matrix):
        tags = {"color_range": range, "colorspace": matrix, "color_primaries": 5, "color_trc": 6}
        source = write_film(tmp_path / "in.mp4", [scene(4)] * 3, colours=tags, options={"crf": "1"})
        paint(source, tmp_path / "a.mp4", strength=0, crf=1)
        with av.open(str(tmp_path / "a.mp4")) as film:
            context = film.streams.video[0].codec_context
            assert {name: int(getattr(context, name)) for name in tags} == tags
        assert np.abs(shown(tmp_path / "a.mp4").astype(float) - scene(4)).mean() < 3.5

    def test_ten_bits_stay(self, pack, tmp_path):
        source = write_film(tmp_path / "in.mp4", [scene(4)] * 3, format="yuv420p10le", options={"crf": "1"})
        report = paint(source, tmp_path / "a.mp4", strength=0, crf=1)
        assert report.pixel_format == "yuv420p10le"
        assert np.abs(shown(tmp_path / "a.mp4").astype(float) - scene(4)).mean() < 3.5


class TestSteady:
    def test_statistics_are_smoothed_within_shots_and_begin_anew_at_a_cut(self, pack, tmp_path, monkeypatch):
        monkeypatch.setattr("impasto.inference.video_survey.EVERY", 0.0)
        dark, light, other = (np.full((48, 64, 3), level, np.uint8) for level in (40, 50, 200))
        film = [dark, light] * 4 + [other] * 8
        source = write_film(tmp_path / "in.mkv", film, codec="ffv1", format="bgr0")
        report = paint(source, tmp_path / "a.mkv", strength=1, encoder="ffv1")
        assert report.shots == 2
        means = shown(tmp_path / "a.mkv").mean((1, 2, 3))
        at = np.arange(8) * 0.04
        weights = np.exp(-(((at[:, None] - at) / video_track.SIGMA) ** 2) / 2)
        expected = weights @ np.array([40, 50] * 4) / weights.sum(1)
        np.testing.assert_allclose(means[:8], expected, atol=0.6)
        np.testing.assert_allclose(means[8:], 200, atol=0.6)

    def test_without_halves_each_frame_is_painted_by_itself_and_it_is_said(self, tiny, tmp_path):
        source = write_film(tmp_path / "in.mkv", [scene(2)] * 2, codec="ffv1", format="bgr0")
        report = paint(source, tmp_path / "a.mkv", encoder="ffv1", style="invert")
        assert np.array_equal(shown(tmp_path / "a.mkv")[0], 255 - scene(2))
        assert any("it may flicker" in note for note in report.notes)

    def test_numbers(self, pack, tmp_path):
        pytest.importorskip("cv2")
        flat = [np.full((48, 64, 3), level, np.uint8) for level in (40, 50) * 4]
        source = write_film(tmp_path / "in.mkv", flat, codec="ffv1", format="bgr0")
        numbers = paint(source, tmp_path / "a.mkv", strength=1, encoder="ffv1", stability=True).stability
        assert numbers.pairs == 7 and numbers.counted > 0.9
        assert (numbers.flicker, numbers.flicker_alone) == (0, pytest.approx(10, abs=0.01))
        assert (numbers.warping, numbers.warping_alone) == (0, pytest.approx(10, abs=0.01))
        assert numbers.warping_source == pytest.approx(10, abs=0.01)


def thumbnails(*frames: np.ndarray) -> np.ndarray:
    return np.stack([frame[:: len(frame) // 16, :: frame.shape[1] // 16][:16, :16] for frame in frames])


class TestCuts:
    def test_planted(self):
        shots = [scene(seed, 64, 64) for seed in (1, 2, 3)]
        frames = thumbnails(*[shots[0]] * 9, *[shots[1]] * 20, *[shots[2]] * 2)
        assert np.flatnonzero(video_track.find_cuts(frames)).tolist() == [0, 9, 29]

    def test_a_pan_is_none_however_fast(self):
        wide = scene(1, 64, 640)
        for speed in (1, 4, 16, 30):
            frames = thumbnails(*(wide[:, speed * t : speed * t + 64] for t in range(19)))
            assert np.flatnonzero(video_track.find_cuts(frames)).tolist() == [0]

    @pytest.mark.parametrize("length", [1, 3, 5])
    def test_a_flash_is_none(self, length):
        flash = np.full((64, 64, 3), 250, np.uint8)
        frames = thumbnails(*[scene(1, 64, 64)] * 12, *[flash] * length, *[scene(1, 64, 64)] * 12)
        assert np.flatnonzero(video_track.find_cuts(frames)).tolist() == [0]

    def test_one_frame(self):
        assert video_track.find_cuts(thumbnails(scene(1, 64, 64))).tolist() == [True]


class TestMotion:
    @pytest.mark.parametrize("moved", [(0, 0), (3, 0), (-2, 5), (0, -9)])
    def test_whole_pixels(self, moved):
        noise = np.random.default_rng(0).integers(0, 256, (200, 200), dtype=np.uint8)
        motion = video_track.Motion()
        motion.step(noise[30:130, 30:130])
        down, right = moved
        got = motion.step(noise[30 - down : 130 - down, 30 - right : 130 - right])
        assert got == pytest.approx(moved, abs=0.1)

    def test_what_is_unsure_is_none(self):
        random = np.random.default_rng(0)
        motion = video_track.Motion()
        for _ in range(3):
            assert motion.step(random.integers(0, 256, (100, 100), dtype=np.uint8)) == (0, 0)

    def test_the_grid_moves_along_and_begins_anew_at_a_cut(self):
        moved = np.array([[0, 0], [1, -3], [0.6, 0], [0.6, 0.4], [0, 0], [2, 2]], float)
        cuts = np.array([1, 0, 0, 0, 1, 0], bool)
        got = video_track.grid_offsets(moved, cuts, 4)
        assert got.tolist() == [[0, 0], [3, 3], [2, 3], [1, 3], [0, 0], [2, 2]]


@pytest.fixture
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "PIECE_FRAMES", 4)


class Stop(Exception):
    pass


class TestResume:
    def test_pieces_join_to_a_film_with_sound(self, pack, tmp_path, short_pieces):
        pts = np.cumsum([0, *np.random.default_rng(0).integers(500, 9000, 11)]).tolist()
        source = write_film(tmp_path / "in.mp4", FILM, pts=pts, audio="aac")
        paint(source, tmp_path / "a.mp4")
        assert times(tmp_path / "a.mp4") == [time * UNIT for time in pts]
        assert packets(tmp_path / "a.mp4") == packets(source)

    def test_it_goes_on_and_ends_the_same(self, pack, tmp_path, short_pieces):
        source = write_film(tmp_path / "in.mp4", FILM, audio="aac", options={"bf": "2"})
        paint(source, tmp_path / "whole.mp4")

        def stop(phase: str, behind: int, total: int) -> None:
            if phase == "Painting" and behind == 6:
                raise Stop

        with pytest.raises(Stop):
            paint(source, tmp_path / "a.mp4", progress=stop)
        assert not (tmp_path / "a.mp4").exists()
        calls = []
        report = paint(source, tmp_path / "a.mp4", progress=lambda *call: calls.append(call))
        assert report.resumed == 4 and calls[0] == ("Painting", 4, 12) and calls[-1] == ("Painting", 12, 12)
        assert times(tmp_path / "a.mp4") == times(tmp_path / "whole.mp4")
        np.testing.assert_array_equal(shown(tmp_path / "a.mp4"), shown(tmp_path / "whole.mp4"))
        assert packets(tmp_path / "a.mp4") == packets(source)

    @pytest.mark.parametrize("change", ["strength", "source"])
    def test_other_settings_or_another_source_begin_anew(self, pack, tmp_path, short_pieces, change):
        source = write_film(tmp_path / "in.mp4", FILM)

        def stop(phase: str, behind: int, total: int) -> None:
            if behind == 11 and phase == "Painting":
                raise Stop

        with pytest.raises(Stop):
            paint(source, tmp_path / "a.mp4", progress=stop)
        if change == "source":
            write_film(source, FILM[::-1])
        report = paint(source, tmp_path / "a.mp4", strength=0.5 if change == "strength" else 1.0)
        assert report.resumed == 0

    def test_killed(self, pack, tmp_path):
        source = write_film(tmp_path / "in.mp4", FILM, audio="aac")
        program = (
            "import os, signal, sys\n"
            "from impasto.inference import stylize_video, video\n"
            "video.PIECE_FRAMES = 4\n"
            "def die(phase, behind, total):\n"
            "    if phase == 'Painting' and behind == 9: os.kill(os.getpid(), signal.SIGKILL)\n"
            f"stylize_video({str(source)!r}, {str(tmp_path / 'a.mp4')!r}, style='red', pack={str(pack)!r}, threads=1,"
            " provider='cpu', progress=die)\n"
        )
        killed = subprocess.run([sys.executable, "-c", program], env=os.environ, check=False)
        assert killed.returncode == -signal.SIGKILL and not (tmp_path / "a.mp4").exists()
        video_frames = video.PIECE_FRAMES
        try:
            video.PIECE_FRAMES = 4
            assert paint(source, tmp_path / "a.mp4", pack=pack).resumed == 8
        finally:
            video.PIECE_FRAMES = video_frames
        assert times(tmp_path / "a.mp4") == times(source) and packets(tmp_path / "a.mp4") == packets(source)
        assert nothing_left(tmp_path, "in.mp4", "a.mp4")


class TestBadInput:
    def fails(self, folder: Path, error: type[Exception], match: str, source: Path, name: str = "a.mp4", **options):
        before = sorted(path.name for path in folder.iterdir())
        with pytest.raises(error, match=match) as raised:
            paint(source, folder / name, **options)
        assert "\n" not in str(raised.value)
        assert sorted(path.name for path in folder.iterdir()) == before

    def test_not_a_video(self, pack, tmp_path):
        (tmp_path / "text.mp4").write_text("no film\n" * 50)
        self.fails(tmp_path, PictureError, r"text\.mp4: not a video", tmp_path / "text.mp4")
        self.fails(tmp_path, FileNotFoundError, "No such file", tmp_path / "none.mp4")

    def test_a_picture(self, pack, tmp_path):
        from PIL import Image

        Image.fromarray(scene(1)).save(tmp_path / "a.png")
        self.fails(tmp_path, PictureError, "a picture, not a video; use impasto stylize", tmp_path / "a.png")

    def test_only_sound(self, pack, tmp_path):
        both = write_film(tmp_path / "both.mp4", FILM, audio="aac")
        with av.open(str(both)) as film, av.open(str(tmp_path / "sound.mp4"), "w") as out:
            stream = out.add_stream_from_template(film.streams.audio[0])
            for packet in film.demux(film.streams.audio[0]):
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
        self.fails(tmp_path, PictureError, "no video in it, only: audio", tmp_path / "sound.mp4")

    def test_too_small(self, pack, tmp_path):
        source = write_film(tmp_path / "in.mp4", [scene(1, 8, 64)])
        self.fails(tmp_path, PictureError, "64 x 8 pixels; expected at least 16 x 16", source)

    def test_wrong_calls(self, pack, tmp_path):
        source = write_film(tmp_path / "in.mp4", FILM, audio="aac")
        self.fails(tmp_path, WrongCall, "is the source", source, "in.mp4")
        (tmp_path / "link.mp4").symlink_to(source)
        self.fails(tmp_path, WrongCall, "is the source", source, "link.mp4")
        self.fails(tmp_path, WrongCall, r"unknown container '\.xyz'", source, "a.xyz")
        self.fails(tmp_path, WrongCall, "unknown encoder 'x264'. Did you mean 'libx264'", source, encoder="x264")
        self.fails(tmp_path, WrongCall, r"libx264 is not for \.webm", source, "a.webm", encoder="libx264")
        self.fails(tmp_path, WrongCall, r"\.webm cannot hold the audio of .*\(aac\); take \.mp4", source, "a.webm")
        self.fails(tmp_path, WrongCall, "strength from 0 to 1", source, strength=2)
        self.fails(tmp_path, WrongCall, "ffv1 is lossless", source, "a.mkv", encoder="ffv1", crf=3)

    def test_cut_off_before_its_index(self, pack, tmp_path):
        source = write_film(tmp_path / "in.mp4", FILM)
        source.write_bytes(source.read_bytes()[:-900])
        self.fails(tmp_path, PictureError, "cut off before its index", source)

    def test_of_a_truncated_video_what_can_be_read_is_painted(self, pack, tmp_path):
        source = write_film(tmp_path / "in.mkv", [scene(index) for index in range(40)], audio="aac")
        source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
        runner = CliRunner()
        result = runner.invoke(
            main, ["video", str(source), str(tmp_path / "a.mkv"), "-s", "red", "--threads", "1", "--json"]
        )
        assert result.exit_code == 1
        assert "in.mkv: it is cut off at " in result.stderr and "what can be read is painted" in result.stderr
        count = len(times(tmp_path / "a.mkv"))
        assert 5 < count < 40 and json.loads(result.stdout)["frames"] == count

    def test_a_damaged_stretch_is_said_and_the_rest_painted(self, pack, tmp_path):
        noise = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8)
        source = write_film(tmp_path / "in.mp4", list(noise))
        data = bytearray(source.read_bytes())
        middle = data.index(b"mdat") + len(data) // 2
        data[middle : middle + 9000] = bytes(9000)
        source.write_bytes(data)
        report = paint(source, tmp_path / "a.mp4")
        assert report.damage is not None and "of its video cannot be decoded" in report.damage
        assert 20 <= report.frames < 40 and len(times(tmp_path / "a.mp4")) == report.frames

    def test_a_source_that_goes_away(self, pack, tmp_path, short_pieces):
        source = write_film(tmp_path / "in.mp4", FILM)
        data = source.read_bytes()

        def remove(phase: str, behind: int, total: int) -> None:
            if phase == "Measuring" and behind == total:
                source.unlink()

        with pytest.raises(FileNotFoundError):
            paint(source, tmp_path / "a.mp4", progress=remove)
        assert not (tmp_path / "a.mp4").exists()
        source.write_bytes(data)
        assert paint(source, tmp_path / "a.mp4").frames == 12
        assert nothing_left(tmp_path, "in.mp4", "a.mp4")

    @pytest.mark.parametrize("where", ["a piece", "the end"])
    def test_a_full_disk(self, pack, tmp_path, short_pieces, where):
        resource = pytest.importorskip("resource")
        noise = np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), dtype=np.uint8)
        source = write_film(tmp_path / "in.mp4", list(noise))
        (tmp_path / "a.mp4").write_bytes(b"as it was")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

        def fill(phase: str, behind: int, total: int) -> None:
            if phase == "Painting" and behind == (6 if where == "a piece" else 12):
                largest = max(path.stat().st_size for path in (tmp_path / ".a.mp4.parts").glob("piece*"))
                resource.setrlimit(resource.RLIMIT_FSIZE, (9000 if where == "a piece" else largest + 4000, limits[1]))

        try:
            with pytest.raises(OSError, match=r"\.parts"):
                paint(source, tmp_path / "a.mp4", strength=0, crf=1, progress=fill)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        assert (tmp_path / "a.mp4").read_bytes() == b"as it was"
        assert paint(source, tmp_path / "a.mp4", strength=0, crf=1).resumed >= 4
        assert times(tmp_path / "a.mp4") == times(source)


def test_the_command_says_what_it_used(pack, tmp_path):
    source = write_film(tmp_path / "in.mp4", FILM)
    result = CliRunner().invoke(
        main, ["video", str(source), str(tmp_path / "a.mp4"), "-s", "red:0.5,invert:0.5", "--threads", "1"]
    )
    assert result.exit_code == 0, result.stderr
    assert "12 frames of 64 x 48, 2 shots, in " in result.stderr
    assert "Encoder: libx264 (GPL-2.0-or-later), yuv420p" in result.stderr
    wrong = CliRunner().invoke(main, ["video", str(source), str(source), "-s", "red"])
    assert wrong.exit_code == 2 and wrong.stderr.startswith("Error: ")


def test_sizes_that_change_leave_nothing(pack, tmp_path, monkeypatch):
    source = write_film(tmp_path / "in.mp4", FILM)
    monkeypatch.setattr("impasto.inference.video_source.turned_size", lambda frame, matrix: (frame.pts + 1, 64))
    with pytest.raises(PictureError, match="the size of frames changes to 64 x 48"):
        paint(source, tmp_path / "a.mp4")
    assert nothing_left(tmp_path, "in.mp4")
