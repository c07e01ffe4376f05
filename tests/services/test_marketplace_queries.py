"""Compute-to-data queries on real parts: taken on under a grant on chain, worked off by the owner, and what neither may learn or do."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from rexis.chain.connection import Chain
from rexis.chain.signer import LocalSigner
from rexis.client.queries import QueryOutcome
from rexis.encoding import sha256, to_hex
from rexis.policy.conditions import Conditions
from rexis.protocol.queries import AppliedRules, TableQuery, TableResult
from services.foundation.database import now, transaction
from services.marketplace import queries
from services.marketplace.models import QueryJob
from tests.services.access_on_chain import (
    BUYER,
    DS,
    GRU,
    HMB,
    HOSPITAL,
    RESEARCHER,
    STRANGER,
    access,
    act,
    ask,
    grant,
    marketplace_with_a_data_set,
    problem_of,
    register,
    send,
)
from tests.services.marketplace_on_chain import Marketplace, croissant, running_chain, undone

QUERY = {
    "version": 1,
    "kind": "table",
    "dimensions": [{"column": "age", "bands": ["50"]}, {"column": "num", "above": "0"}],
    "filters": [{"column": "sex", "in": ["Male"]}],
}
PARSED = TableQuery.parse(QUERY)
RESULT = TableResult(PARSED.digest, PARSED.dimensions, (20, 15, None, 40), AppliedRules(10, 5))
OTHER_RESULT = TableResult(PARSED.digest, PARSED.dimensions, (25, 15, None, 40), AppliedRules(10, 5))
RULE = "rule query-budget: no query is left for this project"
SECRET = "one patient of 93"


@pytest.fixture(scope="module")
def rpc_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_chain(tmp_path_factory.mktemp("anvil")) as url:
        yield url


@pytest.fixture
def chain(rpc_url: str) -> Iterator[Chain]:
    with undone(rpc_url) as connected:
        yield connected


@pytest.fixture
def marketplace(chain: Chain, rpc_url: str, database_url: str) -> Iterator[Marketplace]:
    with marketplace_with_a_data_set(chain, rpc_url, database_url) as found:
        yield found


def submit(marketplace: Marketplace, **changes: Any) -> dict[str, Any]:
    answer = send(marketplace, RESEARCHER, "POST", "/v1/queries", {"dataset": 1, "purpose": HMB, "query": QUERY, **changes})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refusal(marketplace: Marketplace, consumer: LocalSigner = RESEARCHER, **changes: Any) -> tuple[tuple[int, str], str]:
    answer = send(marketplace, consumer, "POST", "/v1/queries", {"dataset": 1, "purpose": HMB, "query": QUERY, **changes})
    return problem_of(answer), answer.json()["detail"]


def put(marketplace: Marketplace, query: dict[str, Any], outcome: QueryOutcome | dict[str, Any], who: LocalSigner = HOSPITAL) -> Any:
    body = outcome.document() if isinstance(outcome, QueryOutcome) else outcome
    return send(marketplace, who, "PUT", f"/v1/queries/{query['id']}/outcome", body)


def seen(marketplace: Marketplace, query: dict[str, Any], who: LocalSigner = RESEARCHER) -> dict[str, Any]:
    found: dict[str, Any] = marketplace.get(f"/v1/queries/{query['id']}", who)
    return found


def work(marketplace: Marketplace, who: LocalSigner = HOSPITAL) -> list[str]:
    return [item["id"] for item in marketplace.get("/v1/queries/work", who)["items"]]


def test_a_query_goes_to_the_owner_and_its_result_comes_back(marketplace: Marketplace) -> None:
    request = access(marketplace)
    unordered = {**QUERY, "filters": [{"in": ["Male"], "column": "sex"}], "dimensions": [*QUERY["dimensions"]]}
    query = submit(marketplace, query=unordered)
    assert (query["state"], query["query"], query["query_digest"]) == ("queued", PARSED.document(), to_hex(PARSED.digest))
    [item] = marketplace.get("/v1/queries/work", HOSPITAL)["items"]
    assert item == query
    # What the agent needs to decide for itself: the conditions, whose digest it finds on chain.
    conditions = Conditions.parse(item["conditions"])
    given = marketplace.chain.contract("AccessManager").functions.grantOf(1, RESEARCHER.address, HMB).call()
    assert (conditions.digest(), conditions.request) == (given[5], request["id"])

    answers = [put(marketplace, query, QueryOutcome.released(RESULT.document())) for _ in range(2)]
    assert answers[0].json() == answers[1].json() == seen(marketplace, query)
    released = seen(marketplace, query)
    assert (released["state"], released["result"], released["result_digest"]) == ("released", RESULT.document(), to_hex(RESULT.digest))
    assert work(marketplace) == []
    for who, role in ((RESEARCHER, "consumer"), (HOSPITAL, "owner")):
        assert marketplace.get("/v1/queries", who, role=role, state="released")["items"] == [released]
        assert marketplace.get("/v1/queries", who, role=role, state="queued")["items"] == []
    assert marketplace.get("/v1/queries", STRANGER, role="consumer")["items"] == []
    assert marketplace.get("/v1/queries", RESEARCHER, role="owner")["items"] == []


def test_without_an_active_grant_for_the_purpose_nothing_is_taken_on(marketplace: Marketplace, monkeypatch: pytest.MonkeyPatch) -> None:
    no_grant = (403, "no-grant")
    assert refusal(marketplace) == (no_grant, refusal(marketplace)[1])
    assert "there is none" in refusal(marketplace)[1]
    assert refusal(marketplace, dataset=9)[0] == (404, "not-found")
    request = access(marketplace)
    problem, detail = refusal(marketplace, purpose=DS)
    assert problem == no_grant
    assert "DS (DUO:0000007, disease specific research)" in detail
    assert refusal(marketplace, purpose=GRU)[0] == no_grant
    assert refusal(marketplace, STRANGER)[0] == no_grant
    submit(marketplace)

    real = now()
    with monkeypatch.context() as patch:
        patch.setattr("services.marketplace.query_routes.now", lambda: real + timedelta(days=91))
        problem, detail = refusal(marketplace)
        assert (problem, "its term is over" in detail) == (no_grant, True)
    act(marketplace, HOSPITAL, "DatasetRegistry", "setPolicy", 1, sha256(b"another policy"), "ipfs://policy", 1)
    problem, detail = refusal(marketplace)
    assert (problem, "waits to be confirmed" in detail) == (no_grant, True)
    shown = marketplace.get(f"/v1/access-requests/{request['id']}", HOSPITAL)
    grant(marketplace, shown)
    submit(marketplace)
    act(marketplace, HOSPITAL, "AccessManager", "revoke", 1, RESEARCHER.address, HMB)
    problem, detail = refusal(marketplace)
    assert (problem, "it was revoked" in detail) == (no_grant, True)


def test_a_held_result_stays_with_the_owner(marketplace: Marketplace) -> None:
    access(marketplace)
    query = submit(marketplace)
    for telling in (
        {"state": "held", "rule": SECRET},
        {"state": "held", "result": RESULT.document(), "result_digest": to_hex(RESULT.digest)},
        {"state": "held", "result_digest": to_hex(RESULT.digest)},
        {"state": "failed", "rule": SECRET},
        {"state": "refused", "rule": RULE, "result": RESULT.document(), "result_digest": to_hex(RESULT.digest)},
    ):
        assert problem_of(put(marketplace, query, telling)) == (422, "malformed-message"), telling
    assert seen(marketplace, query)["state"] == "queued"

    assert put(marketplace, query, QueryOutcome.held()).status_code == 200
    shown = seen(marketplace, query)
    assert (shown["state"], shown["note"]) == ("held", "held for review")
    assert (shown["rule"], shown["result"], shown["result_digest"]) == (None, None, None)
    assert problem_of(put(marketplace, query, QueryOutcome.refused(SECRET))) == (422, "malformed-message")
    assert put(marketplace, query, QueryOutcome.refused_on_review()).status_code == 200
    shown = seen(marketplace, query)
    assert (shown["state"], shown["note"], shown["rule"], shown["result"]) == (
        "refused",
        "a reviewer did not release the result",
        None,
        None,
    )

    released = submit(marketplace)
    put(marketplace, released, QueryOutcome.held())
    assert put(marketplace, released, QueryOutcome.released(RESULT.document())).status_code == 200
    assert seen(marketplace, released)["result"] == RESULT.document()
    with transaction(marketplace.engine, read_only=True) as session:
        stored = [str(vars(job)) for job in session.scalars(select(QueryJob))]
    assert SECRET not in "".join(stored)


def test_an_outcome_is_decided_once(marketplace: Marketplace) -> None:
    access(marketplace)
    first = submit(marketplace)
    put(marketplace, first, QueryOutcome.released(RESULT.document()))
    for other in (QueryOutcome.released(OTHER_RESULT.document()), QueryOutcome.held(), QueryOutcome.refused(RULE), QueryOutcome.failed()):
        assert problem_of(put(marketplace, first, other)) == (409, "outcome-decided"), other
    assert seen(marketplace, first)["result"] == RESULT.document()
    second = submit(marketplace)
    assert [put(marketplace, second, QueryOutcome.refused(RULE)).status_code for _ in range(2)] == [200, 200]
    assert (seen(marketplace, second)["state"], seen(marketplace, second)["rule"]) == ("refused", RULE)
    assert problem_of(put(marketplace, second, QueryOutcome.refused("rule another: x"))) == (409, "outcome-decided")
    third = submit(marketplace)
    assert [put(marketplace, third, QueryOutcome.failed()).json()["state"] for _ in range(2)] == ["failed", "failed"]
    assert problem_of(put(marketplace, third, QueryOutcome.released(RESULT.document()))) == (409, "outcome-decided")


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_an_outcome_is_what_it_says(marketplace: Marketplace) -> None:
    access(marketplace)
    query, document = submit(marketplace), RESULT.document()
    elsewhere = TableResult(sha256(b"another query"), RESULT.dimensions, RESULT.cells, RESULT.rules)
    for outcome, expected in (
        ({"state": "released"}, (422, "malformed-message")),
        ({"state": "released", "result": document}, (422, "malformed-message")),
        ({"state": "released", "result": document, "result_digest": "0x" + 64 * "1"}, (422, "verification")),
        ({"state": "released", "result": {**document, "total": 93}, "result_digest": to_hex(RESULT.digest)}, (422, "malformed-message")),
        (QueryOutcome.released(elsewhere.document()), (409, "unexpected-message")),
        ({"state": "refused"}, (422, "malformed-message")),
        ({"state": "refused", "rule": ""}, (422, "malformed-message")),
        ({"state": "refused", "rule": "x" * 501}, (422, "validation")),
        ({"state": "refused", "rule": "see \x1b[2J"}, (422, "encoding")),
        ({"state": "expired"}, (422, "validation")),
        ({"state": "released", "result": {**document, "cells": [0.5]}, "result_digest": to_hex(RESULT.digest)}, (422, "malformed-message")),
    ):
        assert problem_of(put(marketplace, query, outcome)) == expected, outcome
    assert seen(marketplace, query)["state"] == "queued"


def test_only_the_present_owner_is_asked_and_answers(marketplace: Marketplace) -> None:
    access(marketplace)
    query, release = submit(marketplace), QueryOutcome.released(RESULT.document())
    rival = register(marketplace, STRANGER, metadata=croissant("another hospital"))
    assert rival == 2
    assert work(marketplace, STRANGER) == []
    assert problem_of(put(marketplace, query, release, STRANGER)) == (404, "not-found")
    assert problem_of(send(marketplace, STRANGER, "GET", f"/v1/queries/{query['id']}")) == (404, "not-found")
    assert problem_of(put(marketplace, query, release, RESEARCHER)) == (403, "forbidden")

    # Sold: the grant waits for the new owner, and so does the query.
    act(marketplace, HOSPITAL, "DatasetRegistry", "transferFrom", HOSPITAL.address, BUYER.address, 1)
    assert (work(marketplace), work(marketplace, BUYER)) == ([], [])
    assert problem_of(put(marketplace, query, release)) == (404, "not-found")
    queries.close_overdue(marketplace.engine)
    request = ask(marketplace, conditions="Again, for the new owner.")
    grant(marketplace, request, owner=BUYER)
    assert (work(marketplace), work(marketplace, BUYER)) == ([], [query["id"]])
    [item] = marketplace.get("/v1/queries/work", BUYER)["items"]
    assert Conditions.parse(item["conditions"]).request == request["id"], "the conditions of the grant that is active now"
    assert put(marketplace, query, release, BUYER).status_code == 200


def test_work_is_the_oldest_first_and_only_what_may_run(marketplace: Marketplace) -> None:
    access(marketplace)
    first, second, third = (submit(marketplace) for _ in range(3))
    assert work(marketplace) == [first["id"], second["id"], third["id"]]
    assert [len(marketplace.get("/v1/queries/work", HOSPITAL, datasets=served)["items"]) for served in ("2,1", "2")] == [3, 0]
    put(marketplace, second, QueryOutcome.held())
    assert work(marketplace) == [first["id"], third["id"]]
    act(marketplace, HOSPITAL, "AccessManager", "revoke", 1, RESEARCHER.address, HMB)
    assert work(marketplace) == []
    # The background process has seen the revocation, and swept.
    ended = seen(marketplace, first)
    assert (ended["state"], "it was revoked" in ended["rule"]) == ("expired", True)
    assert problem_of(put(marketplace, first, QueryOutcome.released(RESULT.document()))) == (409, "query-over")
    assert seen(marketplace, second)["state"] == "held", "the owner may still release what ran under the grant"
    assert queries.close_overdue(marketplace.engine) == 0


def test_nothing_waits_for_ever(marketplace: Marketplace) -> None:
    access(marketplace)
    queued, held, late = (submit(marketplace) for _ in range(3))
    put(marketplace, held, QueryOutcome.held())

    def age(query: dict[str, Any], days: int) -> None:
        with transaction(marketplace.engine) as session:
            session.execute(update(QueryJob).where(QueryJob.id == query["id"]).values(state_since=now() - timedelta(days=days)))

    for query, days in ((queued, 6), (late, 8), (held, 29)):
        age(query, days)
    assert queries.close_overdue(marketplace.engine) == 1
    assert [seen(marketplace, query)["state"] for query in (queued, late, held)] == ["queued", "expired", "held"]
    age(held, 31)
    assert queries.close_overdue(marketplace.engine) == 1
    assert seen(marketplace, held)["state"] == "expired"
    assert problem_of(put(marketplace, held, QueryOutcome.released(RESULT.document()))) == (409, "query-over")
    assert problem_of(put(marketplace, late, QueryOutcome.held())) == (409, "query-over")


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_what_is_no_query_is_refused(marketplace: Marketplace, monkeypatch: pytest.MonkeyPatch) -> None:
    access(marketplace)
    assert refusal(marketplace, query={**QUERY, "kind": "sql"})[0] == (422, "malformed-message")
    assert refusal(marketplace, query={**QUERY, "dimensions": [{"column": "age", "above": 0.5}]})[0] == (422, "malformed-message")
    assert refusal(marketplace, purpose=21)[0] == (422, "validation")
    assert refusal(marketplace, purpose=True)[0] == (422, "validation")
    monkeypatch.setattr(queries, "MAX_OPEN", 1)
    body = {"dataset": 1, "purpose": HMB, "query": QUERY}
    sent = [send(marketplace, RESEARCHER, "POST", "/v1/queries", body, **{"Idempotency-Key": "one"}) for _ in range(2)]
    assert sent[0].json() == sent[1].json()
    assert refusal(marketplace)[0] == (429, "query-quota")
    put(marketplace, sent[0].json(), QueryOutcome.failed())
    submit(marketplace)


def test_pages_hold_each_query_once_newest_first(marketplace: Marketplace) -> None:
    access(marketplace)
    made = [submit(marketplace)["id"] for _ in range(5)]
    pages: list[str] = []
    cursor = None
    while cursor is not None or not pages:
        page = marketplace.get("/v1/queries", HOSPITAL, role="owner", limit=2, **({"cursor": cursor} if cursor else {}))
        pages += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert pages == made[::-1]
    assert problem_of(send(marketplace, STRANGER, "GET", f"/v1/queries?role=consumer&cursor={made[0]}")) == (422, "cursor")
