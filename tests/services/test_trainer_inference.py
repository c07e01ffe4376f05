"""Questions to keyed models: answered by a real worker as the plain model would, with one receipt a row, whatever is killed when."""

import io
import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rexis import ee
from rexis.agent.inference import Questioner, check_receipts
from rexis.agent.keyed_models import PublicText, keyed_as, publish_model, revoke_model
from rexis.agent.model_files import outputs_file_spec, write_model
from rexis.chain.connection import Chain
from rexis.chain.signer import LocalSigner
from rexis.client.relayed_calls import RelayClient
from rexis.client.trainer import Model, TrainerClient
from rexis.client.verifier import VerifierClient
from rexis.commitments import Receipt, tensor_digest
from rexis.encoding import to_hex
from rexis.errors import DigestMismatchError, KeyFileError, LeaseLostError, MalformedMessageError, ServiceError, SignatureError
from rexis.protocol.batch import read_file
from rexis.protocol.receipt_signature import verify_receipt
from rexis.protocol.uploads import parse_content_digest
from services.foundation.database import migrate, now, open_engine, transaction
from services.foundation.objects import ObjectStore
from services.foundation.outbox.leases import reap_leases
from services.foundation.outbox.tasks import celery_application, publish_once
from services.trainer import answering, inferences
from services.trainer.batches import TASKS_MODULE
from services.trainer.inferences import ANSWER, sweep_outputs
from services.trainer.models import Inference, InferenceItem, IssuedReceipt
from tests.services.conftest import free_port
from tests.services.marketplace_on_chain import running_chain, undone
from tests.services.service_applications import connected, serving, settings_for
from tests.services.trainer_on_chain import (
    ISSUER,
    SPEC,
    Heart,
    Trainer,
    eventually,
    patients,
    rows_bytes,
    trainer_of,
    trainer_processes,
    trainer_settings,
    worker_process,
)

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
def trainer(chain: Chain, rpc_url: str, database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Trainer]:
    with trainer_of(trainer_settings(database_url, rpc_url, tmp_path, redis_url=redis_url), chain) as found:
        yield found


@pytest.fixture
def model(trainer: Trainer) -> dict[str, Any]:
    return trainer.publish(OWNER, HEART)


def keyed(x: torch.Tensor) -> bytes:
    return rows_bytes(ee.encrypt_inputs(x, HEART.key))


def asked(trainer: Trainer, model: dict[str, Any], content: bytes, account: LocalSigner = OWNER) -> dict[str, Any]:
    """A question that was handed in, and run in this process as the worker does."""
    answer = trainer.ask(account, model["id"], content)
    assert answer.status_code == 202, answer.text
    trainer.answer(answer.json()["id"])
    found: dict[str, Any] = trainer.get(f"/v1/inferences/{answer.json()['id']}", account)
    return found


def outputs(trainer: Trainer, inference: dict[str, Any]) -> np.ndarray[Any, Any]:
    answer = trainer.call("GET", f"/v1/inferences/{inference['id']}/output", OWNER)
    assert answer.status_code == 200, answer.text
    assert parse_content_digest(answer.headers["content-digest"])
    return read_file(io.BytesIO(answer.content), outputs_file_spec(SPEC), len(answer.content))["y"].copy()


def receipts(trainer: Trainer, inference: dict[str, Any], account: LocalSigner = OWNER) -> list[Receipt]:
    found, cursor = [], {}
    while True:
        page = trainer.get(f"/v1/inferences/{inference['id']}/receipts", account, limit=500, **cursor)
        assert [item["item"] for item in page["items"]] == list(range(len(found), len(found) + len(page["items"])))
        found += [Receipt.parse(item["receipt"]) for item in page["items"]]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


class Flattering(TrainerClient):
    """A trainer that says of every model that nobody else knows it."""

    def model(self, model_id: str) -> Model:
        found = super().model(model_id)
        return replace(found, keyed=replace(found.keyed, knowledge="private"))


