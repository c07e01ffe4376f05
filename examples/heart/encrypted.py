"""Encrypted inference in the story, and what its receipts show: one hospital, the trainer, the verifier, and a check that asks nobody."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from examples.heart.experimenter import feature_spec
from examples.heart.federations import MODELS, plain_model
from examples.heart.ledger import LedgerEvent
from examples.heart.parties import Hospital
from examples.heart.training import NETWORK, Trained
from rexis import ee
from rexis.agent.table import read_table
from rexis.encoding import to_hex
from rexis.errors import VerificationError

MOST_RELATIVE_ERROR = 1e-5
PLAIN, KEYED, KEY = "network.safetensors", "network.keyed.safetensors", "network.key"
ROWS, PREDICTIONS, RECEIPTS = "patients.features.csv", "predictions.csv", "receipts.json"


@dataclass(frozen=True, eq=False)
class Asked:
    """What came of the questions.

    Attributes:
        owner: hospital that owns the encrypted model and asked it.
        patients: how many rows were sent.
        relative_error: largest difference of a decrypted output to plaintext inference, over the largest plaintext output.
        label: how far the encryption protects, in the word that the platform uses.
        issuer: account that signed the receipts.
        receipts: their digests.
        secrets: what must not be found outside the hospital, by what it is.
    """

    owner: str
    patients: int
    relative_error: float
    label: str
    issuer: str
    receipts: tuple[str, ...]
    secrets: dict[str, list[bytes]]

    def document(self) -> dict[str, Any]:
        """The part `inference` of the report."""
        return {"owner": self.owner, "patients": self.patients, "relative_error": self.relative_error, "label": self.label}


def ask_encrypted(hospital: Hospital, trained: Trained) -> Asked:
    """Key the final network, publish it at the trainer, and ask it about the hospital's test patients, encrypted.

    Raises:
        VerificationError: the decrypted answers are not those of the plain network.
    """
    spec = hospital.write("network.json", json.dumps(MODELS[NETWORK].document()))
    hospital.rexis("federation", "model", trained.ids[NETWORK], "-o", PLAIN)
    hospital.rexis("ee", "keygen", spec, "--knowledge", "members", "-o", KEY)
    hospital.rexis("ee", "encrypt", "--key", KEY, "--model", PLAIN, "-o", KEYED)
    model = hospital.rexis("model", "publish", KEYED, "--key", KEY, "--name", "narrowed coronary arteries, 16 hidden units")
    inputs = _write_features(hospital, trained)
    answer = hospital.rexis("infer", model["id"], ROWS, "--key", KEY, "-o", PREDICTIONS, "--receipts", RECEIPTS)
    expected = plain_model(NETWORK, (hospital.folder / PLAIN).read_bytes()).double()(torch.from_numpy(inputs)).detach().numpy()
    got = _read_predictions(hospital.folder / PREDICTIONS)
    if got.shape != expected.shape:
        raise VerificationError(f"expected {expected.shape} answers, got {got.shape}")
    error = float(np.abs(got - expected).max() / np.abs(expected).max())
    if error > MOST_RELATIVE_ERROR:
        raise VerificationError(f"decrypted answers: expected those of the plain network within {MOST_RELATIVE_ERROR}, got {error:.2e}")
    receipts = json.loads((hospital.folder / RECEIPTS).read_text())["receipts"]
    key = ee.Key.load(hospital.folder / KEY, hospital.passphrase)
    return Asked(
        owner=hospital.name,
        patients=len(inputs),
        relative_error=error,
        label=answer["protection"],
        issuer=answer["issuer"],
        receipts=tuple(item["digest"] for item in receipts),
        secrets={
            "the key's seed": [key.seed, key.seed.hex().encode()],
            "patients' features as they would be sent unencrypted": [row.tobytes() for row in inputs.astype("<f4")],
            "patients' features and predictions as text": _lines(hospital.folder / ROWS) + _lines(hospital.folder / PREDICTIONS),
        },
    )


def check_receipts(hospital: Hospital, asked: Asked, events: list[LedgerEvent]) -> list[dict[str, Any]]:
    """Fetch one receipt's bundle and check it offline; then change one byte of it and check again.

    Args:
        hospital: that asked.
        asked: its questions.
        events: read from the chain by whoever checks, after the bundle was there.

    Returns:
        The part `verification` of the report.

    Raises:
        VerificationError: an intact bundle is not found right, or a changed one is.
    """
    bundle = hospital.folder / "receipt.bundle.json"
    content = bundle.read_bytes()
    # The output's digest: as if the provider had answered something else.
    place = content.index(b'"output"') + len(b'"output":"0x')
    changed = hospital.folder / "receipt.changed.json"
    changed.write_bytes(content[:place] + (b"1" if content[place : place + 1] == b"0" else b"0") + content[place + 1 :])
    batch = json.loads(content)["receipt"]["batch"]
    committed = [event.arguments for event in events if event.event == "BatchCommitted"]
    record = next((to_hex(found["record"]) for found in committed if to_hex(found["batch"]) == batch), None)
    if record is None:
        raise VerificationError(f"expected batch {batch} on chain, which the bundle names")
    options = ("--issuer", asked.issuer, "--owner", hospital.address, "--record", record)
    intact, broken = (hospital.rexis("verify", "receipt", path, *options) for path in (bundle, changed))
    failed = [claim["name"] for claim in broken["claims"] if claim["verdict"] == "FAIL"]
    if intact["result"] != "PASS" or broken["result"] != "FAIL" or not failed:
        raise VerificationError(
            f"expected PASS for the receipt as issued and FAIL for the changed one, got {intact['result']}, {broken['result']}"
        )
    return [_case("As issued", intact), _case("One byte changed", broken)]


def fetch_bundle(hospital: Hospital, asked: Asked) -> None:
    """Wait until the batch with the first receipt is on chain, and keep its bundle."""
    hospital.rexis("verify", "fetch", asked.receipts[0], "-o", "receipt.bundle.json", "--issuer", asked.issuer)


def _case(name: str, found: dict[str, Any]) -> dict[str, Any]:
    claims = [{"name": claim["statement"], "verdict": claim["verdict"], "detail": claim["why"]} for claim in found["claims"]]
    return {"name": name, "verdict": found["result"], "claims": claims}


def _write_features(hospital: Hospital, trained: Trained) -> NDArray[np.float64]:
    """The test patients as the model's inputs, f64 [n, 13], also as a CSV file."""
    table, spec = read_table(hospital.patients), feature_spec()
    inputs = trained.moments.standardise(spec.encode(table.columns, table.rows).inputs)
    with (hospital.folder / ROWS).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(spec.names)
        writer.writerows([map(repr, row) for row in inputs.tolist()])
    return inputs


def _read_predictions(path: Path) -> NDArray[np.float64]:
    """Outputs f64 [n, 1], without the column that numbers the rows."""
    return np.array([[float(cell) for cell in row[1:]] for row in read_table(path).rows])


def _lines(path: Path) -> list[bytes]:
    """A table's lines without its header and without the first column, which may be a mere number."""
    return [line.split(b",", 1)[1] for line in path.read_bytes().splitlines()[1:]]
