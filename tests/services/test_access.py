"""Who may call what: every operation of every service, tried by everyone who may not."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi.testclient import TestClient
from httpx2 import Response

from rexis.chain.signer import LocalSigner
from rexis.encoding import sha256
from rexis.protocol.uploads import UploadManifest, content_digest_header
from services.foundation.database import migrate, now, open_engine, transaction
from services.foundation.objects import open_store
from services.foundation.outbox.transactions import enqueue_call
from services.foundation.problems import MEDIA_TYPE
from services.foundation.relays import RelayedCallRow
from services.foundation.settings import ServiceSettings
from tests.services.aggregator_rows import StandingFederation
from tests.services.marketplace_rows import add_compute_job, add_granted_data_set
from tests.services.scored_rows import ScoredFederation
from tests.services.service_applications import SERVICES, SESSION_KEYS, application, authorised, client_of, settings_for
from tests.services.test_trainer import DOCUMENT, file_of, upload
from tests.services.test_verifier import receipt
from tests.services.trainer_rows import add_answered_question
from tests.services.verifier_rows import commit_waiting

OWNER, STRANGER = LocalSigner.generate(), LocalSigner.generate()
FEDERATION = StandingFederation(OWNER)
SCORED = ScoredFederation(OWNER)
SIGN_IN = {"create_sign_in_nonce", "sign_in"}
PUBLIC = {
    "marketplace": {"list_datasets", "get_dataset", "get_document", "get_chain", "list_grants"},
    "trainer": {"get_description"},
    "aggregator": {"get_aggregator"},
    "verifier": set[str](),
}


@dataclass(frozen=True)
class Operation:
    """A call that needs a token; `{id}` in the path is the owner's resource, which others must not find."""

    method: str
    path: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


