"""What `rexis ee encrypt`, `decrypt` and `check` take: tables in Parquet, and token ids of BERT and Llama; and what they refuse."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification, LlamaForCausalLM
from typer.testing import CliRunner

from rexis import ee
from rexis.agent.examined_data import read_classes, read_data
from rexis.agent.inputs import read_inputs
from rexis.agent.model_files import write_model, write_outputs
from rexis.agent.parquet import read_numbers
from rexis.cli.command import app
from rexis.ee.checkpoints import encrypt_checkpoint
from rexis.errors import MalformedMessageError
from rexis.models import pretrained
from rexis.models.bert import BertConfig
from rexis.models.builders import build
from rexis.models.llama import LlamaConfig
from rexis.models.mlp import MLPConfig
from rexis.models.spec import ModelSpec

SECRET = "a passphrase for tests"
TABLE = ModelSpec(MLPConfig(inputs=3, hidden=(8,), outputs=2, activation="relu"))
BERT = ModelSpec(BertConfig(40, positions=12, hidden=16, layers=1, heads=4, intermediate=24, outputs=3))
LLAMA = ModelSpec(LlamaConfig(40, 16, 1, 4, 2, 4, 24, 32, "10000.0", "1e-05"))
IDS = torch.tensor([[2, 17, 9, 3, 0], [2, 5, 39, 8, 3]])
MASK = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REXIS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("REXIS_PASSPHRASE", SECRET)
    monkeypatch.chdir(tmp_path)


def rexis(*arguments: str) -> Any:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refusal(*arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 1, result.output
    return str(json.loads(result.stdout)["error"]["message"])


def parquet(path: Path | str, query: str) -> Path:
    duckdb.sql(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
    return Path(path)


def keyed_bert() -> ee.Key:
    """A folder of BERT, its key, and its keyed folder."""
    model = build(BERT, seed=1)
    with torch.no_grad():
        # Gains of exactly 1 would be read as norms without gains.
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())), alpha=0.2)
    key = ee.keygen(model, suite="permutation", knowledge="private")
    key.save("key", SECRET)
    pretrained.write_model(Path("bert"), model, {})
    encrypt_checkpoint(Path("bert"), Path("keyed"), key)
    return key


def keyed_llama(*, tied: bool = False) -> ee.Key:
    """The same of Llama."""
    model = build(LLAMA, seed=1)
    if tied:
        model.config.tie_word_embeddings = True
        model.tie_weights()
    key = ee.keygen(model, knowledge="private")
    key.save("key", SECRET)
    model.save_pretrained("llama")
    encrypt_checkpoint(Path("llama"), Path("keyed"), key)
    return key


def test_a_table_in_parquet_is_keyed_and_attacked() -> None:
    Path("spec.json").write_text(json.dumps(TABLE.document()))
    write_model(Path("plain.safetensors"), build(TABLE, seed=1))
    rexis("ee", "keygen", "spec.json", "--knowledge", "private", "-o", "key")
    query = "SELECT sin(i) AS age, CAST(i % 7 AS TINYINT) AS sex, CAST(i / 8 AS DECIMAL(6, 3)) AS oldpeak FROM range(40) t(i)"
    parquet("batch.parquet", query)
    plain = read_inputs(Path("batch.parquet"), TABLE)
    rexis("ee", "encrypt", "--inputs", "batch.parquet", "--key", "key", "-o", "keyed.safetensors")
    keyed = load_file("keyed.safetensors")["x"]
    assert isinstance(plain, torch.Tensor)
    torch.testing.assert_close(keyed, ee.encrypt_inputs(plain, ee.Key.load("key", SECRET)).float())
    parquet("classes.parquet", "SELECT i % 2 AS c FROM range(40) t(i)")
    parquet("names.parquet", "SELECT ['b', 'a'][i % 2 + 1] AS c FROM range(40) t(i)")
    check = ["ee", "check", "plain.safetensors", "--key", "key", "--data", "batch.parquet", "--reference", "batch.parquet"]
    report = rexis(*check, "--labels", "classes.parquet", "--seed", "1")["report"]
    assert (report["job"]["records"], report["job"]["width"], report["job"]["reference"]) == (40, 3, "given")
    assert torch.equal(read_classes(Path("classes.parquet")), torch.arange(40) % 2)
    assert torch.equal(read_classes(Path("names.parquet")), 1 - torch.arange(40) % 2)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT 1.0 AS a, 2.0 AS b, 'Ada' AS name", "column name: expected numbers, got VARCHAR"),
        ("SELECT 1.0 AS a, 2.0 AS b, DATE '2020-02-02' AS born", "column born: expected numbers, got DATE"),
        ("SELECT 1.0 AS a, 2.0 AS b, [7] AS c", r"column c: expected numbers, got INTEGER\[\]"),
        ("SELECT 1.0 AS a, 2.0 AS b", "expected 3 columns, the inputs of the model, got 2"),
        ("SELECT 1.0 AS a, 2.0 AS b, CAST(NULL AS INTEGER) AS c", "column c: expected a finite number in every row.*fill them in"),
        ("SELECT 1.0 AS a, CAST('nan' AS DOUBLE) AS b, 3 AS c", "column b: expected a finite number"),
        ("SELECT 1.0 AS a, 2.0 AS b, 3.0 AS c WHERE false", "expected 1 to 5000000 rows of 3 columns, got 0"),
        ("SELECT 1 AS a, 2 AS b, 3 AS c FROM range(5000001)", "rows of 3 columns, got 5000001"),
    ],
)
def test_what_a_table_in_parquet_may_not_hold(query: str, said: str) -> None:
    with pytest.raises(MalformedMessageError, match=said) as refused:
        read_inputs(parquet("batch.parquet", query), TABLE)
    assert "Ada" not in str(refused.value)


def test_a_damaged_file_is_refused_and_a_name_is_no_pattern() -> None:
    whole = parquet("whole.parquet", "SELECT 1.0 AS a, 2.0 AS b, 3.0 AS c").read_bytes()
    for place in range(4, len(whole), 43):
        content = bytearray(whole)
        content[place] ^= 0xFF
        Path("batch.parquet").write_bytes(content)
        # Numbers of this shape, if a bit of a number was hit; else this error and no other.
        with suppress(MalformedMessageError):
            assert read_numbers(Path("batch.parquet"), 3).shape == (1, 3)
    for content in (b"", b"PAR1", whole[:-9], b"\0" * 100):
        Path("batch.parquet").write_bytes(content)
        with pytest.raises(MalformedMessageError, match="damaged or is none"):
            read_numbers(Path("batch.parquet"), 3)
    folder = Path("site=1")
    folder.mkdir()
    (folder / "[a-z]*.parquet").write_bytes(whole)
    parquet(folder / "b.parquet", "SELECT 1.0 AS x, 2.0 AS y, 3.0 AS z UNION ALL SELECT 4.0, 5.0, 6.0")
    assert read_numbers(folder / "[a-z]*.parquet", 3).tolist() == [[1.0, 2.0, 3.0]]


@pytest.mark.parametrize("suffix", ["safetensors", "parquet", "npy"])
def test_ids_of_a_tokenizer_go_out_keyed_and_bert_answers(suffix: str) -> None:
    key = keyed_bert()
    mask = torch.ones_like(IDS) if suffix == "npy" else MASK
    if suffix == "safetensors":
        save_file({"input_ids": IDS, "attention_mask": MASK, "token_type_ids": torch.zeros_like(IDS)}, "ids.safetensors")
    elif suffix == "npy":
        np.save("ids.npy", IDS.numpy())
    else:
        rows = (str(ids[kept.bool()].tolist()) for ids, kept in zip(IDS, MASK, strict=True))
        parquet("ids.parquet", " UNION ALL ".join(f"SELECT {row} AS input_ids" for row in rows))
    written = rexis("ee", "encrypt", "--inputs", f"ids.{suffix}", "--key", "key", "-o", "batch.safetensors")
    assert (written["texts"], written["tokens"]) == (2, int(mask.sum()))
    batch = load_file("batch.safetensors")
    assert torch.equal(batch["ids"], ee.encrypt_inputs(IDS, key))
    assert torch.equal(batch["mask"], mask.to(torch.uint8))
    with torch.no_grad():
        answered = BertForSequenceClassification.from_pretrained("keyed")(batch["ids"], attention_mask=batch["mask"].long()).logits
        expected = BertForSequenceClassification.from_pretrained("bert")(IDS, attention_mask=mask).logits
    write_outputs(Path("y.safetensors"), answered)
    assert rexis("ee", "decrypt", "--outputs", "y.safetensors", "--key", "key", "-o", "plain.safetensors")["rows"] == 2
    torch.testing.assert_close(load_file("plain.safetensors")["y"], expected, rtol=0, atol=1e-5)


def test_what_a_keyed_llama_generates_comes_back_as_ids() -> None:
    keyed_llama()
    save_file({"input_ids": IDS[1:]}, "prompt.safetensors")
    rexis("ee", "encrypt", "--inputs", "prompt.safetensors", "--key", "key", "-o", "batch.safetensors")
    stock, keyed = (LlamaForCausalLM.from_pretrained(folder) for folder in ("llama", "keyed"))
    batch = load_file("batch.safetensors")
    with torch.no_grad():
        write_outputs(Path("y.safetensors"), keyed(batch["ids"]).logits)
        generated = keyed.generate(batch["ids"], attention_mask=batch["mask"].long(), max_new_tokens=6, do_sample=False)
        expected = stock.generate(IDS[1:], attention_mask=MASK[1:], max_new_tokens=6, do_sample=False)
        logits = stock(IDS[1:]).logits
    save_file({"input_ids": generated}, "generated.safetensors")
    decrypt = ["ee", "decrypt", "--key", "key", "--outputs"]
    assert "ends in .safetensors" in refusal(*decrypt, "generated.safetensors", "-o", "plain.csv")
    assert not Path("plain.csv").exists()
    rexis(*decrypt, "generated.safetensors", "-o", "plain.safetensors")
    assert torch.equal(load_file("plain.safetensors")["input_ids"], expected)
    assert Path("plain.safetensors").stat().st_mode & 0o077 == 0
    rexis(*decrypt, "y.safetensors", "-o", "logits.safetensors")
    torch.testing.assert_close(load_file("logits.safetensors")["y"], logits, rtol=0, atol=1e-5)


REFUSED: Sequence[tuple[dict[str, torch.Tensor], str]] = (
    ({"input_ids": IDS + 1}, "ids of 0 to 39, the model's vocabulary; is this its tokenizer"),
    ({"input_ids": IDS - 1}, "ids of 0 to 39"),
    ({"input_ids": IDS.repeat(1, 3)}, "texts of at most 12 tokens, got 15; have the tokenizer truncate"),
    ({"input_ids": IDS.float()}, "whole numbers"),
    ({"input_ids": IDS[0]}, r"whole numbers \[n, length\]"),
    ({"input_ids": IDS, "attention_mask": MASK[:1]}, "a mask of the same shape"),
    ({"input_ids": IDS, "attention_mask": MASK + 1}, "1 for tokens and 0 for padding"),
    ({"input_ids": IDS, "attention_mask": MASK * 0}, "a token in every text"),
    ({"input_ids": IDS, "token_type_ids": MASK}, "single texts, and no pairs"),
    ({"input_ids": IDS, "labels": torch.tensor([0, 1])}, "nothing else; got input_ids, labels"),
    ({"tokens": IDS}, "expected input_ids or ids"),
)


@pytest.mark.parametrize(("tensors", "said"), REFUSED, ids=lambda value: "-".join(value) if isinstance(value, dict) else "")
def test_what_ids_may_not_be(tensors: dict[str, torch.Tensor], said: str) -> None:
    save_file(tensors, "ids.safetensors")
    with pytest.raises(MalformedMessageError, match=said):
        read_inputs(Path("ids.safetensors"), BERT)


def test_padding_is_marked_and_no_cell_is_told() -> None:
    save_file({"input_ids": torch.where(MASK.bool(), IDS, -100), "attention_mask": MASK}, "ids.safetensors")
    assert read_data(Path("ids.safetensors"), BERT).tolist() == [[2, 17, 9, 3, -1], [2, 5, 39, 8, 3]]
    Path("ids.csv").write_text("a\n1\n")
    with pytest.raises(MalformedMessageError, match=r"token ids in .safetensors, .parquet or .npy"):
        read_inputs(Path("ids.csv"), BERT)
    query = "SELECT [5, 6] AS input_ids, [1] AS attention_mask"
    with pytest.raises(MalformedMessageError, match="column attention_mask: expected lists as long as those of the ids"):
        read_inputs(parquet("ids.parquet", query), BERT)
    with pytest.raises(MalformedMessageError, match="expected whole numbers in its lists, got null"):
        read_inputs(parquet("ids.parquet", "SELECT [5, NULL] AS input_ids"), BERT)


def texts(seed: int, count: int = 80) -> dict[str, torch.Tensor]:
    """Texts of 4 to 10 tokens from a skewed vocabulary, padded with 0."""
    generator = torch.Generator().manual_seed(seed)
    ids = (40 * torch.rand(count, 10, generator=generator).square()).long()
    mask = torch.arange(10) < torch.randint(4, 11, (count, 1), generator=generator)
    return {"input_ids": torch.where(mask, ids, 0), "attention_mask": mask.long()}


def test_a_folder_of_bert_with_a_tokenizers_ids_is_attacked() -> None:
    keyed_bert()
    save_file(texts(1), "ids.safetensors")
    save_file(texts(2, 40), "others.safetensors")
    np.save("classes.npy", np.arange(80) % 3)
    np.save("others.npy", np.arange(40) % 3)
    words = ["ee", "check", "bert", "--key", "key", "--data", "ids.safetensors", "--seed", "1"]
    report = rexis(*words, "--reference", "others.safetensors")["report"]
    findings = {finding["attack"]: finding for finding in report["findings"]}
    assert (report["job"]["inputs"], report["job"]["records"]) == ("tokens", 80)
    assert findings["exactness"]["verdict"] == "pass"
    # Padding that is marked is no token: what is counted are those of the texts.
    assert float(findings["token_frequencies"]["figures"]["tokens"]) == int(texts(1)["attention_mask"].sum())
    trained = rexis(*words, "--labels", "classes.npy", "--unseen", "others.safetensors", "--unseen-labels", "others.npy")["report"]
    assert "membership" in {finding["attack"] for finding in trained["findings"] if finding["verdict"] != "not run"}
    np.save("embeddings.npy", torch.randn(20, 4, 16, generator=torch.Generator().manual_seed(1)).numpy())
    rows = rexis("ee", "check", "bert", "--key", "key", "--data", "embeddings.npy", "--seed", "1")["report"]
    assert (rows["job"]["inputs"], rows["job"]["records"], rows["job"]["width"]) == ("rows", 80, 16)
    assert "embeddings go out" in rows["left_out"]["exactness"]


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_a_folder_of_llama_is_attacked_from_end_to_end(tied: bool) -> None:
    keyed_llama(tied=tied)
    save_file(texts(1), "ids.safetensors")
    words = ["ee", "check", "llama", "--key", "key", "--data", "ids.safetensors", "--seed", "1"]
    findings = {finding["attack"]: finding for finding in rexis(*words, "--base", "llama", "--earlier", "keyed")["report"]["findings"]}
    assert findings["exactness"]["verdict"] == "pass"
    assert (findings["public_base"]["figures"]["read"], findings["linking"]["verdict"]) == ("1", "fail")
    assert pretrained.read_model(Path("llama")).get_parameter("lm_head.weight").shape == (40, 16)
