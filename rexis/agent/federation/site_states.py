"""What stays at a site between the rounds of a federation: its personal tensors (FedBN, personal layers) and SCAFFOLD's control variate.

Training in a round makes a new state, which is written with the round's vector and counts only when the round is final with this
site among its survivors; a site that dropped out goes on from the state before, as everybody else's sums do. States say what the
site's rows are like, so they are sealed.
"""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rexis.agent.journal import Journal
from rexis.encoding import to_hex
from rexis.protocol.batch import read_file, write_file
from rexis.protocol.federation_plans import TrainingPlan
from rexis.protocol.file_spec import FileSpec, TensorSpec

VARIATE = "control_variate"


@dataclass(frozen=True, eq=False)
class SiteState:
    """State of one site.

    Attributes:
        personal: tensors that are never sent, f32 by name.
        variate: cᵢ of SCAFFOLD, f64 [parameters]; None for other strategies.
    """

    personal: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    variate: NDArray[np.float64] | None = None

    @classmethod
    def initial(cls, plan: TrainingPlan, model: Mapping[str, NDArray[np.float32]]) -> "SiteState":
        """Before the first round that counts: the founder's personal tensors, which no global model changes, and c of zero."""
        personal = {name: tensor for name, tensor in model.items() if name not in plan.shared}
        return cls(personal, np.zeros(plan.parameters) if plan.strategy.name == "scaffold" else None)

    def to_bytes(self, plan: TrainingPlan) -> bytes:
        """As a tensor file; b"" if nothing stays at the site.

        Raises:
            EncodingError: NaN or infinity.
        """
        form, stream = _form(plan), BytesIO()
        if form is not None:
            write_file(stream, form, {**self.personal, **({} if self.variate is None else {VARIATE: self.variate})})
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, plan: TrainingPlan, content: bytes) -> "SiteState":
        """What `to_bytes` wrote."""
        form = _form(plan)
        tensors: dict[str, NDArray[Any]] = {} if form is None else read_file(BytesIO(content), form, len(content))
        variate = tensors.pop(VARIATE, None)
        return cls(tensors, variate)


class SiteStates:
    """The journal's table of states."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def current(self, federation: bytes, plan: TrainingPlan) -> SiteState | None:
        """The state that the next round starts from; None before a round counted."""
        rows = self._journal.rows(
            "SELECT round, sealed FROM site_state WHERE federation = ? AND is_final = 1 ORDER BY round DESC LIMIT 1", federation
        )
        if not rows:
            return None
        content = self._journal.sealer.open_field(rows[0]["sealed"], _place(federation, rows[0]["round"]))
        return SiteState.from_bytes(plan, content)

    def keep(self, connection: sqlite3.Connection, federation: bytes, round_number: int, content: bytes) -> None:
        """Store what a round's training made, in the transaction that stores its vector; it counts for nothing yet."""
        sealed = self._journal.sealer.seal(content, _place(federation, round_number))
        connection.execute("INSERT OR REPLACE INTO site_state VALUES (?, ?, ?, 0)", (federation, round_number, sealed))

    def undecided(self, federation: bytes) -> list[int]:
        """Rounds whose states do not count yet."""
        rows = self._journal.rows("SELECT round FROM site_state WHERE federation = ? AND is_final = 0 ORDER BY round", federation)
        return [row["round"] for row in rows]

    def decide(self, federation: bytes, round_number: int, *, counts: bool) -> None:
        """Make a round's state the one to go on from, or destroy it; again, it changes nothing."""
        key = (federation, round_number)
        with self._journal.transaction() as connection:
            if counts:
                connection.execute("UPDATE site_state SET is_final = 1 WHERE federation = ? AND round = ?", key)
                connection.execute("DELETE FROM site_state WHERE federation = ? AND round < ?", key)
            else:
                connection.execute("DELETE FROM site_state WHERE federation = ? AND round = ? AND is_final = 0", key)


def _form(plan: TrainingPlan) -> FileSpec | None:
    tensors = [TensorSpec(name, "f32", tuple(shape)) for name, shape in plan.model.shapes.items() if name not in plan.shared]
    if plan.strategy.name == "scaffold":
        tensors.append(TensorSpec(VARIATE, "f64", (plan.parameters,)))
    in_order = tuple(sorted(tensors, key=lambda tensor: tensor.name))
    return FileSpec("gradient", in_order, plan.model.digest()) if tensors else None


def _place(federation: bytes, round_number: int) -> str:
    return f"site_state.sealed:{to_hex(federation)}:{round_number}"
