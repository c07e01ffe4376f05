"""Founding a federation: from a file that a person writes to a config, a first model, and a signed call.

The file is YAML with the members of the config (`rexis.protocol.federation_config`). What follows from the rest may be left out: version,
founder, aggregators (the service's own account; where other operators are to recompute its sums, list theirs with it), quorum (above
half), collusion_bound (1; 0 without masks), threshold and min_survivors (the least that are safe), batch_size, proximal and
standardisation, and the protection secagg+dp of a plan with privacy. `group_pad` is true where it is left out, no aggregator is a member,
and nothing in the file goes without it: then the aggregator never has the model (`group_pad: false`: it has). Numbers may be written as
numbers; `features` may name a file beside this one. A training plan may have parts that change how it runs:

    optimizer: adam
    strategy: {name: fedadam, learning_rate: 0.1, beta1: 0.9, beta2: 0.99, tau: 0.001}
    personal: ["2."]                                          # tensors whose names begin so stay at each site
    stopping: {holdout: 0.2, patience: 3, improvement: 0.001}

A text classifier names the encoder that it is trained on; `rexis federation base FOLDER` prints its digest and width:

    model: {version: 1, family: bert-head, config: {base: 0x…, hidden: 384, outputs: 21, pooling: mean}}

Instead of training, with `kind: statistics`, a table of counts or the counts of survival curves, by columns of the members' tables as
they were registered. Each row must be one patient. What a site is asked for is exact, where each of its own cells is empty or has
`minimum_cell` rows, and then no other exact statistic may count the same columns; or it is sent with noise:

    statistics:
      identifier: table
      dimensions: [{column: age, bands: [50, 65]}, {column: sex, levels: [F, M]}]
      minimum_cell: 10

    statistics:
      identifier: survival
      time: months
      event: {column: dead, events: ["1"], censored: ["0"]}
      edges: [6, 12, 24, 60]                                  # few: each interval has two cells of each group
      group: {column: arm, levels: [A, B]}                    # may be left out: one curve
      privacy: {mechanism: skellam, noise_multiplier: 4, delta: 0.00001, epsilon: 2}

One member more says what the first model is:

    initial: {seed: 7}          # torch's initialisation; {seed: 0} if left out
    initial: zeros              # logistic and cox only: layers of zeros have no gradient

With protection ee there is none: what the aggregator has begins with zeros, and the members draw the first model from their key.

An institution never trains twice on one model: a federation that starts again needs another seed.
"""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml

from rexis.agent.federation.admission import check_encoding, thresholds_of
from rexis.agent.federation.contribution import model_file_spec
from rexis.chain.deployments import Deployment
from rexis.chain.signer import Signer
from rexis.client.aggregator import AggregatorClient, Federation
from rexis.client.relayed_calls import sign_call
from rexis.client.uploads import upload_file
from rexis.contribution.formula import FORMULA_DIGEST
from rexis.encoding import checksum_address, to_hex
from rexis.errors import MalformedMessageError, ServiceError, UnexpectedMessageError
from rexis.models.cox import CoxConfig
from rexis.models.mlp import LogisticConfig
from rexis.policy.conditions import permission
from rexis.protocol.batch import write_file
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.federation_plans import TrainingPlan
from rexis.secagg.graph import smallest_degree
from rexis.secagg.privacy import check_claim
from rexis.secagg.thresholds import thresholds

MAX_FILE_BYTES = 4 << 20
# `create` writes two words for each member and one for each aggregator.
GAS, GAS_PER_MEMBER = 400_000, 60_000
# Beyond so many members a sparse graph costs each less; it has to bear that one in ten drops out at random.
COMPLETE_UP_TO, EXPECTED_DROPOUTS = 64, 10
NOT_FOUND = 404
ADDRESS_BYTES = 20
ZEROS = "zeros"
_DECIMALS = ("learning_rate", "proximal", "clipping_norm")
# Parts of a training plan whose numbers are decimals, but for these.
_PARTS, _NO_DECIMALS = ("strategy", "stopping", "privacy"), ("name", "patience", "mechanism")


