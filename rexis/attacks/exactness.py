"""Whether a keyed model gives the plain one's answers, before anything is uploaded: float error on a sample of the owner's own inputs.

No attack; but a key that does not fit gives wrong numbers in silence, and this is the last place where its owner sees both sides. The
yardstick is `specs/equivariant-encryption.md`, corrections, item 9.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rexis import ee

SAMPLE = 8
RELATIVE, OF_PLAIN = 1e-5, 3.0


def figures(model: nn.Module, keyed: nn.Module, key: ee.Key, sample: Tensor) -> Mapping[str, float]:
    """Relative errors of the keyed and of the plain model in their own precision, against the plain model in f64.

    Args:
        sample: inputs of the plain model, f64 rows or i64 ids [n, …]; the first `SAMPLE` are taken.
    """
    plain_inputs = sample[:SAMPLE]
    inputs = plain_inputs.to(dtype_of(model)) if plain_inputs.is_floating_point() else plain_inputs
    truth = outputs(copy.deepcopy(model).double(), inputs.double() if inputs.is_floating_point() else inputs)
    scale = truth.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    plain = (outputs(model, inputs) - truth).abs().max() / scale
    answered = ee.decrypt_outputs(outputs(keyed, ee.encrypt_inputs(inputs, key)), key)
    error = (answered - truth).abs().max() / scale
    allowed = max(RELATIVE, OF_PLAIN * float(plain))
    return {"relative_error": float(error), "plain_error": float(plain), "over_limit": float(error) / allowed}


def dtype_of(model: nn.Module) -> torch.dtype:
    """Of the model's weights."""
    return next(model.parameters()).dtype


def outputs(model: nn.Module, inputs: Tensor) -> Tensor:
    """What the model answers, f64: logits, or the last hidden states of a model without a head."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            answer: Any = model(inputs)
    finally:
        model.train(training)
    if not isinstance(answer, Tensor):
        answer = answer.logits if getattr(answer, "logits", None) is not None else answer.last_hidden_state
    found: Tensor = answer.detach().double()
    return found
