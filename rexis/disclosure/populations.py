"""Populations that were asked about before: a new one that differs from an earlier one by fewer than k subjects is answered about the
earlier one (`specs/disclosure-and-compliance.md`, C.3).

Two answers then never differ by fewer than k subjects, whatever is counted in them, so their difference is never one person. Refusing
instead would be an answer: the refusal says that the two populations are close. A population is what a query selects *without* its
predicates on sensitive columns; with them, whether it snaps would depend on the very thing that must not be learnt (Corrections, 1).

The whole population is replaced and not only its answer, because one question can be put in many ways: counted above 0, from 1 on, or
among the levels 1 to 4.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Population = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Settled:
    """What is answered about.

    Attributes:
        population: bool [n]; nobody, if fewer than k subjects were asked about.
        snapped: another population than was asked about. For the owner only: to a consumer it would be an answer.
    """

    population: Population
    snapped: bool


class KnownPopulations:
    """Populations of one table that were answered about, in order.

    Args:
        subjects: n, rows of the table.
        minimum: k.
        packed: earlier ones, as `unsaved` gave them.
    """

    def __init__(self, subjects: int, minimum: int, packed: Iterable[bytes] = ()) -> None:
        self.subjects = subjects
        self.minimum = minimum
        self._packed = [np.frombuffer(each, dtype=np.uint8) for each in packed]
        self._saved = len(self._packed)
        size = (subjects + 7) // 8
        if any(len(each) != size for each in self._packed):
            raise ValueError(f"expected populations of {subjects} subjects in {size} bytes each")

    def settle(self, population: Population) -> Settled:
        """The first known population that is nearer than k to this one, else this one, which is known from now on.

        Only populations that were answered about as they are become known: a chain of near copies leads back to its first.
        """
        if population.shape != (self.subjects,):
            raise ValueError(f"expected a population of {self.subjects} subjects, got shape {population.shape}")
        if np.count_nonzero(population) < self.minimum:
            # Nearer than k to the empty population, about which nothing is ever answered.
            return Settled(np.zeros(self.subjects, dtype=np.bool_), snapped=bool(population.any()))
        asked = np.packbits(population)
        for known in self._packed:
            distance = int(np.bitwise_count(asked ^ known).sum(dtype=np.int64))
            if distance < self.minimum:
                earlier = np.unpackbits(known, count=self.subjects).astype(np.bool_)
                return Settled(earlier, snapped=distance > 0)
        self._packed.append(asked)
        return Settled(population, snapped=False)

    @property
    def unsaved(self) -> list[bytes]:
        """Packed populations that became known since the last `mark_saved`, in order; each has a bit for each subject."""
        return [each.tobytes() for each in self._packed[self._saved :]]

    def mark_saved(self) -> None:
        """Say that what `unsaved` gave is on disk."""
        self._saved = len(self._packed)
