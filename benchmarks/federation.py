"""Heart disease at four real hospitals: federated averaging beside pooled training and each hospital alone (`specs/data.md`, section 2).

`flamby`: FLamby's split, 10 rounds of 5 steps, through the code that agents and the aggregator run: features, moments by a secure sum,
`training_vector`, fixed point, masks, shares and the opened sum. Only network, database and chain are left out; nobody drops out.
`repeated_cv`: 5 folds stratified by hospital and diagnosis, repeated; the same vectors in the same fixed point, added without masks, which
cancel exactly (`tests/properties/test_secagg_protocol.py`). Baselines get inputs that are scaled as the federation's are.
`private`: what DP-SGD by patient costs in AUC (`benchmarks.private_federation`). `icd10`: a head on a frozen encoder, federated and pooled
(`benchmarks.federated_texts`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import nn

from examples.heart.experimenter import Experiment, feature_spec
from examples.heart.federations import STEPS, plain_model, statistics_config, training_config
from examples.heart.hospitals import COUNTS, hospital_rows
from examples.heart.split import read_split, split_rows
from examples.heart.training import LOGISTIC
from rexis.agent.federation.contribution import prepare_rows, read_model, training_vector
from rexis.agent.federation.counting import statistic_vector
from rexis.agent.federation.founding import FederationPlan
from rexis.agent.table import Table
from rexis.chain.signer import LOCAL_CHAIN_ID, LocalSigner
from rexis.encoding import checksum_address, to_hex
from rexis.models.features import Features
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.manifest import Deadlines, Manifest
from rexis.protocol.secagg_messages import Envelope
from rexis.secagg import Coordinator, Participant
from rexis.secagg.history import AttemptRecord
from rexis.secagg.masks import RingVector
from rexis.secagg.server_steps import server_step
from rexis.secagg.statistics.moments import Moments, decode_moments
from rexis.secagg.terms import RoundTerms
from rexis.secagg.thresholds import Thresholds
from rexis.training.evaluation import auc
from services.aggregator.global_models import written

ROUNDS, FOLDS = 10, 5
REPEATS, QUICK_REPEATS = 10, 2
SEEDS, QUICK_SEEDS = 20, 4
QUICK_TEXTS = 1500
REGISTRY = checksum_address("0x" + 40 * "1")
PUBLISHED = {
    "pooled_accuracy": 0.7953,
    "fedavg_accuracy": 0.7480,
    "fedadam_accuracy": 0.7787,
    "best_federated_accuracy": 0.7850,
    "source": "owkin/FLamby, results_benchmark_fed_heart_disease, seeds 42 to 46, FLamby's split, inputs scaled per hospital; best: cyclic",
}

# Manifest of a round, and the vectors of those who take part → their sum.
Sum = Callable[[FederationConfig, Manifest, Sequence[RingVector]], RingVector]
Change = Callable[[dict[str, Any]], dict[str, Any]]


def flamby() -> dict[str, Any]:
    """The federated and the pooled model on FLamby's 254 test patients."""
    split, consortium = read_split(), Consortium()
    tables = {hospital: table_of(*split_rows(hospital, split)[:2]) for hospital in COUNTS}
    moments, model = consortium.train(tables, consortium.secure_sum)
    experiment = Experiment(list(moments.mean), list(moments.sd))
    federated, (pooled, *alone) = experiment.score("federated", model, steps=ROUNDS * STEPS), experiment.baselines()
    return {
        "accuracy": federated.accuracy,
        "auc": federated.auc,
        "auc_interval_95": [federated.low, federated.high],
        "pooled_accuracy": pooled.accuracy,
        "pooled_auc": pooled.auc,
        "site_auc": {score.name: score.auc for score in alone},
        "rounds": ROUNDS,
        "local_steps": STEPS,
        "masked_sums": consortium.sums,
    }


def repeated_cv(repeats: int) -> dict[str, Any]:
    """Mean AUC over all folds on the held-out patients of all hospitals; `federated_minus_pooled` is paired by fold."""
    found: dict[str, list[float]] = {name: [] for name in ("federated", "pooled", *COUNTS)}
    rows = {hospital: hospital_rows(hospital) for hospital in COUNTS}
    for repeat in range(repeats):
        fold_of = _folds(rows, repeat)
        for fold in range(FOLDS):
            train, test = (
                {
                    hospital: table_of(columns, _chosen(lines, (fold_of[hospital] == fold) == held))
                    for hospital, (columns, lines) in rows.items()
                }
                for held in (False, True)
            )
            for name, value in _scores(train, test).items():
                found[name].append(value)
    differences = np.subtract(found["federated"], found["pooled"])
    return {
        "federated_auc": float(np.mean(found["federated"])),
        "pooled_auc": float(np.mean(found["pooled"])),
        "federated_minus_pooled": float(differences.mean()),
        "federated_minus_pooled_sd": float(differences.std(ddof=1)),
        "site_auc": {hospital: float(np.mean(found[hospital])) for hospital in COUNTS},
        "folds": FOLDS,
        "repeats": repeats,
    }


