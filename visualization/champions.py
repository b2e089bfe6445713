"""The archive of illumination (MAP-Elites): for each class the picture that a network gives the highest probability."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from impasto.visualization.genomes import mutated, random_genomes
from impasto.visualization.model import Model

BATCH = 16
"""Children of a generation, which go through the network at once."""


class Encoding(Protocol):
    """How genes become pictures, such as `impasto.visualization.genomes.Cppn`."""

    @property
    def length(self) -> int:
        """Genes of a picture."""
        ...

    def pictures(self, genomes: Tensor) -> Tensor:
        """Genomes (N, length), uint8, as pictures (N, 3, H, W) of 8 bits in [0, 1]."""
        ...


@dataclass(frozen=True)
class Archive:
    """A champion for each class.

    Attributes:
        probabilities: of its class for each champion, (K,), float64; 0 where there is none yet.
        genomes: of the champions, (K, length), uint8.
        born: the number of the evaluation, from 1, that each champion was.
    """

    probabilities: Tensor
    genomes: Tensor
    born: Tensor

    @classmethod
    def empty(cls, classes: int, length: int) -> Archive:
        """Without champions."""
        genomes = torch.zeros(classes, length, dtype=torch.uint8)
        return cls(torch.zeros(classes, dtype=torch.float64), genomes, torch.zeros(classes, dtype=torch.long))

    def offer(self, genomes: Tensor, probabilities: Tensor, done: int) -> None:
        """Put pictures in the place of the champions that they are better than.

        Args:
            genomes: (N, length), uint8.
            probabilities: of every class, (N, K), float64.
            done: evaluations before these.
        """
        best, which = probabilities.max(0)
        better = best > self.probabilities
        self.probabilities[better] = best[better]
        self.genomes[better] = genomes[which[better]]
        self.born[better] = done + 1 + which[better]

    def parents(self, count: int, generator: torch.Generator) -> Tensor:
        """Champions of classes drawn evenly, (count, length)."""
        return self.genomes[torch.randint(len(self.genomes), (count,), generator=generator)]

    def best(self, count: int) -> list[int]:
        """The classes whose champions have the highest probabilities, best first."""
        order: list[int] = self.probabilities.argsort(descending=True, stable=True)[:count].tolist()
        return order

    def summary(self) -> dict[str, float]:
        """``best`` and ``median`` probability of the champions, and ``above_half``, how many have more than 1/2."""
        values = self.probabilities
        return {
            "best": float(values.max()),
            "median": float(values.quantile(0.5)),
            "above_half": int((values > 0.5).sum()),
        }


def illuminated(
    probabilities: Callable[[Tensor], Tensor],
    encoding: Encoding,
    *,
    evaluations: int,
    start: int,
    mutation: float,
    generator: torch.Generator,
) -> Iterator[tuple[int, Archive]]:
    """Random pictures first, then children of champions, a batch at a time; every picture is offered to every class.

    Args:
        probabilities: pictures (N, 3, H, W) -> probabilities (N, K), float64.
        encoding: how genes become pictures.
        evaluations: pictures in all.
        start: random ones among them; as many as there are evaluations for a random search.
        mutation: the probability that a gene of a child differs from its parent's.
        generator: of all that is drawn.

    Yields:
        The evaluations done and the archive, one and the same each time, after each batch.
    """
    archive = None
    done = 0
    while done < evaluations:
        count = min(BATCH, (start if done < start else evaluations) - done)
        if archive is None or done < start:
            genomes = random_genomes(count, encoding.length, generator)
        else:
            genomes = mutated(archive.parents(count, generator), mutation, generator)
        found = probabilities(encoding.pictures(genomes))
        archive = archive or Archive.empty(found.shape[1], encoding.length)
        archive.offer(genomes, found, done)
        done += count
        yield done, archive


@torch.no_grad()
def probabilities_of(model: Model, pictures: Tensor) -> Tensor:
    """Of every class for pictures (N, 3, H, W), (N, K), float64, on the processor."""
    logits: Tensor = model(pictures.to(model.device))
    return logits.double().softmax(1).cpu()
