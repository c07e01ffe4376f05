"""From the opened sums of a round to the next global model, the server's state and the round's metrics.

Aggregators, and members who recompute a round, call the same function and get the same bytes. The state is a tensor file of kind
`gradient` in double precision; its SHA-256 stands in the round's metrics, and with their digest on chain.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rexis.encoding import sha256, to_hex
from rexis.errors import DigestMismatchError
from rexis.protocol.batch import digest_file, read_file, write_file
from rexis.protocol.document_members import decimal
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.federation_plans import TrainingPlan
from rexis.protocol.file_spec import FileSpec
from rexis.secagg.masks import RingVector
from rexis.secagg.payloads import MeanUpdate, decode_update
from rexis.secagg.robust import combined, group_means
from rexis.secagg.scored_rounds import METRIC, values_of
from rexis.training.strategies import ServerStrategy, State

STATE_DTYPE = "f64"


@dataclass(frozen=True, eq=False)
class ServerStep:
    """What a round made.

    Attributes:
        tensors: of the new global model by name, f32; personal ones are those of the model before.
        state: file of the server's new state; b"" for a strategy without one.
        metrics: what the round's metrics digest is taken over.
        groups: the mean behind each of the sums, None for one that was spoiled or not opened; empty without groups.
    """

    tensors: dict[str, NDArray[np.float32]]
    state: bytes
    metrics: dict[str, Any]
    groups: tuple[MeanUpdate | None, ...] = ()


def server_step(
    config: FederationConfig, base: Mapping[str, NDArray[np.float32]], state: bytes, totals: Sequence[RingVector | None]
) -> ServerStep:
    """Apply the opened sums of a training round.

    Args:
        base: tensors of the model that the round started from.
        state: file of the server's state beside it; b"" for a strategy without one.
        totals: [length] of each: one sum, or one for each group that has survivors, in their order; None for one that was not opened.

    Raises:
        ValueError: a federation for a statistic, a sum of another length or ring, or several of a federation without groups.
        MalformedMessageError: a sum that honest sites can not have made, or no state of this strategy.
        BelowThresholdError: too few groups that were opened, and whose sums honest sites can have made.
        EncodingError: the state became infinite; whether the model did is seen when its file is written.
    """
    if config.training is None:
        raise ValueError("expected a federation for training, got one for a statistic")
    plan, groups = config.training, group_means(config, totals) if config.groups is not None else ()
    if config.groups is not None:
        update = combined(config.groups, groups)
    else:
        (total,) = (found for found in totals if found is not None)
        update = decode_update(config, total)
    weights = flatten(plan, base)
    moved, remembered = strategy_of(plan).step(weights, _read(plan, state), update.delta, variates=update.variates, weight=update.weight)
    file, metrics = _write(plan, remembered), update.metrics()
    if file:
        metrics["state"] = to_hex(sha256(file))
    if config.scores is not None:
        metrics[METRIC] = values_of(groups)
    return ServerStep({**base, **unflatten(plan, moved)}, file, metrics, groups)


def strategy_of(plan: TrainingPlan) -> ServerStrategy:
    """The plan's strategy in floating point."""
    settings = {name: float(value) for name, value in plan.strategy.settings.items()}
    return ServerStrategy(plan.strategy.name, float(plan.strategy.learning_rate), settings)


def initial_state(plan: TrainingPlan) -> bytes:
    """File of the server's state before the first round; b"" for a strategy without one."""
    return _write(plan, strategy_of(plan).initial_state(plan.parameters))


def read_state(plan: TrainingPlan, content: bytes, digest: bytes) -> State:
    """The server's state from its file.

    Args:
        digest: of the state that is expected, from metrics that were compared with the chain; 32 bytes.

    Raises:
        DigestMismatchError: another state.
        MalformedMessageError, EncodingError: no state of this plan.
    """
    if sha256(content) != digest:
        raise DigestMismatchError("state of the server", digest, sha256(content))
    return _read(plan, content)


def holdout_losses(metrics: Iterable[Mapping[str, Any]]) -> list[Decimal]:
    """What the rule of early stopping is asked with: the losses on held-out rows in metrics of rounds 1, 2, …

    Raises:
        MalformedMessageError: metrics without one.
    """
    return [decimal("holdout_loss", each.get("holdout_loss"), least=Decimal(0)) for each in metrics]


def flatten(plan: TrainingPlan, tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """The tensors that are averaged as one vector, f64 [parameters], in the order of the plan."""
    return np.concatenate([tensors[name].astype(np.float64).ravel() for name in plan.shared])


def unflatten(plan: TrainingPlan, vector: NDArray[np.float64]) -> dict[str, NDArray[np.float32]]:
    """A vector [parameters] as the tensors that are averaged, f32."""
    with np.errstate(over="ignore"):
        rounded = vector.astype(np.float32)
    tensors, start = {}, 0
    for name, shape in plan.shared.items():
        size = int(np.prod(shape))
        tensors[name] = rounded[start : start + size].reshape(shape)
        start += size
    return tensors


def _form(plan: TrainingPlan) -> FileSpec | None:
    shapes = strategy_of(plan).state_shapes(plan.parameters)
    return FileSpec.of_model("gradient", plan.model.digest(), shapes, STATE_DTYPE) if shapes else None


def _read(plan: TrainingPlan, content: bytes) -> State:
    form = _form(plan)
    if form is None:
        return {}
    # Finite numbers only, which the digest of the tensors asks for.
    digest_file(BytesIO(content), form, len(content))
    return read_file(BytesIO(content), form, len(content))


def _write(plan: TrainingPlan, state: State) -> bytes:
    form, stream = _form(plan), BytesIO()
    if form is not None:
        write_file(stream, form, state)
    return stream.getvalue()
