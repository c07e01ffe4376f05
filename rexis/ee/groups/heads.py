"""One block per attention head, and an order of the heads."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rexis.ee.groups.transform import Transform


@dataclass(frozen=True, eq=False)
class HeadBlocks(Transform):
    """Head h of the result is blocks[h] applied to head order[h] of the argument.

    Attributes:
        order: int64 [heads], each head once.
        blocks: one transform of the head's width for each head.
    """

    order: Tensor
    blocks: Sequence[Transform]

    @property
    def dimension(self) -> int:
        return sum(block.dimension for block in self.blocks)

    @property
    def monomial(self) -> bool:
        return all(block.monomial for block in self.blocks)

    def apply(self, x: Tensor, axis: int = -1) -> Tensor:
        heads = x.movedim(axis, -1).chunk(len(self.blocks), dim=-1)
        moved = [block.apply(heads[source]) for source, block in zip(self.order.tolist(), self.blocks, strict=True)]
        return torch.cat(moved, dim=-1).movedim(-1, axis)

    def inverse(self) -> "HeadBlocks":
        back = torch.argsort(self.order)
        return HeadBlocks(back, tuple(self.blocks[place].inverse() for place in back.tolist()))

    def contragredient(self) -> "HeadBlocks":
        return HeadBlocks(self.order, tuple(block.contragredient() for block in self.blocks))
