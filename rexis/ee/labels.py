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
        labels: integers of any shape, below the number of classes; with one logit, which has no order to hide, 0 and 1 stay as they are.
            Or floats [..., outputs], regression targets and soft labels, which are keyed as outputs are.

    Raises:
        UnsupportedLayerError: the owner returns gradients under this key, and labels go nowhere.
        ValueError: labels out of range.
    """
    site = _classes(key)
    if labels.is_floating_point():
        _check_width(labels, site)
        return site.encrypt(labels.double()).to(labels.dtype)
    return _binary(labels) if site.transform.dimension == 1 else site.encrypt_ids(labels)


def decrypt_labels(labels: Tensor, key: Key) -> Tensor:
    """The plain labels of keyed ones, such as the provider's predictions; as `encrypt_labels`."""
    site = _classes(key)
    if labels.is_floating_point():
        _check_width(labels, site)
        return site.decrypt(labels.double()).to(labels.dtype)
    return _binary(labels) if site.transform.dimension == 1 else site.decrypt_ids(labels)


def encrypt_class_weights(weights: Tensor, key: Key) -> Tensor:
    """Weights of a cross-entropy [classes], in the order of the keyed classes.

    Raises:
        UnsupportedLayerError: the owner computes the loss, with the plain weights.
        ValueError: another number of classes.
    """
    site = _classes(key)
    _check_width(weights, site)
    return site.transform.apply(weights)


def encrypt_gradient(gradient: Tensor, key: Key) -> Tensor:
    """What the owner returns in split mode: dL/dy' = T_out^-T dL/dy for each row; the shift drops out.

    Args:
        gradient: floats [n, outputs], with the factor of the loss's reduction in it.

    Raises:
        UnsupportedLayerError: the provider computes the loss under this key.
        ValueError: another width.
    """
    if key.labels != "split":
        raise UnsupportedLayerError("expected a key with labels='split', got one under which the provider computes the loss")
    site = _site(key)
    _check_width(gradient, site)
    return site.transform.contragredient().apply(gradient.double()).to(gradient.dtype)


def _classes(key: Key) -> SiteKey:
    if key.labels == "split":
        raise UnsupportedLayerError("expected a key with labels='permuted', got labels='split': the labels stay with the owner")
    return _site(key)


def _site(key: Key) -> SiteKey:
    return key.site_keys[family(key.spec).ends(key.spec.config).outputs]


def _binary(labels: Tensor) -> Tensor:
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) <= 1:
        raise ValueError(f"expected labels 0 and 1 for one logit, got {int(labels.min())} to {int(labels.max())}")
    return labels.clone()


def _check_width(values: Tensor, site: SiteKey) -> None:
    width = site.transform.dimension
    if not values.is_floating_point() or values.ndim == 0 or values.shape[-1] != width:
        raise ValueError(f"expected floats of shape [..., {width}], got {values.dtype} of shape {list(values.shape)}")
