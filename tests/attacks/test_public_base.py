"""A public base against a keyed BERT: the key falls to the weights alone, also after drift; weights of one's own do not fall."""

import numpy as np
import pytest
import torch

from rexis import ee
from rexis.attacks.heads import recover_heads
from rexis.attacks.matching import share_matched
from rexis.attacks.procrustes import rotation_error
from rexis.attacks.public_base import RecoveredBasis, read_tokens, recover_basis
from rexis.models.bert import BertConfig
from rexis.models.builders import build
from rexis.models.llama import LlamaConfig
from rexis.models.spec import ModelSpec
from tests.attacks.keyed_weights import HEAD, WIDTH, KeyedState, bert, drifted, keyed_bert, mean_preserving, permutation_matrix

WORDS = "embeddings.word_embeddings.weight"
BASE = bert(np.random.default_rng(1))
LLAMA = ModelSpec(LlamaConfig(400, 48, 2, 6, 2, 8, 96, 64, "10000.0", "1e-05", tied=True))
BERT = ModelSpec(BertConfig(400, 40, 48, 2, 4, 96, 0))


def upload(drift: float = 0.0, seed: int = 2) -> KeyedState:
    generator = np.random.default_rng(seed)
    return keyed_bert(drifted(BASE, drift, generator), mean_preserving(generator, WIDTH), generator)


def tokens_read(basis: RecoveredBasis, keyed: KeyedState) -> float:
    return share_matched(read_tokens(basis, keyed.state[WORDS], BASE[WORDS]), keyed.tokens)


def test_exact_base_weights_give_the_key_away() -> None:
    keyed = upload()
    basis = recover_basis(BASE, keyed.state)
    assert rotation_error(basis.spectral, keyed.residual) < 1e-8
    assert rotation_error(basis.matrix, keyed.residual) < 1e-12
    assert basis.fit < 1e-12
    assert tokens_read(basis, keyed) == 1.0


@pytest.mark.parametrize("drift", [0.01, 0.1, 0.3])
def test_private_drift_does_not_save_the_key(drift: float) -> None:
    keyed = upload(drift)
    basis = recover_basis(BASE, keyed.state)
    assert rotation_error(basis.matrix, keyed.residual) < drift
    assert tokens_read(basis, keyed) > 0.99


def test_drift_as_large_as_the_weights_hides_the_eigenvectors_and_still_not_the_key() -> None:
    keyed = upload(1.0)
    basis = recover_basis(BASE, keyed.state)
    # What the spectral step alone gives is as far away as an unrelated rotation; all matrices together are not fooled.
    assert rotation_error(basis.spectral, keyed.residual) > 1.2
    assert rotation_error(basis.matrix, keyed.residual) < 0.6


def test_weights_that_were_never_public_hold() -> None:
    """The same architecture from another start: nothing of the key, and the attacker sees that."""
    generator = np.random.default_rng(3)
    keyed = keyed_bert(bert(generator), mean_preserving(generator, WIDTH), generator)
    basis = recover_basis(BASE, keyed.state)
    assert rotation_error(basis.matrix, keyed.residual) > 1.2
    assert tokens_read(basis, keyed) < 0.02
    assert basis.fit > 0.5


def test_permutation_keys_fall_the_same_way() -> None:
    generator = np.random.default_rng(4)
    keyed = keyed_bert(drifted(BASE, 0.1, generator), permutation_matrix(generator, WIDTH), generator)
    basis = recover_basis(BASE, keyed.state)
    assert np.array_equal(np.argmax(basis.matrix, axis=1), np.argmax(keyed.residual, axis=1))


def test_head_keys_follow_from_the_residual_key() -> None:
    keyed = upload()
    basis = recover_basis(BASE, keyed.state)
    for block in range(len(keyed.head_keys)):
        names = [f"encoder.layer.{block}.attention.self.{part}.weight" for part in ("key", "query")]
        heads = recover_heads(
            (BASE[names[0]], BASE[names[1]]), (keyed.state[names[0]], keyed.state[names[1]]), basis.matrix, head_width=HEAD
        )
        assert np.array_equal(heads.order, keyed.head_orders[block])
        assert abs(heads.keys - keyed.head_keys[block]).max() < 1e-9
        assert heads.residual < 1e-9


@pytest.mark.parametrize(("spec", "suite"), [(LLAMA, "dense"), (LLAMA, "permutation"), (BERT, "permutation")])
def test_keys_of_the_product_fall_to_the_plain_model(spec: ModelSpec, suite: str) -> None:
    """A member of a federation, or anybody where the base is public: also with shared heads, folded gains and a tied head."""
    model = build(spec, seed=1)
    key = ee.keygen(spec, suite=suite, knowledge="members", seed=bytes(range(32)))
    keyed = ee.encrypt_model(model, key).state_dict()
    basis = recover_basis(model.state_dict(), keyed, head_width=8)
    residual = key.site_keys["residual"].transform.apply(torch.eye(48, dtype=torch.float64), axis=0).numpy()
    assert rotation_error(basis.matrix, residual) < 1e-4
    words = next(name for name in keyed if name.endswith(("embed_tokens.weight", "word_embeddings.weight")))
    tokens = read_tokens(basis, keyed[words], model.state_dict()[words])
    assert np.array_equal(tokens, key.site_keys["vocabulary"].decrypt_ids(torch.arange(400)).numpy())


def test_a_llama_of_ones_own_holds() -> None:
    key = ee.keygen(LLAMA, knowledge="private", seed=bytes(range(32)))
    keyed = ee.encrypt_model(build(LLAMA, seed=2), key).state_dict()
    basis = recover_basis(build(LLAMA, seed=1).state_dict(), keyed, head_width=8)
    residual = key.site_keys["residual"].transform.apply(torch.eye(48, dtype=torch.float64), axis=0).numpy()
    assert rotation_error(basis.matrix, residual) > 1.2
    assert basis.fit > 0.5
