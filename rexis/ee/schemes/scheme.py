"""What happens to the owner's inputs before they are keyed, as a value that a key carries. Scheme "keyed": nothing."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

# What a model takes: rows or ids, or the named tensors of a HuggingFace encoder.
Inputs = Tensor | Mapping[str, Tensor]


class Scheme(ABC):
    """A way of preparing inputs at the owner.

    Attributes:
        name: as in `ee.keygen(..., scheme=name)`.
    """

    name: ClassVar[str]

    @abstractmethod
    def prepare(self, x: Inputs, *, encoder: nn.Module | None, generator: torch.Generator | None) -> Tensor:
        """What is keyed in the place of x.

        Raises:
            ValueError: an encoder or generator that the scheme has no use for, or inputs that it does not take.
        """

    def document(self) -> dict[str, Any]:
        """What a key file says of the scheme; numbers as decimals."""
        return {"name": self.name}


@dataclass(frozen=True)
class Keyed(Scheme):
    """Inputs are keyed as they are."""

    name: ClassVar[str] = "keyed"

    def prepare(self, x: Inputs, *, encoder: nn.Module | None, generator: torch.Generator | None) -> Tensor:
        if encoder is not None or generator is not None:
            raise ValueError("expected no encoder and no generator with a key of scheme 'keyed': it draws nothing and encodes nothing")
        return as_tensor(x)


def as_tensor(x: Inputs) -> Tensor:
    """One tensor.

    Raises:
        ValueError: named tensors, which only an encoder takes.
    """
    if not isinstance(x, Tensor):
        raise ValueError(f"expected one tensor of rows or ids, got {type(x).__name__}; named tensors go with scheme='client_encoder'")
    return x