PART = b"part"
NOTHING = "00000000-0000-4000-8000-000000000000"
QUERY = {"version": 1, "kind": "table", "dimensions": [{"column": "num", "above": "0"}]}
PRIVATE: dict[str, dict[str, Operation]] = {
    "marketplace": {
        "register_dataset": Operation("POST", "/v1/datasets", {}),
        "get_relay": Operation("GET", "/v1/relays/{id}"),
        "relay_call": Operation("POST", "/v1/relays", {}),
        "request_access": Operation("POST", "/v1/access-requests", {"dataset": 1, "purpose": {"use": "NRES"}, "days": 90}),
        "list_access_requests": Operation("GET", "/v1/access-requests?role=owner"),
        "get_access_request": Operation("GET", "/v1/access-requests/{request}"),
        "decline_access_request": Operation("POST", "/v1/access-requests/{request}/decline", {"reason": ""}),
        "submit_query": Operation("POST", "/v1/queries", {"dataset": 1, "purpose": 4, "query": QUERY}),
        "list_queries": Operation("GET", "/v1/queries?role=owner"),
        "get_query_work": Operation("GET", "/v1/queries/work"),
        "get_query": Operation("GET", "/v1/queries/{query}"),
        "put_query_outcome": Operation("PUT", "/v1/queries/{query}/outcome", {"state": "failed"}),
        "list_compute_jobs": Operation("GET", "/v1/compute-jobs?role=arbiter"),
        "get_compute_job": Operation("GET", "/v1/compute-jobs/{job}"),
    },
    "trainer": {
        "create_upload": Operation("POST", "/v1/uploads", {"total_bytes": 4}),
        "get_upload": Operation("GET", "/v1/uploads/{upload}"),
        "put_upload_part": Operation("PUT", "/v1/uploads/{upload}/parts/1", PART, {"Content-Digest": content_digest_header(sha256(PART))}),
        "complete_upload": Operation("POST", "/v1/uploads/{upload}/complete", UploadManifest(4, (sha256(PART),)).to_json()),
        "delete_upload": Operation("DELETE", "/v1/uploads/{upload}"),
        "hand_in_batch": Operation("POST", "/v1/batches", {"upload_id": "0" * 32, "spec": DOCUMENT}),
        "list_batches": Operation("GET", "/v1/batches"),
        "get_batch": Operation("GET", "/v1/batches/{id}"),
        "publish_model": Operation("POST", "/v1/models", {}),
        "list_models": Operation("GET", "/v1/models"),
        "get_model": Operation("GET", "/v1/models/{model}"),
        "set_model_users": Operation("PUT", "/v1/models/{model}/users", {"users": []}),
        "ask_model": Operation("POST", "/v1/inferences", {"model": NOTHING, "upload_id": "0" * 32}),
        "list_inferences": Operation("GET", "/v1/inferences"),
        "get_inference": Operation("GET", "/v1/inferences/{inference}"),
        "get_output": Operation("GET", "/v1/inferences/{inference}/output"),
        "list_receipts": Operation("GET", "/v1/inferences/{inference}/receipts"),
        "relay_call": Operation("POST", "/v1/relays", {}),
        "get_relay": Operation("GET", "/v1/relays/{relay}"),
    },
    "aggregator": {
        "create_upload": Operation("POST", "/v1/uploads", {"total_bytes": 4}),
        "get_upload": Operation("GET", "/v1/uploads/{upload}"),
        "put_upload_part": Operation("PUT", "/v1/uploads/{upload}/parts/1", PART, {"Content-Digest": content_digest_header(sha256(PART))}),
        "complete_upload": Operation("POST", "/v1/uploads/{upload}/complete", UploadManifest(4, (sha256(PART),)).to_json()),
        "delete_upload": Operation("DELETE", "/v1/uploads/{upload}"),
        "relay_call": Operation("POST", "/v1/relays", {}),
        "get_relay": Operation("GET", "/v1/relays/{relay}"),
        "found_federation": Operation("POST", "/v1/federations", {}),
        "list_federations": Operation("GET", "/v1/federations"),
        "get_federation": Operation("GET", "/v1/federations/{id}"),
        "join_federation": Operation("PUT", "/v1/federations/{id}/membership"),
        "list_work": Operation("GET", "/v1/work"),
        "list_rounds": Operation("GET", "/v1/federations/{id}/rounds"),
        "list_messages": Operation("GET", "/v1/federations/{id}/rounds/1/attempts/1/messages/keys"),
        "put_message": Operation(
            "PUT", "/v1/federations/{id}/rounds/1/attempts/2/messages/keys", FEDERATION.message, {"Content-Type": "application/json"}
        ),
        "get_model": Operation("GET", "/v1/federations/{id}/model"),
        "get_server_state": Operation("GET", "/v1/federations/{id}/server-state"),
        "get_result": Operation("GET", "/v1/federations/{id}/result"),
        "get_group_key": Operation("GET", "/v1/federations/{id}/group-key"),
        "put_group_key_recipient": Operation(
            "PUT", "/v1/federations/{id}/group-key/recipient", FEDERATION.recipients[OWNER.address].document()
        ),
        "put_group_key_dealing": Operation("PUT", "/v1/federations/{id}/group-key/dealing", FEDERATION.dealing(OWNER).document()),
        "get_scores": Operation("GET", "/v1/federations/{scored}/scores"),
        "get_score_bundle": Operation("GET", "/v1/federations/{scored}/scores/bundle"),
        "get_initial_model": Operation("GET", "/v1/federations/{id}/initial-model"),
        "get_opened_sum": Operation("GET", "/v1/federations/{id}/rounds/1/attempts/4/sum"),
        "list_member_results": Operation("GET", "/v1/federations/{id}/rounds/1/attempts/4/results"),
        "put_member_result": Operation("PUT", "/v1/federations/{id}/rounds/1/attempts/4/results", FEDERATION.result.document()),
        "list_approvals": Operation("GET", "/v1/federations/{id}/rounds/1/attempts/3/approvals"),
        "put_approval": Operation("PUT", "/v1/federations/{id}/rounds/1/attempts/3/approvals/survivors", FEDERATION.approval().document()),
        "get_vector_part": Operation("GET", f"/v1/federations/{{id}}/rounds/1/attempts/3/vectors/{OWNER.address}/parts/1"),
        "list_equivocations": Operation("GET", "/v1/federations/{id}/equivocations"),
        "report_equivocation": Operation("POST", "/v1/federations/{id}/equivocations", FEDERATION.evidence.document()),
    },
    "verifier": {
        "deposit_receipt": Operation("POST", "/v1/receipts", receipt().to_json()),
        "get_receipt": Operation("GET", "/v1/receipts/{id}"),
        "get_receipt_bundle": Operation("GET", "/v1/receipts/{id}/bundle"),
        "get_receipt_batch": Operation("GET", "/v1/batches/{batch}"),
        "relay_call": Operation("POST", "/v1/relays", {}),
        "get_relay": Operation("GET", "/v1/relays/{relay}"),
    },
}
EVERY_PRIVATE = [(service, name) for service, operations in PRIVATE.items() for name in operations]
OF_ONE_OWNER = [(service, name) for service, name in EVERY_PRIVATE if "{" in PRIVATE[service][name].path]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[ServiceSettings, TestClient]]]:
    """All four services on SQLite, each under its own key and URL."""
    with ExitStack() as stack:
        clients = {}
        for service in SERVICES:
            folder = tmp_path_factory.mktemp(service)
            settings = settings_for(service, f"sqlite:///{folder / 'access.sqlite'}", object_store_url=f"file://{folder / 'objects'}")
            engine = open_engine(settings.database_url)
            migrate(engine, f"services.{service}")
            engine.dispose()
            clients[service] = settings, stack.enter_context(client_of(settings))
        yield clients