def test_an_institution_gets_the_plain_models_answers_with_receipts_at_the_verifier(rpc_url: str, redis_url: str, tmp_path: Path) -> None:
    """The whole path over HTTP, with the real worker and background process, and a verifier that starts last."""
    verifier = settings_for(
        "verifier", f"sqlite:///{tmp_path / 'verifier.sqlite'}", public_url=f"http://127.0.0.1:{free_port()}", chain_rpc_url=rpc_url
    )
    engine = open_engine(verifier.database_url)
    migrate(engine, "services.verifier")
    engine.dispose()
    settings = trainer_settings(
        f"sqlite:///{tmp_path / 'trainer.sqlite'}",
        rpc_url,
        tmp_path,
        redis_url=redis_url,
        public_url=f"http://127.0.0.1:{free_port()}",
        verifier_url=verifier.public_url,
    )
    file, x = tmp_path / "keyed.safetensors", patients(40)
    write_model(file, HEART.keyed)
    with ExitStack() as stack:
        chain = stack.enter_context(undone(rpc_url))
        stack.enter_context(serving(settings))
        stack.enter_context(trainer_processes(settings, tmp_path))
        mine, clinic = stack.enter_context(connected(settings, OWNER, CLINIC))
        owner, user = TrainerClient(mine), TrainerClient(clinic)
        states: list[str] = []
        published = publish_model(
            owner, OWNER, chain.deployment, file, SPEC, keyed_as(HEART.key), PublicText("Heart"), users=[CLINIC.address]
        )
        model = owner.wait_for_model(published.id, timeout_s=60, on_state=states.append)
        assert (model.state, model.keyed.protection) == ("authorised", "obfuscation only")
        first = Questioner(user, HEART.key, settings.chain_id, issuer=ISSUER.address).ask(model.id, x)
        assert HEART.close(first.outputs, x)
        assert first.protection == "obfuscation only"
        flattered = Questioner(Flattering(clinic), HEART.key, settings.chain_id).ask(model.id, x[:1])
        assert (flattered.model.keyed.protection, flattered.protection) == ("keyed transformation", "obfuscation only"), "the key says so"
        assert [receipt.input for receipt in first.receipts] == [tensor_digest(row) for row in first.keyed_inputs]
        assert len({receipt.salt for receipt in first.receipts}) == 40

        stack.enter_context(serving(verifier))
        at_verifier, of_issuer, of_stranger = map(VerifierClient, stack.enter_context(connected(verifier, CLINIC, ISSUER, STRANGER)))
        second = Questioner(user, HEART.key, settings.chain_id, verifier=at_verifier).ask(model.id, patients(3, seed=2))
        for receipt in second.receipts:
            assert at_verifier.receipt(receipt.digest) == receipt

        def held_by_issuer() -> bool:
            try:
                return all(of_issuer.receipt(receipt.digest) == receipt for receipt in (*first.receipts, *second.receipts))
            except ServiceError:
                return False

        eventually(held_by_issuer)

        def owners() -> set[Any]:
            digests = [to_hex(receipt.digest) for receipt in (*first.receipts, *second.receipts)]
            return {of_issuer.connection.get(f"/v1/receipts/{digest}")["owner"] for digest in digests}

        eventually(lambda: owners() == {OWNER.address})
        with pytest.raises(ServiceError):
            of_stranger.receipt(first.receipts[0].digest)

        other = Heart.of()
        with pytest.raises(KeyFileError, match="is keyed with"):
            Questioner(user, other.key, settings.chain_id).ask(model.id, x)
        with pytest.raises(SignatureError, match="expected one by"):
            Questioner(user, HEART.key, settings.chain_id, issuer=STRANGER.address).ask(model.id, x[:1])
        relay = revoke_model(owner, OWNER, chain.deployment, model, "superseded")
        RelayClient(mine).wait_until_mined(relay.id)
        eventually(lambda: owner.model(model.id).state == "revoked")
        with pytest.raises(ServiceError, match="revoked: superseded"):
            Questioner(user, HEART.key, settings.chain_id).ask(model.id, x)


@pytest.mark.parametrize("dialect", ["postgres"], indirect=True)
def test_a_worker_killed_in_the_middle_leaves_one_answer(trainer: Trainer, model: dict[str, Any], tmp_path: Path) -> None:
    x = patients(1200)
    inference = trainer.ask(OWNER, model["id"], keyed(x)).json()
    celery = celery_application(trainer.settings, TASKS_MODULE)
    with worker_process(trainer.settings, tmp_path / "first.log") as worker:
        publish_once(trainer.engine, celery)
        # The row count is written right before the rows are worked on, which takes more than a second.
        eventually(lambda: trainer.row(inference["id"]).items == 1200)
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait(20)
    killed = trainer.row(inference["id"])
    assert (killed.state, killed.verdict, killed.attempts) == ("running", None, 1)
    with transaction(trainer.engine) as session:
        assert session.query(IssuedReceipt).count() == 0
        # As if the lease's time had gone by.
        session.get_one(Inference, killed.id).lease_until = now() - timedelta(seconds=1)
    assert reap_leases(trainer.engine, ANSWER) == 1
    with worker_process(trainer.settings, tmp_path / "second.log"):
        publish_once(trainer.engine, celery)
        eventually(lambda: trainer.row(inference["id"]).state == "done", timeout_s=120)
    celery.close()
    answered = trainer.get(f"/v1/inferences/{inference['id']}", OWNER)
    assert (answered["state"], answered["items"], answered["items_done"]) == ("answered", 1200, 1200)
    assert trainer.row(inference["id"]).attempts == 2
    found = receipts(trainer, answered)
    assert HEART.close(ee.decrypt_outputs(torch.from_numpy(outputs(trainer, answered)).double(), HEART.key), x)
    assert len({receipt.digest for receipt in found}) == 1200
    with transaction(trainer.engine, read_only=True) as session:
        assert session.query(IssuedReceipt).count() == session.query(InferenceItem).count() == 1200


