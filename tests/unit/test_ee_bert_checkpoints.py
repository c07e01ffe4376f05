"""A BERT folder keyed tensor by tensor: the tensors that the module has, from the layout of BioBERT to one that the stock class loads."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertForSequenceClassification, BertModel

from rexis import ee
from rexis.ee.checkpoints import decrypt_checkpoint, describe_checkpoint, encrypt_checkpoint, keygen_checkpoint
from rexis.errors import KeyFileError, MalformedMessageError
from rexis.models import pretrained
from rexis.models.bert import BertConfig
from rexis.models.folders import open_folder
from rexis.models.modules import bert
from rexis.models.spec import ModelSpec

ENCODER = BertConfig(vocabulary=40, positions=12, hidden=16, layers=2, heads=4, intermediate=24, outputs=0)
CLASSIFIER = replace(ENCODER, outputs=3, affine=False)
IDS = torch.tensor([[2, 17, 9, 3, 0], [2, 5, 39, 8, 3]])
MASK = (IDS != 0).long()
SEED = bytes(range(32))


def stored(config: BertConfig) -> dict[str, Tensor]:
    """As BioBERT stores a model: prefix, old names of gain and bias, the heads of pre-training beside it."""
    generator = torch.Generator().manual_seed(1)
    tensors = {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in config.shapes.items()} | bert.stored_beside(config)
    old = {"weight": "gamma", "bias": "beta"}
    renamed = {
        f"{name.rpartition('.')[0]}.{old[name.rpartition('.')[2]]}" if "LayerNorm" in name else name: value
        for name, value in tensors.items()
    }
    prefixed = {name if name.startswith(("bert.", "classifier.")) else f"bert.{name}": value for name, value in renamed.items()}
    return prefixed | {"cls.predictions.bias": torch.zeros(40), "bert.embeddings.position_ids": torch.arange(12)}


def save_folder(folder: Path, config: BertConfig) -> Path:
    folder.mkdir()
    names = {"_name_or_path": "hospital/secret-base", "id2label": {"0": "sepsis", "1": "b", "2": "c"}, "eos_token_id": 3}
    settings = {**bert.library_config(config).to_dict(), **names}
    # Older configs name no padding id, which then is 0.
    del settings["pad_token_id"]
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 3, "_from_model_config": True}))
    (folder / "vocab.txt").write_text("[PAD]\n")
    tensors = stored(config)
    halves = {"a.safetensors": dict(list(tensors.items())[::2]), "b.safetensors": dict(list(tensors.items())[1::2])}
    for name, held in halves.items():
        save_file(held, folder / name)
    places = {name: file for file, held in halves.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


@torch.no_grad()
def answers(model: Any, ids: Tensor) -> Tensor:
    found: Tensor = model.double().eval()(ids, attention_mask=MASK)[0]
    return found


@pytest.mark.parametrize(("config", "suite"), [(ENCODER, "permutation"), (CLASSIFIER, "permutation"), (CLASSIFIER, "dense")])
def test_a_keyed_folder_holds_the_keyed_model_and_goes_back(config: BertConfig, suite: ee.keys.Suite, tmp_path: Path) -> None:
    plain, keyed, back = (tmp_path / name for name in ("plain", "keyed", "back"))
    save_folder(plain, config)
    assert describe_checkpoint(plain) == ModelSpec(config)
    model, seen = pretrained.read_model(plain), list[tuple[int, int]]()
    key = keygen_checkpoint(plain, suite=suite, knowledge="private", seed=SEED)
    assert key == ee.keygen(model, suite=suite, knowledge="private", seed=SEED)
    assert (key.shifts.outputs < 0) == (suite == "dense")

    encrypt_checkpoint(plain, keyed, key, shard_bytes=4000, progress=lambda done, total: seen.append((done, total)))
    names = {path.name for path in keyed.iterdir()}
    shards = {name for name in names if name.endswith(".safetensors")}
    assert len(shards) > 2
    assert names == {"config.json", "generation_config.json", "model.safetensors.index.json", *shards}
    written = "".join(path.read_text() for path in keyed.glob("*.json"))
    assert "secret-base" not in written
    assert "sepsis" not in written
    expected, found = ee.encrypt_model(model, key).state_dict() | bert.stored_beside(config), tensors_of(keyed)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (sum(tensor.nbytes for tensor in found.values()),) * 2

    loaded = (BertForSequenceClassification if config.outputs else BertModel).from_pretrained(keyed)
    output = ee.decrypt_outputs(answers(loaded, ee.encrypt_inputs(IDS, key)), key)
    exact = answers(pretrained.read_model(plain), IDS)
    assert (output - exact).abs().max() <= 1e-5 * exact.abs().max()
    pad, eos = ee.encrypt_inputs(torch.tensor([0, 3]), key).tolist()
    settings = json.loads((keyed / "config.json").read_text())
    assert (settings["pad_token_id"], settings["eos_token_id"]) == (pad, eos)
    assert json.loads((keyed / "generation_config.json").read_text()) == {"eos_token_id": eos}

    decrypt_checkpoint(keyed, back, key)
    for name, tensor in pretrained.read_model(back).state_dict().items():
        torch.testing.assert_close(tensor, model.state_dict()[name], rtol=0, atol=0 if suite == "permutation" else 1e-6)
    assert json.loads((back / "config.json").read_text())["pad_token_id"] == 0


def test_an_interrupted_run_leaves_nothing_and_can_be_run_again(tmp_path: Path) -> None:
    plain = save_folder(tmp_path / "plain", CLASSIFIER)
    key = keygen_checkpoint(plain, knowledge="private", seed=SEED)

    def interrupt(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encrypt_checkpoint(plain, tmp_path / "keyed", key, shard_bytes=4000, progress=interrupt)
    assert set(tmp_path.iterdir()) == {plain}
    # A run that was killed had no time to clear away.
    (tmp_path / ".keyed.partial").mkdir()
    (tmp_path / ".keyed.partial" / "model-00001-of-00009.safetensors").write_bytes(b"half")
    encrypt_checkpoint(plain, tmp_path / "keyed", key)
    assert {path.name for path in (tmp_path / "keyed").iterdir()} == {"config.json", "generation_config.json", "model.safetensors"}
    with pytest.raises(FileExistsError):
        encrypt_checkpoint(plain, tmp_path / "keyed", key)


def test_folders_that_are_not_what_their_config_says_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    plain = save_folder(tmp_path / "plain", CLASSIFIER)
    key = keygen_checkpoint(plain, knowledge="private", seed=SEED)
    # The same shapes, but gains that are not 1: only the values say that another suite is needed.
    gain = plain / "b.safetensors"
    whole = load_file(gain)
    norm = next(name for name in whole if name.endswith(".gamma"))
    save_file(whole | {norm: 2 * whole[norm]}, gain)
    with pytest.raises(KeyFileError, match="the key is for"):
        encrypt_checkpoint(plain, tmp_path / "keyed", key)
    name = "bert.encoder.layer.1.output.dense.weight"
    kept = whole | load_file(plain / "a.safetensors")
    (plain / "model.safetensors.index.json").unlink()
    for changed, message in [
        ({name: kept[name].T.contiguous()}, r"output\.dense\.weight: expected shape \[16, 24\]"),
        ({name: kept[name].long()}, "and floats"),
        ({"bert.encoder.layer.9.output.dense.weight": kept[name].clone()}, "no other"),
        ({"encoder.layer.1.output.dense.weight": kept[name].clone()}, "twice"),
    ]:
        save_file(kept | changed, plain / "model.safetensors")
        with pytest.raises(MalformedMessageError, match=message):
            open_folder(plain)
    save_file({other: tensor for other, tensor in kept.items() if other != name}, plain / "model.safetensors")
    with pytest.raises(MalformedMessageError, match="got nothing"):
        encrypt_checkpoint(plain, tmp_path / "keyed", key)
    assert {path.name for path in tmp_path.iterdir()} == {"plain"}
