"""Variants of a recipe: trained alike, judged alike, compared in a table."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from impasto.benchmarks.judge import Judge, choose_photos, painter
from impasto.errors import Interrupted, WrongCall, unknown_name
from impasto.formats import write_atomically
from impasto.packs import Pack
from impasto.training.recipe import read_recipe
from impasto.training.train import train

Overrides = Mapping[str, Mapping[str, Any]]
"""What a variant changes, by section of the recipe: ``{"model": {"sizes": {"width": 32}}, "data": {"flat": 0.0}}``.
A key's value is replaced as a whole."""

Variants = Mapping[str, Overrides]


@dataclass(frozen=True)
class Result:
    """What a variant came to; in its folder as ``result.json``.

    Attributes:
        name: the variant's.
        overrides: what it changes in the recipe.
        steps: length of its training.
        pictures: pictures seen.
        seconds: training time.
        network: the network's sizes and number of parameters.
        judged_on: names of the photos it was judged on.
        scores: what `impasto.benchmarks.judge.Judge` found.
    """

    name: str
    overrides: dict[str, Any]
    steps: int
    pictures: int
    seconds: float
    network: dict[str, Any]
    judged_on: list[str]
    scores: dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Where variants are trained, on what, and how long. Folders of different variants do not touch.

    Attributes:
        variants: all there are, by name.
        style_image: the painting.
        photos: folders of photos to train on.
        validation: folder of photos to judge on.
        steps: length of each training.
        output: folder of the results; ``VARIANT/`` holds ``recipe.yaml``, ``run/``, the pack ``VARIANT/`` and
            ``result.json``.
        config: recipe that the variants change.
        threads: CPU threads that paint when judging; None for all.
    """

    variants: Variants
    style_image: str
    photos: Sequence[str]
    validation: str
    steps: int
    output: Path
    config: str = "fast"
    threads: int | None = None

    def pack(self, name: str) -> Path:
        """The folder of a variant's pack."""
        return self.output / name / name

    def recipe(self, name: str) -> dict[str, Any]:
        """A variant's recipe, complete: ``python -m impasto.training fit --config`` takes it, too."""
        recipe = read_recipe(self.config)
        for section, values in self.variants[name].items():
            recipe[section] = recipe[section] | dict(values)
        recipe["model"] |= {"style_images": [str(self.style_image)]}
        recipe["data"] |= {"photos": [str(folder) for folder in self.photos]}
        recipe["trainer"] |= {
            "max_steps": self.steps,
            "val_check_interval": self.steps + 1,
        }  # validated once, at the end
        return recipe

    def result(self, name: str) -> Result | None:
        """A variant's result, or None if it has none yet."""
        path = self.output / name / "result.json"
        return Result(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def results(self) -> list[Result]:
        """The results there are, in the order of the variants."""
        found = (self.result(name) for name in self.variants)
        return [result for result in found if result is not None]

    def run(self, names: Sequence[str] = (), log: Callable[[str], None] = print) -> None:
        """Train and judge variants; finished ones are passed over, an unfinished one goes on where it stopped.

        Args:
            names: which; by default all.
            log: takes a line about where the work is.

        Raises:
            WrongCall: for an unknown variant, or one that was begun with other settings.
            Interrupted: at a Ctrl-C; the same call goes on.
        """
        names = list(names) or list(self.variants)
        for name in names:
            if name not in self.variants:
                raise unknown_name("variant", name, self.variants)
            self._keep_recipe(name)
        missing = [name for name in names if self.result(name) is None]
        log(f"{len(names) - len(missing)} of {len(names)} variants are finished")
        if not missing:
            return
        photos = choose_photos(self.validation)
        judge = Judge(read_recipe(self.config)["model"] | {"style_images": [str(self.style_image)]}, photos)
        start = time.monotonic()
        for done, name in enumerate(missing):
            left = (time.monotonic() - start) / done * (len(missing) - done) if done else None
            log(f"variant {done + 1} of {len(missing)}: {name}" + (f"; {_span(left)} left" if left else ""))
            self._finish(name, judge, [photo.name for photo in photos])

    def _keep_recipe(self, name: str) -> None:
        """Write the variant's recipe, or find it there as it should be."""
        recipe = yaml.safe_load(yaml.safe_dump(self.recipe(name)))
        path = self.output / name / "recipe.yaml"
        if not (path.parent / "run").exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, yaml.safe_dump(recipe, sort_keys=False).encode())
            read_recipe(path)  # a wrong key shows before anything is trained
        elif yaml.safe_load(path.read_text(encoding="utf-8")) != recipe:
            raise WrongCall(
                f"{name} in {self.output} was begun with other settings, see {path}: choose another --output, or "
                "remove the variant's folder"
            )

    def _finish(self, name: str, judge: Judge, judged_on: list[str]) -> None:
        """Train one variant and write its result."""
        folder, recipe = self.output / name, self.recipe(name)
        last = folder / "run" / "checkpoints" / "last.ckpt"
        if not self.pack(name).exists():
            try:
                train(
                    recipe["model"]["style_images"],
                    recipe["data"]["photos"],
                    self.pack(name),
                    steps=self.steps,
                    config=folder / "recipe.yaml",
                    run=folder / "run",
                    resume=last if last.is_file() else None,
                )
            except Interrupted as error:
                raise Interrupted(f"stopped in the variant {name}; run the same command again to go on") from error
        card = Pack.load(self.pack(name)).card
        result = Result(
            name=name,
            overrides={section: dict(values) for section, values in self.variants[name].items()},
            steps=self.steps,
            pictures=card.training["pictures"],
            seconds=card.training["seconds"],
            network=dict(card.network),
            judged_on=judged_on,
            scores=judge(painter(self.pack(name), self.threads), card.network["stride"]),
        )
        write_atomically(folder / "result.json", json.dumps(asdict(result), indent=2).encode())


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"


def table(results: Sequence[Result], milliseconds: Mapping[str, float]) -> str:
    """The results as a Markdown table: a row a variant, and a row for each further name that only has a time.

    A size's column holds the objective and in brackets its content and style parts; without times there is no ``ms``.
    """
    sizes = list(results[0].scores["sizes"]) if results else []
    rows = [["variant", "parameters", *(f"at {size}" for size in sizes), "unsteady", "grid (floor)", "blotch", "ms"]]
    rows.append(["---", *["--:"] * (len(rows[0]) - 1)])
    for result in results:
        scores = result.scores
        grid = scores["checkerboard"]
        rows.append(
            [
                result.name,
                f"{result.network['parameters']:,}",
                *("{objective:.3f} ({content:.3f} + {style:.3f})".format(**scores["sizes"][size]) for size in sizes),
                f"{scores['unsteady']:.2f}",
                f"{grid['level']:.2f} ({grid['floor']:.2f})",
                f"{scores['blotch']:.1f}",
                f"{milliseconds[result.name]:.0f}" if result.name in milliseconds else "",
            ]
        )
    others = {name: value for name, value in milliseconds.items() if name not in {result.name for result in results}}
    rows += [[name, *[""] * (len(rows[0]) - 2), f"{value:.0f}"] for name, value in others.items()]
    if not milliseconds:
        rows = [row[:-1] for row in rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)
