"""The key at one site: drawn from the seed under the site's rule, or taken over from the site it follows."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rexis.ee import derivation
from rexis.ee.groups import (
    FAST_FROM,
    FastOrthogonal,
    Group,
    HeadBlocks,
    MonomialScaling,
    Orthogonal,
    Permutation,
    SignedPermutation,
    Transform,
)
from rexis.ee.sites import Heads, Mode, Site, SiteKind, Suite
from rexis.errors import UnsupportedLayerError


@dataclass(frozen=True, eq=False)
class SiteKey:
    """x' = T x + δ at one site.

    Attributes:
        transform: T.
        shift: δ, f64 [d]; zeros where there is none.
    """

    transform: Transform
    shift: Tensor

    @classmethod
    def draw(
        cls,
        seed: bytes,
        label: str,
        site: Site,
        group: type[Group],
        *,
        shift: float,
        mode: Mode,
        condition: float = 1.0,
        fast: bool = True,
    ) -> "SiteKey":
        """The key of a site under `label`.

        Args:
            shift: standard deviation of the entries of δ, which are normal; 0 for none.
            fast: whether an orthogonal key of width `FAST_FROM` or more is a structured one.

        Raises:
            UnsupportedLayerError: the site's rule does not admit the group or the shift.
        """
        site.admit(group, shift=shift > 0, mode=mode)
        width = site.dimension // site.heads.count if site.heads else site.dimension
        drawn = FastOrthogonal if fast and group is Orthogonal and width >= FAST_FROM else group
        if site.heads is None:
            transform: Transform = drawn.draw(seed, label, width, condition)
        else:
            blocks = [drawn.draw(seed, f"{label}/block{number}", width, condition) for number in range(site.heads.groups)]
            transform = _with_order(seed, label.removesuffix(site.name), site.heads, blocks)
        delta = torch.zeros(site.dimension, dtype=torch.float64)
        if shift:
            delta = shift * torch.from_numpy(derivation.gaussian(seed, f"{label}/shift", site.dimension))
        return cls(transform, delta)

    def encrypt(self, x: Tensor) -> Tensor:
        """T x + δ over the last axis; `x` is f64."""
        return self.transform.apply(x) + self.shift.to(x.device)

    def decrypt(self, x: Tensor) -> Tensor:
        """T^-1 (x - δ) over the last axis; `x` is f64."""
        return self.transform.inverse().apply(x - self.shift.to(x.device))

    def encrypt_ids(self, ids: Tensor) -> Tensor:
        """The place where each id or class of 0..d-1 went; integers of any shape, negative ones (ignored labels) stay.

        Raises:
            ValueError: an id outside of 0..d-1, or a key that is no permutation.
        """
        return _mapped(ids, torch.argsort(self._indices()))

    def decrypt_ids(self, ids: Tensor) -> Tensor:
        """The ids that `encrypt_ids` was given."""
        return _mapped(ids, self._indices())

    def _indices(self) -> Tensor:
        if not isinstance(self.transform, Permutation):
            raise ValueError(f"expected a permutation, which ids and classes need, got a {type(self.transform).__name__} key")
        return self.transform.indices


def draw_all(
    seed: bytes,
    prefix: str,
    sites: Iterable[Site],
    *,
    mode: Mode,
    suite: Suite,
    condition: float,
    deviation: Callable[[Site], float],
    fast: bool = True,
) -> Mapping[str, SiteKey]:
    """The keys of all sites of a model, by name.

    Args:
        prefix: of every label, `job/<epoch>/`.
        deviation: standard deviation of δ at a site that has one.
        fast: whether wide orthogonal keys are structured ones.

    Raises:
        UnsupportedLayerError: the suite has nothing to offer at one of them.
    """
    keys: dict[str, SiteKey] = {}
    for site in sites:
        rule = site.admit_suite(suite, mode)
        if suite == "inputs" and site.kind is not SiteKind.INPUT:
            keys[site.name] = SiteKey(Permutation(torch.arange(site.dimension)), torch.zeros(site.dimension, dtype=torch.float64))
            continue
        group, label = rule.group(suite, condition), f"{prefix}{site.name}"
        if site.follows is None:
            shift = deviation(site) if site.shifted(suite, mode) else 0.0
            keys[site.name] = SiteKey.draw(seed, label, site, group, shift=shift, mode=mode, condition=condition, fast=fast)
        else:
            followed = _following(seed, prefix, site, group, keys[site.follows].transform, condition)
            keys[site.name] = SiteKey(followed, torch.zeros(site.dimension, dtype=torch.float64))
    return keys


def _following(seed: bytes, prefix: str, site: Site, group: type[Group], leader: Transform, condition: float) -> Transform:
    if isinstance(leader, Permutation):
        if issubclass(group, SignedPermutation):
            return group.following(seed, f"{prefix}{site.name}", leader)
        if issubclass(group, MonomialScaling):
            return group.following(seed, f"{prefix}{site.name}", leader, condition)
        return leader
    if not isinstance(leader, HeadBlocks) or site.heads is None:
        raise UnsupportedLayerError(f"site {site.name} can not follow a {type(leader).__name__} key")
    blocks = leader.contragredient().blocks if site.kind in (SiteKind.KEYS, SiteKind.KEYS_ROTARY) else leader.blocks
    return _with_order(seed, prefix, site.heads, blocks)


def _with_order(seed: bytes, prefix: str, heads: Heads, blocks: Sequence[Transform]) -> HeadBlocks:
    """Blocks of the groups, in the order that all sites of one attention share; repeated for the query heads where they are counted."""
    order = torch.from_numpy(derivation.permutation(seed, f"{prefix}{heads.order}/groups", heads.groups))
    if not heads.expanded:
        return HeadBlocks(order, tuple(blocks))
    places: list[int] = []
    for number, group in enumerate(order.tolist()):
        inner = derivation.permutation(seed, f"{prefix}{heads.order}/queries{number}", heads.queries)
        places += [group * heads.queries + int(query) for query in inner]
    return HeadBlocks(torch.tensor(places), tuple(block for block in blocks for _ in range(heads.queries)))


def _mapped(ids: Tensor, table: Tensor) -> Tensor:
    if ids.dtype not in (torch.int64, torch.int32) or (ids.numel() and int(ids.max()) >= len(table)):
        raise ValueError(f"expected integers below {len(table)}, got {ids.dtype}" + (f" up to {int(ids.max())}" if ids.numel() else ""))
    return torch.where(ids < 0, ids, table.to(ids.device)[ids.clamp(min=0)].to(ids.dtype))
