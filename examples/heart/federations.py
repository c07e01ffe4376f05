"""The federations of the story: a secure sum of moments, and two models that train at the same time while one hospital drops out."""

import io
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from examples.heart.drop_out import DropOut
from examples.heart.experimenter import LEARNING_RATE, feature_spec
from examples.heart.parties import Hospital, Party, in_parallel
from rexis.agent.federation.contribution import MODEL_DTYPE
from rexis.agent.federation.founding import FederationPlan
from rexis.chain.deployments import load
from rexis.chain.signer import LOCAL_CHAIN_ID
from rexis.client.aggregator import AggregatorClient, Federation
from rexis.encoding import from_hex, to_hex
from rexis.errors import ProtocolError, UnavailableError
from rexis.models.builders import build
from rexis.models.mlp import LogisticConfig, MLPConfig
from rexis.models.spec import ModelSpec
from rexis.policy.duo import Permission
from rexis.protocol.batch import read_file
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.file_spec import FileSpec

STEPS = 5
HIDDEN = 16
# Updates of this data have norms below 1.5, so that this does not bind.
CLIPPING_NORM = "8"
# Cleveland, the largest, has 199 rows: nobody's weight is cut.
WEIGHT_CAP, WEIGHT_BAND = 200, 10
POLL_S = 0.25
FOUNDING_TIMEOUT_S = 120.0
ENDED = frozenset({"finished", "failed"})
MODELS = {
    "logistic regression": ModelSpec(LogisticConfig(len(feature_spec().names))),
    "network, 16 hidden units": ModelSpec(MLPConfig(len(feature_spec().names), (HIDDEN,), 1)),
}

OnRound = Callable[[str, int, int], None]


def shared_terms(group: Party, hospitals: Sequence[Hospital], aggregator: str, *, stage_s: int) -> dict[str, Any]:
    """What the federations have in common: four hospitals, of which one may collude with the aggregator and one may drop out."""
    ascending = sorted(hospitals, key=lambda hospital: hospital.address.lower())
    members = [{"address": hospital.address, "dataset": hospital.dataset} for hospital in ascending]
    return {
        "version": 1,
        "founder": group.address,
        "members": members,
        "aggregators": [aggregator],
        "quorum": 1,
        "collusion_bound": 1,
        "threshold": 3,
        "min_survivors": 3,
        "purpose": Permission.HMB.number,
        "features": feature_spec().document(),
        "stage_s": stage_s,
    }


def statistics_config(terms: dict[str, Any]) -> dict[str, Any]:
    """Mean and standard deviation of every feature by one secure sum."""
    plan = {"identifier": "moments", "scale_bits": 16}
    return {**terms, "name": "mean and standard deviation", "kind": "statistics", "training": None, "statistics": plan}


def training_config(terms: dict[str, Any], name: str, *, rounds: int, standardisation: str) -> dict[str, Any]:
    """FedAvg of one of `MODELS`, on inputs that are scaled with the moments of federation `standardisation`."""
    plan = {
        "model": MODELS[name].document(),
        "rounds": rounds,
        "steps": STEPS,
        "learning_rate": str(LEARNING_RATE),
        "batch_size": None,
        "proximal": "0",
        "clipping_norm": CLIPPING_NORM,
        "weight_cap": WEIGHT_CAP,
        "weight_band": WEIGHT_BAND,
        "standardisation": standardisation,
    }
    return {**terms, "name": name, "kind": "training", "training": plan, "statistics": None}


def found(group: Party, client: AggregatorClient, config: dict[str, Any]) -> str:
    """Found a federation, wait until it is on chain, and return its id.

    Raises:
        ProtocolError: it failed, or is not on chain in time.
    """
    plan = FederationPlan(FederationConfig.parse(config))
    founded = plan.found(client, group.signer, load(LOCAL_CHAIN_ID))
    deadline = time.monotonic() + FOUNDING_TIMEOUT_S
    while founded.state == "founding" and time.monotonic() < deadline:
        time.sleep(POLL_S)
        founded = client.federation(founded.id)
    if founded.state in ("founding", "failed"):
        raise ProtocolError(f"the federation for {config['name']} is {founded.state} after {FOUNDING_TIMEOUT_S:.0f} s: {founded.reason}")
    return to_hex(founded.id)


def join(hospitals: Sequence[Hospital], *federations: str) -> None:
    """Let every hospital check federations and join them; their rounds then begin."""
    in_parallel([partial(hospital.rexis, "federation", "join", *federations, "--site", "site.toml") for hospital in hospitals])


def watch(
    client: AggregatorClient,
    federations: dict[str, str],
    hospitals: Sequence[Hospital],
    *,
    timeout_s: float,
    on_round: OnRound = lambda _name, _round, _total: None,
    drop_out: DropOut | None = None,
) -> dict[str, float]:
    """Wait until all federations (name → id) are finished, and return how many seconds each took.

    The agent that `drop_out` killed is started again when the aggregator has finished the round without it.

    Raises:
        ProtocolError: a federation failed; the message is the aggregator's reason.
        UnavailableError: an agent ended, or the time is up.
    """
    began, took = time.monotonic(), dict.fromkeys(federations, 0.0)
    while not all(took.values()):
        for name, federation in federations.items():
            if took[name]:
                continue
            seen = client.federation(from_hex(federation, 32))
            on_round(name, _rounds_done(seen), seen.rounds_total)
            if seen.state == "failed":
                raise ProtocolError(f"the federation for {name} failed in round {seen.round}: {seen.reason}")
            if seen.state == "finished":
                took[name] = time.monotonic() - began
            missed = None if drop_out is None or drop_out.federation != federation else drop_out.round
            if drop_out is not None and missed is not None and (seen.round > missed or seen.state == "finished"):
                drop_out.hospital.start_agent()
                drop_out = None
        for hospital in hospitals:
            hospital.require_agent()
        if time.monotonic() - began > timeout_s:
            raise UnavailableError(f"the federations {', '.join(federations)} did not end within {timeout_s:.0f} s")
        time.sleep(POLL_S)
    return took


def training_report(client: AggregatorClient, name: str, federation: str, seconds: float) -> dict[str, Any]:
    """A training federation as the report shows it: every attempt at every round."""
    rounds = []
    for record in client.rounds(from_hex(federation, 32)):
        transactions = {step: record.transactions.get(step) for step in ("opened", "fixed", "finalised")}
        rounds.append(
            {
                "round": record.round,
                "attempt": record.attempt,
                "state": record.state,
                "survivors": len(record.survivors),
                "loss": None if record.metrics is None else float(record.metrics["loss"]),
                "model": None if record.model is None else to_hex(record.model),
                **transactions,
            }
        )
    return {"name": name, "id": federation, "seconds": seconds, "rounds": rounds}


def plain_model(name: str, content: bytes) -> torch.nn.Module:
    """A global model file of one of `MODELS` as a torch module."""
    spec = MODELS[name]
    tensors = read_file(io.BytesIO(content), FileSpec.of_model("model", spec.digest(), spec.shapes, MODEL_DTYPE), len(content))
    model = build(spec, seed=0)
    model.load_state_dict({tensor: torch.from_numpy(values.copy()) for tensor, values in tensors.items()})
    return model


def _rounds_done(seen: Federation) -> int:
    return seen.rounds_total if seen.state == "finished" else max(0, seen.round - 1)
