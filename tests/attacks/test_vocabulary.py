"""A public embedding table against a permuted vocabulary under a dense key."""

import numpy as np
import pytest

from rexis.attacks.matching import share_matched
from rexis.attacks.procrustes import rotation_error
from rexis.attacks.vocabulary import VocabularyMatch, match_vocabulary
from tests.attacks.keyed_weights import Array, bert, orthogonal

TABLE = bert(np.random.default_rng(8))["embeddings.word_embeddings.weight"]
TOKENS, WIDTH = TABLE.shape
ORDER = np.random.default_rng(9).permutation(TOKENS)
KEY = orthogonal(np.random.default_rng(10), WIDTH)


def attacked(table: Array, drift: float = 0.0) -> VocabularyMatch:
    moved = table + drift * table.std() * np.random.default_rng(11).normal(size=table.shape)
    return match_vocabulary(TABLE, moved[ORDER] @ KEY.T)


def test_two_tables_give_every_token_and_the_key_away() -> None:
    found = attacked(TABLE)
    assert share_matched(found.by_norm, ORDER) == 1.0
    assert share_matched(found.tokens, ORDER) == 1.0
    assert rotation_error(found.matrix, KEY) < 1e-12
    assert found.fit < 1e-12


@pytest.mark.parametrize(("drift", "by_norm"), [(1e-3, 0.95), (1e-2, 0.5), (0.1, 0.1)])
def test_drift_spoils_the_norms_and_not_the_attack(drift: float, by_norm: float) -> None:
    found = attacked(TABLE, drift)
    assert share_matched(found.by_norm, ORDER) < by_norm
    assert share_matched(found.tokens, ORDER) == 1.0


def test_a_few_rows_are_read_if_only_they_are_wanted() -> None:
    rows = np.array([5, 0, 700])
    assert np.array_equal(match_vocabulary(TABLE, TABLE[ORDER] @ KEY.T, rows=rows).tokens, ORDER[rows])


def test_a_table_of_ones_own_holds() -> None:
    found = attacked(bert(np.random.default_rng(12))["embeddings.word_embeddings.weight"])
    assert share_matched(found.tokens, ORDER) < 0.02
    assert rotation_error(found.matrix, KEY) > 1.2
    assert found.fit > 0.5