@dataclass
class Consortium:
    """Four institutions with keys of their own and what each remembers of earlier rounds; `sums` counts what was opened."""

    signers: list[LocalSigner] = field(
        default_factory=lambda: sorted((LocalSigner.generate() for _ in COUNTS), key=lambda signer: signer.address.lower())
    )
    history: dict[str, list[AttemptRecord]] = field(default_factory=dict)
    sums: int = 0

    def train(self, tables: Mapping[str, Table], add: Sum, change: Change = dict) -> tuple[Moments, nn.Module]:
        """The demo's federation over these tables, one for each institution: shared moments, then `ROUNDS` rounds.

        Args:
            add: makes the sum of a round.
            change: of the training federation's document.

        Returns:
            The moments that inputs are scaled with, and the last global model.
        """
        terms = {
            **{"version": 1, "founder": self.signers[0].address, "aggregators": [self.signers[0].address], "quorum": 1},
            **{"collusion_bound": 1, "threshold": 3, "min_survivors": 3, "purpose": 6, "stage_s": 60},
            "features": feature_spec().document(),
            "members": [{"address": signer.address, "dataset": number} for number, signer in enumerate(self.signers, start=1)],
        }
        config = FederationConfig.parse(statistics_config(terms))
        federation = config.id(LOCAL_CHAIN_ID, REGISTRY)
        manifest = manifest_of(config, federation, 1, config.statistic_digest)
        vectors = [statistic_vector(config, table) for table in tables.values()]
        moments = decode_moments(config, add(config, manifest, vectors))

        config = FederationConfig.parse(change(training_config(terms, LOGISTIC, rounds=ROUNDS, standardisation=to_hex(federation))))
        if config.training is None:
            raise ValueError("expected a plan for training")
        rows = [prepare_rows(config, table, moments) for table in tables.values()]
        start = FederationPlan(config)
        content, record = start.initial, start.model
        for number in range(1, ROUNDS + 1):
            manifest = manifest_of(config, config.id(LOCAL_CHAIN_ID, REGISTRY), number, record)
            base = read_model(config.training, content, record)
            vectors = [training_vector(config, manifest, base, each) for each in rows]
            step = server_step(config, base, b"", [add(config, manifest, vectors)])
            file = written(step.tensors, config.training.model)
            content, record = file.content, file.record
        return moments, plain_model(LOGISTIC, content)

    def secure_sum(self, config: FederationConfig, manifest: Manifest, vectors: Sequence[RingVector]) -> RingVector:
        """The sum of a round in which everybody is present, by the protocol; messages pass as bytes."""
        terms = RoundTerms(
            LOCAL_CHAIN_ID,
            REGISTRY,
            manifest.federation,
            manifest.round,
            manifest.attempt,
            manifest.digest,
            manifest.base_model,
            config.roster,
            Thresholds(len(config.members), config.collusion_bound, config.threshold, config.min_survivors),
            config.length,
            config.ring_bits,
        )
        coordinator = Coordinator(terms)
        people = [Participant(terms, signer, earlier=self.history.get(signer.address, ())) for signer in self.signers]
        _send(coordinator, (each.announce_keys() for each in people))
        keys = _carried(coordinator.close_keys())
        _send(coordinator, (each.share(keys) for each in people))
        shares, uploads = _carried(coordinator.close_shares()), {}
        for each, signer, vector in zip(people, self.signers, vectors, strict=True):
            each.open_shares(shares)
            masked = vector.copy()
            each.mask(masked)
            uploads[signer.address] = masked.tobytes()
            _send(coordinator, [each.announce_masked(f"upload-{signer.address.lower()}")])
        announced = _carried(coordinator.close_masked())
        _send(coordinator, (each.consent(announced) for each in people))
        consents = _carried(coordinator.close_survivors())
        _send(coordinator, (each.unmask(consents) for each in people))
        (masked_sum,) = coordinator.masked_sums()
        for address in masked_sum.missing:
            masked_sum.add(address, [uploads[address]])
        (total,) = coordinator.unmask([masked_sum])
        for each, signer in zip(people, self.signers, strict=True):
            self.history.setdefault(signer.address, []).append(each.record())
        self.sums += 1
        return total


