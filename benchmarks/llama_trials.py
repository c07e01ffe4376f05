"""Encrypted fine-tuning of a Llama beside plaintext fine-tuning, over texts of diagnoses: in full on a small one, LoRA on SmolLM2-135M.

The small one has 2 layers of width 64, 4 query heads on 2 of keys and values, and private random weights; it reads bytes. Adapters sit
on every attention projection and belong to the canonical model.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.icd10 import chapter_task
from benchmarks.llama_models import load
from benchmarks.training_runs import RECIPES, Trial, compare, compare_family
from rexis import ee
from rexis.ee.adapters import decrypt_adapters, encrypt_adapters
from rexis.ee.keys import Suite
from rexis.models.builders import build
from rexis.models.llama import LlamaConfig
from rexis.models.spec import ModelSpec
from rexis.training.encrypted import Batch, Objective, Recipe

SMALL = LlamaConfig(256, 64, 2, 4, 2, 16, 172, 512, "10000.0", "1e-05")
BATCH, LENGTH = 4, 32
LORA_BATCH, LORA_LENGTH = 2, 12
RANK = 8
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj"]

# Rates at which adapters of a trained base learn. At those of `RECIPES` the loss climbs from 7.6 to 12, in the plain and in the keyed run,
# and two runs that differ in their rounding end anywhere; so they do by Muon at 1e-3, whose adapters become as large as the base.
LORA_RECIPES = {
    "sgd": Recipe("sgd", 2e-3, {"momentum": 0.9, "weight_decay": 0.01}, clipping_norm=1.0),
    "adam-per-tensor": Recipe("adam-per-tensor", 1e-4, {"weight_decay": 0.01}),
    "muon": Recipe("muon", 3e-5),
}

PAIRS: tuple[tuple[Suite, str], ...] = (("dense", "sgd"), ("dense", "adam-per-tensor"), ("dense", "muon"), ("permutation", "adamw"))


def run(*, quick: bool) -> dict[str, dict[str, float]]:
    """`llama_<suite>_<optimizer>`, all weights of the small one."""
    return compare_family("llama", lambda suite: small_trial(suite, steps=10 if quick else 100), PAIRS, RECIPES)


def run_lora(*, quick: bool) -> dict[str, dict[str, float]]:
    """`smollm2-lora_dense_<optimizer>`."""
    base, tokenizer = load()
    chosen, steps = (["sgd"], 5) if quick else (["sgd", "adam-per-tensor", "muon"], 100)
    return {f"smollm2-lora_dense_{name}": compare(lora_trial(base, tokenizer, "dense", steps=steps), LORA_RECIPES[name]) for name in chosen}


def small_trial(suite: Suite, *, steps: int) -> Trial:
    """All weights of the small Llama on the bytes of diagnoses, fp32."""
    model = ee.canonical_model(build(ModelSpec(SMALL), seed=0))
    key = ee.keygen(model, mode="train", suite=suite, knowledge="private", seed=bytes(32))
    text = "\n".join(chapter_task().texts).encode()
    rows = torch.tensor([list(text[at * LENGTH : (at + 1) * LENGTH]) for at in range(BATCH * (steps + 1))])
    return Trial(model, key, batches(rows[:-BATCH], BATCH), {"input_ids": rows[-BATCH:]}, Objective("causal"))


def lora_trial(base: nn.Module, tokenizer: Any, suite: Suite, *, steps: int) -> Trial:
    """Adapters of a published Llama on tokens of diagnoses, fp32: peft on the plain canonical model, and on the keyed one.

    Args:
        base: the plain model.
    """
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    key = ee.keygen(base, mode="train", suite=suite, knowledge="public", accept_known_base_risk=True, seed=bytes(32))
    settings = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=PROJECTIONS, lora_dropout=0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain: nn.Module = get_peft_model(ee.canonical_model(base), settings)
        keyed: nn.Module = get_peft_model(ee.encrypt_model(base, key), copy.deepcopy(settings))
    set_peft_model_state_dict(keyed, encrypt_adapters(get_peft_model_state_dict(plain), key))

    def decrypted(trained: nn.Module) -> Mapping[str, Tensor]:
        found = decrypt_adapters(get_peft_model_state_dict(trained), key)
        return {name: found[name.replace(".default.", ".")] for name, each in plain.named_parameters() if each.requires_grad}

    ids = tokenizer("\n".join(chapter_task().texts[: 2 * steps + 100]))["input_ids"]
    rows = torch.tensor(ids[: LORA_LENGTH * LORA_BATCH * (steps + 1)]).reshape(-1, LORA_LENGTH)
    evaluation = {"input_ids": rows[-LORA_BATCH:]}
    return Trial(plain, key, batches(rows[:-LORA_BATCH], LORA_BATCH), evaluation, Objective("causal"), keyed, decrypted)


def batches(rows: Tensor, size: int) -> list[Batch]:
    """Rows of ids [n, s], each predicted from those before it, in batches."""
    return [Batch({"input_ids": part}, part) for part in rows.split(size)]
