"""The loss and the measure of Cox's proportional hazards model: Efron's partial likelihood, and Harrell's concordance.

Both compare each event with the patients who were at risk at its time, so neither is a sum over patients.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor


def cox_loss(log_hazards: Tensor, labels: Tensor) -> Tensor:
    """Negative log partial likelihood with Efron's treatment of ties, divided by the number of patients.

    So divided, the mean of sites that is weighted by patients is the loss of the model stratified by site, over all patients.

        -1/n Σ over event times t, l = 0 … d-1 of:  η of the l-th event at t - log(Σ_{time ≥ t} exp η - l/d Σ_{events at t} exp η)

    Args:
        log_hazards: floats [n, 1], η.
        labels: floats [n, 2]: times, and 1 for an event or 0 for a censored time.

    Returns:
        At least 0; 0 with a gradient of zero where nobody had the event.

    Source: Efron, J. Am. Stat. Assoc. 72 (1977), section 4.
    """
    order = torch.argsort(labels[:, 0], descending=True, stable=True)
    times, events = labels[order, 0], labels[order, 1] == 1
    eta = log_hazards[order].squeeze(-1)
    _, group, sizes = torch.unique_consecutive(times, return_inverse=True, return_counts=True)
    # Patients at risk at a time are all down to the last one of its group.
    at_risk = torch.logcumsumexp(eta, dim=0)[sizes.cumsum(0) - 1]
    group, eta = group[events], eta[events]
    tied = torch.bincount(group, minlength=len(sizes))
    earlier = torch.arange(len(group), device=group.device) - (tied.cumsum(0) - tied)[group]
    share = torch.zeros_like(at_risk).index_add(0, group, torch.exp(eta - at_risk[group]))
    terms = eta - at_risk[group] - torch.log1p(-earlier.to(eta) / tied[group].to(eta) * share[group])
    # Rounding may leave it a little below.
    return (-terms.sum() / len(labels)).clamp(min=0)


def concordance(log_hazards: ArrayLike, labels: ArrayLike) -> float | None:
    """Harrell's C: of the pairs in which one patient had the event while the other was still under observation, the share in which it was
    the one of larger hazard; equal hazards count half.

    A patient who is censored at the time of another's event was under observation. Two events at one time are no pair.

    Args:
        log_hazards: floats [n].
        labels: floats [n, 2]: times, and 1 for an event or 0 for a censored time.

    Returns:
        In [0, 1]; None if no two patients can be compared.

    Raises:
        ValueError: NaN, other events, or lengths that differ.

    Source: Harrell, Lee & Mark, Stat. Med. 15 (1996), section 5.5.
    """
    hazards, truth = np.asarray(log_hazards, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if truth.shape != (len(hazards), 2) or hazards.ndim != 1 or np.isnan(hazards).any() or np.isnan(truth).any():
        raise ValueError(f"expected hazards [n] and labels [n, 2] without NaN, got shapes {hazards.shape} and {truth.shape}")
    times, events = truth[:, 0], truth[:, 1]
    if not np.isin(events, (0, 1)).all():
        raise ValueError("expected events 0 or 1")
    pairs, right = 0, 0.0
    for hazard, time in zip(hazards[events == 1], times[events == 1], strict=True):
        others = hazards[(times > time) | ((times == time) & (events == 0))]
        pairs += len(others)
        right += float((others < hazard).sum()) + float((others == hazard).sum()) / 2
    return right / pairs if pairs else None
