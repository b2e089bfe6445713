"""The two figures of every lecture on style transfer, each as one labelled sheet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from impasto.errors import WrongCall
from impasto.sheets import sheet
from impasto.visualization.painting import STYLE, PaintInterrupted, Progress, paint
from impasto.visualization.result import Result
from impasto.visualization.scene import Source

CONTENT_LAYERS = ("relu2_2", "relu4_2")


def style_weight_sheet(
    content: Source,
    styles: Source | Sequence[Source],
    style_weights: Sequence[float] = (0.1, 1.0, 10.0),
    **options: Any,
) -> Result:
    """The photo painted with several weights of style to content, side by side: Gatys et al. 2016, figure 4.

    Args:
        content: as `paint`.
        styles: as `paint`.
        style_weights: the weights.
        options: as `paint`, but for ``frames`` and ``state``; each picture has its own folder in ``log_dir``.

    Returns:
        A `Result` with the image ``sheet``; ``data`` has the terms of each picture.

    Raises:
        As `paint`, with the sheet so far in PaintInterrupted; WrongCall for no weight.
    """
    if not style_weights:
        raise WrongCall("style_weight_sheet: got no weights, expected one or more")
    variants = [{"style_weight": weight} for weight in style_weights]
    titles = [f"style weight {weight:g}" for weight in style_weights]

    def drawn(results: Sequence[Result | None]) -> Result:
        return _sheet([results], titles, [], f"{len(results)} weights of style to content")

    return _paint_all(content, styles, variants, options, drawn)


def layer_sheet(
    content: Source,
    styles: Source | Sequence[Source],
    content_layers: Sequence[str] = CONTENT_LAYERS,
    style_layers: Mapping[str, float] = STYLE,
    **options: Any,
) -> Result:
    """The photo painted with more and more style layers (columns), and with each content layer (rows).

    Gatys et al. 2016, figures 1 and 5: deeper style layers bring larger strokes, a deeper content layer frees shapes.

    Args:
        content: as `paint`.
        styles: as `paint`.
        content_layers: a row for each.
        style_layers: a column for the first, for the first two, and so on.
        options: as `paint`, but for ``frames`` and ``state``; each picture has its own folder in ``log_dir``.

    Returns:
        A `Result` with the image ``sheet``; ``data`` has the terms of each picture.

    Raises:
        As `paint`, with the sheet so far in PaintInterrupted; WrongCall for no layer.
    """
    if not content_layers or not style_layers:
        raise WrongCall("layer_sheet: got no content or no style layers, expected one of each or more")
    names = list(style_layers)
    subsets = [{name: style_layers[name] for name in names[: count + 1]} for count in range(len(names))]
    variants = [
        {"content_layers": {layer: 1.0}, "style_layers": subset} for layer in content_layers for subset in subsets
    ]
    titles = [f"style {name}" if index == 0 else f"... and {name}" for index, name in enumerate(names)]

    def drawn(results: Sequence[Result | None]) -> Result:
        rows = [results[start : start + len(subsets)] for start in range(0, len(results), len(subsets))]
        return _sheet(rows, titles, [f"content {layer}" for layer in content_layers], "more and more style layers")

    return _paint_all(content, styles, variants, options, drawn)


def _paint_all(
    content: Source,
    styles: Source | Sequence[Source],
    variants: Sequence[dict[str, Any]],
    options: dict[str, Any],
    drawn: Callable[[Sequence[Result | None]], Result],
) -> Result:
    """The sheet of a picture for each variant, drawn from as many results, or none for those that were not begun."""
    if unfit := {"frames", "state"} & options.keys():
        raise WrongCall(f"a sheet: got {', '.join(sorted(unfit))}, which is for one picture; use `paint`")
    progress: Progress | None = options.get("progress")
    log_dir: str | Path | None = options.get("log_dir")
    results: list[Result] = []
    for index, variant in enumerate(variants):
        apart = {
            "progress": _part_of(progress, index, len(variants)),
            "log_dir": None if log_dir is None else Path(log_dir) / f"{index + 1}",
        }
        try:
            results.append(paint(content, styles, **options | variant | apart))
        except PaintInterrupted as stopped:
            missing = [None] * (len(variants) - index - 1)
            raise PaintInterrupted(
                f"picture {index + 1} of {len(variants)}: {stopped}", drawn([*results, stopped.result, *missing])
            ) from None
    return drawn(results)


def _part_of(progress: Progress | None, index: int, count: int) -> Callable[[float, float, str], None] | None:
    """Progress of one picture as that of all."""
    if progress is None:
        return None
    return lambda done, total, text: progress(index + done / total, count, f"picture {index + 1} of {count}: {text}")


def _sheet(
    rows: Sequence[Sequence[Result | None]], titles: Sequence[str], captions: Sequence[str], caption: str
) -> Result:
    pictures = [[result.images["painted"] if result else None for result in row] for row in rows]
    labels = [[_label(result) if result else "" for result in row] for row in rows]
    drawn = sheet(pictures, titles=titles, captions=captions, labels=labels)
    data = {
        "pictures": [
            [{"terms": result.data["terms"], "settings": result.data["settings"]} for result in row if result]
            for row in rows
        ]
    }
    return Result({"sheet": drawn}, data, [], caption)


def _label(result: Result) -> str:
    """The raw loss of content and style, which can be compared between pictures."""
    terms, weights = result.data["raw"], ("content/", "style/")
    sums = [sum(value for name, value in terms.items() if name.startswith(kind)) for kind in weights]
    return f"content {sums[0]:.3g}, style {sums[1]:.3g}"
