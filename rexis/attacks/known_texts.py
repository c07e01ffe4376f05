"""Known texts against a permuted vocabulary: each one is a piece of the dictionary.

The attacker knows: some texts in plain ids beside their keyed forms (public, guessable or planted ones), nothing of weights.
Method: the ids of a known text give each keyed id in it its name; all other texts are read with the dictionary that results.
Cost: linear in the tokens.
If it fails: the known texts share few words with the others. Words are distributed as by Zipf, so that few texts name the commonest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Text = Sequence[int] | NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class DictionaryReading:
    """What known texts read of the others.

    Attributes:
        curve: number of known texts → share of the running tokens of the other texts that they name.
    """

    curve: Mapping[int, float]


def read_dictionary(keyed: Sequence[Text], plain: Sequence[Text]) -> dict[int, int]:
    """Keyed id → plain id, from texts known in both forms.

    Raises:
        ValueError: texts that differ in number or length, or one keyed id with two names: then no one permutation stands behind them.
    """
    found: dict[int, int] = {}
    for hidden, text in zip(keyed, plain, strict=True):
        for one, other in zip(np.asarray(hidden).tolist(), np.asarray(text).tolist(), strict=True):
            if found.setdefault(one, other) != other:
                raise ValueError(f"expected texts under one permutation of the vocabulary, got two names for keyed id {one}")
    return found


def dictionary_reading(keyed: Sequence[Text], *, truth: Sequence[Text], generator: Generator, known: Sequence[int]) -> DictionaryReading:
    """Attack keyed texts with some of them known, and judge against the plain ones.

    Args:
        keyed: keyed ids, one sequence a text, without special ids that stand in every text.
        truth: the same texts in plain ids; of the known ones the attacker's, of the others used to judge alone.
        known: how many texts are known, each in (0, number of texts); drawn at random, fewer among more.

    Raises:
        ValueError: texts that differ in number or length, or numbers out of bounds.
    """
    if not known or not all(0 < number < len(keyed) for number in known):
        raise ValueError(f"expected numbers of known texts from 1 to {len(keyed) - 1}, got {list(known)}")
    order = generator.permutation(len(keyed)).tolist()
    curve = {}
    for number in sorted(set(known)):
        named = read_dictionary([keyed[place] for place in order[:number]], [truth[place] for place in order[:number]])
        hidden, plain = (np.concatenate([np.asarray(side[place]) for place in order[number:]]) for side in (keyed, truth))
        read = np.array([named.get(one, -1) for one in hidden.tolist()])
        curve[number] = float((read == plain).mean())
    return DictionaryReading(curve)
