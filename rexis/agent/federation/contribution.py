"""The one vector that an institution masks in a round of training: the update of a model, from its own rows."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rexis.agent.federation.private_training import private_update
from rexis.agent.federation.site_states import SiteState
from rexis.agent.table import Table
from rexis.encoding import domain_tag, sha256
from rexis.errors import DigestMismatchError, PrivacyError
from rexis.models.features import Features
from rexis.protocol.batch import digest_file, read_file
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.federation_plans import TrainingPlan
from rexis.protocol.file_spec import FileSpec
from rexis.protocol.manifest import Manifest
from rexis.secagg.masks import RingVector
from rexis.secagg.payloads import Holdout, encode_update, sent_variate
from rexis.secagg.server_steps import unflatten
from rexis.secagg.statistics import Moments
from rexis.training.strategies import variate_change

if TYPE_CHECKING:
    from torch import nn

MODEL_DTYPE = "f32"

Tensors = Mapping[str, NDArray[np.float32]]


def model_file_spec(plan: TrainingPlan) -> FileSpec:
    """What a federation's global model file must contain."""
    return FileSpec.of_model("model", plan.model.digest(), plan.model.shapes, MODEL_DTYPE)


def read_model(plan: TrainingPlan, content: bytes, record: bytes) -> dict[str, NDArray[np.float32]]:
    """The tensors of a global model file, by name.

    Args:
        content: the file.
        record: of the model that is expected, from the chain; 32 bytes.

    Raises:
        MalformedMessageError: not a file of this model.
        DigestMismatchError: another model.
    """
    spec = model_file_spec(plan)
    found = digest_file(BytesIO(content), spec, len(content)).record
    if found != record:
        raise DigestMismatchError("global model", record, found)
    return read_file(BytesIO(content), spec, len(content))


def prepare_rows(config: FederationConfig, table: Table, moments: Moments | None) -> Features:
    """The site's rows as the federation's features, standardised if it asks for that.

    Raises:
        MalformedMessageError: the table lacks a column, or has cells that are no numbers.
    """
    features = config.features.encode(table.columns, table.rows)
    return features if moments is None else replace(features, inputs=moments.standardise(features.inputs))


def load_training() -> None:
    """Load what local training needs, which takes seconds: before a round, not inside one."""
    import_module("rexis.training.losses")
    import_module("rexis.models.builders")


@dataclass(frozen=True, eq=False)
class Contribution:
    """What a site makes in a round of training: the vector that it masks, and the state that it goes on from if the vector counts."""

    vector: RingVector
    state: SiteState


def training_vector(config: FederationConfig, manifest: Manifest, model: Tensors, rows: Features) -> RingVector:
    """The vector of `local_contribution` for a plan of which nothing stays at the site, [length]."""
    return local_contribution(config, manifest, model, rows).vector


