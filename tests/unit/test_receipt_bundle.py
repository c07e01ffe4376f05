"""Receipt bundles against their vectors, and what `rexis verify receipt` says of them."""

import json
import socket
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from rexis.chain.signer import LocalSigner
from rexis.cli.command import app
from rexis.cli.receipt_claims import CLAIMS
from rexis.commitments import LeafKind, MerkleTree, Receipt, tensor_digest
from rexis.encoding import canonical_json, from_hex, to_hex
from rexis.errors import MalformedMessageError
from rexis.models.builders import build
from rexis.models.mlp import MLPConfig
from rexis.models.spec import ModelSpec
from rexis.protocol.batch import write_file
from rexis.protocol.claims import Check, Verdict, assess
from rexis.protocol.file_spec import FileSpec, TensorSpec
from rexis.protocol.receipt_bundle import BatchIdentity, CommittedIn, ReceiptBundle
from rexis.protocol.receipt_signature import receipt_message

VECTOR: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "receipt_bundle.json").read_text())
FILE = VECTOR["file"].encode()
BUNDLE = VECTOR["bundle"]
OFFLINE = ("form", "checksum", "receipt-signature", "batch-id", "inclusion")
SPEC = ModelSpec(MLPConfig(inputs=5, hidden=(7,), outputs=2))


def verify(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["verify", "receipt", *map(str, arguments), "--json"])


