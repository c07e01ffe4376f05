"""Encrypted batches: uploaded in parts, checked by a real worker, accepted with their record or refused with the reason."""

import io
import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from celery import Celery
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from rexis.chain.signer import LocalSigner
from rexis.commitments import tensor_digest
from rexis.encoding import sha256, to_hex
from rexis.errors import DigestMismatchError, UnavailableError
from rexis.protocol.batch import write_file
from rexis.protocol.file_spec import FileSpec
from rexis.protocol.uploads import UploadManifest, content_digest_header, plan_parts
from services.foundation.database import migrate, open_engine, transaction
from services.foundation.objects import ObjectStore, open_store
from services.foundation.outbox.leases import claim, reap_leases
from services.foundation.outbox.tasks import celery_application, publish_once
from services.foundation.settings import ServiceSettings
from services.trainer import batches
from services.trainer.models import Batch
from tests.services.service_applications import authorised, client_of, environment_of, settings_for

ROOT = Path(__file__).parents[2]
PHARMA, STRANGER = LocalSigner.generate(), LocalSigner.generate()
DOCUMENT = {
    "version": 1,
    "kind": "batch",
    "tensors": [{"name": "labels", "dtype": "i64", "shape": ["n"]}, {"name": "x", "dtype": "f32", "shape": ["n", 4]}],
}
X = np.arange(12, dtype=np.float32).reshape(3, 4)
LABELS = np.array([0, 1, 0])


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"file://{tmp_path / 'objects'}"


@pytest.fixture
def objects(store_url: str) -> ObjectStore:
    return open_store(store_url)


@pytest.fixture
def settings(database_url: str, store_url: str, redis_url: str) -> ServiceSettings:
    return settings_for("trainer", database_url, object_store_url=store_url, redis_url=redis_url)


@pytest.fixture
def engine(settings: ServiceSettings) -> Iterator[Engine]:
    opened = open_engine(settings.database_url)
    migrate(opened, "services.trainer")
    yield opened
    opened.dispose()


@pytest.fixture
def client(settings: ServiceSettings, engine: Engine) -> Iterator[TestClient]:
    with client_of(settings) as client:
        client.headers.update(authorised(settings, PHARMA))
        yield client


@pytest.fixture
def celery(settings: ServiceSettings) -> Iterator[Celery]:
    application = celery_application(settings, "services.trainer.tasks")
    yield application
    application.close()


def file_of(x: np.ndarray[Any, Any] = X) -> bytes:
    stream = io.BytesIO()
    write_file(stream, FileSpec.parse(DOCUMENT), {"x": x, "labels": LABELS})
    return stream.getvalue()


def upload(client: TestClient, content: bytes) -> str:
    """Upload through the one protocol and return the id."""
    upload_id = str(client.post("/v1/uploads", json={"total_bytes": len(content)}).json()["id"])
    digests = []
    for part in plan_parts(len(content)):
        piece = content[part.offset : part.offset + part.size]
        digests.append(sha256(piece))
        headers = {"Content-Digest": content_digest_header(digests[-1])}
        assert client.put(f"/v1/uploads/{upload_id}/parts/{part.number}", content=piece, headers=headers).status_code == 200
    completed = client.post(f"/v1/uploads/{upload_id}/complete", json=UploadManifest(len(content), tuple(digests)).to_json())
    assert completed.status_code == 200, completed.text
    return upload_id


def hand_in(client: TestClient, content: bytes, spec: dict[str, Any] | None = None) -> dict[str, Any]:
    answer = client.post("/v1/batches", json={"upload_id": upload(client, content), "spec": spec or DOCUMENT})
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    assert (found["state"], found["record"]) == ("queued", None)
    return found


def checked(client: TestClient, engine: Engine, objects: ObjectStore, content: bytes, spec: dict[str, Any] | None = None) -> dict[str, Any]:
    """Hand a batch in and do in this process what the worker does."""
    batch = hand_in(client, content, spec)
    batches.validate(engine, objects, uuid.UUID(batch["id"]))
    found: dict[str, Any] = client.get(f"/v1/batches/{batch['id']}").json()
    return found


def test_a_worker_takes_batches_from_the_outbox_and_decides(
    client: TestClient, engine: Engine, settings: ServiceSettings, celery: Celery, tmp_path: Path
) -> None:
    good, bad = hand_in(client, file_of()), hand_in(client, file_of()[:-4])
    command = [sys.executable, "-m", "celery", "-A", "services.trainer.worker:celery", "worker", "--without-gossip", "--without-mingle"]
    with (tmp_path / "worker.log").open("w") as log:
        worker = subprocess.Popen(command, cwd=ROOT, env=environment_of(settings), stdout=log, stderr=log)
    try:
        assert publish_once(engine, celery) == 2
        deadline = time.monotonic() + 60
        while True:
            states = [client.get(f"/v1/batches/{batch['id']}").json() for batch in (good, bad)]
            if all(state["state"] not in ("queued", "running") for state in states):
                break
            if worker.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the worker did not decide: {(tmp_path / 'worker.log').read_text()}")
            time.sleep(0.1)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(20)
    assert [state["state"] for state in states] == ["accepted", "refused"]
    record = write_file(io.BytesIO(), FileSpec.parse(DOCUMENT), {"x": X, "labels": LABELS})
    assert states[0]["record"] == to_hex(record.record)
    assert states[0]["tensors"] == [
        {"name": "labels", "dtype": "i64", "shape": [3], "digest": to_hex(tensor_digest(LABELS))},
        {"name": "x", "dtype": "f32", "shape": [3, 4], "digest": to_hex(tensor_digest(X))},
    ]
    assert "expected a file of" in states[1]["reason"]
    assert states[1]["record"] is None
    assert client.get("/v1/batches").json()["items"] == states[::-1]