class FederationPlan:
    """A federation before it is founded.

    Attributes:
        config: what everybody will agree on.
        initial: file of the first model, b"" for a statistic.
        model: its record, 32 bytes; for a statistic, the digest of its definition.
    """

    def __init__(self, config: FederationConfig, *, seed: int | None = 0) -> None:
        """Build the first model.

        Args:
            config: to be founded.
            seed: of the initialisation; None for zeros.

        Raises:
            UnexpectedMessageError: thresholds that are not safe, a ring without room, rounds that cost more privacy than the plan says,
                or zeros for a model that would not learn from them.
            BelowThresholdError: too few members for the collusion bound.
        """
        thresholds_of(config)
        check_encoding(config)
        check_claim(config)
        self.config = config
        if config.training is None:
            self.initial, self.model = b"", config.statistic_digest
        elif config.protection == "ee":
            self.initial, self.model = _written(config.training, _zeros(config.training))
        else:
            self.initial, self.model = _initial_model(config.training, seed)

    @classmethod
    def read(cls, path: Path, *, founder: str, aggregator: str) -> "FederationPlan":
        """Read the file that describes a federation.

        Args:
            founder: checksum address of who founds it.
            aggregator: checksum address of the service that aggregates.

        Raises:
            MalformedMessageError: too large, not YAML, or not a federation; the message names the field.
        """
        document = dict(_mapping(path.name, _read_yaml(path)))
        if document.get("protection") == "ee" and "initial" in document:
            raise MalformedMessageError(f"{path.name}: initial: with protection ee the members draw the first model from their key")
        initial = document.pop("initial", {"seed": 0})
        if isinstance(document.get("features"), str):
            document["features"] = _read_yaml(path.parent / document["features"])
        try:
            config = FederationConfig.parse(_completed(document, founder, aggregator))
            return cls(config if "group_pad" in document else _padded(config), seed=_seed(initial))
        except MalformedMessageError as error:
            raise MalformedMessageError(f"{path.name}: {error}") from error

    def found(self, aggregator: AggregatorClient, signer: Signer, deployment: Deployment) -> Federation:
        """Upload the first model, sign `FederationRegistry.create`, and hand both in; safe to repeat.

        Raises:
            UnexpectedMessageError: the signer is not the founder.
            ServiceError: the aggregator or the contract refuses it; the problem names the rule.
        """
        if signer.address != self.config.founder:
            raise UnexpectedMessageError(f"expected the founder {self.config.founder} to sign, got {signer.address}")
        expected = self.config.id(deployment.chain_id, deployment.contracts["FederationRegistry"].address)
        try:
            return aggregator.federation(expected)
        except ServiceError as error:
            if error.status != NOT_FOUND:
                raise
        upload = None
        if self.initial:
            with TemporaryDirectory(prefix="rexis-model-") as folder:
                path = Path(folder) / "model.safetensors"
                path.write_bytes(self.initial)
                upload = upload_file(aggregator.connection, path)
        founding = {
            "configHash": self.config.digest,
            "model": self.model,
            "minSurvivors": self.config.min_survivors,
            "quorum": self.config.quorum,
            "participants": list(self.config.roster),
            "aggregators": list(self.config.aggregators),
        }
        gas = GAS + GAS_PER_MEMBER * (len(self.config.roster) + len(self.config.aggregators))
        call = sign_call(signer, deployment, "FederationRegistry", "create", founding, gas=gas)
        federation = aggregator.found(self.config, call, initial_model=upload)
        if federation.id != expected:
            raise UnexpectedMessageError(f"expected the federation {to_hex(expected)}, the aggregator shows {to_hex(federation.id)}")
        return federation


def _initial_model(plan: TrainingPlan, seed: int | None) -> tuple[bytes, bytes]:
    # With seconds to load, and founders of statistics need none of it.
    import torch

    from rexis.models.builders import build

    if seed is None and not isinstance(plan.model.config, LogisticConfig | CoxConfig):
        raise UnexpectedMessageError(
            f"initial: zeros are for logistic and cox models; a {plan.model.family} of zeros does not learn, give a seed"
        )
    module = build(plan.model, seed=seed or 0)
    tensors = dict(module.state_dict())
    if seed is None:
        tensors = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    return _written(plan, tensors)


def _zeros(plan: TrainingPlan) -> dict[str, Any]:
    return {name: np.zeros(shape, dtype=np.float32) for name, shape in plan.model.shapes.items()}


def _written(plan: TrainingPlan, tensors: Mapping[str, Any]) -> tuple[bytes, bytes]:
    stream = BytesIO()
    record = write_file(stream, model_file_spec(plan), tensors).record
    return stream.getvalue(), record


def _padded(config: FederationConfig) -> FederationConfig:
    """With the group pad, if no aggregator is a member and nothing in the config goes without it."""
    if set(config.aggregators) & set(config.roster):
        return config
    try:
        return FederationConfig.parse({**config.document(), "group_pad": True})
    except MalformedMessageError:
        return config


