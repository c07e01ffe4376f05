"""What came of every round, read from the chain and compared with what the sites' own rows give without any protocol.

The harness owns the sites, so it can do what nobody in a federation can: train each survivor's update in the clear, and add them up.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import Engine, select

from rexis.agent.federation.contribution import prepare_rows, read_model, training_vector
from rexis.agent.federation.founding import FederationPlan
from rexis.agent.table import Table
from rexis.chain.connection import Chain
from rexis.encoding import to_hex
from rexis.protocol.manifest import Deadlines, Manifest
from rexis.secagg.payloads import vector_record
from rexis.secagg.server_steps import server_step
from services.aggregator.attempts import ENDED, Phase
from services.aggregator.global_models import written
from services.aggregator.models import Attempt
from services.foundation.database import transaction

# Round and attempt.
Place = tuple[int, int]
# Round, and the addresses of its survivors → digest of their sum and record of the model that it makes.
Plain = Callable[[int, Sequence[str]], tuple[bytes, bytes]]


@dataclass(frozen=True)
class Final:
    """A finalised round, as its event says."""

    place: Place
    base_model: bytes
    model: bytes
    aggregate: bytes
    updates: int


@dataclass
class Facts:
    """The events of one federation in the chain's order.

    Attributes:
        opened: place and context of each attempt.
        fixed: place and survivors.
        committed: how often a participant committed in a context.
    """

    opened: list[tuple[Place, bytes]] = field(default_factory=list)
    fixed: list[tuple[Place, tuple[str, ...]]] = field(default_factory=list)
    finalised: list[Final] = field(default_factory=list)
    abandoned: list[Place] = field(default_factory=list)
    committed: Counter[tuple[bytes, str]] = field(default_factory=Counter)


def read_facts(chain: Chain, federation: bytes) -> Facts:
    """Read all of a federation's events."""
    events = chain.contract("FederationRegistry").events

    def logs(name: str) -> list[dict[str, Any]]:
        found = getattr(events, name)().get_logs(from_block=0, argument_filters={"federation": federation})
        return [dict(log["args"]) for log in found]

    def place(given: Mapping[str, Any]) -> Place:
        return given["round"], given["attempt"]

    return Facts(
        opened=[(place(each), each["ctx"]) for each in logs("RoundOpened")],
        fixed=[(place(each), tuple(each["survivors"])) for each in logs("SurvivorsFixed")],
        finalised=[
            Final(place(each), each["baseModel"], each["model"], each["aggregate"], each["updates"]) for each in logs("RoundFinalised")
        ],
        abandoned=[place(each) for each in logs("RoundAbandoned")],
        committed=Counter((each["ctx"], each["participant"]) for each in logs("UpdateCommitted")),
    )


def ended_attempts(engine: Engine, federation: bytes) -> dict[Place, str]:
    """How the aggregator says that each attempt ended; "" for one that has not."""
    query = select(Attempt).where(Attempt.federation_id == to_hex(federation))
    with transaction(engine, read_only=True) as session:
        return {(each.round, each.number): each.stage if each.stage in ENDED else "" for each in session.scalars(query)}


class PlainAverage:
    """Federated averaging in one process, from the sites' own tables: the vectors that they mask, added without masks.

    Args:
        tables: rows of each institution by its checksum address.
    """

    def __init__(self, plan: FederationPlan, federation: bytes, tables: Mapping[str, Table]) -> None:
        assert plan.config.training is not None
        self._config, self._training, self._federation = plan.config, plan.config.training, federation
        self._rows = {address: prepare_rows(plan.config, table, None) for address, table in tables.items()}
        self._content, self._record = plan.initial, plan.model

    def round(self, number: int, survivors: Sequence[str]) -> tuple[bytes, bytes]:
        """Digest of the survivors' sum in the next round, and record of the model that it makes."""
        base = read_model(self._training, self._content, self._record)
        deadlines = Deadlines.after(0, self._config.stage_s)
        manifest = Manifest.of(
            self._config, federation=self._federation, round_number=number, attempt=1, base_model=self._record, deadlines=deadlines
        )
        total = np.zeros(self._config.length, dtype=np.uint32)
        for address in survivors:
            total += training_vector(self._config, manifest, base, self._rows[address])
        file = written(server_step(self._config, base, b"", [total]).tensors, self._training.model)
        self._content, self._record = file.content, file.record
        return vector_record(total), file.record


def faults_of(facts: Facts, ended: Mapping[Place, str], *, rounds: int, initial: bytes, least: int, plain: Plain) -> dict[str, list[str]]:
    """Everything that should not be, by its kind; empty if every round is final exactly once with the sum of exactly its survivors.

    Args:
        ended: how the aggregator says that each attempt ended; "" if it did not.
        initial: record of the first model, 32 bytes.
        least: fewest survivors of a sum.
    """
    faults: dict[str, list[str]] = {name: [] for name in ("lost", "duplicated", "wrong", "unsettled", "untrue")}
    final = Counter(each.place[0] for each in facts.finalised)
    faults["lost"] += [f"round {number} is not final" for number in range(1, rounds + 1) if number not in final]
    faults["duplicated"] += [f"round {number} is final {times} times" for number, times in final.items() if times > 1]
    for what, places in (
        ("opened", [place for place, _ in facts.opened]),
        ("fixed", [place for place, _ in facts.fixed]),
        ("abandoned", facts.abandoned),
    ):
        faults["duplicated"] += [f"{place} is {what} {times} times" for place, times in Counter(places).items() if times > 1]
    faults["duplicated"] += [
        f"{who} committed {times} times in {to_hex(ctx)}" for (ctx, who), times in facts.committed.items() if times > 1
    ]
    _check_sums(faults, facts, initial, least, plain)
    closed = {each.place: Phase.FINISHED.value for each in facts.finalised} | dict.fromkeys(facts.abandoned, Phase.ABORTED.value)
    for place in sorted({place for place, _ in facts.opened} | set(ended)):
        told, shown = ended.get(place), closed.get(place)
        if not told or shown is None:
            faults["unsettled"].append(f"{place}: the aggregator says {told!r}, the chain {shown!r}")
        elif told != shown:
            faults["untrue"].append(f"{place}: the aggregator says {told}, the chain {shown}")
    return {name: found for name, found in faults.items() if found}


def _check_sums(faults: dict[str, list[str]], facts: Facts, initial: bytes, least: int, plain: Plain) -> None:
    contexts, survivors, model = dict(facts.opened), dict(facts.fixed), initial
    for each in facts.finalised:
        present = survivors.get(each.place, ())
        if len(present) < least or each.updates != len(present):
            faults["wrong"].append(f"{each.place}: {each.updates} updates of {len(present)} survivors, at least {least} are needed")
        faults["lost"] += [f"{each.place}: {who} is summed and has no commitment" for who in present
                           if facts.committed[contexts.get(each.place, b""), who] < 1]  # fmt: skip
        if each.base_model != model:
            faults["wrong"].append(f"{each.place}: starts from {to_hex(each.base_model)}, the round before made {to_hex(model)}")
        if (each.aggregate, each.model) != plain(each.place[0], present):
            faults["wrong"].append(f"{each.place}: the sum or the model is not that of its survivors' vectors")
        model = each.model