def verdicts(result: Result) -> dict[str, str]:
    return {claim["name"]: claim["verdict"] for claim in json.loads(result.stdout)["claims"]}


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("REXIS_DEPLOYMENT_FILE", raising=False)
    monkeypatch.setenv("REXIS_HOME", str(tmp_path / "home"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "bundle.json"
    path.write_bytes(FILE)
    return path


def test_the_reference_bundle_is_read_verified_and_written_again() -> None:
    bundle = ReceiptBundle.parse(FILE)
    assert bundle.document() == BUNDLE
    assert bundle.to_bytes() == FILE
    assert replace(bundle, checksum=None).to_bytes() == FILE
    assert to_hex(bundle.batch.id) == VECTOR["batch"]["id"]
    assert to_hex(bundle.batch.context) == VECTOR["batch"]["context"]
    assert to_hex(bundle.receipt.digest) == VECTOR["digest"]
    bundle.verify()


@pytest.mark.parametrize("refused", VECTOR["refused"], ids=lambda vector: vector["name"])
def test_files_out_of_form_are_refused(refused: dict[str, str], path: Path) -> None:
    with pytest.raises(MalformedMessageError):
        ReceiptBundle.parse(refused["file"].encode())
    path.write_text(refused["file"])
    result = verify(path)
    assert result.exit_code == 1
    assert verdicts(result) == {**dict.fromkeys(CLAIMS, "NOT CHECKED"), "form": "FAIL"}


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"null", b"[]", b"[" * 100_000, b'"' + b"x" * 20_000 + b'"', b'{"version":1e999}', b'{"a":"\\ud800"}']
)
def test_hostile_files_end_in_one_verdict(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    result = verify(path)
    assert (result.exit_code, verdicts(result)["form"]) == (1, "FAIL")


def test_a_check_without_evidence_is_not_a_pass() -> None:
    def refuse() -> None:
        raise MalformedMessageError("no")

    statements = {"a": "", "b": "", "c": "", "d": ""}
    found = assess(statements, {"a": Check(refuse), "b": "nothing given", "c": Check(lambda: None, needs=("a",)), "d": Check(lambda: None)})
    assert [claim.verdict for claim in found] == [Verdict.FAIL, Verdict.NOT_CHECKED, Verdict.NOT_CHECKED, Verdict.PASS]
    assert [claim.why for claim in found] == ["no", "nothing given", "says something only once a passed", ""]
    with pytest.raises(ValueError, match="one check for each claim"):
        assess(statements, {"a": "nothing given"})


# The command.


def test_it_asks_nobody(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    result = verify(path)
    assert result.exit_code == 0, result.output
    found = verdicts(result)
    assert [name for name, verdict in found.items() if verdict == "PASS"] == list(OFFLINE)
    assert {found[name] for name in CLAIMS if name not in OFFLINE} == {"NOT CHECKED"}
    # The sockets are really gone: with a node to ask, it fails.
    with pytest.raises(AssertionError, match="a connection was opened"):
        raise verify(path, "--rpc", "http://127.0.0.1:1").exception or SystemExit


def test_a_bundle_alone_is_never_a_pass(path: Path) -> None:
    record, issuer = ("--record", BUNDLE["record"]), ("--issuer", BUNDLE["receipt"]["issuer"])
    expected = {(): "NOT CHECKED", record: "NOT CHECKED", issuer: "NOT CHECKED", (*record, *issuer): "PASS"}
    for options, result in expected.items():
        found = verify(path, *options)
        assert (found.exit_code, json.loads(found.stdout)["result"]) == (0, result), options


@pytest.mark.parametrize(
    ("options", "named", "silent"),
    [((), ("--record", "--issuer"), ()), (("--record", BUNDLE["record"]), ("--issuer",), ("--record",))],
)
def test_the_last_line_names_what_is_missing_for_a_pass(
    path: Path, options: tuple[str, ...], named: tuple[str, ...], silent: tuple[str, ...]
) -> None:
    result = CliRunner().invoke(app, ["verify", "receipt", str(path), *options])
    last = result.stdout.splitlines()[-1]
    assert (result.exit_code, last.split("  ")[0]) == (0, "NOT CHECKED")
    assert all(option in last for option in named)
    assert not any(option in last for option in silent)


def test_a_wrong_signature_fails_offline_and_tells_contract_accounts_where_to_go(path: Path) -> None:
    path.write_bytes(canonical_json({**BUNDLE, "receipt": {**BUNDLE["receipt"], "signature": "0x" + 130 * "0"}}))
    result = verify(path)
    (claim,) = [claim for claim in json.loads(result.stdout)["claims"] if claim["name"] == "receipt-signature"]
    assert (result.exit_code, claim["verdict"]) == (1, "FAIL")
    assert "if " + BUNDLE["receipt"]["issuer"] + " is a contract account, check again with --rpc" in claim["why"]


def test_every_report_says_that_it_says_nothing_of_privacy(path: Path) -> None:
    claims = json.loads(verify(path, "--record", BUNDLE["record"]).stdout)["claims"]
    (privacy,) = [claim for claim in claims if claim["name"] == "privacy"]
    assert privacy["verdict"] == "NOT CHECKED"
    assert "confidentiality" in privacy["why"]


@pytest.mark.parametrize(
    ("option", "claim", "right", "wrong"),
    [
        ("--issuer", "issuer-expected", BUNDLE["receipt"]["issuer"], BUNDLE["batch"]["owner"]),
        ("--owner", "owner-expected", BUNDLE["batch"]["owner"], BUNDLE["receipt"]["issuer"]),
        ("--record", "record-expected", BUNDLE["record"], "0x" + 64 * "0"),
    ],
)
def test_expectations(path: Path, option: str, claim: str, right: str, wrong: str) -> None:
    met, broken = verify(path, option, right), verify(path, option, wrong)
    assert (met.exit_code, verdicts(met)[claim]) == (0, "PASS")
    assert (broken.exit_code, verdicts(broken)[claim], json.loads(broken.stdout)["result"]) == (1, "FAIL", "FAIL")


def test_people_read_a_table(path: Path) -> None:
    result = CliRunner().invoke(app, ["verify", "receipt", str(path), "--issuer", BUNDLE["batch"]["owner"]])
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert any(line.startswith("PASS") and "inclusion" in line for line in lines)
    assert any(line.startswith("NOT CHECKED") and "computation" in line for line in lines)
    assert lines[-1] == "FAIL  issuer-expected"


def test_a_name_counts_only_once_it_is_bound(path: Path) -> None:
    """Whoever writes the expected names into a file has neither the issuer's signature nor the batch's id."""
    document = {
        **BUNDLE,
        "receipt": {**BUNDLE["receipt"], "issuer": "0x" + 40 * "1"},
        "batch": {**BUNDLE["batch"], "owner": "0x" + 40 * "2"},
    }
    path.write_bytes(canonical_json(document))
    found = verdicts(verify(path, "--issuer", "0x" + 40 * "1", "--owner", "0x" + 40 * "2"))
    assert (found["receipt-signature"], found["issuer-expected"]) == ("FAIL", "NOT CHECKED")
    assert (found["batch-id"], found["owner-expected"]) == ("FAIL", "NOT CHECKED")


def test_a_file_does_not_write_on_the_terminal(path: Path) -> None:
    path.write_bytes(canonical_json({**BUNDLE, "count": "\x1b[2J[bold]"}))
    result = CliRunner().invoke(app, ["verify", "receipt", str(path)])
    assert result.exit_code == 1
    assert "got \ufffd[2J[bold]" in result.stdout


def test_what_was_mistyped_is_one_message(path: Path) -> None:
    for option, value in (("--issuer", "0x12"), ("--record", "12"), ("--rpc", "http://127.0.0.1:1")):
        result = verify(path, option, value)
        assert result.exit_code == 1
        assert set(json.loads(result.stdout)) == {"error"}


# Opened files.


class Opened:
    """A model, a question of four rows and its answer, as files, and the bundle of the receipt of row 2."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        module = build(SPEC, seed=3)
        x = torch.randn(4, 5, generator=torch.Generator().manual_seed(5)).numpy()
        with torch.no_grad():
            y = module(torch.tensor(x)).numpy()
        weights = {name: value.numpy() for name, value in module.state_dict().items()}
        model = self.write("model", FileSpec.of_model("model", SPEC.digest(), SPEC.shapes, "f32"), weights)
        self.write("inputs", FileSpec("batch", (TensorSpec("x", "f32", ("n", 5)),)), {"x": x})
        self.write("outputs", FileSpec("output", (TensorSpec("y", "f32", ("n", 2)),)), {"y": y})
        (folder / "spec.json").write_text(json.dumps(SPEC.document()))
        self.x, self.y, self.weights = x, y, weights
        self.bundle(model, x[2], y[2])

    def write(self, name: str, spec: FileSpec, tensors: dict[str, Any]) -> bytes:
        with (self.folder / name).open("wb") as file:
            return write_file(file, spec, tensors).record

    def bundle(self, model: bytes, x: Any, y: Any) -> None:
        issuer, chain = LocalSigner.generate(), BUNDLE["batch"]
        plain = Receipt(model, tensor_digest(x), tensor_digest(y), bytes(16), datetime(2026, 11, 21, 7, 0, tzinfo=UTC), issuer.address)
        signed = replace(plain, signature=issuer.sign_typed_data(receipt_message(plain, chain["chain_id"])))
        batch = BatchIdentity(chain["chain_id"], chain["registry"], issuer.address, chain["owner"], model, 1)
        tree = MerkleTree(LeafKind.RECEIPT, batch.context, [signed.leaf()])
        placed = replace(signed, batch=batch.id, index=0)
        content = ReceiptBundle(placed, batch, 1, tree.record, (), CommittedIn(bytes(32), 1, bytes(32))).to_bytes()
        (self.folder / "bundle.json").write_bytes(content)

    def verify(self) -> Result:
        options = [argument for name in ("model", "inputs", "outputs") for argument in (f"--{name}", self.folder / name)]
        return verify(self.folder / "bundle.json", "--spec", self.folder / "spec.json", *options)


OPENED = ("model-record", "input", "output", "computation")


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    return Opened(tmp_path)


def of_opened(result: Result) -> list[str]:
    found = verdicts(result)
    return [found[name] for name in OPENED]


def test_opened_files_are_compared_and_the_item_is_executed_again(opened: Opened) -> None:
    result = opened.verify()
    assert (result.exit_code, of_opened(result)) == (0, ["PASS"] * 4), result.stdout


def test_an_answer_of_another_model_is_found(opened: Opened) -> None:
    """The provider signs for the registered model, and answers with another one."""
    changed = opened.y.copy()
    changed[2, 0] += 1e-3 * np.abs(opened.y[2]).max()
    record = opened.write("model", FileSpec.of_model("model", SPEC.digest(), SPEC.shapes, "f32"), opened.weights)
    opened.write("outputs", FileSpec("output", (TensorSpec("y", "f32", ("n", 2)),)), {"y": changed})
    opened.bundle(record, opened.x[2], changed[2])
    result = opened.verify()
    assert (result.exit_code, of_opened(result)) == (1, ["PASS", "PASS", "PASS", "FAIL"]), result.stdout


def test_an_input_that_the_model_does_not_take_is_no_answer(opened: Opened) -> None:
    record = opened.write("model", FileSpec.of_model("model", SPEC.digest(), SPEC.shapes, "f32"), opened.weights)
    wide = np.ones((1, 6), dtype=np.float32)
    opened.write("inputs", FileSpec("batch", (TensorSpec("x", "f32", ("n", 6)),)), {"x": wide})
    opened.bundle(record, wide[0], opened.y[2])
    result = opened.verify()
    assert (result.exit_code, of_opened(result)) == (1, ["PASS", "PASS", "PASS", "FAIL"]), result.output


def test_files_of_something_else_fail_by_name_and_are_not_computed_on(opened: Opened) -> None:
    weights = {**opened.weights, "0.bias": opened.weights["0.bias"] + 1}
    opened.write("model", FileSpec.of_model("model", SPEC.digest(), SPEC.shapes, "f32"), weights)
    opened.write("inputs", FileSpec("batch", (TensorSpec("x", "f32", ("n", 5)),)), {"x": opened.x[:2]})
    result = opened.verify()
    assert (result.exit_code, of_opened(result)) == (1, ["FAIL", "FAIL", "PASS", "NOT CHECKED"])
    for name in ("model", "inputs", "outputs", "spec.json"):
        (opened.folder / name).write_bytes(b"\x08" + bytes(7) + b"not this")
    result = opened.verify()
    assert (result.exit_code, of_opened(result)) == (1, ["FAIL", "FAIL", "FAIL", "NOT CHECKED"])


def test_canonical_is_the_only_form() -> None:
    assert canonical_json(BUNDLE) == FILE
    assert from_hex(BUNDLE["receipt"]["batch"], 32) == ReceiptBundle.parse(FILE).batch.id
