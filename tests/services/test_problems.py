"""Every error answer is a problem document with the request id, and none shows what happened inside."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import pytest
from fastapi import APIRouter, FastAPI, Query
from fastapi.testclient import TestClient
from pydantic import BaseModel, ConfigDict, SecretStr
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from rexis import errors
from services.foundation import observability, problems
from services.foundation.problems import MAX_BROKEN_RULES, Problem
from services.foundation.settings import ServiceSettings
from services.foundation.uploads import BodyLimit

SECRET = "hunter2 of https://rpc.example.org/v3/0123456789abcdef"


class ExampleSettings(ServiceSettings):
    service: ClassVar[str] = "example"


SETTINGS = ExampleSettings(
    public_url="http://testserver",
    database_url="sqlite:///unused",
    redis_url="redis://127.0.0.1:1",
    object_store_url="memory://",
    session_key=SecretStr("11" * 32),
    chain_rpc_url="http://127.0.0.1:1",
    max_body_bytes=10_000,
)

RAISED: dict[str, Exception] = {
    "defect": ZeroDivisionError(SECRET),
    "database": OperationalError("SELECT 1", {"password": SECRET}, Exception(SECRET)),
    "pool": PoolTimeoutError(SECRET),
    "unavailable": errors.UnavailableError(SECRET),
    "wrong-chain": errors.WrongChainError(SECRET),
    "configuration": errors.ConfigurationError(SECRET),
    "service": errors.ServiceError(500, {"title": SECRET}),
    "digest": errors.DigestMismatchError("part 1", b"\x01" * 32, b"\x02" * 32),
    "signature": errors.SignatureError("another key signed"),
    "threshold": errors.BelowThresholdError("survivors", 3, 2),
    "policy": errors.PolicyError("purpose DUO:0000042 is not allowed"),
    "encoding": errors.EncodingError("a float has no canonical form"),
    "revert": errors.ContractRevertedError("DatasetRegistry", "NotOwner", {"id": 2**255, "root": b"\x07" * 32, "ids": [1, b"\x01"]}),
    "surrogate": errors.MalformedMessageError("unknown field \ud800"),  # what json.loads makes of "\\ud800"
    "http-only": Problem(409, "taken", "Taken", "somebody was first", headers={"Retry-After": "9"}, holder="0x01"),
}


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    count: int


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    app = FastAPI(debug=True)  # debug must not show a trace either
    router = APIRouter(prefix="/v1")

    @router.get("/raise/{name}")
    def fail(name: str) -> None:
        raise RAISED[name]

    @router.get("/raise-in-stream/{name}")
    async def fail_async(name: str) -> None:
        raise RAISED[name]

    @router.post("/bodies")
    def accept(body: Body, limit: Annotated[int, Query(le=10)] = 1) -> Body:
        return body

    problems.install(app)
    app.include_router(router)
    app.add_middleware(BodyLimit, settings=SETTINGS)
    observability.install(app, SETTINGS)
    with TestClient(app) as opened:
        yield opened


def checked(answer: Any, status: int, kind: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["type"] == f"urn:rexis:problem:{kind}"
    assert document["status"] == status
    assert document["instance"] == answer.request.url.path
    assert document["request_id"] == answer.headers["x-request-id"]
    assert document["title"]
    assert document["detail"]
    for inside in ("hunter2", "0123456789abcdef", "Traceback", 'File "', "SELECT"):
        assert inside not in answer.text
    return document


@pytest.mark.parametrize("path", ["raise", "raise-in-stream"])
@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("defect", 500, "defect"),
        ("database", 503, "unavailable"),
        ("pool", 503, "unavailable"),
        ("unavailable", 503, "unavailable"),
        ("wrong-chain", 503, "chain"),
        ("configuration", 500, "configuration"),
        ("service", 502, "service"),
        ("digest", 422, "verification"),
        ("signature", 401, "signature"),
        ("threshold", 409, "below-threshold"),
        ("policy", 403, "privacy"),
        ("encoding", 422, "encoding"),
        ("revert", 409, "contract-reverted"),
        ("surrogate", 422, "malformed-message"),
        ("http-only", 409, "taken"),
    ],
)
def test_what_code_raises(path: str, name: str, status: int, kind: str, client: TestClient) -> None:
    answer = client.get(f"/v1/{path}/{name}")
    document = checked(answer, status, kind)
    if status == 503:
        assert int(answer.headers["retry-after"]) > 0
    if status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"
    if name == "revert":
        assert document["arguments"] == {"id": 2**255, "root": "0x" + "07" * 32, "ids": [1, "0x01"]}
    if name == "http-only":
        assert document["holder"] == "0x01"
        assert answer.headers["retry-after"] == "9"


def test_every_error_of_the_tree_has_a_status() -> None:
    def below(parent: type[errors.RexisError]) -> Iterator[type[errors.RexisError]]:
        yield parent
        for child in parent.__subclasses__():
            yield from below(child)

    for error in below(errors.RexisError):
        matches = [row for row in problems.STATUS_OF if issubclass(error, row[0])]
        assert matches
        # The first match must be the closest one, or a subclass stands in the shadow of its parent.
        assert all(issubclass(matches[0][0], other[0]) for other in matches[1:]), error


def test_unknown_path_and_method(client: TestClient) -> None:
    checked(client.get("/v1/nothing"), 404, "http")
    answer = client.delete("/v1/bodies")
    checked(answer, 405, "http")
    assert answer.headers["allow"] == "POST"


def test_a_malformed_body_names_its_broken_rules(client: TestClient) -> None:
    answer = client.post("/v1/bodies?limit=11", json={"name": 1, "other": 2})
    document = checked(answer, 422, "validation")
    assert {item["where"] for item in document["errors"]} == {"body/name", "body/count", "body/other", "query/limit"}


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[1", b'"text"', b"null", b"", b"9" * 5000, b"[" * 5000])
def test_a_body_that_is_not_the_json_asked_for(content: bytes, client: TestClient) -> None:
    answer = client.post("/v1/bodies", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    checked(answer, answer.status_code, "http" if answer.status_code == 400 else "validation")


def test_a_thousand_broken_rules_are_not_echoed(client: TestClient) -> None:
    answer = client.post("/v1/bodies", json={"name": "a", "count": 1, **{f"k{n}" * 2: n for n in range(500)}})
    document = checked(answer, 422, "validation")
    assert len(document["errors"]) == MAX_BROKEN_RULES
    assert document["detail"].startswith("500 rule")


def test_a_body_over_the_limit(client: TestClient) -> None:
    checked(client.post("/v1/bodies", json={"name": "a" * 20_000, "count": 1}), 413, "body-too-large")


def test_every_operation_documents_the_problem(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    for path in document["paths"].values():
        for operation in path.values():
            assert operation["responses"]["default"]["content"]["application/json"]["schema"]["$ref"].endswith("/ProblemDocument")
            assert "422" not in operation["responses"]
