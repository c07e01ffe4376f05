"""What rounds made, computed by the institution itself from the sums that were opened: nobody's model is believed.

With the group pad there is no other way: the aggregators have sums under pads, and members and founder, who have the key, take the pads
off. Without it the aggregators compute the same, and this side finds out before it trains on a model that does not follow from its sum.
Model and server's state of the newest round are in the journal; who missed rounds goes through their sums one after the other. Each
result is compared with the chain.
"""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np

from rexis.agent.federation.contribution import model_file_spec, read_model
from rexis.agent.federation.group_keys import group_key
from rexis.agent.federation.registry import FinalRound, Registry
from rexis.agent.journal import Journal
from rexis.client.aggregator import AggregatorClient
from rexis.encoding import canonical_json, domain_tag, parse_canonical_json, sha256, to_hex
from rexis.errors import DigestMismatchError, EncodingError, FalseResultError, MalformedMessageError, UnexpectedMessageError
from rexis.protocol.batch import write_file
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.federation_plans import TrainingPlan
from rexis.secagg.group_pad import remove_group_pad
from rexis.secagg.key_agreement import derive
from rexis.secagg.masks import RingVector
from rexis.secagg.payloads import vector_record
from rexis.secagg.server_steps import initial_state, server_step

MAX_METRICS_BYTES = 1 << 16


@dataclass(frozen=True, eq=False)
class GlobalState:
    """A global model after a round, with what the server's strategy remembers.

    Attributes:
        round: after which; 0 for the founder's model.
        model: file.
        record: of the model, 32 bytes.
        state: file of the server's state; b"" for a strategy without one.
        metrics: of the round, salted where only members have them; None for round 0.
    """

    round: int
    model: bytes
    record: bytes
    state: bytes
    metrics: dict[str, Any] | None

    @property
    def metrics_digest(self) -> bytes:
        """What stands on chain of the metrics (32 bytes)."""
        return sha256(canonical_json(self.metrics))


@dataclass(frozen=True, eq=False)
class RoundSum:
    """An opened sum, and what says how to take its pads off.

    Attributes:
        total: u32 [length]; under the pads, if there are any.
        ctx: of its attempt, 32 bytes.
        survivors: checksum addresses of those whose updates are in it.
        key: the group key, 32 bytes; None without the group pad.
    """

    total: RingVector
    ctx: bytes
    survivors: tuple[str, ...]
    key: bytes | None


def recompute(config: FederationConfig, base: GlobalState, opened: RoundSum) -> GlobalState:
    """The next global model from the opened sum of a round.

    Raises:
        MalformedMessageError, ValueError, EncodingError: a sum that honest sites can not have made; so is one whose pads were taken off
            with another key, but for one in millions.
    """
    plan = _training(config)
    total = opened.total
    if opened.key is not None:
        total = total.copy()
        remove_group_pad(total, opened.key, opened.ctx, positions(config, opened.survivors))
    step = server_step(config, read_model(plan, base.model, base.record), base.state, [total])
    metrics = step.metrics
    if opened.key is not None:
        # Loss and weight can be guessed, and the digest stands on chain.
        metrics = {**metrics, "salt": to_hex(derive(opened.key, opened.ctx, domain_tag("metrics-salt", 1)))}
    stream = BytesIO()
    record = write_file(stream, model_file_spec(plan), step.tensors).record
    return GlobalState(base.round + 1, stream.getvalue(), record, step.state, metrics)


def positions(config: FederationConfig, survivors: Iterable[str]) -> list[int]:
    """Positions of members by address.

    Raises:
        UnexpectedMessageError: one is no member.
    """
    roster = {address: position for position, address in enumerate(config.roster, start=1)}
    strangers = [address for address in survivors if address not in roster]
    if strangers:
        raise UnexpectedMessageError(f"the chain names survivors who are no members: {', '.join(strangers)}")
    return [roster[address] for address in survivors]


def kept_metrics(journal: Journal, federation: bytes, round_number: int) -> dict[str, Any] | None:
    """Metrics of a round that was computed with this journal, None if it was not."""
    rows = journal.rows("SELECT sealed_metrics FROM recomputed_round WHERE federation = ? AND round = ?", federation, round_number)
    if not rows:
        return None
    content = journal.sealer.open_field(rows[0]["sealed_metrics"], _place("metrics", federation, round_number))
    found: dict[str, Any] = parse_canonical_json(content, max_bytes=MAX_METRICS_BYTES)
    return found