def plain_sum(_config: FederationConfig, _manifest: Manifest, vectors: Sequence[RingVector]) -> RingVector:
    """The same sum without masks."""
    total = np.zeros_like(vectors[0])
    for vector in vectors:
        total += vector
    return total


def _scores(train: Mapping[str, Table], test: Mapping[str, Table]) -> dict[str, float]:
    """AUC of each way of training on the held-out rows of all hospitals."""
    moments, model = Consortium().train(train, plain_sum)
    encoded = {hospital: _standardised(table, moments) for hospital, table in train.items()}
    held = [_standardised(table, moments) for table in test.values()]
    inputs, labels = np.concatenate([each.inputs for each in held]), np.concatenate([each.labels for each in held])
    pooled = Features(
        np.concatenate([each.inputs for each in encoded.values()]), np.concatenate([each.labels for each in encoded.values()])
    )
    with torch.no_grad():
        scores = {"federated": _auc(model(torch.from_numpy(inputs.astype(np.float32))).squeeze(-1).double().numpy(), labels)}
    for name, rows in {"pooled": pooled, **encoded}.items():
        scores[name] = _auc(_regression(rows, inputs), labels)
    return scores


def _regression(rows: Features, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Margins of a converged logistic regression (C = 1); a constant where a hospital's fold has one class."""
    if len(set(rows.labels.tolist())) < 2:
        return np.zeros(len(inputs))
    margins: NDArray[np.float64] = LogisticRegression(C=1.0, max_iter=1000).fit(rows.inputs, rows.labels).decision_function(inputs)
    return margins


def _auc(margins: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    found = auc(margins, labels)
    if found is None:
        raise ValueError("expected both classes among the held-out rows")
    return found


def _folds(rows: Mapping[str, tuple[list[str], list[list[str]]]], seed: int) -> dict[str, NDArray[np.int64]]:
    """Fold of each row by hospital: each hospital's diseased and healthy patients are dealt out evenly, from a random fold on."""
    generator, fold_of = np.random.default_rng(seed), {}
    for hospital, (columns, lines) in rows.items():
        diseased = np.array([int(line[columns.index("num")]) > 0 for line in lines])
        fold_of[hospital] = np.empty(len(lines), dtype=np.int64)
        for stratum in (False, True):
            order = generator.permutation(np.flatnonzero(diseased == stratum))
            fold_of[hospital][order] = (np.arange(len(order)) + generator.integers(FOLDS)) % FOLDS
    return fold_of


def _standardised(table: Table, moments: Moments) -> Features:
    features = feature_spec().encode(table.columns, table.rows)
    return Features(moments.standardise(features.inputs), features.labels)


def table_of(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Rows as an agent holds them."""
    return Table(tuple(columns), tuple(tuple(row) for row in rows))


def _chosen(rows: Sequence[Sequence[str]], wanted: NDArray[np.bool_]) -> list[Sequence[str]]:
    return [rows[index] for index in np.flatnonzero(wanted)]


def manifest_of(config: FederationConfig, federation: bytes, number: int, base_model: bytes) -> Manifest:
    """Manifest of the first attempt at a round."""
    deadlines = Deadlines.after(0, config.stage_s)
    return Manifest.of(config, federation=federation, round_number=number, attempt=1, base_model=base_model, deadlines=deadlines)


def _send(coordinator: Coordinator, messages: Any) -> None:
    for message in messages:
        coordinator.receive(Envelope.parse(message.to_bytes()))


def _carried(messages: Sequence[Envelope]) -> list[Envelope]:
    return [Envelope.parse(message.to_bytes()) for message in messages]


def _flamby(*, quick: bool) -> dict[str, Any]:
    # One run is all there is of it.
    del quick
    return {"flamby": flamby(), "published": PUBLISHED}


def _repeated_cv(*, quick: bool) -> dict[str, Any]:
    return {"repeated_cv": repeated_cv(QUICK_REPEATS if quick else REPEATS)}


def _private(*, quick: bool) -> dict[str, Any]:
    from benchmarks.private_federation import accuracy_by_epsilon

    return accuracy_by_epsilon(QUICK_SEEDS if quick else SEEDS)


def _icd10(*, quick: bool) -> dict[str, Any]:
    from benchmarks.federated_texts import chapters

    return chapters(QUICK_TEXTS if quick else None)


PARTS = {"flamby": _flamby, "repeated_cv": _repeated_cv, "private": _private, "icd10": _icd10}
