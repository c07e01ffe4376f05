"""The upload protocol on real databases and stores: whole, once, the owner's only, and recoverable wherever it is interrupted."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import Engine, event, func, select, update

from rexis.errors import DigestMismatchError
from rexis.protocol.uploads import PART_SIZE, UploadManifest, content_digest_header, plan_parts
from services.foundation.database import now, transaction
from services.foundation.objects import ObjectStore, open_store
from services.foundation.problems import Problem
from services.foundation.settings import ServiceSettings
from services.foundation.uploads import Upload, UploadPart, claim_upload, open_upload, reap_uploads
from services.foundation.uploads.records import LIFETIME, LONGEST_PUT
from tests.services.upload_application import ALICE, BOB, LIMITS, authorised, settings_for, upload_application

CONTENT = random.Random(1).randbytes(PART_SIZE + 5)
PARTS = [CONTENT[:PART_SIZE], CONTENT[PART_SIZE:]]


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def manifest_of(content: bytes) -> UploadManifest:
    return UploadManifest(len(content), tuple(sha256(content[part.offset : part.offset + part.size]) for part in plan_parts(len(content))))


class Owner:
    """What one signed-in caller does."""

    def __init__(self, client: TestClient, headers: dict[str, str]) -> None:
        self.client, self.headers = client, headers

    def create(self, total_bytes: int, **headers: str) -> Response:
        return self.client.post("/v1/uploads", json={"total_bytes": total_bytes}, headers={**self.headers, **headers})

    def opened(self, total_bytes: int = len(CONTENT)) -> str:
        answer = self.create(total_bytes)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def put(self, upload_id: str, number: int, data: bytes, *, digest: bytes | None = None, **headers: str) -> Response:
        given = {"Content-Digest": content_digest_header(digest or sha256(data)), **self.headers, **headers}
        return self.client.put(f"/v1/uploads/{upload_id}/parts/{number}", content=data, headers=given)

    def show(self, upload_id: str) -> Response:
        return self.client.get(f"/v1/uploads/{upload_id}", headers=self.headers)

    def complete(self, upload_id: str, manifest: UploadManifest | None = None) -> Response:
        body = (manifest or manifest_of(CONTENT)).to_json()
        return self.client.post(f"/v1/uploads/{upload_id}/complete", json=body, headers=self.headers)

    def delete(self, upload_id: str) -> Response:
        return self.client.delete(f"/v1/uploads/{upload_id}", headers=self.headers)

    def uploaded(self) -> str:
        upload_id = self.opened()
        for number, data in enumerate(PARTS, start=1):
            assert self.put(upload_id, number, data).status_code == 200
        assert self.complete(upload_id).status_code == 200
        return upload_id


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    return open_store((tmp_path / "objects").as_uri())


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> ServiceSettings:
    return settings_for(database_url, (tmp_path / "objects").as_uri())


@pytest.fixture
def client(settings: ServiceSettings, engine: Engine, objects: ObjectStore) -> Iterator[TestClient]:
    with TestClient(upload_application(settings, engine, objects)) as opened:
        yield opened


@pytest.fixture
def alice(client: TestClient, settings: ServiceSettings) -> Owner:
    return Owner(client, authorised(settings, ALICE))


@pytest.fixture
def bob(client: TestClient, settings: ServiceSettings) -> Owner:
    return Owner(client, authorised(settings, BOB))


def refused(answer: Response, status: int, kind: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    document: dict[str, Any] = answer.json()
    assert document["type"] == f"urn:rexis:problem:{kind}"
    assert document["request_id"] == answer.headers["x-request-id"]
    return document


def keys(objects: ObjectStore) -> set[str]:
    return {found.key for found in objects.list()}


def rows(engine: Engine) -> dict[int, bytes]:
    with transaction(engine, read_only=True) as session:
        return {part.number: part.digest for part in session.scalars(select(UploadPart))}


def age(engine: Engine, upload_id: str, by: timedelta) -> None:
    """Move everything that happened to an upload into the past."""
    with transaction(engine) as session:
        upload = session.get_one(Upload, upload_id)
        upload.expires_at -= by
        if upload.completed_at is not None:
            upload.completed_at -= by


# --- The way through ------------------------------------------------------------------------------------------------------------


def test_create_put_complete_read(alice: Owner, engine: Engine, objects: ObjectStore) -> None:
    created = alice.create(len(CONTENT)).json()
    upload_id = created["id"]
    assert (created["state"], created["mode"], created["part_count"], created["part_size"]) == ("open", "direct", 2, PART_SIZE)
    assert created["part_url"] == f"/v1/uploads/{upload_id}/parts/{{number}}"
    # In any order, and a list of what is there in between, to resume.
    assert alice.put(upload_id, 2, PARTS[1]).json() == {"number": 2, "size": 5, "digest": "0x" + sha256(PARTS[1]).hex()}
    assert [part["number"] for part in alice.show(upload_id).json()["parts"]] == [2]
    assert alice.put(upload_id, 1, PARTS[0]).status_code == 200
    with pytest.raises(Problem, match="not complete"), transaction(engine, read_only=True) as session:
        open_upload(session, upload_id, ALICE)
    done = alice.complete(upload_id).json()
    assert done["state"] == "complete"
    assert done["digest"] == "0x" + manifest_of(CONTENT).digest.hex()

    with transaction(engine, read_only=True) as session:
        stored = open_upload(session, upload_id, ALICE)
        with pytest.raises(Problem, match="no upload"):
            open_upload(session, upload_id, BOB)
    assert stored.digest == manifest_of(CONTENT).digest
    with stored.open(objects) as file:
        assert file.read() == CONTENT
        assert file.seek(PART_SIZE - 3) == PART_SIZE - 3
        assert file.read(6) == CONTENT[PART_SIZE - 3 : PART_SIZE + 3]
        file.seek(-2, os.SEEK_END)
        assert file.read(100) == CONTENT[-2:]
        assert file.read() == b""


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_the_way_through_on_every_store(object_store_url: str, engine: Engine, database_url: str) -> None:
    settings, objects = settings_for(database_url, object_store_url), open_store(object_store_url)
    with TestClient(upload_application(settings, engine, objects)) as client:
        alice = Owner(client, authorised(settings))
        upload_id = alice.uploaded()
        refused(alice.put(upload_id, 2, b"other"), 409, "part-exists")
    with transaction(engine, read_only=True) as session:
        assert open_upload(session, upload_id, ALICE).open(objects).read() == CONTENT
    assert len(keys(objects)) == 2


def test_the_store_is_not_trusted(alice: Owner, engine: Engine, objects: ObjectStore, tmp_path: Path) -> None:
    upload_id = alice.uploaded()
    with transaction(engine, read_only=True) as session:
        stored = open_upload(session, upload_id, ALICE)
    (tmp_path / "objects" / stored.parts[1].object_key).write_bytes(b"other")
    with pytest.raises(DigestMismatchError, match="part 2"):
        stored.open(objects).read()


# --- Twice ----------------------------------------------------------------------------------------------------------------------


def test_the_same_part_twice_is_one_part(alice: Owner, objects: ObjectStore) -> None:
    upload_id = alice.opened()
    first, second = alice.put(upload_id, 2, PARTS[1]), alice.put(upload_id, 2, PARTS[1])
    assert (first.status_code, first.json()) == (second.status_code, second.json()) == (200, second.json())
    assert len(keys(objects)) == 1


def test_a_part_is_never_replaced(alice: Owner, objects: ObjectStore, engine: Engine) -> None:
    upload_id = alice.opened()
    alice.put(upload_id, 2, PARTS[1])
    before = keys(objects)
    document = refused(alice.put(upload_id, 2, b"other"), 409, "part-exists")
    assert sha256(PARTS[1]).hex() in document["detail"]
    assert keys(objects) == before
    assert rows(engine) == {2: sha256(PARTS[1])}


def test_a_repeated_part_is_still_checked(alice: Owner) -> None:
    upload_id = alice.opened()
    alice.put(upload_id, 2, PARTS[1])
    refused(alice.put(upload_id, 2, b"other", digest=sha256(PARTS[1])), 422, "verification")


def test_complete_twice_is_one_completion(alice: Owner) -> None:
    upload_id = alice.uploaded()
    assert alice.complete(upload_id).json() == alice.show(upload_id).json()
    other = UploadManifest(len(CONTENT), (sha256(b"1"), sha256(b"2")))
    refused(alice.complete(upload_id, other), 409, "upload-complete")
    assert alice.put(upload_id, 2, PARTS[1]).status_code == 200
    refused(alice.put(upload_id, 2, b"other"), 409, "part-exists")


def test_create_twice_with_one_key_is_one_upload(alice: Owner, engine: Engine) -> None:
    first, second = (alice.create(10, **{"Idempotency-Key": "the-batch-of-monday"}) for _ in range(2))
    assert first.json() == second.json()
    assert second.headers["Idempotency-Replayed"] == "true"
    with transaction(engine, read_only=True) as session:
        assert session.scalar(select(func.count()).select_from(Upload)) == 1


# --- Refusals -------------------------------------------------------------------------------------------------------------------


def test_wrong_content_leaves_nothing(alice: Owner, objects: ObjectStore, engine: Engine) -> None:
    upload_id = alice.opened()
    refused(alice.put(upload_id, 2, PARTS[1], digest=sha256(b"other")), 422, "verification")
    flipped = PARTS[0][:-1] + bytes([PARTS[0][-1] ^ 1])
    refused(alice.put(upload_id, 1, flipped, digest=sha256(PARTS[0])), 422, "verification")
    assert keys(objects) == set()
    assert rows(engine) == {}


def test_wrong_sizes(alice: Owner, objects: ObjectStore) -> None:
    upload_id = alice.opened()
    refused(alice.put(upload_id, 1, PARTS[0][:-1]), 422, "part-size")
    refused(alice.put(upload_id, 2, b"123456"), 422, "part-size")
    refused(alice.put(upload_id, 1, PARTS[0] + b"1"), 413, "body-too-large")
    for number in (0, 3, 10_001):
        assert alice.put(upload_id, number, PARTS[1]).status_code in (404, 422)
    assert keys(objects) == set()


def test_a_part_without_length_or_digest(alice: Owner) -> None:
    upload_id = alice.opened()
    url, headers = f"/v1/uploads/{upload_id}/parts/2", {"Content-Digest": content_digest_header(sha256(PARTS[1])), **alice.headers}
    refused(alice.client.put(url, content=iter([PARTS[1]]), headers=headers), 411, "length-required")
    refused(alice.client.put(url, content=PARTS[1], headers=alice.headers), 422, "validation")
    for header in ("sha-256=abc", "md5=:AAAA:", content_digest_header(sha256(b"1")) + ", " + content_digest_header(sha256(b"2"))):
        refused(alice.client.put(url, content=PARTS[1], headers={**alice.headers, "Content-Digest": header}), 422, "malformed-message")


def test_completion_is_refused_until_everything_fits(alice: Owner, engine: Engine) -> None:
    upload_id = alice.opened()
    alice.put(upload_id, 2, PARTS[1])
    assert "1 of 2 parts are missing: 1" in refused(alice.complete(upload_id), 409, "parts-missing")["detail"]
    alice.put(upload_id, 1, PARTS[0])
    swapped = UploadManifest(len(CONTENT), tuple(reversed(manifest_of(CONTENT).parts)))
    refused(alice.complete(upload_id, swapped), 422, "verification")
    refused(alice.complete(upload_id, manifest_of(CONTENT + b"1")), 422, "upload-size")
    short = {"totalBytes": len(CONTENT), "parts": ["0x" + sha256(PARTS[0]).hex()]}
    answer = alice.client.post(f"/v1/uploads/{upload_id}/complete", json=short, headers=alice.headers)
    refused(answer, 422, "malformed-message")
    with transaction(engine, read_only=True) as session:
        assert session.get_one(Upload, upload_id).state == "open"
    assert alice.complete(upload_id).status_code == 200


def test_nobody_else_sees_or_touches_it(alice: Owner, bob: Owner, client: TestClient, objects: ObjectStore) -> None:
    upload_id = alice.opened()
    nobody = Owner(client, {})
    operations: tuple[Callable[[Owner], Response], ...] = (
        lambda owner: owner.show(upload_id),
        lambda owner: owner.put(upload_id, 2, PARTS[1]),
        lambda owner: owner.complete(upload_id),
        lambda owner: owner.delete(upload_id),
    )
    for operation in operations:
        refused(operation(bob), 404, "not-found")
        refused(operation(nobody), 401, "token-missing")
    assert nobody.create(1).status_code == 401
    assert keys(objects) == set()
    assert alice.show(upload_id).json()["parts"] == []


@pytest.mark.parametrize("upload_id", ["0" * 32, "..%2f..", "A" * 32, "1"])
def test_ids_that_are_none(upload_id: str, alice: Owner) -> None:
    assert alice.show(upload_id).status_code in (404, 422)
    assert alice.put(upload_id, 1, b"1").status_code in (404, 422)


# --- Quotas ---------------------------------------------------------------------------------------------------------------------


def test_the_quota_counts_what_is_not_in_use(alice: Owner, bob: Owner, engine: Engine) -> None:
    first = alice.opened(5)
    alice.put(first, 1, PARTS[1])
    alice.complete(first, manifest_of(PARTS[1]))
    for _ in range(LIMITS.unclaimed - 1):
        alice.opened(1)
    refused(alice.create(1), 429, "upload-quota")
    assert bob.create(1).status_code == 201
    with transaction(engine) as session:
        claim_upload(session, first, ALICE)
    last = alice.opened(1)
    refused(alice.create(1), 429, "upload-quota")
    assert alice.delete(last).status_code == 204
    refused(alice.show(last), 404, "not-found")
    assert alice.create(1).status_code == 201
    assert alice.delete(first).status_code == 409


def test_the_quota_of_bytes(alice: Owner) -> None:
    refused(alice.create(LIMITS.upload_bytes + 1), 413, "upload-too-large")
    alice.opened(LIMITS.upload_bytes)
    alice.opened(LIMITS.upload_bytes)
    refused(alice.create(1), 429, "upload-quota")
    for total in (0, -1, 1 << 60, "1e3", None):
        assert alice.client.post("/v1/uploads", json={"total_bytes": total}, headers=alice.headers).status_code == 422


def test_the_quota_holds_against_simultaneous_requests(alice: Owner) -> None:
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda _: alice.create(1).status_code, range(24)))
    assert sorted(set(statuses)) == [201, 429]
    assert statuses.count(201) == LIMITS.unclaimed


# --- At the same time -----------------------------------------------------------------------------------------------------------


def test_the_same_part_at_the_same_time_is_one_part(alice: Owner, objects: ObjectStore, engine: Engine) -> None:
    upload_id = alice.opened()
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: alice.put(upload_id, 1, PARTS[0]), range(6)))
    assert [answer.status_code for answer in answers] == [200] * 6
    assert len({answer.text for answer in answers}) == 1
    assert len(keys(objects)) == 1
    assert rows(engine) == {1: sha256(PARTS[0])}


def test_of_different_contents_at_the_same_time_one_wins(alice: Owner, objects: ObjectStore, engine: Engine) -> None:
    upload_id = alice.opened()
    contents = [bytes([number]) * 5 for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda data: alice.put(upload_id, 2, data), contents))
    winners = [data for data, answer in zip(contents, answers, strict=True) if answer.status_code == 200]
    assert len(winners) == 1
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 5
    assert rows(engine) == {2: sha256(winners[0])}
    assert [objects.get(key) for key in keys(objects)] == winners


def test_completion_and_a_last_part_at_the_same_time(alice: Owner) -> None:
    """Whichever comes first: an upload that is complete has all of its parts."""
    upload_id = alice.opened()
    alice.put(upload_id, 1, PARTS[0])
    barrier = threading.Barrier(2)

    def complete() -> Response:
        barrier.wait()
        return alice.complete(upload_id)

    def put() -> Response:
        barrier.wait()
        return alice.put(upload_id, 2, PARTS[1])

    with ThreadPoolExecutor(2) as pool:
        completed, stored = pool.submit(complete), pool.submit(put)
    assert stored.result().status_code == 200
    assert completed.result().status_code in (200, 409)
    shown = alice.show(upload_id).json()
    assert len(shown["parts"]) == 2
    assert (shown["state"] == "complete") == (completed.result().status_code == 200)


# --- Interruptions --------------------------------------------------------------------------------------------------------------

KILLED_SERVER = """
import os, signal, sys
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import event
from services.foundation.database import open_engine
from services.foundation.objects import open_store
from services.foundation.uploads import UploadPart
from tests.services.test_uploads import PARTS, Owner
from tests.services.upload_application import authorised, settings_for, upload_application

