"""A frozen encoder as the base of text classifiers: what its digest binds, what a text becomes, and what is refused."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from rexis.agent.federation.text_bases import TextBases
from rexis.cli.command import app
from rexis.commitments import tensor_digest
from rexis.encoding import to_hex
from rexis.errors import ConfigurationError, MalformedMessageError, UnexpectedMessageError, UnsupportedLayerError
from rexis.models.builders import build
from rexis.models.features import FeatureSpec
from rexis.models.spec import ModelSpec
from rexis.models.text import BertHeadConfig
from rexis.protocol.federation_config import FederationConfig
from rexis.training.text_base import read_base
from tests.unit.test_federation_config import CONFIG, STATISTICS
from tests.unit.text_folders import ENCODER, save_text_folder

FEATURES: dict[str, Any] = {
    "version": 1,
    "inputs": [{"column": "report", "kind": "text", "length": 6}],
    "target": {"column": "finding", "levels": ["none", "mild", "severe"]},
}
TEXTS = ["the patient has chest pain", "normal", "", "no stenosis after rest left artery narrow"]


def head(digest: bytes, **changes: Any) -> dict[str, Any]:
    config = {"base": to_hex(digest), "hidden": 24, "outputs": 3, "pooling": "mean"} | changes
    return {"version": 1, "family": "bert-head", "config": config}


def config_of(base: bytes, features: dict[str, Any] = FEATURES, **changes: Any) -> FederationConfig:
    plan = {**CONFIG["training"], "model": head(base, **changes), "standardisation": None}
    return FederationConfig.parse({**CONFIG, "features": features, "training": plan})


def test_a_digest_is_that_of_encoder_and_tokenizer_whatever_else_lies_in_the_folder(tmp_path: Path) -> None:
    base = read_base(save_text_folder(tmp_path / "a"))
    parts = {
        "model": "0x" + ModelSpec(base.config).digest().hex(),
        "tensors": ["0x" + tensor_digest(base.encoder.state_dict()[name]).hex() for name in base.config.shapes],
        "tokenizer": "0x" + hashlib.sha256((tmp_path / "a" / "tokenizer.json").read_bytes()).hexdigest(),
    }
    canonical = json.dumps(parts, separators=(",", ":"), sort_keys=True).encode()
    assert base.digest == hashlib.sha256(b"rexis/text-base/1\0" + canonical).digest()
    again = save_text_folder(tmp_path / "b")
    (again / "README.md").write_text("another")
    weights = load_file(again / "model.safetensors")
    names = sorted(weights)
    for file, held in (("1.safetensors", names[::2]), ("2.safetensors", names[1::2])):
        save_file({name: weights[name] for name in held}, again / file)
    places = {name: f"{1 + place % 2}.safetensors" for place, name in enumerate(names)}
    (again / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert read_base(again).digest == base.digest
    weights[names[0]][0] += 0.001
    save_file({name: weights[name] for name in names[::2]}, again / "1.safetensors")
    other = read_base(save_text_folder(tmp_path / "c"))
    assert other.digest == base.digest
    words = (tmp_path / "c" / "tokenizer.json").read_text()
    (tmp_path / "c" / "tokenizer.json").write_text(words.replace('"mild"', '"gentle"'))
    assert len({base.digest, read_base(again).digest, read_base(tmp_path / "c").digest}) == 3
    assert not any(parameter.requires_grad for parameter in base.encoder.parameters())
    assert not base.encoder.training


@pytest.mark.parametrize("pooling", ["mean", "pooler"])
def test_a_text_becomes_one_vector_whatever_stands_beside_it(tmp_path: Path, pooling: Any) -> None:
    base = read_base(save_text_folder(tmp_path / "a"))
    ids = base.tokens(TEXTS, 6)
    assert ids.tolist() == [[1, 4, 5, 6, 7, 2], [1, 13, 2, -1, -1, -1], [1, 2, -1, -1, -1, -1], [1, 9, 10, 18, 15, 2]]
    together = base.embed(ids, pooling)
    assert together.shape == (4, 24)
    for row, each in zip(together, ids, strict=True):
        alone = each[each >= 0]
        with torch.no_grad():
            found = base.encoder(input_ids=alone[None])
        expected = found.pooler_output[0] if pooling == "pooler" else torch.nn.functional.normalize(found.last_hidden_state.mean(dim=1))[0]
        torch.testing.assert_close(row, expected, rtol=0, atol=1e-5)
    assert (together[0] - together[1]).norm() > 0.1


def test_a_text_without_a_token_is_a_vector_too(tmp_path: Path) -> None:
    folder = save_text_folder(tmp_path / "a")
    document = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**document, "post_processor": None}))
    base = read_base(folder)
    ids = base.tokens(["", "normal clear"], 6)
    assert ids.tolist() == [[-1, -1], [13, 14]]
    assert torch.isfinite(base.embed(ids, "mean")).all()
    assert torch.isfinite(base.embed(base.tokens(["", ""], 6), "pooler")).all()


def test_a_folder_that_holds_no_base_is_refused(tmp_path: Path) -> None:
    folder = save_text_folder(tmp_path / "a")
    words = (folder / "tokenizer.json").read_bytes()
    for content in (b"{}", b"\xff", b"[" * 5000):
        (folder / "tokenizer.json").write_bytes(content)
        with pytest.raises(MalformedMessageError, match="not a tokenizer"):
            read_base(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(MalformedMessageError, match=r"folder with tokenizer\.json"):
        read_base(folder)
    small = save_text_folder(tmp_path / "b", config=replace(ENCODER, vocabulary=10))
    (small / "tokenizer.json").write_bytes(words)
    with pytest.raises(MalformedMessageError, match="no embedding"):
        read_base(small).tokens(["severe"], 6)
    with pytest.raises(MalformedMessageError, match="at most 16 tokens"):
        read_base(small).tokens(["the"], 17)
    with pytest.raises(UnsupportedLayerError, match="without a classifier"):
        read_base(save_text_folder(tmp_path / "c", config=replace(ENCODER, outputs=2)))


def test_only_the_base_of_the_plan_is_trained_on(tmp_path: Path) -> None:
    first, second = (save_text_folder(tmp_path / f"{seed}", seed=seed) for seed in (1, 2))
    digest = read_base(second).digest
    config = config_of(digest)
    rows = config.features.encode(["report", "finding"], [[text, "mild"] for text in TEXTS])
    made = TextBases([first, second]).rows(config, rows)
    torch.testing.assert_close(torch.from_numpy(made.inputs).float(), read_base(second).embed(read_base(second).tokens(TEXTS, 6), "mean"))
    assert made.labels.tolist() == [1, 1, 1, 1]
    for folders in ((), (first,)):
        with pytest.raises(ConfigurationError, match=to_hex(digest)):
            TextBases(folders).check(config)
    with pytest.raises(UnexpectedMessageError, match="width 25"):
        TextBases([second]).check(config_of(digest, hidden=25))
    without = save_text_folder(tmp_path / "3", config=replace(ENCODER, pooler=False))
    bare = read_base(without).digest
    TextBases([without]).check(config_of(bare))
    with pytest.raises(UnexpectedMessageError, match="lacks a pooler"):
        TextBases([without]).check(config_of(bare, pooling="pooler"))
    long = {**FEATURES, "inputs": [{**FEATURES["inputs"][0], "length": 17}]}
    with pytest.raises(UnexpectedMessageError, match="at most 16 tokens"):
        TextBases([second]).check(config_of(digest, features=long))
    # A federation of rows asks for nothing.
    TextBases().check(FederationConfig.parse(CONFIG))


def test_the_command_prints_what_a_plan_names(tmp_path: Path) -> None:
    folder = save_text_folder(tmp_path / "a")
    printed = CliRunner().invoke(app, ["federation", "base", str(folder), "--json"])
    assert json.loads(printed.stdout) == {"base": to_hex(read_base(folder).digest), "hidden": 24, "positions": 16}
    (folder / "tokenizer.json").unlink()
    refused = CliRunner().invoke(app, ["federation", "base", str(folder), "--json"])
    assert refused.exit_code != 0
    assert "tokenizer.json" in refused.output


def test_a_head_is_a_linear_layer_of_its_own() -> None:
    config = BertHeadConfig("0x" + 64 * "a", 24, 3)
    spec = ModelSpec(config)
    assert ModelSpec.parse(spec.document()) == spec
    assert {name: tuple(tensor.shape) for name, tensor in build(spec, seed=0).state_dict().items()} == spec.shapes
    others = [replace(config, base="0x" + 64 * "b"), replace(config, pooling="pooler")]
    assert len({spec.digest(), *(ModelSpec(other).digest() for other in others)}) == 3
    for change in (
        {"base": "0x12"},
        {"base": "0x" + 64 * "A"},
        {"base": 7},
        {"hidden": 0},
        {"outputs": 1 << 13},
        {"pooling": "max"},
        {"x": 1},
    ):
        with pytest.raises(MalformedMessageError):
            ModelSpec.parse(head(bytes(32), **change))


def test_texts_and_their_models_go_together_only() -> None:
    config = config_of(bytes(32))
    assert config.features.document() == FEATURES
    assert config.length == 24 * 3 + 3 + 2
    with pytest.raises(MalformedMessageError, match="kind text"):
        config_of(bytes(32), features=CONFIG["features"])
    with pytest.raises(MalformedMessageError, match="kind text"):
        FederationConfig.parse({**CONFIG, "features": FEATURES})
    with pytest.raises(MalformedMessageError, match="kind text"):
        FederationConfig.parse({**STATISTICS, "features": FEATURES})
    with pytest.raises(MalformedMessageError, match="3 outputs"):
        config_of(bytes(32), outputs=2)
    with pytest.raises(MalformedMessageError, match="family cox"):
        config_of(bytes(32), features={**FEATURES, "target": {"time": "t", "event": "e"}})
    with pytest.raises(MalformedMessageError, match="standardisation: expected null"):
        FederationConfig.parse({**CONFIG, "features": FEATURES, "training": {**CONFIG["training"], "model": head(bytes(32))}})
    for inputs in (
        [*FEATURES["inputs"], {"column": "age", "kind": "number"}],
        [{"column": "report", "kind": "text", "length": 2}],
        [{"column": "report", "kind": "text", "length": 5000}],
        [{"column": "report", "kind": "text"}],
    ):
        with pytest.raises(MalformedMessageError, match="features:"):
            FeatureSpec.parse({**FEATURES, "inputs": inputs})
    with pytest.raises(MalformedMessageError, match="at most 100000 characters") as refused:
        config.features.encode(["report", "finding"], [["secret " * 20_000, "mild"]])
    assert "secret" not in str(refused.value)
