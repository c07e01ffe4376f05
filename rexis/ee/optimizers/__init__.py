"""Optimisers whose step on keyed weights is the keyed step on plain weights, and the refusal of all others.

    sgd               SGD, momentum, Nesterov, weight decay      orthogonal keys     torch's own
    adamw             AdamW, elementwise                         permutations        torch's own
    adam-per-tensor   one second moment for each tensor          orthogonal keys     `PerTensorAdam`
    muon              Newton-Schulz in working precision         orthogonal keys     `Muon`

`optimizer` asks the table with the key and is for the owner; `build` is what the provider, who has no key, makes of the same words.
"""

from typing import Any, Literal, get_args

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from rexis.ee.keys import Key
from rexis.ee.optimizers import rules
from rexis.ee.optimizers.muon import Muon
from rexis.ee.optimizers.per_tensor_adam import PerTensorAdam
from rexis.errors import UnsupportedOptimizerError

__all__ = ["Muon", "OptimizerName", "PerTensorAdam", "build", "optimizer"]

OptimizerName = Literal["sgd", "adamw", "adam-per-tensor", "muon"]


def optimizer(name: OptimizerName, parameters: ParamsT, *, key: Key, lr: float, **settings: Any) -> Optimizer:
    """An optimiser for keyed weights under `key`.

    Args:
        name: as in the table above.
        parameters: of the keyed model, as torch takes them: parameters, (name, parameter) pairs, or groups with settings of their own.
            With names muon tells embeddings from hidden matrices, and weight decay is asked of shifted biases only.
        lr: learning rate; settings: momentum, nesterov, dampening, betas, eps, weight_decay, as the optimiser has them.

    Raises:
        UnsupportedOptimizerError: the optimiser does not commute with the key; the message gives the rule and its reason.
        TypeError: a setting that the optimiser does not have.
    """
    rules.admit(name, key)
    made = build(name, parameters, lr=lr, **settings)
    rules.admit_optimizer(made, key)
    return made


def build(name: OptimizerName, parameters: ParamsT, *, lr: float, **settings: Any) -> Optimizer:
    """The same optimiser without asking a key: what the provider runs, and what the plain run is compared with.

    Raises:
        UnsupportedOptimizerError: no such optimiser.
        TypeError: a setting that the optimiser does not have.
    """
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=lr, **settings)
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=lr, **settings)
    if name == "adam-per-tensor":
        return PerTensorAdam(parameters, lr, **settings)
    if name == "muon":
        return Muon(parameters, lr, **settings)
    raise UnsupportedOptimizerError(f"expected an optimiser among {', '.join(get_args(OptimizerName))}, got {name!r:.40}")
