"""Config of Cox's proportional hazards model (Cox, J. R. Stat. Soc. B 34, 1972): the log-hazard is linear in the features. Torch-free.

    h(t | x) = h_s(t) exp(w x)

The baseline hazard h_s(t) is no part of the model. It is another one at every site s: the risk set of an event is the patients under
observation at that time, and to compare patients of two sites their times would have to leave them. Each site therefore computes its own
partial likelihood, and what a federation fits is the model stratified by site (Kalbfleisch & Prentice, The Statistical Analysis of Failure
Time Data, 2nd ed., section 4.4), not the one on the pooled table. A constant in w x would cancel, so there is no bias.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from rexis.models.mlp import check_parameters, check_widths


@dataclass(frozen=True)
class CoxConfig:
    """One linear layer without bias to the log-hazard."""

    inputs: int

    def __post_init__(self) -> None:
        check_widths(self.widths)
        check_parameters(self.shapes)

    @property
    def outputs(self) -> int:
        """The log-hazard."""
        return 1

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths from input to output."""
        return (self.inputs, self.outputs)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name → shape of the weight."""
        return MappingProxyType({"0.weight": (self.outputs, self.inputs)})