@pytest.fixture(scope="module")
def resources(running: dict[str, tuple[ServiceSettings, TestClient]]) -> dict[str, dict[str, str]]:
    """One resource of each kind, all of them OWNER's."""

    def post(service: str, path: str, body: Any) -> dict[str, Any]:
        settings, client = running[service]
        answer = client.post(path, json=body, headers=authorised(settings, OWNER))
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    settings, trainer = running["trainer"]
    trainer.headers.update(authorised(settings, OWNER))
    uploaded = upload(trainer, file_of())
    del trainer.headers["Authorization"]
    engine = open_engine(settings.database_url)
    with transaction(engine) as session:
        asked = add_answered_question(session, trainer.app.state.objects, OWNER.address)
        enqueue_call(session, key="relay:owner", to="0x" + 39 * "0" + "1", data=b"", gas=50_000, label="revoke")
        session.add(RelayedCallRow(id="b" * 32, sender=OWNER.address, operation="revoke", intent_key="relay:owner", created_at=now()))
    engine.dispose()
    engine = open_engine(running["marketplace"][0].database_url)
    with transaction(engine) as session:
        enqueue_call(session, key="relay:owner", to="0x" + 39 * "0" + "1", data=b"", gas=50_000, label="register")
        session.add(RelayedCallRow(id="a" * 32, sender=OWNER.address, operation="register", intent_key="relay:owner", created_at=now()))
        add_granted_data_set(session, OWNER.address)
        job = add_compute_job(session, OWNER.address)
    engine.dispose()
    deposited = post("verifier", "/v1/receipts", receipt().to_json())
    engine = open_engine(running["verifier"][0].database_url)
    committed = commit_waiting(engine, deposited["receipt"]["model"])
    with transaction(engine) as session:
        enqueue_call(session, key="relay:owner", to="0x" + 39 * "0" + "1", data=b"", gas=50_000, label="challenge")
        session.add(RelayedCallRow(id="d" * 32, sender=OWNER.address, operation="challenge", intent_key="relay:owner", created_at=now()))
    engine.dispose()
    engine = open_engine(running["aggregator"][0].database_url)
    with transaction(engine) as session:
        FEDERATION.add(session, open_store(running["aggregator"][0].object_store_url))
        SCORED.add(session)
        enqueue_call(session, key="relay:owner", to="0x" + 39 * "0" + "1", data=b"", gas=50_000, label="close")
        session.add(RelayedCallRow(id="c" * 32, sender=OWNER.address, operation="close", intent_key="relay:owner", created_at=now()))
    engine.dispose()
    return {
        "marketplace": {
            "id": "a" * 32,
            "request": post("marketplace", "/v1/access-requests", {"dataset": 1, "purpose": {"use": "NRES"}, "days": 90})["id"],
            "query": post("marketplace", "/v1/queries", {"dataset": 1, "purpose": 4, "query": QUERY})["id"],
            "job": job,
        },
        "trainer": {
            "id": post("trainer", "/v1/batches", {"upload_id": uploaded, "spec": DOCUMENT})["id"],
            "upload": post("trainer", "/v1/uploads", {"total_bytes": len(PART)})["id"],
            "relay": "b" * 32,
            **asked,
        },
        "aggregator": {
            "id": FEDERATION.id,
            "scored": SCORED.id,
            "upload": post("aggregator", "/v1/uploads", {"total_bytes": len(PART)})["id"],
            "relay": "c" * 32,
        },
        "verifier": {"id": deposited["digest"], "batch": committed, "relay": "d" * 32},
    }


def send(client: TestClient, operation: Operation, ids: dict[str, str], headers: dict[str, str]) -> Response:
    nothing = {"id": "0", "batch": "0", "upload": "0" * 32, "request": "0" * 32, "query": "0" * 32}
    nothing |= {"model": NOTHING, "inference": NOTHING, "relay": "0" * 32, "job": "0x" + 64 * "0", "scored": "0"}
    path = operation.path.format(**{**nothing, **ids})
    content = {} if operation.body is None else {"content" if isinstance(operation.body, bytes) else "json": operation.body}
    return client.request(operation.method, path, headers={**operation.headers, **headers}, **content)