class OvertakenStore(ObjectStore):
    """A store that keeps a run waiting for so long that another one answers meanwhile."""

    def __init__(self, trainer: Trainer, inference_id: str) -> None:
        self._trainer, self._id = trainer, inference_id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trainer.objects, name)

    def get(self, key: str) -> bytes:
        return self._trainer.objects.get(key)

    def put_new(self, key: str, data: bytes) -> None:
        self._trainer.objects.put_new(key, data)
        with transaction(self._trainer.engine) as session:
            session.get_one(Inference, uuid.UUID(self._id)).lease_until = now() - timedelta(seconds=1)
        self._trainer.answer(self._id)


def test_a_run_that_was_overtaken_writes_nothing_and_its_output_is_swept(trainer: Trainer, model: dict[str, Any]) -> None:
    inference = trainer.ask(OWNER, model["id"], keyed(patients())).json()
    with pytest.raises(LeaseLostError):
        answering.answer(trainer.engine, OvertakenStore(trainer, inference["id"]), ISSUER, 31337, uuid.UUID(inference["id"]))
    row, before = trainer.row(inference["id"]), receipts(trainer, inference)
    assert (row.verdict, row.fencing_token) == ("answered", 2)
    assert len(before) == 5
    trainer.answer(inference["id"])
    assert receipts(trainer, inference) == before
    folder = inferences.output_folder(row.id)
    assert len(list(trainer.objects.list(folder))) == 2
    with transaction(trainer.engine) as session:
        session.get_one(Inference, row.id).queued_at = now() - inferences.LONGEST_RUN - timedelta(seconds=1)
    sweep_outputs(trainer.engine, trainer.objects)
    assert [stored.key for stored in trainer.objects.list(folder)] == [row.output_key]
    assert outputs(trainer, inference).shape == (5, 1)


