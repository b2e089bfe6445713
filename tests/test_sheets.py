"""Labelled sheets of pictures, by hand."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from impasto.errors import WrongCall
from impasto.sheets import GAP, LINE, sheet, tiled

WHITE = (255, 255, 255)
LONG = "a title much wider than its picture"


def tile(colour: str, width: int = 60, height: int = 40) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def ink(picture: Image.Image) -> np.ndarray:
    """Where something is drawn that is dark and grey: text."""
    rgb = np.asarray(picture).astype(int)
    return (rgb.max(axis=2) - rgb.min(axis=2) == 0) & (rgb.max(axis=2) < 128)


def test_pictures_alone():
    drawn = sheet([[tile("red"), tile("blue")], [tile("lime"), None]])
    expected = np.full((GAP + 2 * (40 + GAP), GAP + 2 * (60 + GAP), 3), 255, np.uint8)
    expected[8:48, 8:68] = (255, 0, 0)
    expected[8:48, 76:136] = (0, 0, 255)
    expected[56:96, 8:68] = (0, 255, 0)
    assert drawn.mode == "RGB" and np.array_equal(np.asarray(drawn), expected)


def test_every_text_has_its_place():
    rows = [[tile("red"), tile("blue")], [tile("lime"), tile("yellow")]]
    texts = {
        "titles": (["A", "B"], [(8, 8), (76, 8)]),
        "captions": (["C", "D"], [(8, 8), (8, 8 + LINE + 40 + GAP)]),
        "labels": ([["E", "F"], ["G", "H"]], [(8, 48), (76, 48), (8, 96 + LINE), (76, 96 + LINE)]),
        "notes": ([["I", "J"], ["K"]], [(8, 104), (8, 104 + LINE), (76, 104)]),
    }
    added = {"titles": LINE, "captions": 2 * LINE, "labels": 2 * LINE, "notes": 2 * LINE + GAP}
    for what, (given, places) in texts.items():
        drawn = sheet(rows, **{what: given})
        assert drawn.size == (GAP + 2 * (60 + GAP), GAP + 2 * (40 + GAP) + added[what])
        dark = ink(drawn)
        found = 0
        for x, y in places:
            found += (here := dark[y : y + LINE, x : x + 12].sum())
            assert here > 5, f"{what}: nothing at {x}, {y}"
        assert found == dark.sum(), f"{what}: ink elsewhere"


def test_all_of_it_by_hand():
    rows = [[tile("red"), tile("blue")], [tile("lime"), tile("yellow")]]
    drawn = sheet(
        rows, titles=["a", LONG], captions=["sea", "hill"], labels=[["b"], []], notes=[["x", "y"], ["z"]]
    )  # fmt: skip
    first, second = GAP + LINE + LINE, GAP + LINE + LINE + 40 + LINE + GAP + LINE
    assert drawn.height == second + 40 + GAP + 2 * LINE + GAP
    for x, y, colour in (
        (8, first, (255, 0, 0)), (76, first, (0, 0, 255)), (8, second, (0, 255, 0)), (76, second, (255, 255, 0)),
    ):  # fmt: skip
        assert drawn.getpixel((x, y)) == drawn.getpixel((x + 59, y + 39)) == colour
        assert drawn.getpixel((x - 1, y)) == drawn.getpixel((x + 60, y)) == WHITE
        assert drawn.getpixel((x + 59, y - 1)) == drawn.getpixel((x + 59, y + 40)) == WHITE


@pytest.mark.parametrize("what", ["titles", "notes", "labels"])
def test_a_long_text_widens_its_column(what):
    given = {"titles": [LONG, "B"], "notes": [[LONG], ["B"]], "labels": [[LONG, "B"]]}[what]
    drawn = sheet([[tile("red"), tile("blue")]], **{what: given})
    blue = np.flatnonzero((np.asarray(drawn) == (0, 0, 255)).all(axis=2).any(axis=0))
    dark = np.flatnonzero(ink(drawn).any(axis=0))
    assert blue[-1] == drawn.width - 1 - GAP
    before = dark[dark < blue[0]]
    assert before[0] < 14 and 190 < before[-1] < blue[0] - GAP + 1
    alone = sheet([[tile("red", 400)]], titles=[LONG])
    assert ink(alone).sum() == ink(sheet([[tile("red")]], titles=[LONG])).sum(), "nothing is cut off"


def test_a_caption_may_be_wider_than_the_sheet_but_not_the_columns():
    plain = sheet([[tile("red"), tile("blue")]])
    spanning = sheet([[tile("red"), tile("blue")]], captions=["twenty letters, wide"])
    assert spanning.width == plain.width, "it spans both columns"
    wide, roomy = (sheet([[tile("red", width)]], captions=[LONG]) for width in (60, 400))
    assert 60 + 2 * GAP < wide.width < roomy.width and ink(wide).sum() == ink(roomy).sum()


def test_pictures_of_any_size_and_mode():
    clear = Image.new("RGBA", (10, 10), (255, 0, 0, 0))
    drawn = sheet([[Image.new("L", (20, 30), 7), tile("blue", 50, 10)], [clear, tile("lime", 5, 5)]])
    assert drawn.size == (3 * GAP + 20 + 50, 3 * GAP + 30 + 10)
    assert drawn.getpixel((8, 8)) == drawn.getpixel((27, 37)) == (7, 7, 7)
    assert drawn.getpixel((36, 8)) == drawn.getpixel((85, 17)) == (0, 0, 255)
    assert drawn.getpixel((8, 46)) == WHITE, "transparent"
    assert drawn.getpixel((36, 46)) == (0, 255, 0)


def test_a_row_without_a_caption_takes_no_room_for_it():
    rows = [[tile("red")], [tile("blue")]]
    assert sheet(rows, captions=["one", ""]).height == sheet(rows, captions=["one"]).height == sheet(rows).height + LINE


def test_lines():
    assert sheet([[tile("red")]], titles=["a\nb"]).height == sheet([[tile("red")]]).height + 2 * LINE
    joined, apart = sheet([[tile("red")]], notes=[["a\nb"]]), sheet([[tile("red")]], notes=[["a", "b"]])
    assert np.array_equal(np.asarray(joined), np.asarray(apart))


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("3 \u00d7 5", "3 x 5"), ("Müller, Café", "Muller, Cafe"), ("a \u2013 b", "a - b"), ("10² µ…", "102 ?..."),
        ("日本", "??"), ("a\tb\x00", "a?b?"), ("Ø", "?"), ("A\u030a", "A"),
    ],
)  # fmt: skip
def test_letters_that_the_font_lacks(text, same):
    left, right = (sheet([[tile("red")]], titles=[shown]) for shown in (text, same))
    assert np.array_equal(np.asarray(left), np.asarray(right))


def test_tiled_is_near_to_a_square():
    pictures = [tile(colour) for colour in ("red", "blue", "lime", "yellow", "cyan")]
    drawn = tiled(pictures, ["A", "B", "C", "D", "E"])
    assert drawn.size == (GAP + 2 * 68, GAP + 3 * (40 + LINE + GAP))  # 2 x 3 places: 120 x 120 pixels of pictures
    assert drawn.getpixel((8, 8 + 2 * 68)) == (0, 255, 255) and drawn.getpixel((76, 8 + 2 * 68)) == WHITE
    assert tiled(pictures).size == (GAP + 2 * 68, GAP + 3 * 48)
    assert tiled([tile("red", 10, 100)] * 3).size == (GAP + 3 * 18, 116), "high ones side by side"
    assert tiled([tile("red", 100, 10)] * 3).size == (116, GAP + 3 * 18), "wide ones one below another"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sheet([]), "got no picture"),
        (lambda: sheet([[None], []]), "got no picture"),
        (lambda: tiled([]), "got no picture"),
        (lambda: sheet([[tile("red")]], titles=["a", "b"]), "got 2 titles, expected at most 1"),
        (lambda: sheet([[tile("red")]], captions=["a", "b"]), "got 2 captions, expected at most 1"),
        (lambda: sheet([[tile("red")]], notes=[["a"], ["b"]]), "got 2 notes, expected at most 1"),
        (lambda: sheet([[tile("red")]], labels=[["a"], ["b"]]), "got 2 labels, expected at most 1"),
        (lambda: sheet([[tile("red")]], labels=[["a", "b"]]), "got 2 labels of a row, expected at most 1"),
        (lambda: tiled([tile("red")], ["a", "b"]), "labels"),
    ],
)
def test_wrong_calls(call, message):
    with pytest.raises(WrongCall, match=message):
        call()


def test_no_torch():
    program = "import sys, impasto.sheets; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
