"""BatchNorm taken into the linear layer beside it: Ioffe and Szegedy (ICML 2015), algorithm 2, step 11.

Once the mean μ and the variance v no longer move, BatchNorm(z) = s z + t with s = weight / sqrt(v + ε) and t = bias - s μ.

    after a linear layer:   W ← diag(s) W    b ← s b + t
    before a linear layer:  W ← W diag(s)    b ← b + W t
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

from rexis.errors import UnsupportedLayerError


def without_batch_norm(model: nn.Module) -> nn.Module:
    """The model itself, if it is no sequence with BatchNorm in it, or `fold_batch_norm` of it."""
    found = any(isinstance(module, nn.BatchNorm1d) for module in model.modules())
    return fold_batch_norm(model) if found and isinstance(model, nn.Sequential) else model


def fold_batch_norm(model: nn.Sequential) -> nn.Sequential:
    """A copy that computes the same in evaluation, without BatchNorm; in f64, rounded once.

    Args:
        model: in evaluation; each BatchNorm stands directly after or before an `nn.Linear`. Sequences inside it are folded too.

    Raises:
        UnsupportedLayerError: a BatchNorm elsewhere, or one that still normalises with the batch's own statistics.
    """
    folded: list[nn.Module] = []
    waiting: nn.BatchNorm1d | None = None
    for module in model:
        if isinstance(module, nn.BatchNorm1d):
            if waiting is not None:
                raise _misplaced(module)
            if folded and type(folded[-1]) is nn.Linear:
                folded[-1] = _after(folded[-1], module)
            else:
                waiting = module
        elif waiting is not None:
            if type(module) is not nn.Linear:
                raise _misplaced(waiting)
            folded.append(_before(waiting, module))
            waiting = None
        else:
            folded.append(fold_batch_norm(module) if isinstance(module, nn.Sequential) else deepcopy(module))
    if waiting is not None:
        raise _misplaced(waiting)
    return type(model)(*folded).train(model.training)


def _after(linear: nn.Linear, norm: nn.BatchNorm1d) -> nn.Linear:
    scale, offset = _affine(norm)
    weight, bias = _parameters(linear)
    return _with(linear, scale[:, None] * weight, scale * bias + offset)


def _before(norm: nn.BatchNorm1d, linear: nn.Linear) -> nn.Linear:
    scale, offset = _affine(norm)
    weight, bias = _parameters(linear)
    return _with(linear, weight * scale, bias + weight @ offset)


def _affine(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """s and t, f64 [features]."""
    if norm.training or norm.running_mean is None or norm.running_var is None:
        raise UnsupportedLayerError(
            f"{norm} normalises with the statistics of each batch; take it to evaluation with tracked statistics (model.eval()) to fold it"
        )
    scale = torch.rsqrt(norm.running_var.detach().double() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    offset = -scale * norm.running_mean.detach().double()
    return scale, offset if norm.bias is None else offset + norm.bias.detach().double()


def _parameters(linear: nn.Linear) -> tuple[Tensor, Tensor]:
    weight = linear.weight.detach().double()
    return weight, weight.new_zeros(len(weight)) if linear.bias is None else linear.bias.detach().double()


def _with(linear: nn.Linear, weight: Tensor, bias: Tensor) -> nn.Linear:
    like = linear.weight
    changed = nn.Linear(linear.in_features, linear.out_features, device="meta")
    changed.weight, changed.bias = nn.Parameter(weight.to(like.dtype)), nn.Parameter(bias.to(like.dtype))
    return changed


def _misplaced(norm: nn.Module) -> UnsupportedLayerError:
    return UnsupportedLayerError(f"expected {norm} directly after or before nn.Linear, which it is folded into")