def test_a_claim_has_one_receipt_however_often_asked(trainer: Trainer, model: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two salts for one claim of one minute would make the trainer a liar at the verifier."""
    minute = now().replace(second=0, microsecond=0)
    monkeypatch.setattr("services.trainer.receipts.this_minute", lambda: minute)
    rows = keyed(patients(2).repeat(32, 1))
    first, second = (receipts(trainer, asked(trainer, model, rows)) for _ in range(2))
    assert first == second
    claims = {(receipt.input, receipt.output) for receipt in first}
    assert len({receipt.salt for receipt in first}) == len(claims) < 64
    with transaction(trainer.engine, read_only=True) as session:
        assert session.query(IssuedReceipt).count() == len(claims)
    monkeypatch.setattr("services.trainer.receipts.this_minute", lambda: minute + timedelta(minutes=1))
    later = receipts(trainer, asked(trainer, model, rows))
    assert {receipt.salt for receipt in later}.isdisjoint(receipt.salt for receipt in first)


def bad_rows(last: Any) -> bytes:
    """Five rows, of which the last one ends in these numbers."""
    content = bytearray(keyed(patients()))
    numbers = np.asarray(last, np.float32).tobytes()
    content[-len(numbers) :] = numbers
    return bytes(content)


def overflowing() -> Any:
    """Finite numbers with which the first hidden unit is not."""
    weight = HEART.keyed.state_dict()["0.weight"][0]
    return (torch.sign(weight) * torch.finfo(torch.float32).max).numpy()


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (bad_rows(np.nan), "NaN or infinity"),
        (bad_rows(overflowing()), "the model's output for row 4"),
        (keyed(patients())[:-4], "expected a file of"),
        (b"\xff" * 64, "header of at most"),
        (b"\x02" + bytes(7) + b"{}" + bytes(54), "metadata"),
    ],
    ids=["not finite", "overflow", "cut off", "header without end", "no metadata"],
)
def test_rows_without_an_answer_are_refused_with_the_reason(trainer: Trainer, model: dict[str, Any], content: bytes, reason: str) -> None:
    found = asked(trainer, model, content)
    assert found["state"] == "refused"
    assert reason in found["reason"]
    for part in ("output", "receipts"):
        refused = trainer.call("GET", f"/v1/inferences/{found['id']}/{part}", OWNER)
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:rexis:problem:no-answer")


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_more_rows_than_a_question_may_have_are_refused_by_the_header(
    trainer: Trainer, model: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "MAX_ITEMS", 4)
    assert "at most 4 rows" in asked(trainer, model, keyed(patients(5)))["reason"]


def test_only_those_whom_the_owner_lets_may_ask_and_only_they_see_it(trainer: Trainer, model: dict[str, Any]) -> None:
    assert trainer.ask(CLINIC, model["id"], keyed(patients())).status_code == 404
    trainer.call("PUT", f"/v1/models/{model['id']}/users", OWNER, {"users": [CLINIC.address]})
    found = asked(trainer, model, keyed(patients()), CLINIC)
    assert found["state"] == "answered"
    path = f"/v1/inferences/{found['id']}"
    for target in (path, f"{path}/output", f"{path}/receipts"):
        for account in (OWNER, STRANGER):
            assert trainer.call("GET", target, account).status_code == 404, target
    assert trainer.get("/v1/inferences", OWNER)["items"] == []
    assert [item["id"] for item in trainer.get("/v1/inferences", CLINIC)["items"]] == [found["id"]]
    [receipt, *_] = receipts(trainer, found, CLINIC)
    verify_receipt(receipt, trainer.settings.chain_id)
    assert (receipt.issuer, to_hex(receipt.model)) == (ISSUER.address, model["record"])


def test_a_model_answers_only_while_its_owner_vouches_for_it(trainer: Trainer) -> None:
    published = trainer.call("POST", "/v1/models", OWNER, trainer.body(OWNER, HEART)).json()
    early = trainer.ask(OWNER, published["id"], keyed(patients()))
    assert (early.status_code, early.json()["type"]) == (409, "urn:rexis:problem:model-checking")
    trainer.check_models()
    trainer.mine()
    waiting = trainer.ask(OWNER, published["id"], keyed(patients())).json()
    trainer.revoke(OWNER, published["record"])
    trainer.answer(waiting["id"])
    found = trainer.get(f"/v1/inferences/{waiting['id']}", OWNER)
    assert (found["state"], "revoked" in found["reason"]) == ("refused", True)
    late = trainer.ask(OWNER, published["id"], keyed(patients()))
    assert (late.status_code, late.json()["type"]) == (409, "urn:rexis:problem:model-revoked")
    with transaction(trainer.engine, read_only=True) as session:
        assert session.query(IssuedReceipt).count() == 0


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_model_keyed_for_training_answers_nothing(trainer: Trainer) -> None:
    training = trainer.publish(OWNER, Heart.of(mode="train"))
    refused = trainer.ask(OWNER, training["id"], keyed(patients()))
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:rexis:problem:model-mode")


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_an_upload_is_one_question(trainer: Trainer, model: dict[str, Any]) -> None:
    upload_id = trainer.upload(OWNER, keyed(patients()))
    body = {"model": model["id"], "upload_id": upload_id}
    first, second = (trainer.call("POST", "/v1/inferences", OWNER, body).json() for _ in range(2))
    assert first == second
    other = trainer.publish(OWNER, Heart.of())
    assert trainer.call("POST", "/v1/inferences", OWNER, {**body, "model": other["id"]}).status_code == 409


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_receipt_that_does_not_fit_is_found(trainer: Trainer, model: dict[str, Any]) -> None:
    x = ee.encrypt_inputs(patients(), HEART.key).float()
    inference = asked(trainer, model, rows_bytes(x))
    sent, y, found = x.numpy(), outputs(trainer, inference), receipts(trainer, inference)
    record = bytes.fromhex(model["record"][2:])

    def check(receipts: list[Receipt] = found, model: bytes = record, sent: Any = sent, y: Any = y, **more: Any) -> None:
        check_receipts(receipts, model, sent, y, trainer.settings.chain_id, **more)

    check(issuer=ISSUER.address, asked_at=now())
    with pytest.raises(DigestMismatchError, match="row 0: input"):
        check([found[1], found[0], *found[2:]])
    with pytest.raises(DigestMismatchError, match="row 3: output"):
        check(y=np.concatenate([y[:3], y[3:] + np.float32(1e-6)]))
    with pytest.raises(DigestMismatchError, match="row 0: model"):
        check(model=bytes(32))
    with pytest.raises(MalformedMessageError, match="a receipt and an answer for each"):
        check(found[:-1])
    with pytest.raises(MalformedMessageError, match="of the time of the question"):
        check(asked_at=now() + timedelta(minutes=10))
    with pytest.raises(SignatureError):
        check([*found[:-1], replace(found[-1], salt=bytes(16))])
    with pytest.raises(SignatureError):
        check(issuer=STRANGER.address)
