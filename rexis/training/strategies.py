"""Server strategies: from the sites' mean update to the next global model, and what the server remembers for the round after.

The mean update Δ of a round takes the place of a negative gradient (Reddi et al., "Adaptive Federated Optimization", ICLR 2021,
algorithms 1 and 2). With the server's learning rate η, everything element by element:

    fedavg      x ← x + Δ                                                    McMahan et al., AISTATS 2017
    fedavgm     m ← μ m + Δ;  x ← x + η m                                    Hsu et al., 2019 (arXiv 1909.06335)
    fedadagrad  v ← v + Δ²
    fedyogi     v ← v - (1 - β₂) Δ² sign(v - Δ²)
    fedadam     v ← β₂ v + (1 - β₂) Δ²
                and for these three  m ← β₁ m + (1 - β₁) Δ;  x ← x + η m / (√v + τ),  m = 0 and v = τ² at first, no bias correction
    scaffold    x ← x + η Δ;  c ← c + Σ pᵢ (cᵢ⁺ - cᵢ)                        Karimireddy et al., ICML 2020, algorithm 1, option II

SCAFFOLD's sites are weighted as everywhere here: c = Σ pᵢ cᵢ over all sites with pᵢ = wᵢ / Σ w, which is the paper's mean if all weigh
the same. So that a round without some site leaves c right, the state keeps Σ wᵢ cᵢ, to which every site has brought its own part once,
and the largest Σ w of a round, which is that of all sites as soon as all have been in one sum.

Several parties recompute a step and must get the same bytes: it is elementwise arithmetic and square roots in float64, each correctly
rounded by IEEE 754, in one order; sums over entries, whose order a library may choose, do not occur.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

MOMENTUM, SECOND_MOMENT = "momentum", "second_moment"
CONTROL_SUM, CONTROL_WEIGHT = "control_sum", "control_weight"
ADAPTIVE = ("fedadagrad", "fedyogi", "fedadam")

Vector = NDArray[np.float64]
State = Mapping[str, Vector]


@dataclass(frozen=True)
class ServerStrategy:
    """A strategy with its numbers.

    Attributes:
        name: as in the table above.
        learning_rate: η of the server.
        settings: by name: `momentum` (fedavgm); `beta1`, `tau` (adaptive ones), `beta2` (fedadam, fedyogi).
    """

    name: str
    learning_rate: float = 1.0
    settings: Mapping[str, float] = field(default_factory=dict)

    def state_shapes(self, parameters: int) -> dict[str, tuple[int, ...]]:
        """Name → shape of what the server remembers, for a model of that many parameters; nothing for fedavg."""
        if self.name == "fedavg":
            return {}
        if self.name == "fedavgm":
            return {MOMENTUM: (parameters,)}
        if self.name in ADAPTIVE:
            return {MOMENTUM: (parameters,), SECOND_MOMENT: (parameters,)}
        if self.name == "scaffold":
            return {CONTROL_SUM: (parameters,), CONTROL_WEIGHT: (1,)}
        raise ValueError(f"expected a server strategy, got {self.name!r}")

    def initial_state(self, parameters: int) -> dict[str, Vector]:
        """What the server remembers before the first round."""
        state = {name: np.zeros(shape) for name, shape in self.state_shapes(parameters).items()}
        if SECOND_MOMENT in state:
            state[SECOND_MOMENT] += self.settings["tau"] * self.settings["tau"]
        return state

    def step(
        self, weights: Vector, state: State, delta: Vector, *, variates: Vector | None = None, weight: int = 0
    ) -> tuple[Vector, dict[str, Vector]]:
        """One round.

        Args:
            weights: x, f64 [parameters].
            state: what `initial_state` or the step before gave.
            delta: Δ, the weighted mean of the updates, f64 [parameters].
            variates: Σ wᵢ (cᵢ⁺ - cᵢ) of the round, f64 [parameters]; SCAFFOLD only.
            weight: Σ wᵢ of the round; SCAFFOLD only.

        Returns:
            The next weights and state; entries may be infinite where the numbers leave float64.

        Raises:
            ValueError: a state of other names or shapes, or vectors of another length.
        """
        found = {name: array.shape for name, array in state.items()}
        if weights.shape != delta.shape or found != self.state_shapes(len(weights)):
            raise ValueError(f"{self.name}: expected vectors of one length and the state {self.state_shapes(len(weights))}, got {found}")
        with np.errstate(all="ignore"):
            if self.name == "fedavg":
                return weights + delta, {}
            if self.name == "scaffold":
                return self._controlled(weights, state, delta, variates, weight)
            if self.name == "fedavgm":
                momentum = self.settings["momentum"] * state[MOMENTUM] + delta
                return weights + self.learning_rate * momentum, {MOMENTUM: momentum}
            return self._adapted(weights, state, delta)

    def _adapted(self, weights: Vector, state: State, delta: Vector) -> tuple[Vector, dict[str, Vector]]:
        beta1, square, second = self.settings["beta1"], delta * delta, state[SECOND_MOMENT]
        momentum = beta1 * state[MOMENTUM] + (1.0 - beta1) * delta
        if self.name == "fedadagrad":
            second = second + square
        elif self.name == "fedyogi":
            second = second - (1.0 - self.settings["beta2"]) * square * np.sign(second - square)
        else:
            second = self.settings["beta2"] * second + (1.0 - self.settings["beta2"]) * square
        moved = weights + self.learning_rate * momentum / (np.sqrt(second) + self.settings["tau"])
        return moved, {MOMENTUM: momentum, SECOND_MOMENT: second}

    def _controlled(
        self, weights: Vector, state: State, delta: Vector, variates: Vector | None, weight: int
    ) -> tuple[Vector, dict[str, Vector]]:
        if variates is None or variates.shape != weights.shape or weight < 1:
            raise ValueError("scaffold: expected the sum of the control variates' changes, and the sum of the weights")
        most = np.maximum(state[CONTROL_WEIGHT], float(weight))
        return weights + self.learning_rate * delta, {CONTROL_SUM: state[CONTROL_SUM] + variates, CONTROL_WEIGHT: most}


def control_variate(state: State) -> Vector:
    """SCAFFOLD's c, f64 [parameters]: zero before the first round."""
    weight = state[CONTROL_WEIGHT][0]
    return state[CONTROL_SUM] / weight if weight > 0 else np.zeros_like(state[CONTROL_SUM])


def variate_change(control: Vector, delta: Vector, *, steps: int, learning_rate: float) -> Vector:
    """SCAFFOLD's cᵢ⁺ - cᵢ = -c + (x - yᵢ) / (K η) of one site, option II.

    Args:
        control: c, f64 [parameters].
        delta: yᵢ - x, what the local steps made of x, f64 [parameters].
        steps: K, local steps.
        learning_rate: η of the local steps.
    """
    return -control - delta / (steps * learning_rate)
