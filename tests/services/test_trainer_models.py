"""Keyed models: checked against what their owner signed before they reach the chain, seen by whom he lets, labelled as what they are."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rexis.chain.connection import Chain
from rexis.chain.model_registry import REGISTRY
from rexis.chain.signer import LocalSigner
from rexis.encoding import to_hex
from rexis.models.bert import BertConfig
from rexis.models.builders import build
from rexis.models.spec import ModelSpec
from services.foundation.chain_index import ChainIndex
from services.foundation.database import transaction
from services.foundation.outbox.transactions import ChainIntent
from services.trainer.background import PROJECTIONS
from services.trainer.models import RegisteredModel
from tests.services.marketplace_on_chain import running_chain, undone
from tests.services.trainer_on_chain import SPEC, Heart, Trainer, model_bytes, trainer_of, trainer_settings

OWNER, CLINIC, STRANGER = (LocalSigner.generate() for _ in range(3))
HEART = Heart.of()


@pytest.fixture(scope="module")
def rpc_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_chain(tmp_path_factory.mktemp("anvil")) as url:
        yield url


@pytest.fixture
def chain(rpc_url: str) -> Iterator[Chain]:
    with undone(rpc_url) as connected:
        yield connected


@pytest.fixture
def trainer(chain: Chain, rpc_url: str, database_url: str, tmp_path: Path) -> Iterator[Trainer]:
    with trainer_of(trainer_settings(database_url, rpc_url, tmp_path), chain) as found:
        yield found


def calls(trainer: Trainer) -> int:
    with transaction(trainer.engine, read_only=True) as session:
        return session.query(ChainIntent).count()


def on_chain(trainer: Trainer, record: str) -> bool:
    return bool(trainer.chain.contract(REGISTRY).functions.isAuthorised(OWNER.address, bytes.fromhex(record[2:])).call())


def test_a_model_reaches_the_chain_once_its_file_is_the_signed_one(trainer: Trainer) -> None:
    body = trainer.body(OWNER, HEART)
    first, again = (trainer.call("POST", "/v1/models", OWNER, body) for _ in range(2))
    assert first.status_code == again.status_code == 202, first.text
    assert first.json() == again.json()
    model = first.json()
    assert (model["state"], model["transaction_hash"], calls(trainer)) == ("checking", None, 0)
    trainer.check_models()
    trainer.check_models()
    assert trainer.get(f"/v1/models/{model['id']}", OWNER)["state"] == "authorising"
    trainer.mine()
    model = trainer.get(f"/v1/models/{model['id']}", OWNER)
    record = model_bytes(HEART.keyed)[1].record
    assert (model["state"], model["record"], model["reason"], model["report"]) == ("authorised", to_hex(record), None, None)
    assert model["ee"]["protection"] == "obfuscation only"
    assert on_chain(trainer, model["record"])
    assert calls(trainer) == 1
    assert trainer.get(f"/v1/relays/{model['relay_id']}", OWNER)["operation"] == "authorise"
    described = trainer.client.get(model["uri"].removeprefix(trainer.settings.public_url))
    assert described.status_code == 200
    assert described.json()["ee"]["protection"] == "obfuscation only"
    assert {"id", "users", "relay_id"}.isdisjoint(described.json())
    assert trainer.call("POST", "/v1/models", OWNER, body).json()["id"] == model["id"]


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("knowledge", "label"), [("private", "keyed transformation"), ("public", "obfuscation only")])
def test_the_label_follows_from_who_knows_the_plain_weights(trainer: Trainer, knowledge: str, label: str) -> None:
    assert trainer.publish(OWNER, Heart.of(knowledge))["ee"]["protection"] == label
    claimed = trainer.body(OWNER, Heart.of(knowledge))
    claimed["ee"]["protection"] = "encryption"
    assert trainer.call("POST", "/v1/models", OWNER, claimed).status_code == 422


READS_TOKENS = ModelSpec(BertConfig(vocabulary=64, positions=16, hidden=8, layers=1, heads=2, intermediate=16, outputs=2))


def summary(grade: str, *verdicts: str) -> dict[str, Any]:
    attacks = [{"name": f"attack_{place}", "version": 1, "verdict": verdict} for place, verdict in enumerate(verdicts)]
    return {"version": 1, "grade": grade, "attacks": attacks, "versions": {"suite": "1"}, "report": "0x" + 64 * "a"}


def test_a_model_carries_its_owners_privacy_report_in_short(trainer: Trainer) -> None:
    told = summary("D", "pass", "fail")
    model = trainer.publish(OWNER, HEART, report=told, users=[CLINIC.address])
    described = trainer.client.get(model["uri"].removeprefix(trainer.settings.public_url)).json()
    assert model["report"] == described["report"] == trainer.get(f"/v1/models/{model['id']}", CLINIC)["report"] == told
    assert trainer.get("/v1/models", OWNER)["items"][0]["report"] == told


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_report_better_than_its_verdicts_or_the_knowledge_of_the_weights_is_refused(trainer: Trainer) -> None:
    private = Heart.of("private")
    for heart, report, part in [
        (HEART, summary("A", "pass"), "expected D or worse"),
        (private, summary("A", "pass", "warn"), "expected B or worse"),
        (private, summary("C", "fail"), "expected D or worse"),
        (private, summary("B"), "report"),
        (private, {**summary("A", "pass"), "figures": {"r2": "1"}}, "report"),
        (private, {**summary("A", "pass"), "versions": {"suite": "1 <script>"}}, "report"),
    ]:
        answer = trainer.call("POST", "/v1/models", OWNER, trainer.body(OWNER, heart, report=report))
        assert answer.status_code == 422, answer.text
        assert part in answer.text
    assert trainer.publish(OWNER, private, report=summary("A", "pass"))["report"]["grade"] == "A"


def other_weights() -> bytes:
    return model_bytes(build(SPEC, seed=99))[0]


def not_finite() -> bytes:
    content = bytearray(model_bytes(HEART.keyed)[0])
    content[-4:] = torch.tensor([float("inf")]).numpy().tobytes()
    return bytes(content)


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (other_weights(), "which was signed"),
        (not_finite(), "NaN or infinity"),
        (bytes(64), "safetensors header"),
        (b"\xff" * 64, "header of at most"),
    ],
    ids=["other weights", "not finite", "no file", "header without end"],
)
def test_a_file_that_is_not_the_signed_one_never_reaches_the_chain(trainer: Trainer, content: bytes, reason: str) -> None:
    model = trainer.publish(OWNER, HEART, content=content)
    assert model["state"] == "refused"
    assert reason in model["reason"]
    assert calls(trainer) == 0
    assert not on_chain(trainer, model["record"])
    described = trainer.client.get(f"/v1/descriptions/{OWNER.address}/{model['record']}")
    assert described.status_code == 404


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_what_does_not_fit_the_signed_call_is_refused_at_once(trainer: Trainer) -> None:
    record, uri = model_bytes(HEART.keyed)[1].record, "https://hospital.example/model"
    other_spec = {**SPEC.document(), "config": {**SPEC.document()["config"], "hidden": [17]}}
    wrong: list[tuple[dict[str, Any], LocalSigner, int]] = [
        ({"model_spec": other_spec}, OWNER, 422),
        ({"model_spec": {"family": "pickle"}}, OWNER, 422),
        ({"model_spec": READS_TOKENS.document(), "arguments": (record, READS_TOKENS.digest(), uri)}, OWNER, 422),
        ({"arguments": (record, bytes(31) + b"1", uri)}, OWNER, 422),
        ({"arguments": (record, SPEC.digest(), "http://169.254.169.254/")}, OWNER, 422),
        ({"arguments": (bytes(32), SPEC.digest(), uri)}, OWNER, 409),
        ({"signature": "0x" + 130 * "1"}, OWNER, 401),
        ({"name": "two\nlines"}, OWNER, 422),
        ({}, STRANGER, 401),
        ({"upload_id": 32 * "0"}, OWNER, 404),
    ]
    for changes, account, status in wrong:
        answer = trainer.call("POST", "/v1/models", account, trainer.body(OWNER, HEART, **changes))
        assert answer.status_code == status, (changes, answer.text)
    assert calls(trainer) == 0
    assert trainer.get("/v1/models", OWNER)["items"] == []


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_model_exists_for_its_owner_and_those_whom_he_lets_use_it(trainer: Trainer) -> None:
    model = trainer.publish(OWNER, HEART)
    path = f"/v1/models/{model['id']}"
    for method, body in (("GET", None), ("PUT", {"users": [STRANGER.address]})):
        target = path if method == "GET" else f"{path}/users"
        assert trainer.call(method, target, CLINIC, body).status_code == 404
    assert trainer.get("/v1/models", CLINIC)["items"] == []
    named = trainer.call("PUT", f"{path}/users", OWNER, {"users": [CLINIC.address]})
    assert named.json()["users"] == [CLINIC.address]
    seen = trainer.get(path, CLINIC)
    assert (seen["record"], seen["users"], seen["relay_id"]) == (model["record"], None, None)
    assert [item["id"] for item in trainer.get("/v1/models", CLINIC)["items"]] == [model["id"]]
    assert trainer.call("PUT", f"{path}/users", CLINIC, {"users": []}).status_code == 404
    assert trainer.call("GET", path, STRANGER).status_code == 404
    trainer.call("PUT", f"{path}/users", OWNER, {"users": []})
    assert trainer.call("GET", path, CLINIC).status_code == 404


def test_what_the_chain_says_is_projected_and_can_be_rebuilt(trainer: Trainer) -> None:
    model = trainer.publish(OWNER, HEART)
    trainer.revoke(OWNER, model["record"])
    found = trainer.get(f"/v1/models/{model['id']}", OWNER)
    assert (found["state"], found["reason"]) == ("revoked", "key-compromise")
    assert not on_chain(trainer, model["record"])

    def rows() -> list[dict[str, Any]]:
        with transaction(trainer.engine, read_only=True) as session:
            columns = RegisteredModel.__table__.columns.keys()
            return [{name: getattr(row, name) for name in columns} for row in session.query(RegisteredModel)]

    before = rows()
    assert len(before) == 1
    ChainIndex(trainer.engine, trainer.chain, PROJECTIONS, 0).reindex()
    assert rows() == before
    twice = trainer.call("POST", "/v1/models", OWNER, trainer.body(OWNER, HEART))
    assert (twice.status_code, twice.json()["error"]) == (409, "ModelNotNew")


def test_the_api_process_never_loads_torch() -> None:
    program = "import sys; import services.trainer.app, services.trainer.background; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "False"
