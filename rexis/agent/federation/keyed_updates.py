"""Protection `ee`: the members' secret orthogonal map T over the flattened update, and the first model, both from the group key.

    a site sends      T Δ          its norm, and so clipping and encoding, are those of Δ
    aggregator has    A_r          what fedavg or fedavgm makes of the means of T Δ, from zeros on: they commute with T
    members train on  θ_0 + T⁻¹ A_r

The aggregator never has a model: θ_0 is drawn from the key too, since whoever knows a base model and a site's rows can compute the site's
update, and pairs of updates and what was sent for them tell T. This is weaker than secure aggregation: lengths of updates and angles
between them stay as they are, weights and losses are not keyed, and every member can read what any other sent; figures are in
tests/attacks/test_ee_updates.py.
"""

import math
from collections.abc import Mapping
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray

from rexis.agent.federation.contribution import model_file_spec, read_model
from rexis.agent.federation.group_keys import group_key
from rexis.agent.journal import Journal
from rexis.ee.derivation import uniform
from rexis.ee.groups import FAST_FROM, FastOrthogonal, Orthogonal
from rexis.encoding import domain_tag, to_hex
from rexis.errors import UnexpectedMessageError
from rexis.protocol.batch import write_file
from rexis.protocol.federation_plans import TrainingPlan
from rexis.secagg.key_agreement import derive
from rexis.secagg.server_steps import flatten, unflatten

Tensors = Mapping[str, NDArray[np.float32]]


class UpdateKey:
    """T and θ_0 of one federation.

    Below `FAST_FROM` parameters T is a Haar matrix, above a product of signs, permutations and Hadamard transforms, of O(d log d).

    Args:
        secret: the group key, 32 bytes.
        federation: id, 32 bytes.
        plan: of a federation whose protection is ee.

    Attributes:
        map: T; whoever has it reads what any member sent.
    """

    def __init__(self, secret: bytes, federation: bytes, plan: TrainingPlan) -> None:
        self._plan = plan
        self._seed = derive(secret, federation, domain_tag("federation/update-key", 1))
        kind = FastOrthogonal if plan.parameters >= FAST_FROM else Orthogonal
        self.map = kind.draw(self._seed, "updates", plan.parameters)

    def keyed(self, delta: NDArray[np.float64]) -> NDArray[np.float64]:
        """T Δ of an update f64 [parameters]."""
        made: NDArray[np.float64] = self.map.apply(torch.from_numpy(delta)).numpy()
        return made

    def initial(self) -> dict[str, NDArray[np.float32]]:
        """θ_0: linear layers uniform within 1/√inputs, as torch's own; LayerNorms of ones and zeros."""
        return {name: self._drawn(name, shape) for name, shape in self._plan.model.shapes.items()}

    def model(self, accumulated: Tensors) -> dict[str, NDArray[np.float32]]:
        """The members' model behind what the aggregator has."""
        moved = torch.from_numpy(flatten(self._plan, accumulated))
        delta: NDArray[np.float64] = self.map.inverse().apply(moved).numpy()
        return unflatten(self._plan, flatten(self._plan, self.initial()) + delta)

    def _drawn(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        layer, _, kind = name.rpartition(".")
        weight = self._plan.model.shapes[f"{layer}.weight"]
        if len(weight) == 1:
            return np.full(shape, 1.0 if kind == "weight" else 0.0, dtype=np.float32)
        drawn = 2.0 * uniform(self._seed, f"initial/{name}", math.prod(shape)) - 1.0
        return (drawn / math.sqrt(weight[1])).astype(np.float32).reshape(shape)


def update_key(journal: Journal, federation: bytes, plan: TrainingPlan) -> UpdateKey:
    """The key of a federation, from the group key in the journal.

    Raises:
        UnexpectedMessageError: this journal has no group key of it.
    """
    secret = group_key(journal, federation)
    if secret is None:
        raise UnexpectedMessageError(
            f"federation {to_hex(federation)} is keyed, and this journal has no group key of it: the agents of its members agree on one "
            "after all have joined"
        )
    return UpdateKey(secret, federation, plan)


def opened_model(journal: Journal, federation: bytes, plan: TrainingPlan, content: bytes, record: bytes) -> bytes:
    """File of the members' model behind the aggregator's file.

    Args:
        content, record: of what the aggregator has, compared with the chain.

    Raises:
        UnexpectedMessageError: this journal has no group key of the federation.
    """
    stream = BytesIO()
    write_file(stream, model_file_spec(plan), update_key(journal, federation, plan).model(read_model(plan, content, record)))
    return stream.getvalue()