def not_finite() -> bytes:
    content = bytearray(file_of())
    content[-4:] = np.array([np.nan], np.float32).tobytes()
    return bytes(content)


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (not_finite(), "NaN or infinity"),
        (file_of() + bytes(4), "expected a file of"),
        (bytes([255]) * 64, "expected a header of at most"),
        (b"\x02" + bytes(7) + b"[]" + bytes(54), "safetensors header"),
    ],
    ids=["not finite", "too long", "header without end", "no object"],
)
def test_a_bad_file_is_refused_with_the_reason(
    client: TestClient, engine: Engine, objects: ObjectStore, content: bytes, reason: str
) -> None:
    found = checked(client, engine, objects, content)
    assert found["state"] == "refused"
    assert reason in found["reason"]


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_file_of_another_specification_is_refused(client: TestClient, engine: Engine, objects: ObjectStore) -> None:
    wide = {**DOCUMENT, "tensors": [{"name": "x", "dtype": "f32", "shape": ["n", 4]}]}
    found = checked(client, engine, objects, file_of(), wide)
    assert found["state"] == "refused"
    assert found["reason"].startswith(f"expected a batch file of spec {found['spec_digest']}")


def test_a_task_delivered_twice_decides_once(client: TestClient, engine: Engine, objects: ObjectStore) -> None:
    first = checked(client, engine, objects, file_of())
    batches.validate(engine, objects, uuid.UUID(first["id"]))
    assert client.get(f"/v1/batches/{first['id']}").json() == first
    with transaction(engine, read_only=True) as session:
        assert session.get_one(Batch, uuid.UUID(first["id"])).attempts == 1


def test_a_second_run_beside_a_live_one_does_nothing(client: TestClient, engine: Engine, objects: ObjectStore) -> None:
    batch = hand_in(client, file_of())
    assert claim(engine, batches.VALIDATION, uuid.UUID(batch["id"])) is not None
    batches.validate(engine, objects, uuid.UUID(batch["id"]))
    assert client.get(f"/v1/batches/{batch['id']}").json()["state"] == "running"


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_store_that_lost_the_bytes_is_not_the_owners_fault(client: TestClient, engine: Engine, objects: ObjectStore) -> None:
    batch = hand_in(client, file_of())
    for stored in list(objects.list("uploads")):
        objects.delete(stored.key)
        objects.put_new(stored.key, bytes(stored.size))
    with pytest.raises(DigestMismatchError):
        batches.validate(engine, objects, uuid.UUID(batch["id"]))
    found = client.get(f"/v1/batches/{batch['id']}").json()
    assert found["state"] == "failed"
    assert "expected digest" in found["reason"]


def test_a_store_that_is_away_costs_a_run_not_the_batch(client: TestClient, engine: Engine, objects: ObjectStore, tmp_path: Path) -> None:
    batch = hand_in(client, file_of())
    (tmp_path / "objects").rename(tmp_path / "away")
    with pytest.raises((UnavailableError, FileNotFoundError)):
        batches.validate(engine, objects, uuid.UUID(batch["id"]))
    (tmp_path / "away").rename(tmp_path / "objects")
    assert reap_leases(engine, batches.VALIDATION) == 1
    assert client.get(f"/v1/batches/{batch['id']}").json()["state"] == "queued"
    batches.validate(engine, objects, uuid.UUID(batch["id"]))
    assert client.get(f"/v1/batches/{batch['id']}").json()["state"] == "accepted"


def test_an_upload_is_one_batch(client: TestClient) -> None:
    upload_id = upload(client, file_of())
    body = {"upload_id": upload_id, "spec": DOCUMENT}
    first, second = (client.post("/v1/batches", json=body).json() for _ in range(2))
    assert first == second
    other = {**DOCUMENT, "tensors": [{"name": "x", "dtype": "f32", "shape": ["n", 4]}]}
    assert client.post("/v1/batches", json={**body, "spec": other}).status_code == 409


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_what_is_not_the_callers_complete_upload_is_no_batch(client: TestClient, settings: ServiceSettings) -> None:
    opened = client.post("/v1/uploads", json={"total_bytes": 100}).json()["id"]
    assert client.post("/v1/batches", json={"upload_id": opened, "spec": DOCUMENT}).status_code == 409
    mine = upload(client, file_of())
    stranger = authorised(settings, STRANGER)
    assert client.post("/v1/batches", json={"upload_id": mine, "spec": DOCUMENT}, headers=stranger).status_code == 404
    assert client.post("/v1/batches", json={"upload_id": uuid.uuid4().hex, "spec": DOCUMENT}).status_code == 404
    assert client.post("/v1/batches", json={"upload_id": mine, "spec": {**DOCUMENT, "kind": "model"}}).status_code == 422


def test_a_child_of_a_worker_logs_as_its_parent_does(settings: ServiceSettings) -> None:
    """A spawned child imports the tasks, and not the module that configures the worker."""
    program = (
        "import services.trainer.tasks, structlog; from celery.signals import worker_process_init; "
        "worker_process_init.send(sender=None); structlog.get_logger('child').warning('hello', token='t')"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment_of(settings), capture_output=True, text=True, timeout=60, check=True
    )
    line = json.loads(run.stderr)
    assert (line["event"], line["service"], line["token"]) == ("hello", "trainer", "***")
