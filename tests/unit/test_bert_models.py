"""BERT as data, as HuggingFace's module, and as a folder: one config, the same tensors, nothing of the caller's beside them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertConfig as LibraryConfig
from transformers import BertForMaskedLM, BertForSequenceClassification, BertModel

from rexis.errors import MalformedMessageError, UnsupportedLayerError
from rexis.models import pretrained
from rexis.models.bert import BertConfig
from rexis.models.modules import bert

TINY = BertConfig(vocabulary=40, positions=12, hidden=16, layers=2, heads=4, intermediate=24, outputs=0)


def module(config: BertConfig, seed: int = 1, dtype: torch.dtype = torch.float32) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return bert.build(config, dtype)


def library_model(classifier: bool = True, **changes: object) -> nn.Module:
    settings = LibraryConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=24,
        max_position_embeddings=12,
        **changes,
    )
    return BertForSequenceClassification(settings) if classifier else BertModel(settings)


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        replace(TINY, outputs=3),
        replace(TINY, pooler=False, activation="relu", epsilon="1e-05"),
        replace(TINY, affine=False, outputs=2, activation="gelu_new"),
    ],
)
def test_module_config_and_shapes_agree(config: BertConfig) -> None:
    model = module(config)
    assert [(name, tuple(parameter.shape)) for name, parameter in model.named_parameters()] == list(config.shapes.items())
    assert set(model.state_dict()) == set(config.shapes)
    assert bert.describe(model) == config


@pytest.mark.parametrize(
    "change",
    [
        {"vocabulary": 0},
        {"vocabulary": (1 << 20) + 1},
        {"hidden": 15},
        {"layers": True},
        {"layers": 257},
        {"heads": 4.0},
        {"outputs": -1},
        {"outputs": 2, "pooler": False},
        {"pooler": 1},
        {"affine": None},
        {"activation": "exec"},
        {"activation": ["gelu"]},
        {"epsilon": 1e-12},
        {"epsilon": "1e-012"},
        {"epsilon": "nan"},
        {"epsilon": "0.0"},
        {"epsilon": "9" * 40},
        {"hidden": 1 << 16, "vocabulary": 1 << 20},
    ],
)
def test_values_out_of_bounds_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"expected|reads"):
        replace(TINY, **change)


def test_a_module_on_the_meta_device_takes_weights_and_runs() -> None:
    with torch.device("meta"):
        model = bert.build(TINY, torch.float32)
    model.load_state_dict(module(TINY).state_dict(), assign=True)
    ids = torch.arange(8).reshape(2, 4)
    torch.testing.assert_close(model(ids).last_hidden_state, module(TINY)(ids).last_hidden_state)


def with_part(path: str, part: nn.Module) -> nn.Module:
    model = library_model()
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, part)
    return model


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (nn.Linear(3, 2), "Linear"),
        (BertForMaskedLM(LibraryConfig(vocab_size=4, hidden_size=4, num_hidden_layers=1, num_attention_heads=1)), "BertForMaskedLM"),
        (library_model(is_decoder=True), "decoder"),
        (library_model(hidden_act="gelu_fast"), "gelu_fast"),
        (with_part("classifier", nn.Linear(16, 5)), r"classifier\.(weight|bias)"),
        (with_part("bert.pooler.activation", nn.Softmax(-1)), r"bert\.pooler\.activation.*Softmax"),
        (with_part("bert.encoder.layer.1.intermediate.intermediate_act_fn", nn.Softmax(-1)), r"layer\.1\.intermediate.*Softmax"),
        (with_part("bert.encoder.layer.0.output.LayerNorm", nn.LayerNorm(16, elementwise_affine=False)), "LayerNorm"),
        (with_part("bert.encoder.layer.0.output.LayerNorm", nn.LayerNorm(16, eps=1e-3)), "epsilon"),
    ],
)
def test_other_modules_are_refused_by_name(model: nn.Module, named: str) -> None:
    with pytest.raises(UnsupportedLayerError, match=named):
        bert.describe(model)


def save_folder(folder: Path, tensors: dict[str, torch.Tensor], **changes: object) -> Path:
    """A folder in the layout of BioBERT: an old config without a padding id, and a tokenizer beside the weights."""
    folder.mkdir()
    settings = {
        "architectures": ["BertModel"],
        "_name_or_path": "/home/site/patients",
        "id2label": {"0": "sepsis"},
        "hidden_act": "gelu",
        "hidden_size": 16,
        "intermediate_size": 24,
        "max_position_embeddings": 12,
        "model_type": "bert",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "type_vocab_size": 2,
        "vocab_size": 40,
    }
    (folder / "config.json").write_text(json.dumps(settings | changes))
    (folder / "vocab.txt").write_text("[PAD]\n")
    save_file(tensors, folder / "model.safetensors")
    return folder


def stored(model: nn.Module) -> dict[str, torch.Tensor]:
    """As BioBERT stores an encoder: prefix, old names of gain and bias, the heads of pre-training beside it."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        old_name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        tensors[f"bert.{old_name}"] = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(len(tensors)))
    return tensors | {"cls.predictions.bias": torch.zeros(40), "bert.embeddings.position_ids": torch.arange(12)}


