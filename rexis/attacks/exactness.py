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
TEXTS = 16
RELATIVE, OF_PLAIN = 1e-5, 3.0


def figures(model: nn.Module, keyed: nn.Module, key: ee.Key, sample: Tensor) -> Mapping[str, float]:
    """Relative errors of the keyed and of the plain model in their own precision, against the plain model in f64.

    Args:
        sample: inputs of the plain model, f64 rows or i64 ids [n, …], negative in the place of padding; the first `SAMPLE` are taken.
    """
    plain_inputs = sample[:SAMPLE]
    inputs = plain_inputs.to(dtype_of(model)) if plain_inputs.is_floating_point() else plain_inputs
    truth = outputs(copy.deepcopy(model).double(), inputs.double() if inputs.is_floating_point() else inputs)
    # An answer for every token: those for padding nobody reads.
    read = plain_inputs >= 0 if truth.ndim > 2 and not inputs.is_floating_point() else ...
    scale = truth[read].abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    plain = (outputs(model, inputs) - truth)[read].abs().max() / scale
    answered = ee.decrypt_outputs(outputs(keyed, ee.encrypt_inputs(inputs, key)), key)
    error = (answered - truth)[read].abs().max() / scale
    allowed = max(RELATIVE, OF_PLAIN * float(plain))
    return {"relative_error": float(error), "plain_error": float(plain), "over_limit": float(error) / allowed}


def dtype_of(model: nn.Module) -> torch.dtype:
    """Of the model's weights."""
    return next(model.parameters()).dtype


def outputs(model: nn.Module, inputs: Tensor) -> Tensor:
    """What the model answers, f64: logits, or the last hidden states of a model without a head.

    Args:
        inputs: rows, or token ids, negative in the place of padding, to which no attention is paid.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            # Texts a few at a time: activations of a transformer are thousands of times as large as its ids.
            step = len(inputs) if inputs.is_floating_point() else TEXTS
            return torch.cat([_answers(model, inputs[first : first + step]) for first in range(0, len(inputs), step)])
    finally:
        model.train(training)


def _answers(model: nn.Module, inputs: Tensor) -> Tensor:
    answer: Any = model(inputs) if inputs.is_floating_point() else model(inputs.clamp_min(0), attention_mask=(inputs >= 0).long())
    if not isinstance(answer, Tensor):
        answer = answer.logits if getattr(answer, "logits", None) is not None else answer.last_hidden_state
    found: Tensor = answer.detach().double()
    return found
