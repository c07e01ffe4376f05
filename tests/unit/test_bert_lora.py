"""LoRA on a frozen encoder: the sums of weights written out, what travels, and what the rounds average."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rexis.agent.federation.text_bases import TextBases
from rexis.encoding import to_hex
from rexis.errors import MalformedMessageError, UnexpectedMessageError
from rexis.models.builders import assemble, build
from rexis.models.modules.bert_lora import LoraClassifier, pooled
from rexis.models.spec import ModelSpec
from rexis.models.text import BertLoraConfig
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.federation_plans import TrainingPlan
from rexis.training.local import LocalSteps, train_local
from rexis.training.text_base import TextBase, read_base
from tests.unit.test_federation_config import CONFIG, PARTS
from tests.unit.test_text_base import FEATURES
from tests.unit.text_folders import save_text_folder

LORA = BertLoraConfig("0x" + 64 * "a", 24, 2, 3, ("query", "value", "output"), rank=4, alpha=8)
TEXTS = ["the patient has chest pain", "normal", "no stenosis after rest left artery narrow"] * 12


def attached(config: BertLoraConfig, base: TextBase) -> LoraClassifier:
    module = build(ModelSpec(config), seed=3)
    assert isinstance(module, LoraClassifier)
    module.attach(base.encoder)
    return module


def drawn(module: LoraClassifier) -> LoraClassifier:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    return module


def test_the_module_has_the_shapes_of_its_spec_and_nothing_of_the_encoder(tmp_path: Path) -> None:
    spec, base = ModelSpec(LORA), read_base(save_text_folder(tmp_path / "a"))
    assert ModelSpec.parse(spec.document()) == spec
    module = attached(LORA, base)
    assert [(name, tuple(parameter.shape)) for name, parameter in module.named_parameters()] == list(spec.shapes.items())
    assert set(module.state_dict()) == set(spec.shapes)
    ids = base.tokens(TEXTS, 12)
    # B is zero: at first it is the classifier on the plain encoder, in whatever parts the texts pass.
    with torch.no_grad():
        plain = module.classifier(pooled(base.encoder, ids, "mean"))
        torch.testing.assert_close(module(ids), plain, rtol=0, atol=1e-5)
    copy = assemble(spec, module.state_dict())
    with pytest.raises(ValueError, match="attach one"):
        copy(ids)


def test_factors_are_added_to_the_projections_and_the_shared_encoder_stays_as_it_is(tmp_path: Path) -> None:
    base = read_base(save_text_folder(tmp_path / "a"))
    before = {name: tensor.clone() for name, tensor in base.encoder.state_dict().items()}
    module, ids = drawn(attached(LORA, base)), base.tokens(TEXTS[:5], 12)
    found = module(ids)
    merged = read_base(tmp_path / "a").encoder
    places = {"query": "self.query", "value": "self.value", "output": "output.dense"}
    with torch.no_grad():
        for layer in range(2):
            for name, place in places.items():
                factors = module.get_submodule(f"layer.{layer}.{name}")
                weight = merged.get_submodule(f"encoder.layer.{layer}.attention.{place}").get_parameter("weight")
                weight.add_(8 / 4 * factors.get_parameter("B") @ factors.get_parameter("A"))
        expected = module.classifier(pooled(merged, ids, "mean"))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert (found - module.classifier(pooled(base.encoder, ids, "mean"))).abs().max() > 0.01
    train_local(module, ids, torch.tensor([0, 1, 2, 0, 1]), LocalSteps(3, 0.5, batch_size=2), seed=0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.encoder.state_dict().items())
    assert not any(each._forward_hooks for each in base.encoder.modules())


def test_averaging_factors_is_not_averaging_their_products_unless_one_of_them_is_frozen(tmp_path: Path) -> None:
    base = read_base(save_text_folder(tmp_path / "a"))
    ids, labels = base.tokens(TEXTS, 12), torch.arange(36) % 3
    for config in (LORA, replace(LORA, freeze_a=True)):
        factors = []
        for part in (slice(0, 18), slice(18, 36)):
            module = attached(config, base)
            start = module.get_parameter("layer.0.query.A").detach().clone()
            train_local(module, ids[part], labels[part] * (part.start > 0), LocalSteps(8, 2.0, batch_size=9), seed=0)
            pair = [module.get_parameter(f"layer.0.query.{name}").detach() for name in "AB"]
            assert torch.equal(pair[0], start) == config.freeze_a
            factors.append(pair)
        (first, second) = factors
        of_products = (first[1] @ first[0] + second[1] @ second[0]) / 2
        of_means = (first[1] + second[1]) / 2 @ (first[0] + second[0]) / 2
        error = ((of_products - of_means).norm() / of_products.norm()).item()
        assert error < 1e-5 if config.freeze_a else error > 1e-3


def document(**changes: Any) -> dict[str, Any]:
    return {**ModelSpec(LORA).document(), "config": {**ModelSpec(LORA).document()["config"], **changes}}


def config_of(model: dict[str, Any], **changes: Any) -> FederationConfig:
    plan = {**CONFIG["training"], "model": model, "standardisation": None, "batch_size": 8}
    protection = {"protection": "secagg+dp"} if "privacy" in changes else {}
    return FederationConfig.parse({**CONFIG, "features": FEATURES, "training": {**plan, **changes}, **protection})


def test_frozen_factors_do_not_travel() -> None:
    whole, frozen = (config_of(document(**change)).training for change in ({}, {"freeze_a": True}))
    assert whole is not None
    assert frozen is not None
    assert whole.parameters == 6 * 2 * 4 * 24 + 75
    assert frozen.parameters == 6 * 4 * 24 + 75
    assert TrainingPlan.parse(frozen.document()) == frozen


@pytest.mark.parametrize(
    "change",
    [
        {"projections": []},
        {"projections": "query"},
        {"projections": ["value", "query"]},
        {"projections": ["query", "query"]},
        {"projections": ["dense"]},
        {"rank": 0},
        {"rank": 25},
        {"alpha": 0},
        {"alpha": 1.5},
        {"layers": 10_000},
        {"layers": 256, "hidden": 1 << 16, "rank": 256},
        {"freeze_a": 1},
        {"freeze_a": False},
        {"base": "here"},
        {"bias": True},
    ],
)
def test_hostile_configs_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessageError):
        ModelSpec.parse(document(**change))


def test_what_is_not_built_for_it_is_refused_with_the_reason(tmp_path: Path) -> None:
    for size in (None, 257):
        with pytest.raises(MalformedMessageError, match="batch_size of 1 to 256"):
            config_of(document(), batch_size=size)
    with pytest.raises(MalformedMessageError, match="bert-lora: privacy does not go with dp-sgd"):
        config_of(document(), privacy=PARTS["privacy"])
    with pytest.raises(MalformedMessageError, match="kind text"):
        FederationConfig.parse({**CONFIG, "training": {**CONFIG["training"], "model": document(), "batch_size": 8}})
    folder = save_text_folder(tmp_path / "a")
    digest = to_hex(read_base(folder).digest)
    TextBases([folder]).check(config_of(document(base=digest)))
    with pytest.raises(UnexpectedMessageError, match="has 2"):
        TextBases([folder]).check(config_of(document(base=digest, layers=3)))
