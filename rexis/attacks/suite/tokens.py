"""Attacks on keyed token ids: a permuted vocabulary is a substitution cipher, and each known text a piece of its key."""

import numpy as np

from rexis.attacks.exposure import Exposure, Integers
from rexis.attacks.known_texts import dictionary_reading
from rexis.attacks.suite.attack import Attack, Knows, Outcome, Reads
from rexis.attacks.token_frequencies import VOCABULARY, token_reading

# An id that stands in so many of the texts says nothing of any: marks of beginning and end, padding.
IN_MOST_TEXTS = 0.98
# Of the texts: where the curve of known ones is looked at, beside the number that the owner says may be known.
TENTH, SHARES = 0.1, (0.02, 0.05, 0.1, 0.25, 0.5)


def _needs_ids(exposure: Exposure) -> str:
    return "" if exposure.ids is not None else "rows go out, no token ids"


def _token_frequencies(exposure: Exposure, _generator: np.random.Generator) -> Outcome:
    if exposure.ids is None or exposure.keyed_ids is None or exposure.cohort_ids is None or not len(exposure.cohort_ids):
        raise ValueError("expected token ids, and texts of the same kind")
    plain, seen = _without_marks(exposure.ids, exposure.keyed_ids)
    others, _ = _without_marks(exposure.cohort_ids, exposure.cohort_ids)
    return Outcome(token_reading(seen, others, truth=plain).figures)


def _known_texts(exposure: Exposure, generator: np.random.Generator) -> Outcome:
    if exposure.ids is None or exposure.keyed_ids is None:
        raise ValueError("expected token ids")
    plain, seen = _without_marks(exposure.ids, exposure.keyed_ids)
    numbers = {share: min(max(1, round(share * len(seen))), len(seen) - 1) for share in SHARES}
    asked = min(exposure.known, len(seen) - 1)
    curve = dictionary_reading(seen, truth=plain, generator=generator, known=[asked, *numbers.values()]).curve
    figures = {"running_known": curve[asked], "running_10_percent": curve[numbers[TENTH]], "known_texts": float(asked)}
    return Outcome(figures, tuple((float(number), share) for number, share in sorted(curve.items())))


def _without_marks(plain: Integers, keyed: Integers) -> tuple[list[Integers], list[Integers]]:
    """Texts without the ids that stand in nearly all of them; text by text, for they may get different lengths."""
    ids, inverse = np.unique(plain, return_inverse=True)
    places = inverse.reshape(plain.shape)
    texts = np.zeros(len(ids))
    for row in places:
        texts[np.unique(row)] += 1
    kept = (texts < IN_MOST_TEXTS * len(plain))[places] & (plain >= 0)
    # Padding that nobody marked: the id that repeats most at the ends of texts.
    last, counts = np.unique(plain[:, -1], return_counts=True)
    kept &= plain != (last[counts.argmax()] if counts.max() > len(plain) / 2 else -1)
    chosen = [mask for mask in kept if mask.any()]
    if not chosen:
        raise ValueError("expected texts that differ from each other")
    rows = np.flatnonzero(kept.any(axis=1))
    return [plain[row][kept[row]] for row in rows], [keyed[row][kept[row]] for row in rows]


ATTACKS: tuple[Attack, ...] = (
    Attack(
        "known_texts",
        1,
        "Known texts name the words of the others",
        Knows.PAIRS,
        Reads.RECORDS,
        missing=_needs_ids,
        seconds=lambda exposure: 1e-6 * exposure.records * exposure.width,
        run=_known_texts,
        axes=("known texts", "running tokens of the others"),
    ),
    Attack(
        "token_frequencies",
        1,
        "Token frequency analysis with other texts of the same kind",
        Knows.PUBLIC,
        Reads.RECORDS,
        missing=_needs_ids,
        seconds=lambda _exposure: 2e-7 * VOCABULARY**3 / 3,
        run=_token_frequencies,
    ),
)