def local_contribution(
    config: FederationConfig,
    manifest: Manifest,
    model: Tensors,
    rows: Features,
    *,
    held: Features | None = None,
    state: SiteState | None = None,
    control: NDArray[np.float64] | None = None,
    encoder: "nn.Module | None" = None,
    keyed: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None,
    on_step: Callable[[int, int], None] = lambda _done, _total: None,
) -> Contribution:
    """Some local steps from the global model, encoded; the same whenever it is computed, but under differential privacy.

    Its noise is drawn anew at every call: what it costs is debited before, and the first vector of a round is kept.

    Args:
        model: tensors of the base model by name.
        rows: of this site; one class only is allowed, and nobody with the event.
        held: rows that are never trained on; with early stopping, and only then.
        state: what stays at this site; None before a round counted.
        control: c of SCAFFOLD, f64 [parameters]; with SCAFFOLD, and only then.
        encoder: that a model of the family bert-lora is called with; for it, and only then.
        keyed: what is sent of an update f64 [parameters] where the members have a key; None sends the update.
        on_step: told after each local step how many are done, and of how many.

    Raises:
        PrivacyError: the training diverged; nothing may be sent. The message has no number of this site in it.
    """
    # Whoever only registers data, or founds a federation, needs no torch.
    import torch

    from rexis.models.builders import build
    from rexis.models.modules.bert_lora import LoraClassifier
    from rexis.training.local import LocalSteps, train_local
    from rexis.training.losses import loss_of

    plan = config.training
    if plan is None:
        raise ValueError("expected a federation for training, got one for a statistic")
    before = state or SiteState.initial(plan, model)
    module = build(plan.model, seed=0)
    module.load_state_dict({name: torch.from_numpy(tensor.copy()) for name, tensor in {**model, **before.personal}.items()})
    if isinstance(module, LoraClassifier) and encoder is not None:
        module.attach(encoder)
    if plan.privacy is not None and plan.privacy.mechanism == "dp-sgd":
        noisy = private_update(plan, plan.privacy, module, rows, on_step=on_step)
        return Contribution(encoded(lambda: encode_update(config, noisy, examples=len(rows.labels), loss=0.0)), before)
    holdout = None
    if held is not None:
        with torch.no_grad():
            margins = module(torch.from_numpy(_inputs(held)))
            holdout = Holdout(len(held.labels), loss_of(plan.model)(margins, torch.from_numpy(held.labels)).item())
    steps = LocalSteps(plan.steps, float(plan.learning_rate), plan.batch_size, proximal=float(plan.proximal), optimizer=plan.optimizer)
    drift = None if control is None or before.variate is None else control - before.variate
    correction = None if drift is None else torch.from_numpy(_whole(plan, unflatten(plan, drift)))
    inputs, labels = torch.from_numpy(_inputs(rows)), torch.from_numpy(rows.labels)
    update = train_local(
        module, inputs, labels, steps, seed=batch_seed(manifest), correction=correction, loss=loss_of(plan.model), on_step=on_step
    )
    delta = _shared(plan, update.delta.double().numpy())
    if keyed is not None:
        delta = keyed(delta)
    change = None
    if control is not None:
        change = variate_change(control, delta, steps=plan.steps, learning_rate=float(plan.learning_rate))
    personal = {name: tensor.numpy() for name, tensor in module.state_dict().items() if name in before.personal}

    def encode() -> RingVector:
        if not all(np.isfinite(tensor).all() for tensor in personal.values()):
            raise ValueError("expected finite personal tensors")
        return encode_update(config, delta, examples=update.examples, loss=update.loss, variate=change, holdout=holdout)

    vector, variate = encoded(encode), before.variate
    if variate is not None:
        variate = variate + sent_variate(config, vector, examples=update.examples)
    return Contribution(vector, SiteState(personal, variate))


def _inputs(rows: Features) -> NDArray[Any]:
    """What the model takes: token ids i64 [n, s], or f32 [n, d]."""
    return rows.inputs.astype(np.float32) if rows.tokens is None else rows.tokens


def _whole(plan: TrainingPlan, shared: Tensors) -> NDArray[np.float32]:
    """Tensors that are averaged as a vector over all of the model's parameters, zero where they are personal."""
    shapes = plan.model.shapes.items()
    return np.concatenate([shared[name].ravel() if name in shared else np.zeros(shape, np.float32).ravel() for name, shape in shapes])


def _shared(plan: TrainingPlan, vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """The entries of a vector over all of the model's parameters that are averaged, f64 [parameters]."""
    mask = np.concatenate([np.full(math.prod(shape), name in plan.shared) for name, shape in plan.model.shapes.items()])
    shared: NDArray[np.float64] = vector[mask]
    return shared


def batch_seed(manifest: Manifest) -> int:
    """Of the order of mini-batches, which is no secret; alike in each attempt at a round, so that the vector is."""
    place = manifest.federation + manifest.round.to_bytes(8, "big")
    return int.from_bytes(sha256(domain_tag("batch-order", 1) + b"\0" + place)[:7], "big")


def encoded(encode: Callable[[], RingVector]) -> RingVector:
    """A vector, or a refusal that says nothing of this site's numbers.

    Raises:
        PrivacyError: it can not be encoded; nothing may be sent.
    """
    try:
        return encode()
    except ValueError:
        # Its message may hold a loss or a count of this site.
        raise PrivacyError("the local result can not be encoded: the training diverged, or the sums are too large for the ring") from None
