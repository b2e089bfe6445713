"""The page of ``make demo``."""

import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from impasto import demo, demo_page
from impasto.errors import ImpastoError, MissingExtra

VOID = {"img", "input", "meta", "link", "br", "path", "polyline"}


class Page(HTMLParser):
    """Collects links and checks that tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href") and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty working folder, in which sample pictures are tiny and commands leave a copy instead of a painting."""
    monkeypatch.chdir(tmp_path)
    for name in (*demo.PHOTOS, demo.NEW_STYLE_PICTURE):
        Image.new("RGB", (24, 16), "navy").save(tmp_path / name)
    monkeypatch.setattr(demo, "sample", Path)

    def run(arguments):
        if arguments[0] == "stylize":
            shutil.copy(arguments[1], arguments[arguments.index("-o") + 1])
        elif arguments[:2] == ["styles", "--sheet"]:
            shutil.copy(arguments[2], arguments[arguments.index("-o") + 1])
        else:
            write_events(Path(arguments[arguments.index("--run") + 1]))
        return demo_page.Command(" ".join(["impasto", *arguments]), 1.25)

    monkeypatch.setattr(demo, "run", run)
    return Path("demo")


def write_events(folder: Path) -> None:
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    with tensorboard.SummaryWriter(folder) as writer:
        for step, value in enumerate((4.0, 2.0, 1.0)):
            writer.add_scalar("train/total", value, step, walltime=100 + 10 * step)
            writer.add_scalar("train/style/relu1_2", value / 4, step, walltime=100 + 10 * step)
            writer.add_scalar("rate", 0.1, step, walltime=90 + step)
            strip = np.full((8, 32, 3), 60 * step, np.uint8)
            writer.add_image(f"preview/{demo.NEW_STYLE}", strip, step, dataformats="HWC")


def check(path: Path) -> Page:
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert "$" not in text
    assert page.links
    for link in page.links:
        assert (path.parent / link).is_file(), link
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text)
    return page


def test_first_page_stands_by_itself(folder):
    path = demo.first(folder)
    assert path == folder / "index.html"
    page = check(path)
    assert page.tags.count("img") == 2 * len(demo.PHOTOS) + 1 + len(demo.STRENGTHS)
    assert "svg" in page.tags and "polyline" not in page.tags


def test_page_states_the_command_of_every_picture(folder):
    demo.first(folder)
    text = re.sub("</?span>", "", demo.second(folder, minutes=0.5).read_text(encoding="utf-8"))
    record = json.loads((folder / demo_page.RECORD).read_text(encoding="utf-8"))
    pictures = [*record["pictures"], record["sheet"], *record["strengths"], *record["new_pictures"], *record["mixed"]]
    assert len(pictures) == 2 * len(demo.PHOTOS) + 1 + len(demo.STRENGTHS) + 3
    for picture in pictures:
        assert picture["command"]["line"] in text
        assert picture["painted"] in picture["command"]["line"]
    assert "impasto add-style starry_night demo/styles/stained_tissue.png --photos demo/photos" in text
    assert "--minutes 0.5" in text and "1.2 s" in text


def test_second_page_adds_curves_and_previews(folder):
    demo.first(folder)
    page = check(demo.second(folder))
    assert page.tags.count("polyline") == 2 * 2
    assert {f"previews/{step:06d}.png" for step in range(3)} <= set(page.links)


def test_second_part_can_be_repeated(folder):
    demo.first(folder)
    once = demo.second(folder).read_text(encoding="utf-8")
    assert demo.second(folder).read_text(encoding="utf-8") == once


def test_second_part_needs_the_first(folder):
    with pytest.raises(ImpastoError, match="demo first"):
        demo.second(folder)


def test_curves_count_seconds_from_the_first_loss(tmp_path):
    write_events(tmp_path)
    assert demo_page.read_curves(tmp_path) == {
        "train/total": [(0, 4), (10, 2), (20, 1)],
        "train/style/relu1_2": [(0, 1), (10, 0.5), (20, 0.25)],
    }


def test_chart_goes_from_the_top_left_to_the_right_edge():
    chart = demo_page._chart("total", [(0.0, 2.0), (5.0, 1.0), (10.0, 0.0)])
    raw = re.search(r'class="raw" points="([^"]*)"', chart)
    assert raw and raw[1] == "0.0,2.0 150.0,51.0 300.0,100.0"


def test_a_run_too_short_for_curves_has_none():
    assert "polyline" not in demo_page._charts({"train/total": [(0.0, 2.0)], "train/tv": []})


def test_running_mean_of_a_constant_is_the_constant():
    assert [value for _, value in demo_page._smoothed([(t, 3.0) for t in range(50)])] == pytest.approx([3.0] * 50)


def test_names_are_escaped(folder):
    picture = demo_page.Picture("demo/photos/a&b.png", 'demo/x/"q".png', demo_page.Command("impasto <x> & y", 12.0))
    folder.mkdir()
    text = demo_page.write_page(folder, demo_page.Record([picture])).read_text(encoding="utf-8")
    assert (
        "impasto &lt;x&gt; &amp; y" in re.sub("</?span>", "", text)
        and "a&amp;b.png" in text
        and "&quot;q&quot;" in text
    )
    Page(text)


def test_sample_photos_are_found_without_importing_their_package():
    pytest.importorskip("imageio")  # a dependency of scikit-image, cheaper to import
    before = "skimage" in sys.modules
    for name in (*demo.PHOTOS, demo.NEW_STYLE_PICTURE):
        assert demo.sample(name).is_file()
    assert ("skimage" in sys.modules) == before


def test_a_missing_sample_names_the_extra():
    with pytest.raises(MissingExtra, match=r"impasto\[demo\]"):
        demo.sample("no_such_photo.png")


def test_a_failing_command_is_named():
    with pytest.raises(ImpastoError, match="exit code 2 from: impasto no-such-command"):
        demo.run(["no-such-command"])


def test_help_names_both_parts():
    result = CliRunner().invoke(demo.main, ["--help"])
    assert result.exit_code == 0 and "first" in result.output and "second" in result.output