def test_a_folder_comes_in_and_goes_out_with_its_weights_and_special_ids_alone(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "in", stored(module(TINY)), eos_token_id=[3, 5])
    model = pretrained.read_model(folder)
    assert bert.describe(model) == TINY
    assert model.get_submodule("embeddings.word_embeddings").padding_idx == 0
    pretrained.write_model(tmp_path / "out", model, {"eos_token_id": 7})
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"config.json", "generation_config.json", "model.safetensors"}
    written = (tmp_path / "out" / "config.json").read_text()
    assert "patients" not in written
    assert "sepsis" not in written
    loaded = BertModel.from_pretrained(tmp_path / "out")
    assert (loaded.config.pad_token_id, loaded.config.eos_token_id) == (0, [3, 5])
    ids = torch.arange(10).reshape(2, 5)
    torch.testing.assert_close(loaded(ids).last_hidden_state, model(ids).last_hidden_state, rtol=0, atol=0)
    with pytest.raises(FileExistsError):
        pretrained.write_model(tmp_path / "out", model, {})


def test_shards_and_a_classifier_are_read(tmp_path: Path) -> None:
    model = module(replace(TINY, outputs=3), dtype=torch.bfloat16)
    tensors = {name: tensor + 0.5 for name, tensor in model.state_dict().items()}
    first, second = dict(list(tensors.items())[:9]), dict(list(tensors.items())[9:])
    folder = save_folder(tmp_path / "in", first)
    save_file(second, folder / "two.safetensors")
    places = dict.fromkeys(first, "model.safetensors") | dict.fromkeys(second, "two.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    read = pretrained.read_model(folder)
    assert bert.describe(read) == replace(TINY, outputs=3)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in read.state_dict().items())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(places, "../../secret")}))
    with pytest.raises(MalformedMessageError, match="files in this folder"):
        pretrained.read_model(folder)


def test_norms_without_gain_and_bias_load_in_the_stock_class(tmp_path: Path) -> None:
    model = module(replace(TINY, affine=False))
    pretrained.write_model(tmp_path / "out", model, {})
    assert "encoder.layer.0.output.LayerNorm.weight" in load_file(tmp_path / "out" / "model.safetensors")
    ids = torch.arange(10).reshape(2, 5)
    torch.testing.assert_close(
        BertModel.from_pretrained(tmp_path / "out")(ids).last_hidden_state, model(ids).last_hidden_state, rtol=0, atol=1e-6
    )
    assert bert.describe(pretrained.read_model(tmp_path / "out")) == replace(TINY, affine=False)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "gpt2"}, "model_type"),
        ({"vocab_size": "forty"}, "config.json"),
        ({"hidden_size": 32}, "expected shape"),
        ({"position_embedding_type": "relative_key"}, "absolute positions"),
        ({"num_hidden_layers": 100_000}, "layers"),
    ],
)
def test_folders_that_contradict_themselves_are_refused(tmp_path: Path, change: dict[str, object], named: str) -> None:
    with pytest.raises((MalformedMessageError, UnsupportedLayerError), match=named):
        pretrained.read_model(save_folder(tmp_path / "in", stored(module(TINY)), **change))


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "in", stored(module(TINY)))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(MalformedMessageError, match="never opened"):
        pretrained.read_model(folder)
    (folder / "model.safetensors").write_bytes(b"\x80\x04 no tensors")
    with pytest.raises(MalformedMessageError, match=r"model\.safetensors"):
        pretrained.read_model(folder)
