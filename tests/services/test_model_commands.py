"""`rexis ee`, `rexis model` and `rexis infer`, from a plain model to a prediction, against a real trainer; and what they refuse."""

import csv
import json
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from rexis import ee
from rexis.agent.inputs import read_rows
from rexis.agent.model_files import read_outputs, write_model, write_outputs
from rexis.chain.connection import Chain
from rexis.chain.delegations import delegate_arguments, scopes_of
from rexis.chain.deployments import load
from rexis.chain.signer import development_signer
from rexis.cli.command import app
from rexis.cli.home import Profile, require_profile, write_profile
from rexis.cli.identity import create_keystore
from rexis.cli.privacy import read_report
from rexis.commitments import Receipt
from rexis.ee import RecordBudgetWarning
from rexis.errors import KeyFileError
from rexis.models import pretrained
from rexis.models.bert import BertConfig
from rexis.models.builders import build
from rexis.models.spec import ModelSpec
from rexis.protocol.receipt_signature import verify_receipt
from services.foundation.settings import LOCAL_CHAIN_ID
from tests.services.conftest import free_port
from tests.services.marketplace_on_chain import running_chain
from tests.services.service_applications import serving
from tests.services.trainer_on_chain import ISSUER, SPEC, Heart, patients, trainer_processes, trainer_settings

