"""A HuggingFace folder in the layout of BioBERT goes in and comes out keyed, by `rexis ee`; the tokenizer stays."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertModel, LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from rexis import ee
from rexis.cli.command import app
from rexis.models import pretrained
from rexis.models.bert import BertConfig
from rexis.models.builders import build
from rexis.models.modules.special_ids import name_ids
from rexis.models.spec import ModelSpec

TINY = BertConfig(vocabulary=40, positions=12, hidden=16, layers=2, heads=4, intermediate=24, outputs=0)
IDS = torch.tensor([[2, 17, 9, 3, 0], [2, 5, 39, 8, 3]])
MASK = (IDS != 0).long()


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REXIS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("REXIS_PASSPHRASE", "a passphrase for tests")
    monkeypatch.chdir(tmp_path)


def rexis(*arguments: str) -> dict[str, object]:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    printed: dict[str, object] = json.loads(result.stdout)
    return printed


def plain_folder(config: BertConfig = TINY) -> Path:
    model = build(ModelSpec(config), seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())), alpha=0.2)
    name_ids(model, {"pad_token_id": 0, "eos_token_id": 3})
    pretrained.write_model(Path("plain"), model, {"eos_token_id": 3, "bad_words_ids": [[7, 8]]})
    Path("plain/vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
    return Path("plain")


def hidden_states(folder: Path | str, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        states: torch.Tensor = BertModel.from_pretrained(folder)(ids, attention_mask=MASK).last_hidden_state
    return states


@pytest.mark.parametrize("suite", ["permutation", "dense"])
def test_a_folder_is_keyed_and_comes_back_by_command(suite: ee.keys.Suite) -> None:
    plain = plain_folder(BertConfig(**{**vars(TINY), "affine": suite == "permutation"}))
    shown = rexis("ee", "keygen", "plain", "--knowledge", "private", "--suite", suite, "-o", "job.key")
    assert shown["model_spec"]["family"] == "bert"
    assert rexis("ee", "encrypt", "--key", "job.key", "--model", "plain", "-o", "keyed")["key_id"] == shown["key_id"]
    rexis("ee", "decrypt", "--key", "job.key", "--model", "keyed", "-o", "back")
    assert {path.name for path in Path("keyed").iterdir()} == {"config.json", "generation_config.json", "model.safetensors"}

    key = ee.Key.load("job.key", "a passphrase for tests")
    keyed_ids = ee.encrypt_inputs(IDS, key)
    found = ee.decrypt_outputs(hidden_states("keyed", keyed_ids), key)
    torch.testing.assert_close(found, hidden_states(plain, IDS), rtol=0, atol=1e-5)
    pad, eos, first, second = ee.encrypt_inputs(torch.tensor([0, 3, 7, 8]), key).tolist()
    assert json.loads(Path("keyed/generation_config.json").read_text()) == {"eos_token_id": eos, "bad_words_ids": [[first, second]]}
    settings = json.loads(Path("keyed/config.json").read_text())
    assert (settings["pad_token_id"], settings["eos_token_id"]) == (pad, eos)

    assert json.loads(Path("back/config.json").read_text()) == json.loads(Path("plain/config.json").read_text())
    assert json.loads(Path("back/generation_config.json").read_text()) == {"eos_token_id": 3, "bad_words_ids": [[7, 8]]}
    before, after = load_file("plain/model.safetensors"), load_file("back/model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=0 if suite == "permutation" else 1e-6)


def test_a_llama_folder_goes_the_same_way() -> None:
    sizes = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
    LlamaForCausalLM(LlamaConfig(**sizes)).save_pretrained("plain")
    assert rexis("ee", "keygen", "plain", "--knowledge", "private", "-o", "job.key")["model_spec"]["family"] == "llama"
    rexis("ee", "encrypt", "--key", "job.key", "--model", "plain", "-o", "keyed")
    rexis("ee", "decrypt", "--key", "job.key", "--model", "keyed", "-o", "back")
    key = ee.Key.load("job.key", "a passphrase for tests")
    with torch.no_grad():
        expected = LlamaForCausalLM.from_pretrained("plain")(IDS % 20).logits
        found = LlamaForCausalLM.from_pretrained("keyed")(ee.encrypt_inputs(IDS % 20, key)).logits
        back = LlamaForCausalLM.from_pretrained("back")(IDS % 20).logits
    torch.testing.assert_close(ee.decrypt_outputs(found, key), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(back, expected, rtol=0, atol=1e-5)


def test_what_can_not_be_done_is_said_before_anything_is_written() -> None:
    plain_folder()
    Path("empty").mkdir()
    for arguments, said in (
        (["keygen", "plain", "--knowledge", "private", "-o", "job.key"], "use permutation"),
        (["keygen", "empty", "--knowledge", "private", "-o", "job.key"], "empty: expected a"),
    ):
        result = CliRunner().invoke(app, ["ee", *arguments, "--json"])
        assert result.exit_code != 0
        assert said in result.output
    assert not Path("job.key").exists()
    rexis("ee", "keygen", "plain", "--knowledge", "private", "--suite", "permutation", "-o", "job.key")
    result = CliRunner().invoke(app, ["ee", "encrypt", "--key", "job.key", "--model", "plain", "-o", "plain"])
    assert result.exit_code != 0
    assert "exists" in result.output
