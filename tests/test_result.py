"""What every technique returns: saved, on TensorBoard and in a notebook."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import FrozenInstanceError, replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from impasto.errors import WrongCall
from impasto.visualization import result
from impasto.visualization.result import Result


def noise(seed: int, shape: tuple[int, ...] = (5, 7, 3)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


@pytest.fixture
def found() -> Result:
    return Result(
        images={"painted": noise(0), "relu4_3.map": noise(1, (5, 7)), "cut-out": noise(2, (5, 7, 4))},
        data={"loss": [1.5, 0.25], "style": {"name": "Jeune fille à l'été"}, "stopped": None},
        frames=[noise(seed, (16, 16, 3)) for seed in range(3)],
        caption="A <b>photo</b> & a painting",
        command="impasto paint 'a b.jpg' sea.jpg -o out.png",
    )


def same(left: Image.Image, right: Image.Image) -> bool:
    return left.mode == right.mode and np.array_equal(np.asarray(left), np.asarray(right))


def test_saved(found, tmp_path):
    folder = tmp_path / "new" / "run"
    paths = found.save(folder)
    assert [path.name for path in paths] == [
        "painted.png", "relu4_3.map.png", "cut-out.png", "frames.webp", "data.json",
    ]  # fmt: skip
    assert sorted(paths) == sorted(folder.iterdir())
    for name, image in found.images.items():
        with Image.open(folder / f"{name}.png") as back:
            assert back.format == "PNG" and same(back, image)
    with Image.open(folder / "frames.webp") as back:
        assert back.n_frames == 3 and back.size == (16, 16)
    text = (folder / "data.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"caption": found.caption, "command": found.command, "data": found.data}
    assert "à l'été" in text, "to be read by people"


def test_saved_again_over_the_old(found, tmp_path):
    found.save(tmp_path)
    replace(found, images={"painted": noise(9)}, data={}, frames=[]).save(tmp_path)
    with Image.open(tmp_path / "painted.png") as back:
        assert same(back, noise(9))
    assert json.loads((tmp_path / "data.json").read_text())["data"] == {}
    assert [path.name for path in Result({}).save(tmp_path / "bare")] == ["data.json"]


def test_nothing_is_written_that_cannot_all_be(found, tmp_path):
    found.frames.append(Image.new("RGB", (3, 3)))
    with pytest.raises(WrongCall, match="frames of"):
        found.save(tmp_path / "run")
    found.frames.pop()
    found.data["late"] = float("nan")
    with pytest.raises(WrongCall, match="JSON cannot hold it"):
        found.save(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_failing_disk_leaves_no_broken_file(found, tmp_path, monkeypatch):
    written: list[Any] = []

    def full(path: Any, content: bytes) -> None:
        written.append(path)
        if len(written) == 2:
            raise OSError(28, "No space left on device", str(path))
        write(path, content)

    write = result.write_atomically
    monkeypatch.setattr(result, "write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        found.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["painted.png"]
    with Image.open(tmp_path / "painted.png") as back:
        assert same(back, noise(0))


def test_on_tensorboard(found, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        found.tensorboard(writer, step=7)
        replace(found, images={}, caption="", command="").tensorboard(writer, step=8)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["images"]) == set(found.images)
    for name, image in found.images.items():
        (event,) = events.Images(name)
        assert event.step == 7
        with Image.open(io.BytesIO(event.encoded_image_string)) as back:
            assert same(back, image if image.mode == "RGBA" else image.convert("RGB"))
    texts = {
        tag: [event.tensor_proto.string_val[0].decode() for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }
    assert texts == {"caption/text_summary": [found.caption], "command/text_summary": [f"    {found.command}"]}


class Reader(HTMLParser):
    """Pictures by their alt text, and all the text."""

    def __init__(self) -> None:
        super().__init__()
        self.images: dict[str, str] = {}
        self.text = ""
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "img":
            given = dict(attrs)
            self.images[given["alt"] or ""] = given["src"] or ""

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"


def test_in_a_notebook(found):
    reader = Reader()
    reader.feed(found._repr_html_())
    assert list(reader.images) == [*found.images, "frames"]
    for name, image in found.images.items():
        head, _, content = reader.images[name].partition(",")
        assert head == "data:image/png;base64"
        assert same(Image.open(io.BytesIO(base64.b64decode(content))), image)
    head, _, content = reader.images["frames"].partition(",")
    assert head == "data:image/webp;base64" and Image.open(io.BytesIO(base64.b64decode(content))).n_frames == 3
    assert found.caption in reader.text and found.command in reader.text
    assert "b" not in reader.tags, "the caption is text, not markup"
    bare = Result({"a": noise(0)})._repr_html_()
    assert "<p>" not in bare and "<pre>" not in bare


def test_it_is_frozen(found):
    with pytest.raises(FrozenInstanceError):
        found.caption = "another"
    one, other = Result({}), Result({})
    assert one.data is not other.data and one.frames is not other.frames


@pytest.mark.parametrize("name", ["", "a/b", "a\\b", "..", ".hidden", "-o", "a b", "a\n", "naïve", "c:x"])
def test_names_must_be_plain(name):
    with pytest.raises(WrongCall, match=re.escape(f"got {name!r}, expected letters")):
        Result({name: noise(0)})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"images": {"a": noise(0), "A": noise(1)}}, "got a, A, expected names that differ in any case"),
        ({"images": {"a": Image.new("F", (4, 4))}}, "the picture a: got mode F, expected one of L, RGB, RGBA"),
        ({"images": {}, "data": {"x": float("nan")}}, "JSON cannot hold it: Out of range float"),
        ({"images": {}, "data": {"x": [1, float("inf")]}}, "JSON cannot hold it"),
        ({"images": {}, "data": {"x": np.zeros(2)}}, "JSON cannot hold it: .*ndarray"),
        ({"images": {}, "data": {(1, 2): 3}}, "JSON cannot hold it: keys must be str"),
    ],
)
def test_wrong_calls(given, message):
    with pytest.raises(WrongCall, match=message):
        Result(**given)