def forged(settings: ServiceSettings, key: str, **changes: Any) -> dict[str, str]:
    """A token as the service would issue it to OWNER, signed with `key`, with some claims changed."""
    issued = now()
    claims = {
        "iss": settings.public_url,
        "aud": settings.public_url,
        "sub": OWNER.address,
        "iat": issued,
        "exp": issued + timedelta(minutes=15),
        "jti": "0" * 32,
        "chain_id": settings.chain_id,
        **changes,
    }
    claims = {name: value for name, value in claims.items() if value is not None}
    signing = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(key))
    return {"Authorization": f"Bearer {jwt.encode(claims, signing, algorithm='EdDSA')}"}


@pytest.mark.parametrize("service", SERVICES)
def test_every_operation_is_public_or_in_this_table(service: str) -> None:
    document = application(settings_for(service, "sqlite:///unused")).openapi()
    found = {
        operation["operationId"]: ("security" in operation, f"{method.upper()} {path}")
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert {name for name, (private, _) in found.items() if not private} == PUBLIC[service] | SIGN_IN
    assert {name for name, (private, _) in found.items() if private} == set(PRIVATE[service])


@pytest.mark.parametrize(("service", "name"), EVERY_PRIVATE)
def test_nobody_without_a_token_of_this_service_gets_in(
    running: dict[str, tuple[ServiceSettings, TestClient]], resources: dict[str, dict[str, str]], service: str, name: str
) -> None:
    settings, client = running[service]
    operation, key = PRIVATE[service][name], SESSION_KEYS[service]
    other = next(each for each in SERVICES if each != service)
    refused = {
        "nothing": {},
        "no bearer": {"Authorization": "Basic b3duZXI6cGFzcw=="},
        "no token": {"Authorization": "Bearer x.y.z"},
        "a token of another service": authorised(running[other][0], OWNER),
        "a token for another service by this one's key": forged(settings, key, aud=running[other][0].public_url),
        "a token by another key": forged(settings, SESSION_KEYS[other]),
        "an expired token": forged(settings, key, exp=now() - timedelta(seconds=1)),
        "a token of another chain": forged(settings, key, chain_id=1),
        "a token without an end": forged(settings, key, exp=None),
        "a token of nobody": forged(settings, key, sub="admin"),
    }
    for what, headers in refused.items():
        answer = send(client, operation, resources[service], headers)
        assert answer.status_code == 401, (what, answer.text)
        assert answer.headers["content-type"] == MEDIA_TYPE, what
        assert answer.headers["www-authenticate"] == "Bearer", what
    # The same token, right in every claim, is let in: whatever the answer is, it is another one.
    assert send(client, operation, {}, forged(settings, key)).status_code != 401


@pytest.mark.parametrize(("service", "name"), OF_ONE_OWNER)
def test_another_institutions_resource_does_not_exist(
    running: dict[str, tuple[ServiceSettings, TestClient]], resources: dict[str, dict[str, str]], service: str, name: str
) -> None:
    settings, client = running[service]
    operation = PRIVATE[service][name]
    answer = send(client, operation, resources[service], authorised(settings, STRANGER))
    assert answer.status_code == 404, answer.text
    assert answer.json()["type"] == "urn:rexis:problem:not-found"


def test_the_owner_reaches_what_others_do_not(
    running: dict[str, tuple[ServiceSettings, TestClient]], resources: dict[str, dict[str, str]]
) -> None:
    """So that a 404 above means "not yours", not "wrong path". In the order in which an upload lives."""
    for service, name in OF_ONE_OWNER:
        settings, client = running[service]
        answer = send(client, PRIVATE[service][name], resources[service], authorised(settings, OWNER))
        assert answer.is_success, (service, name, answer.text)


@pytest.mark.parametrize(
    ("service", "path"),
    [
        ("trainer", "/v1/batches"),
        ("trainer", "/v1/models"),
        ("trainer", "/v1/inferences"),
        ("aggregator", "/v1/federations"),
        ("marketplace", "/v1/access-requests?role=owner"),
        ("marketplace", "/v1/queries?role=consumer"),
        ("marketplace", "/v1/compute-jobs?role=provider"),
    ],
)
def test_lists_show_the_callers_own_only(
    running: dict[str, tuple[ServiceSettings, TestClient]], resources: dict[str, dict[str, str]], service: str, path: str
) -> None:
    settings, client = running[service]
    shown = {who: client.get(path, headers=authorised(settings, who)).json()["items"] for who in (OWNER, STRANGER)}
    assert set(resources[service].values()) & {item["id"] for item in shown[OWNER]}
    assert shown[STRANGER] == []
