"""A provider that trains a plaintext model on keyed rows reads them from its own activations, if it knows the plain first layer.

The attacker knows: the first layer as it got it (W T^t, b) and the keyed rows, so that it computes z = W x + b; and the plain W and b
of that layer, because they are public, or because it supplied them. Needs no pair. z determines x where W has rank d, else its part in
the row space of W. Stated in `rexis/ee/plain_model.py`.
Method: least squares. Cost: milliseconds. If it fails: W was drawn by the owner and is not known.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import nn

from rexis.attacks.readings import explained_variance
from rexis.ee.families import family
from rexis.ee.keys import Key
from rexis.ee.placements import Along, Placement
from rexis.ee.plain_model import exposure


def read_rows(weight: ArrayLike, bias: ArrayLike, activations: ArrayLike) -> NDArray[np.float64]:
    """The rows f64 [n, d] of least norm that explain the activations.

    Args:
        weight: plain first layer [hidden, d] as the attacker knows it; bias: [hidden].
        activations: [n, hidden], before the nonlinearity, as the provider computes them.

    Raises:
        ValueError: shapes that do not fit.
    """
    known, offset, seen = (np.asarray(values, dtype=np.float64) for values in (weight, bias, activations))
    if known.ndim != 2 or seen.ndim != 2 or offset.shape != known.shape[:1] or seen.shape[1] != len(known):
        raise ValueError(
            f"expected weight [hidden, d], bias [hidden], activations [n, hidden], got {known.shape}, {offset.shape}, {seen.shape}"
        )
    return np.asarray((seen - offset) @ np.linalg.pinv(known).T, dtype=np.float64)


def figures(key: Key, keyed: nn.Module, base: nn.Module | None, rows: ArrayLike, keyed_rows: ArrayLike) -> Mapping[str, float]:
    """What a report says of a job of suite "inputs".

    Args:
        keyed: the model as it goes out.
        base: the plain initial model, if somebody but the owner holds it.
        rows: floats [n, d], plain; keyed_rows: the same as they go out.

    Returns:
        `plain_site_share`, of the sites those that the provider sees in the clear; `readable_share`, of the columns the directions that the
        plain first layer would open; `r2_base`, with a base, R² of the rows as they are read.

    Raises:
        ValueError: a key of another suite.
    """
    facts = exposure(key)
    found = {
        "plain_site_share": len(facts.plain_sites) / (len(facts.plain_sites) + len(facts.keyed_sites)),
        "readable_share": facts.readable_directions / facts.columns,
    }
    if base is not None:
        name = _first_layer(key)
        weight, bias = (keyed.state_dict()[f"{name}.{part}"].detach().double().cpu().numpy() for part in ("weight", "bias"))
        activations = np.asarray(keyed_rows, dtype=np.float64) @ weight.T + bias
        known, offset = (base.state_dict()[f"{name}.{part}"].detach().double().cpu().numpy() for part in ("weight", "bias"))
        found["r2_base"] = explained_variance(rows, read_rows(known, offset, activations))
    return found


def _first_layer(key: Key) -> str:
    """Name of the linear layer that reads the rows."""
    placements: tuple[Placement, ...] = family(key.spec).placements(key.spec.config)
    rows = Along(family(key.spec).ends(key.spec.config).rows, "reads")
    return next(each.name.removesuffix(".weight") for each in placements if rows in each.axes)
