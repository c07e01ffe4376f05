"""Encrypted training beside plaintext training: the same recipe, batches and start, step by step.

Differences are of the decrypted model against the plain one after the run: ‖ΔW‖_F / ‖W‖_F over the trained parameters, and
max|Δ| / max|y| of the logits. A third run, plain in fp64, is the control: how far plain fp32 is from it says what rounding alone does
to this recipe in so many steps. The throughput ratio is the median over steps of plain seconds by keyed seconds; who goes first alternates.
A family plugs in with a builder of a `Trial` for each suite.
"""

import copy
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from sklearn.datasets import load_breast_cancer
from torch import Tensor, nn
from torch.optim import Optimizer

from rexis import ee
from rexis.ee.keys import Suite
from rexis.models.builders import build
from rexis.models.spec import MLPConfig, ModelSpec
from rexis.training.encrypted import Batch, Inputs, Objective, Recipe, encrypt_batch, model_outputs, train_encrypted, training_step

RECIPES = {
    "sgd": Recipe("sgd", 0.02, {"momentum": 0.9, "weight_decay": 0.01}),
    "adam-per-tensor": Recipe("adam-per-tensor", 1e-3, {"weight_decay": 0.01}),
    "muon": Recipe("muon", 0.01),
    "adamw": Recipe("adamw", 1e-3, {"weight_decay": 0.01}),
}
# Every pair that `ee.optimizer` admits.
PAIRS: tuple[tuple[Suite, str], ...] = (
    ("dense", "sgd"),
    ("dense", "adam-per-tensor"),
    ("dense", "muon"),
    ("permutation", "sgd"),
    ("permutation", "adamw"),
    ("permutation", "adam-per-tensor"),
    ("permutation", "muon"),
)
STEPS = 100
BATCH = 32


@dataclass(frozen=True, eq=False)
class Trial:
    """What a family brings to a comparison.

    Attributes:
        plain: the canonical plain model, in the precision to be measured; trained in place.
        key: of mode "train".
        batches: plain; one step each.
        evaluation: plain inputs, on which the logits are compared.
        objective: with plain class weights, if any.
        keyed: the keyed model at the start; None keys `plain`. Given where more than the model is keyed, such as adapters.
        decrypted: the trained parameters of the keyed model after the run, decrypted, by the names of `plain`; None decrypts the model.
    """

    plain: nn.Module
    key: ee.Key
    batches: Sequence[Batch]
    evaluation: Inputs
    objective: Objective = field(default_factory=Objective)
    keyed: nn.Module | None = None
    decrypted: Callable[[nn.Module], Mapping[str, Tensor]] | None = None


def run_mlp(*, quick: bool) -> dict[str, dict[str, float]]:
    """`mlp_<suite>_<optimizer>` for every admitted pair."""
    return compare_family("mlp", mlp_trial, PAIRS[:5] if quick else PAIRS, RECIPES)


def compare_family(
    family: str, make_trial: Callable[[Suite], Trial], pairs: Iterable[tuple[Suite, str]], recipes: Mapping[str, Recipe]
) -> dict[str, dict[str, float]]:
    """Figures by `<family>_<suite>_<optimizer>`; each run starts from a fresh trial."""
    return {f"{family}_{suite}_{optimizer}": compare(make_trial(suite), recipes[optimizer]) for suite, optimizer in pairs}


