"""Token frequency analysis: a permuted vocabulary is a substitution cipher, and other text of the same kind breaks it.

The attacker knows: token ids under one vocabulary permutation, text by text; other texts of the same kind in the same tokenizer's plain
ids; no weights, no pairs.
Method: how often a token stands, begins or ends a text and precedes or follows others does not depend on its name. The first assignment
of keyed to plain ids compares such profiles without names; then the commonest ids that are assigned serve as anchors for the others,
more of them in each round.
Cost: about `vocabulary`³ a round, a second at 500 ids and ten at 1,500.
If it fails: too little text, or text of another kind; ids rarer than the `vocabulary` commonest are never read.
Measured in `specs/equivariant-encryption.md`, corrections, item 6, with a weaker assignment; this attack goes further. Source: the
idea is as old as al-Kindi; bigrams by assignment as in graph matching (Umeyama, IEEE TPAMI 10, 1988).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

Text = Sequence[int] | NDArray[np.int64]
Ids = NDArray[np.int64]
Counts = NDArray[np.float64]

VOCABULARY = 600
ROUNDS = 15
TOP = 400
# Anchors of the first round, and how many times more in each further one.
_FIRST_ANCHORS, _GROWTH = 30, 1.35
# Of the sorted neighbour counts, the part that profiles without names hold.
_PROFILE = 20


@dataclass(frozen=True, eq=False)
class TokenReading:
    """The attacker's dictionary.

    Attributes:
        keyed, plain: int64 [k], the commonest keyed ids in order and what they are read as.
        figures: `top_ids` share of the 400 commonest ids (of all, where there are fewer) read right; `running_tokens` share of the
            tokens in the texts read right; `texts` and `tokens`, how many there were.
    """

    keyed: Ids
    plain: Ids
    figures: Mapping[str, float]


def recover_vocabulary(
    keyed: Sequence[Text], reference: Sequence[Text], *, vocabulary: int = VOCABULARY, rounds: int = ROUNDS
) -> tuple[Ids, Ids]:
    """The commonest keyed ids, in order, and the plain id that each is read as.

    Args:
        keyed: keyed ids, one sequence a text, without special ids that stand in every text.
        reference: plain ids of other texts, likewise.
        vocabulary: how many ids are assigned; no more than either side has.
        rounds: at most that many.

    Raises:
        ValueError: no tokens on a side.
    """
    (seen, counts), (names, others) = _commonest(keyed), _commonest(reference)
    size = min(vocabulary, len(seen), len(names))
    if size == 0:
        raise ValueError("expected texts with tokens on both sides, got none")
    seen, names = seen[:size], names[:size]
    # Square roots of shares: their sampling error is the same for common and rare tokens.
    frequency, likeness = np.sqrt(counts[:size] / counts.sum()), np.sqrt(others[:size] / others.sum())
    views = [(_neighbours(keyed, seen, gap), _neighbours(reference, names, gap)) for gap in (1, 2)]
    scale = np.sqrt(np.add.outer(frequency**2, likeness**2))
    nameless = [np.column_stack([side, *(_nameless(view[index]) for view in views)]) for index, side in enumerate((frequency, likeness))]
    assigned = _assign(cdist(*nameless, "sqeuclidean") / scale)
    for step in range(rounds):
        anchors = min(size, int(_FIRST_ANCHORS * _GROWTH**step))
        mine, theirs = (_profiles(views, index, columns) for index, columns in ((0, np.arange(anchors)), (1, assigned[:anchors])))
        mine, theirs = np.column_stack([frequency, mine]), np.column_stack([likeness, theirs])
        before, assigned = assigned, _assign(_distances(mine, theirs) / scale)
        if anchors == size and np.array_equal(before, assigned):
            break
    return seen, names[assigned]


def token_reading(
    keyed: Sequence[Text], reference: Sequence[Text], *, truth: Sequence[Text], vocabulary: int = VOCABULARY, rounds: int = ROUNDS
) -> TokenReading:
    """Attack keyed texts, and judge against the plain ones.

    Args:
        keyed, reference, vocabulary, rounds: as in `recover_vocabulary`.
        truth: the same texts as `keyed` in plain ids; used to judge alone.

    Raises:
        ValueError: texts that differ in number or length, or no tokens on a side.
    """
    if [len(text) for text in keyed] != [len(text) for text in truth]:
        raise ValueError("expected keyed texts and their plain forms, got other numbers or lengths")
    seen, read = recover_vocabulary(keyed, reference, vocabulary=vocabulary, rounds=rounds)
    plain_of = dict(zip(_running(keyed).tolist(), _running(truth).tolist(), strict=True))
    right = np.array([plain_of[one] == other for one, other in zip(seen.tolist(), read.tolist(), strict=True)])
    ids, counts = _commonest(keyed)
    figures = {
        "top_ids": float(right[:TOP].sum() / min(TOP, len(ids))),
        "running_tokens": float((right * counts[: len(seen)]).sum() / counts.sum()),
        "texts": float(len(keyed)),
        "tokens": float(counts.sum()),
    }
    return TokenReading(seen, read, figures)


def _running(texts: Sequence[Text]) -> Ids:
    return np.concatenate([np.asarray(text, dtype=np.int64) for text in texts]) if texts else np.zeros(0, dtype=np.int64)


def _commonest(texts: Sequence[Text]) -> tuple[Ids, Counts]:
    """Ids from the commonest to the rarest, and how often each stands."""
    ids, counts = np.unique(_running(texts), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return ids[order], counts[order].astype(np.float64)


def _neighbours(texts: Sequence[Text], ids: Ids, gap: int) -> Counts:
    """Square root of the share of each ordered pair `gap` apart, f64 [k + 2, k + 2]: row k for the edge of a text, k + 1 for other ids."""
    size = len(ids)
    order = np.argsort(ids)
    padded = [np.full(gap, size)]
    for text in texts:
        values = np.asarray(text, dtype=np.int64)
        places = np.minimum(np.searchsorted(ids, values, sorter=order), size - 1)
        padded += [np.where(ids[order[places]] == values, order[places], size + 1), np.full(gap, size)]
    running = np.concatenate(padded)
    pairs = np.zeros((size + 2, size + 2))
    np.add.at(pairs, (running[:-gap], running[gap:]), 1)
    return np.asarray(np.sqrt(pairs / pairs.sum()), dtype=np.float64)


def _nameless(pairs: Counts) -> Counts:
    """What a token's neighbours are like without their names, f64 [k, columns]."""
    inner = pairs[:-2, :-2]
    edges = [pairs[:-2, -2], pairs[-2, :-2], pairs[:-2, -1], pairs[-1, :-2], inner.diagonal()]
    most = [-np.sort(-side, axis=1)[:, :_PROFILE] / 2 for side in (inner, inner.T)]
    return np.column_stack([*edges, *most])


def _profiles(views: Sequence[tuple[Counts, Counts]], side: int, columns: Ids) -> Counts:
    """How tokens stand to the anchors and to the edges of texts, f64 [k, columns]."""
    parts = []
    for view in views:
        pairs = view[side]
        parts += [pairs[:-2, columns], pairs[columns, :-2].T, pairs[:-2, -2:-1], pairs[-2, :-2, None]]
    return np.column_stack(parts)


def _distances(left: Counts, right: Counts) -> Counts:
    """Squared Euclidean distances by one matrix product: cdist takes many times as long on wide profiles."""
    return np.asarray(np.square(left).sum(axis=1)[:, None] + np.square(right).sum(axis=1) - 2 * left @ right.T, dtype=np.float64)


def _assign(costs: ArrayLike) -> Ids:
    """The cheapest one-to-one assignment, int64 [k]."""
    return np.asarray(linear_sum_assignment(np.asarray(costs))[1], dtype=np.int64)
