"""Membership inference: whether a record was in the training data, told from how well the trained model does on it.

The attacker knows: candidate records with their labels, and the trained model's loss on each (a recipient of the model; the provider too,
who holds keyed weights that give the same losses, if he can key the candidates). For the calibrated form also: the training procedure and
other records of the same kind.
Method: (1) low loss means member. (2) A likelihood ratio: shadow models that were trained without a record tell what loss it has when
it is no member; what counts is how far the loss lies below that.
Cost: (1) nothing; (2) one training for each shadow model; 8 do, 64 do better.
If it fails: the model treats members like others as far as these statistics show. Only differential privacy bounds every such attack: with
Gaussian-DP μ no AUC exceeds Φ(μ/√2) (`auc_bound`).
Not measured in `specs/equivariant-encryption.md` 1d. Sources: Yeom et al., CSF 2018; Carlini et al., "Membership inference attacks from
first principles", IEEE S&P 2022 (the offline attack); Dong, Roth and Su, JRSS B 84 (2022) for the bound.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

Losses = NDArray[np.float64]
# Losses of a trained model on rows with labels.
LossFunction = Callable[[NDArray[np.float64], NDArray[np.int64]], Losses]
# The owner's training procedure, as the attacker repeats it.
Fit = Callable[[NDArray[np.float64], NDArray[np.int64]], LossFunction]

_SMALLEST = 1e-12


@dataclass(frozen=True, eq=False)
class MembershipReading:
    """How well members and others are told apart.

    Attributes:
        scores: f64 [members + others], members first, the attacker's best statistic; more means member.
        figures: `auc` (0.5 is chance) and `tpr_at_1_percent`, `tpr_at_10_percent`, the share of members found at those false positive
            rates, all by the loss; with shadow models also `calibrated_auc` and so on; `advantage` = 2 max(auc) - 1, at least 0.
    """

    scores: Losses
    figures: Mapping[str, float]


def membership_reading(member_losses: ArrayLike, other_losses: ArrayLike, *, shadow_losses: ArrayLike | None = None) -> MembershipReading:
    """Attack a trained model by its losses, and judge by who was a member.

    Args:
        member_losses: floats [m], cross-entropy of the model on records that it was trained on.
        other_losses: floats [k], on records of the same kind that it was not trained on.
        shadow_losses: floats [shadows, m + k], the same records, members first, under models that were trained without them; NaN where a
            shadow model saw the record. None leaves the calibrated attack out.

    Raises:
        ValueError: shapes that do not fit, or a record that every shadow model saw.
    """
    losses = np.concatenate([np.asarray(side, dtype=np.float64).ravel() for side in (member_losses, other_losses)])
    member = np.arange(len(losses)) < np.asarray(member_losses).size
    scores = -losses
    figures = _figures(member, scores, "")
    if shadow_losses is not None:
        shadows = np.asarray(shadow_losses, dtype=np.float64)
        if shadows.ndim != 2 or shadows.shape[1] != len(losses):
            raise ValueError(f"expected shadow losses [shadows, {len(losses)}], got {shadows.shape}")
        calibrated = calibrate(losses, shadows)
        figures |= _figures(member, calibrated, "calibrated_")
        scores = calibrated if figures["calibrated_auc"] > figures["auc"] else scores
    best = max(value for name, value in figures.items() if name.endswith("auc"))
    return MembershipReading(scores, {**figures, "advantage": max(0.0, 2 * best - 1)})


def calibrate(losses: ArrayLike, shadow_losses: ArrayLike) -> Losses:
    """How far each record's confidence lies above that of models that never saw it, in their standard deviations, f64 [n].

    Args:
        losses: floats [n], of the model that is attacked.
        shadow_losses: floats [shadows, n]; NaN where a shadow model saw the record.

    Raises:
        ValueError: a record that every shadow model saw.
    """
    observed, others = _confidence(np.asarray(losses, dtype=np.float64)), _confidence(np.asarray(shadow_losses, dtype=np.float64))
    if np.isnan(others).all(axis=0).any():
        raise ValueError("expected each record to be unseen by at least one shadow model")
    mean, spread = np.nanmean(others, axis=0), np.nanvar(others, axis=0)
    # Few shadow models tell a record's own spread badly; half of it is borrowed from all.
    return np.asarray((observed - mean) / np.sqrt((spread + spread.mean()) / 2 + _SMALLEST), dtype=np.float64)


def train_shadows(
    fit: Fit,
    pool: tuple[ArrayLike, ArrayLike],
    candidates: tuple[ArrayLike, ArrayLike],
    *,
    shadows: int,
    records: int,
    generator: np.random.Generator,
) -> Losses:
    """Losses of candidates under models of the attacker's own, f64 [shadows, n].

    Args:
        fit: the owner's training procedure.
        pool: rows [p, d] and labels [p] of the same kind, none of them a candidate; the attacker's.
        candidates: rows [n, d] and labels [n].
        shadows: how many models.
        records: how many of the pool each is trained on; the size of the owner's training set is best.
        generator: draws them.

    Raises:
        ValueError: a pool that is too small.
    """
    rows, labels = np.asarray(pool[0], dtype=np.float64), np.asarray(pool[1], dtype=np.int64)
    if not 0 < records <= len(rows):
        raise ValueError(f"expected between 1 and {len(rows)} records for a shadow model, got {records}")
    targets = np.asarray(candidates[0], dtype=np.float64), np.asarray(candidates[1], dtype=np.int64)
    losses = []
    for _ in range(shadows):
        drawn = generator.choice(len(rows), records, replace=False)
        losses.append(fit(rows[drawn], labels[drawn])(*targets))
    return np.stack(losses)


def auc_bound(mu: float) -> float:
    """The largest AUC that any attack can have against μ-Gaussian-DP training."""
    return float(norm.cdf(mu / math.sqrt(2)))


def _confidence(losses: Losses) -> Losses:
    """log(p / (1 - p)) of the true class with p = e^-loss: nearly Gaussian over models, where the loss is not."""
    clipped = np.maximum(losses, _SMALLEST)
    return np.asarray(-clipped - np.log(-np.expm1(-clipped)), dtype=np.float64)


def _figures(member: NDArray[np.bool_], scores: Losses, prefix: str) -> dict[str, float]:
    false, true, _ = roc_curve(member, scores)
    figures = {f"{prefix}auc": float(roc_auc_score(member, scores))}
    for percent in (1, 10):
        # The best threshold that keeps to the rate; no interpolation, which would promise what no threshold does.
        figures[f"{prefix}tpr_at_{percent}_percent"] = float(true[false <= percent / 100].max())
    return figures