class RecomputedRounds:
    """Global models of federations as this institution computes them.

    Args:
        journal: opened with its passphrase.
        registry: its own node.
        aggregator: signed in; shows the first model and the sums.
    """

    def __init__(self, journal: Journal, registry: Registry, aggregator: AggregatorClient) -> None:
        self._journal, self._registry, self._aggregator = journal, registry, aggregator

    def after(self, federation: bytes, config: FederationConfig, round_number: int) -> GlobalState:
        """The model after a round that is final on chain, 0 for the founder's.

        Raises:
            FalseResultError: the chain has another model or other metrics than follow from the sum; who signed them is named.
            DigestMismatchError: the aggregator shows another sum, or first model, than stands on chain.
            UnexpectedMessageError: there is no group key here.
            UnavailableError, ServiceError: the node, or the aggregator, does not answer.
        """
        state = self._newest(federation, round_number)
        if state is None:
            state = self._initial(federation, config)
        missing = range(state.round + 1, round_number + 1)
        rounds = self._registry.final_rounds(federation, missing) if missing else {}
        for number in missing:
            state = self._checked(federation, config, state, rounds[number])
            self._keep(federation, state)
        return state

    def opened(self, federation: bytes, config: FederationConfig, number: int, attempt: int, ctx: bytes, who: tuple[str, ...]) -> RoundSum:
        """The sum of an attempt as the aggregator shows it.

        Args:
            number: of the round.
            ctx: of the attempt, 32 bytes.
            who: its survivors.

        Raises:
            UnexpectedMessageError: there is no group key here.
            MalformedMessageError: not as long as the config says.
        """
        key = None
        if config.group_pad:
            key = group_key(self._journal, federation)
            if key is None:
                raise UnexpectedMessageError(f"there is no group key of federation {to_hex(federation)} in this journal")
        size = config.length * config.ring_bits // 8
        content = self._aggregator.opened_sum(federation, number, attempt, size)
        if len(content) != size:
            raise MalformedMessageError(f"opened sum of round {number}: expected {size} bytes, got {len(content)}")
        return RoundSum(np.frombuffer(content, f"<u{config.ring_bits // 8}"), ctx, who, key)

    def _checked(self, federation: bytes, config: FederationConfig, base: GlobalState, final: FinalRound) -> GlobalState:
        opened = self.opened(federation, config, final.round, final.attempt, final.ctx, final.survivors)
        aggregate = vector_record(opened.total)
        if not hmac.compare_digest(aggregate, final.aggregate):
            raise DigestMismatchError(f"opened sum of round {final.round}", final.aggregate, aggregate)
        try:
            made = recompute(config, base, opened)
        except (MalformedMessageError, EncodingError, ValueError) as error:
            raise _lie(final, opened, f"the sum gives no model ({error})") from error
        if made.record != final.model:
            raise _lie(final, opened, f"the sum gives the model {to_hex(made.record)}, the chain has {to_hex(final.model)}")
        if made.metrics_digest != final.metrics:
            raise _lie(final, opened, f"the sum gives metrics {to_hex(made.metrics_digest)}, the chain has {to_hex(final.metrics)}")
        return made

    def _initial(self, federation: bytes, config: FederationConfig) -> GlobalState:
        plan, seen = _training(config), self._registry.federation(federation)
        record = seen.model if seen.round == 1 else self._registry.first_model(federation)
        content = self._aggregator.initial_model(federation)
        read_model(plan, content, record)
        return GlobalState(0, content, record, initial_state(plan), None)

    def _newest(self, federation: bytes, most: int) -> GlobalState | None:
        query = (
            "SELECT * FROM recomputed_round WHERE federation = ? AND round <= ? AND sealed_model IS NOT NULL ORDER BY round DESC LIMIT 1"
        )
        rows = self._journal.rows(query, federation, most)
        if not rows:
            return None
        row, sealer = rows[0], self._journal.sealer
        model, state = (sealer.open_field(row[f"sealed_{name}"], _place(name, federation, row["round"])) for name in ("model", "state"))
        return GlobalState(row["round"], model, row["record"], state, kept_metrics(self._journal, federation, row["round"]))

    def _keep(self, federation: bytes, made: GlobalState) -> None:
        def sealed(name: str, content: bytes) -> bytes:
            return self._journal.sealer.seal(content, _place(name, federation, made.round))

        metrics, model, state = sealed("metrics", canonical_json(made.metrics)), sealed("model", made.model), sealed("state", made.state)
        with self._journal.transaction() as connection:
            newer = "SELECT 1 FROM recomputed_round WHERE federation = ? AND round > ?"
            if connection.execute(newer, (federation, made.round)).fetchone() is None:
                values = (federation, made.round, made.record, metrics, model, state)
                connection.execute("INSERT OR REPLACE INTO recomputed_round VALUES (?, ?, ?, ?, ?, ?)", values)
                older = "UPDATE recomputed_round SET sealed_model = NULL, sealed_state = NULL WHERE federation = ? AND round < ?"
                connection.execute(older, (federation, made.round))


def _training(config: FederationConfig) -> TrainingPlan:
    if config.training is None:
        raise UnexpectedMessageError("a statistic has a result, and no model")
    return config.training


def _lie(final: FinalRound, opened: RoundSum, what: str) -> FalseResultError:
    key = "" if opened.key is None else ", or the group key here is another one than the members' who stated it"
    return FalseResultError(f"round {final.round}, whose result {', '.join(final.signers)} signed: {what}{key}")


def _place(column: str, federation: bytes, round_number: int) -> str:
    return f"recomputed_round.{column}:{to_hex(federation)}:{round_number}"
