"""Keys for rows without a model, and the rows and targets that go out under them.

Rows alone are keyed as the inputs of the smallest model that reads them, one linear layer: its input site keys the rows, its output site
the targets of a regression, and nothing else exists to be keyed. So there is no second kind of key, key file or rule.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rexis.ee import encrypt_inputs
from rexis.ee.families import family
from rexis.ee.families.ends import Ends
from rexis.ee.key_generation import keygen as model_keygen
from rexis.ee.keys import Key
from rexis.ee.site_keys import SiteKey
from rexis.ee.sites import Suite
from rexis.errors import UnsupportedLayerError
from rexis.models.mlp import LogisticConfig
from rexis.models.spec import ModelSpec


def keygen(columns: int, *, targets: int = 1, suite: Suite = "dense", seed: bytes | None = None) -> Key:
    """Make a key for feature rows and regression targets.

    Args:
        columns: width of a row.
        targets: width of a row of targets.
        suite: "dense" is an orthogonal key and a shift, "permutation" an order of the columns.
        seed: 32 bytes; None (the right choice outside of tests) takes them from the operating system.
    """
    # "private" says who holds the plain weights: there are none.
    return model_keygen(ModelSpec(LogisticConfig(columns, targets)), mode="infer", suite=suite, knowledge="private", seed=seed)


def row_site(key: Key) -> SiteKey:
    """T and δ of the rows.

    Raises:
        UnsupportedLayerError: the key takes no feature rows, or its T changes distances.
    """
    return _isometry(key.site_keys[_ends(key)[0]], "rows")


def target_site(key: Key) -> SiteKey:
    """T and δ of the targets.

    Raises:
        UnsupportedLayerError: T changes distances.
    """
    return _isometry(key.site_keys[_ends(key)[1]], "targets")


def encrypt_rows(x: Tensor, key: Key) -> Tensor:
    """Key feature rows for analytics.

    Args:
        x: floats [n, columns].

    Returns:
        T x + δ, of the same shape and dtype.

    Raises:
        UnsupportedLayerError: a key that is not orthogonal.
        ValueError: another width, or no floats.
    """
    row_site(key)
    return encrypt_inputs(x, key)


def encrypt_targets(y: Tensor, key: Key) -> Tensor:
    """Key regression targets.

    Args:
        y: floats [n, targets].

    Raises:
        UnsupportedLayerError: a key that is not orthogonal.
        ValueError: another width, or no floats.
    """
    site = target_site(key)
    if not y.is_floating_point() or y.ndim == 0 or y.shape[-1] != site.transform.dimension:
        raise ValueError(f"expected floats of shape [..., {site.transform.dimension}], got {y.dtype} of shape {list(y.shape)}")
    return site.encrypt(y.double()).to(y.dtype)


def as_array(rows: Tensor) -> NDArray[np.float64]:
    """f64 [n, d] for numpy and scikit-learn.

    Raises:
        ValueError: not [n, d] with n and d of at least 1, or no finite floats.
    """
    if rows.ndim != 2 or rows.numel() == 0 or not rows.is_floating_point() or not rows.isfinite().all():
        raise ValueError(f"expected finite floats of shape [n, d], got {rows.dtype} of shape {list(rows.shape)}")
    return rows.detach().cpu().double().numpy()


def _ends(key: Key) -> tuple[str, str]:
    """Names of the sites of rows and of targets."""
    ends: Ends = family(key.spec).ends(key.spec.config)
    if ends.rows is None or ends.ids is not None:
        raise UnsupportedLayerError(f"analytics runs on feature rows, got a key of family {key.spec.family}, which reads token ids")
    return ends.rows, ends.outputs


def _isometry(site: SiteKey, what: str) -> SiteKey:
    # An orthogonal T is its own contragredient T^-t, and the groups hand back the same object for it.
    if site.transform.contragredient() is not site.transform:
        raise UnsupportedLayerError(
            f"analytics on {what} admits orthogonal keys, with or without a shift, got {type(site.transform).__name__}: "
            "another map changes distances and variances; make the key without `condition`"
        )
    return site