SECRET = "a passphrase for tests"
HEART = Heart.of()


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("REXIS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("REXIS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("REXIS_PASSPHRASE", SECRET)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spec.json").write_text(json.dumps(SPEC.document()))
    write_model(tmp_path / "plain.safetensors", HEART.plain)
    for name, count in (("rows", 5), ("cohort", 120)):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([f"x{place}" for place in range(13)])
            writer.writerows(patients(count).tolist())


@pytest.fixture
def identity(tmp_path: Path) -> str:
    path, signer = create_keystore(SECRET)
    write_profile(Profile(signer.address, str(path), LOCAL_CHAIN_ID, {}))
    return signer.address


@pytest.fixture
def trainer(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A trainer at work; the URL of its chain's node."""
    (tmp_path / "services").mkdir()
    with ExitStack() as stack:
        rpc_url = stack.enter_context(running_chain(tmp_path / "services"))
        url = f"http://127.0.0.1:{free_port()}"
        database = f"sqlite:///{tmp_path / 'services' / 'trainer.sqlite'}"
        settings = trainer_settings(database, rpc_url, tmp_path / "services", redis_url=redis_url, public_url=url)
        stack.enter_context(serving(settings))
        stack.enter_context(trainer_processes(settings, tmp_path / "services"))
        monkeypatch.setenv("REXIS_TRAINER_URL", url)
        yield rpc_url


def rexis(*arguments: str) -> Any:
    """The JSON of a command that succeeds."""
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def failure(*arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 1, result.output
    return str(json.loads(result.stdout)["error"]["message"])


def keygen(knowledge: str = "members", *more: str) -> Any:
    return rexis("ee", "keygen", "spec.json", "--knowledge", knowledge, "--output", "key", *more)


def test_from_a_plain_model_to_predictions_with_receipts(tmp_path: Path, identity: str, trainer: str) -> None:
    key = keygen()
    keyed = rexis("ee", "encrypt", "--model", "plain.safetensors", "--key", "key", "--output", "keyed.safetensors")
    checked = rexis("ee", "check", "plain.safetensors", "--key", "key", "--data", "cohort.csv", "--output", "report.json")
    report = ["--report", "report.json"]
    model = rexis("model", "publish", "keyed.safetensors", "--key", "key", "--name", "Heart", "--spec", "spec.json", *report)
    assert model["report"] == checked["summary"]
    assert (checked["summary"]["report"], checked["summary"]["grade"]) == (checked["digest"], checked["report"]["grade"])
    assert (model["state"], model["record"], model["owner"]) == ("authorised", keyed["record"], identity)
    assert (model["keyed"]["key_id"], model["keyed"]["protection"]) == (key["key_id"], "obfuscation only")
    assert rexis("model", "show", model["id"]) == model
    assert rexis("model", "list") == [model]
    assert rexis("model", "share", model["id"], "--user", ISSUER.address)["users"] == [ISSUER.address]
    for words in (["model", "list"], ["model", "show", model["id"]]):
        shown = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
        assert shown.exit_code == 0
        assert "obfuscation only" in shown.output
        assert f"grade {checked['summary']['grade']}" in shown.output

    asked = ["infer", model["id"], "rows.csv", "--key", "key", "--no-deposit", "--issuer", ISSUER.address]
    answered = rexis(*asked, "--output", "predictions.csv")
    assert (answered["rows"], answered["issuer"], answered["protection"]) == (5, ISSUER.address, "obfuscation only")
    assert (tmp_path / "predictions.csv").stat().st_mode & 0o077 == 0
    with (tmp_path / "predictions.csv").open() as file:
        predicted = torch.tensor([[float(row["y0"])] for row in csv.DictReader(file)], dtype=torch.float64)
    assert HEART.close(predicted, patients())
    receipts = tmp_path / "predictions.receipts.json"
    assert stat.S_IMODE(receipts.stat().st_mode) == 0o600
    for item in json.loads(receipts.read_text())["receipts"]:
        verify_receipt(Receipt.parse(item["receipt"]), LOCAL_CHAIN_ID)

    assert "expected a reason" in failure("model", "revoke", model["id"], "--reason", "boredom")
    assert rexis("model", "revoke", model["id"], "--reason", "superseded")["record"] == model["record"]
    assert "revoked" in failure(*asked)


def test_a_delegated_key_vouches_for_its_institutions_model(identity: str, trainer: str) -> None:
    chain = Chain.connect(trainer, load(LOCAL_CHAIN_ID))
    institution = development_signer(5).address

    def delegate(*powers: str, version: int) -> None:
        scopes = scopes_of(chain.deployment, powers)
        arguments = delegate_arguments(identity, scopes, datetime.now(UTC) + timedelta(days=1), version)
        sent = chain.contract("KeyDelegation").functions.delegate(*arguments).transact({"from": institution})
        assert chain.web3.eth.wait_for_transaction_receipt(sent, poll_latency=0.01)["status"] == 1

    profile = require_profile()
    write_profile(Profile(institution, profile.keystore, LOCAL_CHAIN_ID, {}, agent=identity))
    keygen()
    rexis("ee", "encrypt", "--model", "plain.safetensors", "--key", "key", "--output", "keyed.safetensors")
    publish = ["model", "publish", "keyed.safetensors", "--key", "key", "--name", "Heart", "--spec", "spec.json"]
    assert "expected a signature by" in failure(*publish)
    delegate("sign-in", version=0)
    assert "does not cover ModelRegistry.authorise" in failure(*publish)
    delegate("sign-in", "models", version=1)
    model = rexis(*publish)
    assert (model["state"], model["owner"]) == ("authorised", institution)
    assert rexis("model", "revoke", model["id"], "--reason", "superseded")["record"] == model["record"]


def test_rows_and_answers_can_be_keyed_without_a_trainer(tmp_path: Path) -> None:
    keygen("private")
    rexis("ee", "encrypt", "--inputs", "rows.csv", "--key", "key", "--output", "rows.safetensors")
    rexis("ee", "encrypt-model", "plain.safetensors", "--key", "key", "--output", "keyed.safetensors")
    key = ee.Key.load(tmp_path / "key", SECRET)
    keyed_rows = read_rows(tmp_path / "rows.safetensors", SPEC)
    assert not torch.allclose(keyed_rows, patients(), atol=0.1)
    with torch.no_grad():
        write_outputs(tmp_path / "y.safetensors", ee.encrypt_model(HEART.plain, key)(keyed_rows.float()))
    assert rexis("ee", "decrypt", "--outputs", "y.safetensors", "--key", "key", "--output", "plain_y.safetensors")["rows"] == 5
    assert HEART.close(read_outputs(tmp_path / "plain_y.safetensors", SPEC), patients())
    rexis("ee", "decrypt", "--model", "keyed.safetensors", "--key", "key", "--output", "again.safetensors")
    assert rexis("ee", "show", "--key", "key")["protection"] == "keyed transformation"


def test_the_owners_attacks_on_his_own_job(tmp_path: Path) -> None:
    keygen("private")
    words = ["ee", "check", "plain.safetensors", "--key", "key", "--data", "cohort.csv", "--known", "14", "--seed", "5"]
    checked = rexis(*words, "--output", "report.json", "--html", "report.html")
    for name in ("report.json", "report.html"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert json.loads((tmp_path / "report.json").read_text()) == checked["report"]
    findings = {finding["attack"]: finding for finding in checked["report"]["findings"]}
    assert (findings["known_pairs"]["verdict"], float(findings["known_pairs"]["figures"]["r2_known"])) == ("fail", 1)
    assert findings["exactness"]["verdict"] == "pass"
    shown = CliRunner().invoke(app, words, env={"COLUMNS": "220"})
    assert shown.exit_code == 0
    for part in ("grade D", "Known pairs give the key away", "fail", "is no proof", "left out"):
        assert part in shown.output

    nothing = rexis(*words, "--budget", "0")["report"]
    assert {finding["verdict"] for finding in nothing["findings"]} == {"not run"}
    assert nothing["grade"] == "D"
    (tmp_path / "batch.parquet").write_bytes(b"PAR1")
    assert "damaged or is none" in failure(*words[:4], "key", "--data", "batch.parquet")
    assert "at least 8 records" in failure(*words[:4], "key", "--data", "rows.csv")
    (tmp_path / "key").unlink()
    keygen("private")
    with pytest.raises(KeyFileError, match="expected a report on key"):
        read_report(tmp_path / "report.json", ee.Key.load(tmp_path / "key", SECRET))


def test_the_owners_attacks_on_a_folder_of_bert_with_token_ids(tmp_path: Path) -> None:
    spec = ModelSpec(BertConfig(40, positions=16, hidden=32, layers=1, heads=4, intermediate=64, outputs=2))
    pretrained.write_model(tmp_path / "bert", build(spec, seed=1), {})
    rexis("ee", "keygen", "bert", "--knowledge", "private", "--suite", "permutation", "--output", "key")
    ids = torch.randint(40, (60, 10), generator=torch.Generator().manual_seed(1))
    np.save(tmp_path / "ids.npy", ids.numpy())
    words = ["ee", "check", "bert", "--key", "key", "--data", "ids.npy", "--seed", "1"]
    alone, known = rexis(*words)["report"], rexis(*words, "--base", "bert")["report"]
    assert (alone["job"]["inputs"], alone["job"]["width"]) == ("tokens", 10)
    assert "public_base" in alone["left_out"]
    found = {finding["attack"]: finding for finding in known["findings"]}
    assert (found["public_base"]["figures"]["read"], known["grade"]) == ("1", "F")


def test_a_budget_of_records_is_counted_across_commands(tmp_path: Path) -> None:
    keygen("private", "--records", "12")
    shown = rexis("ee", "show", "--key", "key")
    assert (shown["records_allowed"], shown["records_used"]) == (12, 0)
    encrypt = ["ee", "encrypt", "--inputs", "rows.csv", "--key", "key", "--output"]
    with pytest.warns(RecordBudgetWarning, match="a quarter of their effective rank"):
        rexis(*encrypt, "first.safetensors")
    rexis(*encrypt, "second.safetensors")
    assert rexis("ee", "show", "--key", "key")["records_used"] == 10
    assert "12 records at most, 10 are used, 5 more" in failure(*encrypt, "third.safetensors")
    assert not (tmp_path / "third.safetensors").exists()
    (tmp_path / "key.records").rename(tmp_path / "elsewhere")
    assert "keep it beside the key" in failure(*encrypt, "fourth.safetensors")


def test_what_is_refused(tmp_path: Path, identity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no protection" in failure("ee", "keygen", "spec.json", "--knowledge", "public", "--output", "key")
    assert "knowledge: expected one of" in failure("ee", "keygen", "spec.json", "--knowledge", "nobody", "--output", "key")
    assert keygen("public", "--accept-known-base-risk")["protection"] == "obfuscation only"
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert "never overwritten" in failure("ee", "keygen", "spec.json", "--knowledge", "members", "--output", "key")
    assert "one of --model, --inputs" in failure("ee", "encrypt", "--key", "key", "--output", "x")
    (tmp_path / "narrow.csv").write_text("a\n1\n")
    assert "expected 13 columns" in failure("ee", "encrypt", "--inputs", "narrow.csv", "--key", "key", "--output", "x")
    table = (tmp_path / "rows.csv").read_text().splitlines()
    (tmp_path / "text.csv").write_text("\n".join([table[0], "a patient's name" + ",0" * 12]) + "\n")
    refused = failure("ee", "encrypt", "--inputs", "text.csv", "--key", "key", "--output", "x")
    assert "column x0" in refused
    assert "patient" not in refused
    (tmp_path / "other.json").write_text(json.dumps({**SPEC.document(), "family": "pickle"}))
    assert "expected a family" in failure("ee", "keygen", "other.json", "--knowledge", "members", "--output", "other")
    assert "does not answer" in failure("infer", "x", "rows.csv", "--key", "key", "--trainer", "http://127.0.0.1:9")
    monkeypatch.setenv("REXIS_PASSPHRASE", "another passphrase")
    assert "wrong passphrase" in failure("ee", "show", "--key", "key")