def _completed(document: dict[str, Any], founder: str, aggregator: str) -> dict[str, Any]:
    members = document.get("members")
    listed: list[Any] = []
    if isinstance(members, list) and all(isinstance(member, Mapping) and "address" in member for member in members):
        listed = [{**member, "address": _hex_text(member["address"], ADDRESS_BYTES)} for member in members]
        document["members"] = sorted(listed, key=lambda member: str(member["address"]).lower())
    filled = {"version": 1, "founder": founder, "aggregators": [aggregator], "training": None, "statistics": None}
    filled |= document
    masked = filled.get("protection", "secagg") not in ("none", "ee")
    filled.setdefault("collusion_bound", 1 if masked else 0)
    if isinstance(filled.get("purpose"), str):
        filled["purpose"] = permission(filled["purpose"]).number
    aggregators = filled["aggregators"]
    if isinstance(aggregators, list):
        filled["aggregators"] = sorted((_hex_text(each, ADDRESS_BYTES) for each in aggregators), key=lambda each: str(each).lower())
    filled.setdefault("quorum", len(aggregators) // 2 + 1 if isinstance(aggregators, list) else 1)
    if listed and not {"threshold", "min_survivors"} <= set(filled) and type(filled["collusion_bound"]) is int:
        least = thresholds(len(listed), filled["collusion_bound"])
        filled = {"threshold": least.threshold, "min_survivors": least.min_survivors} | filled
    is_sparse = masked and filled.get("groups") is None and len(listed) > COMPLETE_UP_TO
    if is_sparse and type(filled["collusion_bound"]) is int:
        filled.setdefault("degree", smallest_degree(len(listed), filled["collusion_bound"], len(listed) // EXPECTED_DROPOUTS))
    # Everybody with everybody, because the file says so or because nothing sparser is safe.
    if filled.get("degree", 0) is None:
        del filled["degree"]
    given = filled.get("scores")
    if isinstance(given, Mapping):
        # The formula that this version computes, and one amount for everybody until intervals say otherwise.
        formula = _hex_text(given.get("formula", to_hex(FORMULA_DIGEST)), 32)
        scores = {"bands": 4, "confidence": "0.95", "floor": "0", "cap": "1", **given, "formula": formula}
        filled["scores"] = _with_decimal_texts(scores, ("confidence", "floor", "cap"))
    if isinstance(filled["training"], Mapping):
        plan = {"batch_size": None, "proximal": "0", "standardisation": None, **filled["training"]}
        plan["standardisation"] = _hex_text(plan["standardisation"], 32)
        if "model" in plan:
            plan["model"] = _with_base(plan["model"])
        plan = _with_decimal_texts(plan, _DECIMALS)
        for part in _PARTS:
            if isinstance(plan.get(part), Mapping):
                plan[part] = _part_with_decimal_texts(plan[part])
        if isinstance(plan.get("personal"), list) and all(isinstance(prefix, str) for prefix in plan["personal"]):
            plan["personal"] = sorted(plan["personal"])
        if isinstance(plan.get("privacy"), Mapping):
            filled.setdefault("protection", "secagg+dp")
        filled["training"] = plan
    if isinstance(filled["statistics"], Mapping):
        filled["statistics"] = _completed_statistics(filled["statistics"])
        if isinstance(filled["statistics"].get("privacy"), Mapping):
            filled.setdefault("protection", "secagg+dp")
    return filled


def _with_base(model: Any) -> Any:
    """The model spec with the digest of its base as a text, where it has one."""
    config = model.get("config") if isinstance(model, Mapping) else None
    if not isinstance(config, Mapping) or "base" not in config:
        return model
    return {**model, "config": {**config, "base": _hex_text(config["base"], 32)}}


def _completed_statistics(plan: Mapping[str, Any]) -> dict[str, Any]:
    """A plan of a statistic with numbers as texts."""
    completed = dict(plan)
    if isinstance(completed.get("privacy"), Mapping):
        completed["privacy"] = _with_decimal_texts(
            completed["privacy"], tuple(name for name in completed["privacy"] if name not in _NO_DECIMALS)
        )
    if isinstance(completed.get("edges"), list):
        completed["edges"] = [_decimal_text(edge) for edge in completed["edges"]]
    if isinstance(completed.get("dimensions"), list):
        completed["dimensions"] = [_with_number_texts(each) for each in completed["dimensions"]]
    if "group" in completed:
        completed["group"] = _with_number_texts(completed["group"])
    return completed


def _with_number_texts(dimension: Any) -> Any:
    if not isinstance(dimension, Mapping):
        return dimension
    bands = dimension.get("bands")
    listed = {"bands": [_decimal_text(edge) for edge in bands]} if isinstance(bands, list) else {}
    return _with_decimal_texts({**dimension, **listed}, ("above",))


def _part_with_decimal_texts(part: Mapping[str, Any]) -> dict[str, Any]:
    return _with_decimal_texts(part, tuple(name for name in part if name not in _NO_DECIMALS))


def _with_decimal_texts(members: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {**members, **{name: _decimal_text(members[name]) for name in names if name in members}}


def _hex_text(value: Any, size: int) -> Any:
    """YAML reads 0x… without quotes as a number."""
    if type(value) is not int or not 0 <= value < 1 << (8 * size):
        return value
    text = to_hex(value.to_bytes(size, "big"))
    return checksum_address(text) if size == ADDRESS_BYTES else text


def _decimal_text(value: Any) -> Any:
    """YAML reads 0.5 as a float; what is hashed is the shortest text that means the same."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    try:
        return f"{Decimal(repr(value)).normalize():f}"
    except InvalidOperation:
        return value


def _seed(value: Any) -> int | None:
    if value == ZEROS:
        return None
    if isinstance(value, Mapping) and set(value) == {"seed"} and type(value["seed"]) is int and 0 <= value["seed"] < 1 << 63:
        seed: int = value["seed"]
        return seed
    raise MalformedMessageError("initial: expected zeros, or an object with a seed from 0")


def _read_yaml(path: Path) -> Any:
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise MalformedMessageError(f"{path.name}: expected at most {MAX_FILE_BYTES} bytes")
    try:
        return yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise MalformedMessageError(f"{path.name}: not YAML: {' '.join(str(error).split())}") from error


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise MalformedMessageError(f"{name}: expected the fields of a federation")
    return value
