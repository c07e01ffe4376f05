"""Equivariant Encryption: run and train models on keyed inputs with keyed weights, exactly, at plaintext speed.

It is a keyed transformation, not encryption with semantic security: equal inputs give equal outputs, distances between rows stay
visible, and whoever holds the plain weights or d + 1 known pairs recovers the key (`tests/attacks`).

    key = ee.keygen(model, knowledge="private")
    enc = ee.encrypt_model(model, key)
    y = ee.decrypt_outputs(enc(ee.encrypt_inputs(x, key)), key)        # model(x), up to float error
"""

import torch
from torch import Tensor, nn

from rexis.ee import modules
from rexis.ee.adapters import decrypt_adapters, encrypt_adapters
from rexis.ee.families import canonical_spec, family
from rexis.ee.key_generation import keygen
from rexis.ee.keys import Key
from rexis.ee.labels import decrypt_labels, encrypt_class_weights, encrypt_gradient, encrypt_labels
from rexis.ee.modules import Progress
from rexis.ee.optimizers import optimizer
from rexis.ee.patches import along_patches
from rexis.ee.records import RecordBudgetWarning, RecordCounter, effective_rank
from rexis.ee.schemes import Ckks, Inputs
from rexis.ee.site_keys import SiteKey
from rexis.errors import KeyFileError
from rexis.models.builders import describe
from rexis.models.modules.batch_norm import without_batch_norm

__all__ = [
    "Key",
    "RecordBudgetWarning",
    "RecordCounter",
    "canonical_model",
    "decrypt_adapters",
    "decrypt_labels",
    "decrypt_model",
    "decrypt_outputs",
    "effective_rank",
    "encrypt_adapters",
    "encrypt_class_weights",
    "encrypt_gradient",
    "encrypt_inputs",
    "encrypt_labels",
    "encrypt_model",
    "keygen",
    "optimizer",
]


def encrypt_model(model: nn.Module, key: Key, *, progress: Progress | None = None) -> nn.Module:
    """The keyed copy of a model: stock class, same dtype; computed in f64 and rounded once. Under scheme "ckks" a module that maps
    ciphertexts to ciphertexts, with the weights plain.

    Args:
        progress: called with (tensors done, tensors in all).

    Raises:
        KeyFileError: the key is for another architecture.
        UnsupportedLayerError: the model has no equivariant transform.
    """
    model = without_batch_norm(model) if key.mode == "infer" else model
    _check_architecture(model, key)
    if isinstance(key.scheme, Ckks):
        return key.scheme.encrypt_model(model)
    return modules.encrypt(model, key.site_keys, progress)


def decrypt_model(model: nn.Module, key: Key, *, progress: Progress | None = None) -> nn.Module:
    """The canonical plain copy of a keyed model, also after training in mode "train".

    Raises:
        KeyFileError: the key is for another architecture.
        ValueError: a key of scheme "ckks", under which weights are plain.
    """
    if isinstance(key.scheme, Ckks):
        raise ValueError("expected a keyed model; under scheme 'ckks' the weights are plain, and the model is the owner's own")
    _check_architecture(model, key)
    return modules.decrypt(model, key.site_keys, progress)


def canonical_model(model: nn.Module) -> nn.Module:
    """The plain model that a keyed one stands for: the same function, gains and BatchNorm folded, output head untied. Encrypted training
    equals training this one.

    Raises:
        UnsupportedLayerError: the model has no equivariant transform, or a BatchNorm that can not be folded.
    """
    return modules.canonical(without_batch_norm(model))


def encrypt_inputs(
    x: Inputs,
    key: Key,
    *,
    counter: RecordCounter | None = None,
    encoder: nn.Module | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Key what goes into the model, prepared as the key's scheme says.

    Args:
        x: floats [..., d], feature rows or embeddings looked up by the owner; token ids of any shape; images [..., channels, height,
            width], which are keyed patch by patch; or what the encoder takes, named tensors too.
        counter: needed by a key with a budget of records, which are the rows of `x`, or its ids: `key.counter(path)`.
        encoder: of scheme "client_encoder", the module that the key was made with.
        generator: of noise; None (the right choice outside of tests) draws from the operating system.

    Returns:
        T x + δ, or the permuted ids, of the same shape, dtype and device: no expansion. Under scheme "ckks" ciphertexts, uint8 [n, bytes].

    Raises:
        KeyFileError: another encoder.
        ValueError: another width, ids out of range, inputs that the model or the scheme does not take, or no counter where the key has a
            budget.
        PrivacyBudgetExceededError: more records than are left of the budget.
    """
    x = key.scheme.prepare(x, encoder=encoder, generator=generator)
    if isinstance(key.scheme, Ckks):
        return key.scheme.encrypt_rows(x)
    ends = family(key.spec).ends(key.spec.config)
    if not x.is_floating_point() and ends.ids is not None:
        keyed, records = key.site_keys[ends.ids].encrypt_ids(x), x.numel()
    elif ends.rows is None:
        raise ValueError(f"expected token ids, got {x.dtype} of shape {list(x.shape)}")
    elif ends.patch is not None:
        site = key.site_keys[ends.rows]
        keyed = along_patches(x, ends.patch, lambda rows: site.encrypt(_rows(rows, site)).to(x.dtype))
        records = x.numel() // site.transform.dimension
    else:
        site = key.site_keys[ends.rows]
        keyed, records = site.encrypt(_rows(x, site)).to(x.dtype), x.shape[:-1].numel()
    if (None if counter is None else counter.key_id) != (None if key.records is None else key.id):
        raise ValueError(f"key {key.id} has a budget of {key.records} records, got the counter of {counter and counter.key_id}")
    if counter is not None:
        counter.reserve(records)
    return keyed


def decrypt_outputs(y: Tensor, key: Key) -> Tensor:
    """The model's outputs from the keyed model's.

    Args:
        y: floats [..., outputs]; or token ids that a keyed language model generated; or ciphertexts under scheme "ckks", which become f64.

    Raises:
        KeyFileError: ciphertexts under another secret key.
        ValueError: another width, or no floats from a model that returns no ids.
    """
    if isinstance(key.scheme, Ckks):
        return key.scheme.decrypt_rows(y)
    ends = family(key.spec).ends(key.spec.config)
    if not y.is_floating_point() and ends.ids is not None:
        return key.site_keys[ends.ids].decrypt_ids(y)
    site = key.site_keys[ends.outputs]
    return site.decrypt(_rows(y, site)).to(y.dtype)


def _rows(x: Tensor, site: SiteKey) -> Tensor:
    dimension = site.transform.dimension
    if not x.is_floating_point() or x.ndim == 0 or x.shape[-1] != dimension:
        raise ValueError(f"expected floats of shape [..., {dimension}], got {x.dtype} of shape {list(x.shape)}")
    return x.double()


def _check_architecture(model: nn.Module, key: Key) -> None:
    spec = canonical_spec(describe(model))
    if spec != key.spec:
        raise KeyFileError(f"the key is for {key.spec.document()}, the model is {spec.document()}")
