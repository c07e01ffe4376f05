"""Equivariant Encryption: run and train models on keyed inputs with keyed weights, exactly, at plaintext speed.

It is a keyed transformation, not encryption with semantic security: equal inputs give equal outputs, distances between rows stay
visible, and whoever holds the plain weights or d + 1 known pairs recovers the key (`tests/attacks`).

    key = ee.keygen(model, knowledge="private")
    enc = ee.encrypt_model(model, key)
    y = ee.decrypt_outputs(enc(ee.encrypt_inputs(x, key)), key)        # model(x), up to float error
"""

from torch import Tensor, nn

from rexis.ee.families import mlp
from rexis.ee.keys import Key, keygen
from rexis.ee.sites import SiteKey
from rexis.errors import KeyFileError
from rexis.models.builders import describe

__all__ = ["Key", "decrypt_model", "decrypt_outputs", "encrypt_inputs", "encrypt_model", "keygen"]


def encrypt_model(model: nn.Module, key: Key) -> nn.Module:
    """The keyed copy of a model: same class, same shapes, same dtype; computed in f64 and rounded once.

    Raises:
        KeyFileError: the key is for another architecture.
        UnsupportedLayerError: the model has no equivariant transform.
    """
    _check_architecture(model, key)
    return mlp.encrypt(model, key.site_keys)


def decrypt_model(model: nn.Module, key: Key) -> nn.Module:
    """The plain copy of a keyed model, also after training in mode "train".

    Raises:
        KeyFileError: the key is for another architecture.
    """
    _check_architecture(model, key)
    return mlp.decrypt(model, key.site_keys)


def encrypt_inputs(x: Tensor, key: Key) -> Tensor:
    """Key feature rows.

    Args:
        x: floats [..., inputs].

    Returns:
        T x + δ, of the same shape, dtype and device: no expansion.

    Raises:
        ValueError: another width, or no floats.
    """
    site = next(iter(key.site_keys.values()))
    return site.encrypt(_rows(x, site)).to(x.dtype)


def decrypt_outputs(y: Tensor, key: Key) -> Tensor:
    """The model's outputs from the keyed model's.

    Args:
        y: floats [..., outputs].

    Raises:
        ValueError: another width, or no floats.
    """
    site = list(key.site_keys.values())[-1]
    return site.decrypt(_rows(y, site)).to(y.dtype)


def _rows(x: Tensor, site: SiteKey) -> Tensor:
    dimension = site.transform.dimension
    if not x.is_floating_point() or x.ndim == 0 or x.shape[-1] != dimension:
        raise ValueError(f"expected floats of shape [..., {dimension}], got {x.dtype} of shape {list(x.shape)}")
    return x.double()


def _check_architecture(model: nn.Module, key: Key) -> None:
    spec = describe(model)
    if spec != key.spec:
        raise KeyFileError(f"the key is for {key.spec.document()}, the model is {spec.document()}")
