"""Adam with one second moment for each tensor: exact under orthogonal keys, where elementwise Adam is not.

    m ← β₁ m + (1 - β₁) g          v ← β₂ v + (1 - β₂) mean(g²)          w ← (1 - lr λ) w - lr m̂ / (√v̂ + ε)

mean(g²) is ‖g‖² over the number of entries, which T_o · T_i^t leaves alone, so the step is a scalar times m, and m is linear in the
gradients. The layerwise form of Adam's second moment is NovoGrad's (Ginsburg et al., arXiv:1905.11286), with Adam's own first moment.
"""

from collections.abc import Callable
from typing import overload

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT


class PerTensorAdam(Optimizer):
    """Adam whose second moment is one number for each tensor, with decoupled weight decay as in AdamW."""

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-7,
        weight_decay: float = 0.0,
    ) -> None:
        """
        Args:
            params: parameters, (name, parameter) pairs, or groups of them.
            betas: β₁ and β₂, each in [0, 1).
            eps: ε > 0; large against the rounding of a gradient that is 0 in exact arithmetic, such as that of an attention key's bias.
            weight_decay: λ.

        Raises:
            ValueError: a setting out of bounds.
        """
        if lr <= 0 or eps <= 0 or weight_decay < 0 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"expected lr, eps > 0, weight_decay ≥ 0 and betas in [0, 1), got {lr}, {eps}, {weight_decay}, {betas}")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step from the gradients that the parameters hold; parameters without one stay."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = 0
                    state["exp_avg"] = torch.zeros_like(parameter)
                    state["exp_avg_sq"] = torch.zeros((), dtype=parameter.dtype, device=parameter.device)
                state["step"] += 1
                state["exp_avg"].lerp_(parameter.grad, 1 - beta1)
                state["exp_avg_sq"].lerp_(parameter.grad.square().mean(), 1 - beta2)
                first, second = 1 - beta1 ** state["step"], 1 - beta2 ** state["step"]
                scale = group["lr"] / first / ((state["exp_avg_sq"] / second).sqrt() + group["eps"])
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(state["exp_avg"] * scale)
        return loss