def compare(trial: Trial, recipe: Recipe) -> dict[str, float]:
    """Train plain and keyed side by side.

    Returns:
        relative_weight_difference and relative_logit_difference, keyed against plain; plain_fp32_weight_difference and
        plain_fp32_logit_difference, plain against plain in fp64; steps; throughput_ratio.

    Raises:
        UnsupportedOptimizerError: the recipe does not commute with the key.
    """
    plain, key = trial.plain, trial.key
    exact = copy.deepcopy(plain).double()
    keyed = ee.encrypt_model(plain, key) if trial.keyed is None else trial.keyed
    recipe.admit(keyed, key)
    weights = trial.objective.class_weights
    keyed_weights = None if weights is None else ee.encrypt_class_weights(weights, key)
    runs = [
        (plain, recipe.build(plain), trial.objective, trial.batches),
        (
            keyed,
            recipe.build(keyed),
            Objective(trial.objective.kind, keyed_weights, trial.objective.label_smoothing),
            [encrypt_batch(batch, key) for batch in trial.batches],
        ),
    ]
    ratios = []
    for step in range(len(trial.batches)):
        seconds = [0.0, 0.0]
        for turn in (0, 1):
            which = (step + turn) % 2
            model, optimizer, objective, batches = runs[which]
            seconds[which] = _seconds(model, batches[step], recipe, optimizer, objective)
        ratios.append(seconds[0] / seconds[1])
    train_encrypted(exact, [in_double(batch) for batch in trial.batches], recipe, trial.objective)
    decrypted = dict(ee.decrypt_model(keyed, key).named_parameters()) if trial.decrypted is None else trial.decrypted(keyed)
    logits = _logits(plain, trial.evaluation)
    keyed_logits = ee.decrypt_outputs(_logits(keyed, encrypt_batch(Batch(trial.evaluation), key).inputs), key)
    return {
        "relative_weight_difference": _weight_difference(plain, decrypted),
        "relative_logit_difference": _logit_difference(logits, keyed_logits),
        "plain_fp32_weight_difference": _weight_difference(plain, dict(exact.named_parameters())),
        "plain_fp32_logit_difference": _logit_difference(logits, _logits(exact, in_double(Batch(trial.evaluation)).inputs)),
        "steps": len(trial.batches),
        "throughput_ratio": statistics.median(ratios),
    }


def mlp_trial(suite: Suite, dtype: torch.dtype = torch.float32) -> Trial:
    """30-64-64-2 on the breast cancer set, 100 batches of 32."""
    found = load_breast_cancer()
    rows, labels = torch.from_numpy(found.data), torch.from_numpy(found.target)
    rows = ((rows - rows.mean(dim=0)) / rows.std(dim=0)).to(dtype)
    model = build(ModelSpec(MLPConfig(30, (64, 64), 2)), seed=0, dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    chosen = [torch.randperm(len(rows), generator=generator)[:BATCH] for _ in range(STEPS)]
    key = ee.keygen(model, mode="train", suite=suite, knowledge="private", seed=bytes(32))
    return Trial(model, key, [Batch(rows[batch], labels[batch]) for batch in chosen], rows)


def _seconds(model: nn.Module, batch: Batch, recipe: Recipe, optimizer: Optimizer, objective: Objective) -> float:
    start = time.perf_counter()
    training_step(model, batch, recipe, optimizer, objective)
    return time.perf_counter() - start


def in_double(batch: Batch) -> Batch:
    """Its floats in fp64; ids, masks and classes as they are."""
    if isinstance(batch.inputs, Tensor):
        return Batch(batch.inputs.double() if batch.inputs.is_floating_point() else batch.inputs, batch.labels)
    return Batch({name: x.double() if x.is_floating_point() else x for name, x in batch.inputs.items()}, batch.labels)


def _weight_difference(plain: nn.Module, found: Mapping[str, Tensor]) -> float:
    trained = {name: parameter for name, parameter in plain.named_parameters() if parameter.requires_grad}
    apart = torch.stack([(found[name].double() - parameter.double()).detach().norm() for name, parameter in trained.items()]).norm()
    size = torch.stack([parameter.detach().double().norm() for parameter in trained.values()]).norm()
    return (apart / size).item()


@torch.no_grad()
def _logits(model: nn.Module, inputs: Inputs) -> Tensor:
    return model_outputs(model.eval(), inputs).double()


def _logit_difference(expected: Tensor, found: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()
