"""``make demo``: paint sample photos, learn a style, and write a page that shows both.

``python -m impasto.demo first`` needs the base install and the extra ``demo``; ``second`` needs the extra ``train``.
Every picture is made by an ordinary command, run from the current folder, and the page states that command.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from impasto.demo_page import Command, Picture, Record, write_page
from impasto.errors import ImpastoError, MissingExtra, WrongCall

FOLDER = Path("demo")
PHOTOS = {
    "astronaut.png": "the_scream",
    "coffee.png": "udnie",
    "chelsea.png": "starry_night",
    "rocket.jpg": "great_wave",
}
"""Sample photos, and the style that each is painted in."""
STYLE = "starry_night"
STRENGTHS = ("0.3", "0.6", "1")
NEW_STYLE = "stained_tissue"
NEW_STYLE_PICTURE = "ihc.png"
"""Glands under the microscope, stained: ochre whorls and blue dabs on white."""


def sample(name: str) -> Path:
    """The path of a picture that the package scikit-image carries; the package is not imported."""
    spec = importlib.util.find_spec("skimage")
    path = Path(spec.origin).parent / "data" / name if spec and spec.origin else None
    if path is None or not path.is_file():
        raise MissingExtra("the demo", "demo", "scikit-image")
    return path


def run(arguments: Sequence[str]) -> Command:
    """Run ``impasto ARGUMENTS``, its output shown. Raises `ImpastoError` if it fails."""
    line = shlex.join(["impasto", *arguments])
    click.secho(f"$ {line}", dim=True)
    start = time.perf_counter()
    finished = subprocess.run([sys.executable, "-m", "impasto", *arguments], check=False)
    if finished.returncode:
        raise ImpastoError(f"exit code {finished.returncode} from: {line}")
    return Command(line, time.perf_counter() - start)


def paint(photo: Path, painted: Path, style: str, *options: str) -> Picture:
    """Stylize one photo into one file."""
    painted.parent.mkdir(parents=True, exist_ok=True)
    command = run(["stylize", str(photo), "-o", str(painted), "-s", style, *options])
    return Picture(str(photo), str(painted), command)


def first(folder: Path = FOLDER) -> Path:
    """Paint the sample photos with styles that ship, and write the page. Returns its path."""
    photos = [_copy(sample(name), folder / "photos" / name) for name in PHOTOS]
    record = Record()
    for photo, style in zip(photos, PHOTOS.values(), strict=True):
        record.pictures.append(paint(photo, folder / "painted" / f"{photo.stem}_{style}.png", style))
    sheet = folder / "styles.png"
    record.sheet = Picture(str(photos[1]), str(sheet), run(["styles", "--sheet", str(photos[1]), "-o", str(sheet)]))
    for strength in STRENGTHS:
        painted = folder / "strength" / f"{photos[2].stem}_{strength}.png"
        record.strengths.append(paint(photos[2], painted, STYLE, "--strength", strength))
    record.save(folder)
    return write_page(folder, record)


def second(folder: Path = FOLDER, minutes: float = 2.0) -> Path:
    """Learn another style for some minutes, use it, and complete the page. Returns its path."""
    if minutes <= 0:
        raise WrongCall(f"minutes: got {minutes:g}, expected more than 0")
    record = Record.load(folder)
    photos = [folder / "photos" / name for name in PHOTOS]
    pack, run_folder = folder / "pack", folder / "run"
    for old in (pack, run_folder):
        shutil.rmtree(old, ignore_errors=True)
    record.new_style, record.new_style_picture = NEW_STYLE, str(folder / "styles" / f"{NEW_STYLE}.png")
    _copy(sample(NEW_STYLE_PICTURE), Path(record.new_style_picture))
    learn = ["add-style", STYLE, record.new_style_picture, "--photos", str(folder / "photos"), "-o", str(pack)]
    record.learned = run([*learn, "--minutes", f"{minutes:g}", "--run", str(run_folder)])
    options = ("--pack", str(pack))
    for photo in photos:
        record.new_pictures.append(paint(photo, folder / NEW_STYLE / f"{photo.stem}.png", NEW_STYLE, *options))
    for part in ("0.25", "0.5", "0.75"):
        mixture = f"{STYLE}:{1 - float(part):g},{NEW_STYLE}:{part}"
        painted = folder / "mixed" / f"{photos[1].stem}_{part}.png"
        record.mixed.append(paint(photos[1], painted, mixture, *options))
    record.save(folder)
    return write_page(folder, record, run_folder)


def _copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(source, target))


@click.group()
def main() -> None:
    """Paint sample photos, learn a style, write demo/index.html."""


@main.command("first")
def first_command() -> None:
    """Paint the sample photos with styles that ship."""
    page = first()
    click.echo(f"\nThe pictures are there: open {click.style(str(page), bold=True)} in a browser.\n")


@main.command("second")
@click.option("--minutes", default=2.0, show_default=True, help="How long to learn.")
def second_command(minutes: float) -> None:
    """Learn another style and complete the page."""
    page = second(minutes=minutes)
    click.echo(f"\nThe page is complete: open {click.style(str(page), bold=True)} in a browser.")
    tensorboard = os.path.relpath(Path(sys.executable).with_name("tensorboard"))
    click.echo(f"The run in TensorBoard: {tensorboard} --logdir {page.parent / 'run'}")


if __name__ == "__main__":
    try:
        main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except ImpastoError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
