"""The ICD-10-CM chapter task: 7,583 short texts of diagnoses, 21 classes, folds grouped by category (`specs/data.md` item 4).

Siblings of one three-character category share almost all their words, so that a random split would leak.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

PER_CATEGORY = 8
PER_CHAPTER = 400
# Chapter 22 holds codes for special purposes, a handful.
LEFT_OUT = "22"


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts with their chapter, as a class number, and their category."""

    texts: tuple[str, ...]
    chapters: NDArray[np.int64]
    categories: tuple[str, ...]

    def rows(self, places: NDArray[np.int64]) -> "Texts":
        """Some of them."""
        return Texts(tuple(self.texts[i] for i in places), self.chapters[places], tuple(self.categories[i] for i in places))


@cache
def chapter_task() -> Texts:
    """The texts in a fixed random order, at most eight of a category and 400 of a chapter."""
    import simple_icd_10_cm as icd

    leaves = [code for code in icd.get_all_codes(with_dots=True) if icd.is_leaf(code)]
    order = np.random.default_rng(0).permutation(len(leaves))
    in_category, in_chapter = Counter[str](), Counter[str]()
    chosen: list[tuple[str, str, str]] = []
    for place in order:
        code = leaves[place]
        chapter, category = icd.get_ancestors(code)[-1], code[:3]
        if chapter == LEFT_OUT or in_category[category] == PER_CATEGORY or in_chapter[chapter] == PER_CHAPTER:
            continue
        in_category[category] += 1
        in_chapter[chapter] += 1
        chosen.append((icd.get_description(code), chapter, category))
    names = sorted({chapter for _, chapter, _ in chosen}, key=int)
    return Texts(
        tuple(text for text, _, _ in chosen),
        np.array([names.index(chapter) for _, chapter, _ in chosen]),
        tuple(category for _, _, category in chosen),
    )


def first_fold(task: Texts) -> tuple[Texts, Texts]:
    """Training and test texts: the first of five folds, no category on both sides."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(task.texts, task.chapters, task.categories)
    train, test = next(iter(folds))
    return task.rows(train), task.rows(test)
