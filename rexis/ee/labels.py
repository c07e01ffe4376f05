"""Classes and gradients of a keyed model in training (`specs/equivariant-encryption.md` 2d).

Label mode: the provider computes the cross-entropy over permuted classes. Split mode: the owner computes the loss and returns the
gradient. Both show the provider which examples share a class, and the class sizes often give the permutation away.
"""

from torch import Tensor

from rexis.ee.families import family
from rexis.ee.keys import Key
from rexis.ee.site_keys import SiteKey
from rexis.errors import UnsupportedLayerError


def encrypt_labels(labels: Tensor, key: Key) -> Tensor:
    """The keyed classes of plain ones; negative labels (ignored) stay. For a language model labels are token ids.

    Args:
        labels: integers of any shape, below the number of classes.

    Raises:
        UnsupportedLayerError: the owner returns gradients under this key, and labels go nowhere.
        ValueError: labels out of range.
    """
    return _classes(key).encrypt_ids(labels)


def decrypt_labels(labels: Tensor, key: Key) -> Tensor:
    """The plain classes of keyed ones, such as the provider's predictions."""
    return _classes(key).decrypt_ids(labels)


def encrypt_class_weights(weights: Tensor, key: Key) -> Tensor:
    """Weights of a cross-entropy [classes], in the order of the keyed classes."""
    return _classes(key).transform.apply(weights)


def encrypt_gradient(gradient: Tensor, key: Key) -> Tensor:
    """What the owner returns in split mode: dL/dy' = T_out^-T dL/dy for each row; the shift drops out.

    Args:
        gradient: floats [n, outputs], with the factor of the loss's reduction in it.

    Raises:
        UnsupportedLayerError: the provider computes the loss under this key.
    """
    if key.labels != "split":
        raise UnsupportedLayerError("expected a key with labels='split', got one under which the provider computes the loss")
    return _site(key).transform.contragredient().apply(gradient.double()).to(gradient.dtype)


def _classes(key: Key) -> SiteKey:
    if key.labels == "split":
        raise UnsupportedLayerError("expected a key with labels='permuted', got labels='split': the labels stay with the owner")
    return _site(key)


def _site(key: Key) -> SiteKey:
    return key.site_keys[family(key.spec).ends(key.spec.config).outputs]