database_url, object_store_url, upload_id, moment = sys.argv[1:]
settings, engine, objects = settings_for(database_url, object_store_url), open_engine(database_url), open_store(object_store_url)
written = False

def die(*_):
    if written:
        os.kill(os.getpid(), signal.SIGKILL)

@event.listens_for(UploadPart, "after_insert")
def remember(*_):
    global written
    written = True
    if moment == "before-commit":
        die()

with TestClient(upload_application(settings, engine, objects)) as client:
    if moment == "after-commit":
        # The pool gets the connection back when the commit is through, and before the answer.
        event.listen(engine, "checkin", die)
    Owner(client, authorised(settings)).put(upload_id, 2, PARTS[1])
print("survived")
"""


def killed_server(settings: ServiceSettings, upload_id: str, moment: str) -> None:
    arguments = [settings.database_url, settings.object_store_url, upload_id, moment]
    ended = subprocess.run([sys.executable, "-c", KILLED_SERVER, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stdout + ended.stderr


def test_killed_between_the_object_and_the_row(alice: Owner, settings: ServiceSettings, objects: ObjectStore, engine: Engine) -> None:
    upload_id = alice.opened()
    killed_server(settings, upload_id, "before-commit")
    left = keys(objects)
    assert len(left) == 1
    assert alice.show(upload_id).json()["parts"] == []

    assert alice.put(upload_id, 2, PARTS[1]).status_code == 200
    assert alice.put(upload_id, 1, PARTS[0]).status_code == 200
    assert alice.complete(upload_id).status_code == 200
    with transaction(engine) as session:
        stored = claim_upload(session, upload_id, ALICE)
    reap_uploads(engine, objects)
    assert left < keys(objects), "an attempt may still be running"
    age(engine, upload_id, LONGEST_PUT)
    reap_uploads(engine, objects)
    assert keys(objects) == {part.object_key for part in stored.parts}
    assert stored.open(objects).read() == CONTENT


def test_killed_between_the_row_and_the_answer(alice: Owner, settings: ServiceSettings, objects: ObjectStore) -> None:
    upload_id = alice.opened()
    killed_server(settings, upload_id, "after-commit")
    assert [part["number"] for part in alice.show(upload_id).json()["parts"]] == [2]
    assert alice.put(upload_id, 2, PARTS[1]).json() == {"number": 2, "size": 5, "digest": "0x" + sha256(PARTS[1]).hex()}
    assert len(keys(objects)) == 1


def test_a_commit_that_fails_after_the_object_was_written(alice: Owner, engine: Engine, objects: ObjectStore) -> None:
    upload_id = alice.opened()

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    event.listen(UploadPart, "after_insert", fail)
    try:
        refused(alice.put(upload_id, 2, PARTS[1]), 500, "defect")
    finally:
        event.remove(UploadPart, "after_insert", fail)
    assert rows(engine) == {}
    assert alice.put(upload_id, 2, PARTS[1]).status_code == 200


# --- The reaper -----------------------------------------------------------------------------------------------------------------


def test_an_abandoned_upload_goes_away_in_the_end(alice: Owner, engine: Engine, objects: ObjectStore) -> None:
    upload_id = alice.opened()
    alice.put(upload_id, 2, PARTS[1])
    age(engine, upload_id, LIFETIME - timedelta(minutes=1))
    reap_uploads(engine, objects)
    assert alice.show(upload_id).status_code == 200
    age(engine, upload_id, timedelta(minutes=1))
    reap_uploads(engine, objects)
    for answer in (alice.show(upload_id), alice.put(upload_id, 2, PARTS[1]), alice.complete(upload_id)):
        refused(answer, 404, "not-found")
    assert keys(objects) == set()

    # An attempt that was admitted before finishes now, and dies before it can clean up.
    objects.put_new(f"uploads/{upload_id}/00001-late", b"late")
    age(engine, upload_id, LONGEST_PUT)
    reap_uploads(engine, objects)
    reap_uploads(engine, objects)
    assert keys(objects) == set()
    assert rows(engine) == {}
    with transaction(engine, read_only=True) as session:
        assert session.scalar(select(func.count()).select_from(Upload)) == 0


def test_a_part_renews_the_time_of_an_upload(alice: Owner, engine: Engine, objects: ObjectStore) -> None:
    upload_id = alice.opened()
    age(engine, upload_id, LIFETIME - timedelta(minutes=1))
    alice.put(upload_id, 2, PARTS[1])
    age(engine, upload_id, timedelta(minutes=2))
    reap_uploads(engine, objects)
    assert alice.show(upload_id).status_code == 200


def test_a_complete_upload_that_nobody_uses_goes_away_and_a_claimed_one_stays(alice: Owner, engine: Engine, objects: ObjectStore) -> None:
    unused, used = alice.uploaded(), alice.uploaded()
    with transaction(engine) as session:
        claim_upload(session, used, ALICE)
    for upload_id in (unused, used):
        age(engine, upload_id, 10 * LIFETIME)
    reap_uploads(engine, objects)
    refused(alice.show(unused), 404, "not-found")
    assert alice.show(used).json()["state"] == "claimed"
    with transaction(engine, read_only=True) as session:
        assert open_upload(session, used, ALICE).open(objects).read() == CONTENT


def test_a_claim_that_is_rolled_back_is_none(alice: Owner, engine: Engine) -> None:
    upload_id = alice.uploaded()
    with transaction(engine) as session:
        claim_upload(session, upload_id, ALICE)
        session.rollback()
    assert alice.show(upload_id).json()["state"] == "complete"


def test_two_reapers_do_not_disturb_each_other(alice: Owner, engine: Engine, objects: ObjectStore) -> None:
    gone = [alice.opened() for _ in range(3)]
    kept = alice.uploaded()
    for upload_id in gone:
        alice.put(upload_id, 2, PARTS[1])
    with transaction(engine) as session:
        session.execute(update(Upload).where(Upload.id.in_(gone)).values(expires_at=now() - timedelta(seconds=1)))
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: reap_uploads(engine, objects), range(3)))
    assert {key.split("/")[1] for key in keys(objects)} == {kept}
