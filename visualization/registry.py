"""The techniques by name: what each is called, what it reads, and the function itself.

A technique is a pure function ``(model, inputs, *, typed defaults) -> Result`` under the decorator `technique`. Nothing
else has to be told: its name is the function's, its line in the list the docstring's first, what it reads is how its
second parameter is annotated (`READS`), its options are its keyword-only parameters. The list of all of them is read
from the sources, so that it imports no torch.
"""

from __future__ import annotations

import ast
import functools
import inspect
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from impasto.errors import WrongCall, require, unknown_name
from impasto.visualization.options import Option, options_of

if TYPE_CHECKING:
    from torch import Tensor

    from impasto.visualization.inputs import Pictures, PicturesLike
    from impasto.visualization.model import Model
    from impasto.visualization.result import Result
    from impasto.visualization.scene import Source

P = ParamSpec("P")
Many = TypeVar("Many", bound="Pictures")

FAMILIES = (
    "weights",
    "activations",
    "representations",
    "attribution",
    "synthesis",
    "fooling",
    "quantification",
    "interaction",
)
"""In the order of the specification. What is interactive runs techniques or serves them, and is none itself."""

READS = {
    "": "nothing",
    "Tensor": "one picture",
    "Whole": "whole picture",
    "Pictures": "pictures",
    "Masked": "pictures, masks",
}
"""What the annotation of a technique's second parameter means. One picture is cropped as the network wants it; a whole
one is not; masks say what the pixels of pictures show."""


class Refused(WrongCall):
    """A technique that has no meaning for this network or picture: a sentence instead of a wrong picture."""


@dataclass(frozen=True)
class Card:
    """What is known of a technique without importing it.

    Attributes:
        name: the function's.
        number: in the specification, such as V13, or V21 V22 for one that is both.
        family: one of `FAMILIES`.
        meaning: one line.
        reads: one of the values of `READS`.
        optional: it runs without them too.
        module: where the function is.
    """

    name: str
    number: str
    family: str
    meaning: str
    reads: str
    optional: bool
    module: str


@dataclass(frozen=True)
class Technique:
    """A technique that is ready to run.

    Attributes:
        card: what the list says.
        function: ``(model, inputs, **options) -> Result``, or without inputs.
        options: its options by name.
    """

    card: Card
    function: Callable[..., Result]
    options: dict[str, Option]


class Registry:
    """All techniques: ``registry["saliency"].function(model, "dog.jpg")``; iterating gives the names."""

    @functools.cached_property
    def cards(self) -> dict[str, Card]:
        """What is known of each without importing it, by name, in the order of the numbers."""
        found = [card for path in Path(__file__).parent.glob("*.py") for card in _cards_in(path)]
        return {card.name: card for card in sorted(found, key=lambda card: (card.number, card.name))}

    def __getitem__(self, name: str) -> Technique:
        """Import a technique. Raises WrongCall for an unknown name: the nearest, and all."""
        if name not in self.cards:
            raise unknown_name("technique", name, self.cards)
        card = self.cards[name]
        function = getattr(require(card.module, purpose=f"the technique {name}", extra="see"), name)
        return Technique(card, function, options_of(function))

    def __iter__(self) -> Iterator[str]:
        return iter(self.cards)

    def __contains__(self, name: object) -> bool:
        return name in self.cards

    def __len__(self) -> int:
        return len(self.cards)


registry = Registry()


class _MayRead(Protocol[P]):
    """A function whose pictures may be left out."""

    def __call__(self, model: Model, pictures: Pictures = ..., /, *rest: P.args, **options: P.kwargs) -> Result: ...


class _MayReadLike(Protocol[P]):
    """The same when it is decorated."""

    def __call__(self, model: Model, pictures: PicturesLike = ..., /, *rest: P.args, **options: P.kwargs) -> Result: ...


class technique:
    """Make a technique of a function.

    The decorated function also takes what the technique's pictures can be read from: a file, a Pillow image or an
    array for one picture; a folder or files for pictures. It checks that, and each option that has choices, runs with
    gradients switched on, and puts into the result the command that makes it again where there is one.

    Args:
        number: in the specification, such as V13.
        family: one of `FAMILIES`.

    Raises:
        WrongCall: when called with what is not such a picture, or a value that is not among an option's choices.
    """

    def __init__(self, number: str, family: str) -> None:
        if family not in FAMILIES:
            raise unknown_name("family", family, FAMILIES)
        self.number = number
        self.family = family

    @overload
    def __call__(self, function: _MayRead[P]) -> _MayReadLike[P]: ...

    @overload
    def __call__(
        self, function: Callable[Concatenate[Model, Tensor, P], Result]
    ) -> Callable[Concatenate[Model, Tensor | Source, P], Result]: ...

    @overload
    def __call__(
        self, function: Callable[Concatenate[Model, Many, P], Result]
    ) -> Callable[Concatenate[Model, PicturesLike, P], Result]: ...

    @overload
    def __call__(
        self, function: Callable[Concatenate[Model, P], Result]
    ) -> Callable[Concatenate[Model, P], Result]: ...

    def __call__(self, function: Callable[..., Result]) -> Callable[..., Result]:
        """Wrap the function; its signature and docstring stay."""
        reads = _reads(function)

        @functools.wraps(function)
        def run(model: Model, *inputs: Any, **options: Any) -> Result:
            import torch

            from impasto.visualization.inputs import read_inputs, read_option

            known = options_of(function)
            for name, value in options.items():
                if name in known:
                    known[name].check(value)
            read, words = read_inputs(model, reads, inputs)
            opened = {
                name: read_option(model, known[name].opens, reads, value) if name in known else value
                for name, value in options.items()
            }
            with torch.enable_grad():
                result = function(model, *read, **opened)
            said = [known[name].words(value) for name, value in options.items()]
            if result.command or words is None or model.command is None or None in said:
                return result
            words += [word for each in said for word in each or ()]
            words = ["impasto", "see", function.__name__.replace("_", "-"), *words, *model.command]
            return replace(result, command=shlex.join(words))

        return run


def _reads(function: Callable[..., Any]) -> str:
    """What the annotation of the second positional parameter, as it is written, means."""
    places = [each for each in inspect.signature(function).parameters.values() if each.kind is not each.KEYWORD_ONLY]
    annotation = str(places[1].annotation) if len(places) > 1 else ""
    if annotation not in READS:
        expected = ", ".join(filter(None, READS))
        raise TypeError(f"the technique {function.__name__} reads {annotation}: expected one of {expected}, or nothing")
    return READS[annotation]


def _cards_in(path: Path) -> Iterator[Card]:
    text = path.read_text(encoding="utf-8")
    if "\n@technique(" not in text:
        return
    for node in ast.parse(text).body:
        for call in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "technique":
                assert isinstance(node, ast.FunctionDef)
                number, family = (str(ast.literal_eval(argument)) for argument in call.args)
                meaning = (ast.get_docstring(node) or "").partition("\n")[0]
                second = node.args.args[1].annotation if len(node.args.args) > 1 else None
                reads = READS[ast.unparse(second) if second else ""]
                module = f"{__name__.rpartition('.')[0]}.{path.stem}"
                yield Card(node.name, number, family, meaning, reads, bool(node.args.defaults), module)
