"""Who may use which table for what, and the questions that are asked under it."""

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import partial
from secrets import token_hex
from typing import Any

from examples.heart.ledger import LedgerEvent
from examples.heart.parties import Hospital, Party, in_parallel
from rexis.agent.table import read_table
from rexis.client.access import AccessClient, AccessRequest
from rexis.client.queries import Query, QueryClient
from rexis.errors import ServiceError, VerificationError
from rexis.policy.duo import Permission
from rexis.protocol.queries import TableQuery, TableResult

PURPOSE = Permission.HMB
DAYS = 90
DECLARED = {"commercial": False, "publish_from": "2027-06-01"}
QUESTION = "Which findings predict narrowed coronary arteries?"
# Purposes that the tables' policy does not cover.
REFUSED = {
    "POA": {"use": "POA", **DECLARED},
    "HMB, commercial": {"use": "HMB", **DECLARED, "commercial": True},
}
QUERY_TIMEOUT_S = 180.0
DIAGNOSIS_BY_AGE: dict[str, Any] = {
    "version": 1,
    "kind": "table",
    "dimensions": [{"column": "age", "bands": [45, 55, 65]}, {"column": "num", "above": 0}],
}
DIAGNOSIS = ("no disease", "disease")
# In Cleveland, women of 70 or 71 are a handful of patients, or one.
ISOLATING = {
    "version": 1,
    "kind": "table",
    "dimensions": [{"column": "num", "above": 0}],
    "filters": [{"column": "age", "from": 70, "below": 72}, {"column": "sex", "in": ["Female"]}],
}


def grant_access(group: Party, hospitals: Sequence[Hospital]) -> list[dict[str, Any]]:
    """Ask for each table and let its hospital grant; then ask with purposes that are refused.

    Returns:
        One row of the report's table each, without its transaction.

    Raises:
        VerificationError: a purpose that the policy excludes was not refused.
    """
    with group.session("marketplace") as connection:
        client = AccessClient(connection)
        requests = [_ask(client, hospital, {"use": PURPOSE.name, **DECLARED}) for hospital in hospitals]
        refusals = {purpose: _refusal(client, hospitals[0], declared) for purpose, declared in REFUSED.items()}
    answers = in_parallel(
        [partial(hospital.rexis, "access", "grant", request.id, "--yes") for hospital, request in zip(hospitals, requests, strict=True)]
    )
    rows = [
        {
            "hospital": hospital.name,
            "purpose": PURPOSE.name,
            "decision": answer["state"],
            "reason": "covered by the policy, signed by the hospital",
        }
        for hospital, answer in zip(hospitals, answers, strict=True)
    ]
    rows += [
        {"hospital": hospitals[0].name, "purpose": purpose, "decision": "refused", "reason": reason} for purpose, reason in refusals.items()
    ]
    return [{**row, "dataset": next(each.dataset for each in hospitals if each.name == row["hospital"])} for row in rows]


def transaction_of(row: Mapping[str, Any], events: Sequence[LedgerEvent]) -> str | None:
    """The transaction that granted a row of `grant_access`, from the chain; None for what was refused.

    Raises:
        VerificationError: the marketplace says that it was granted, and the chain does not.
    """
    if row["decision"] != "granted":
        return None
    found = [event.transaction for event in events if event.event == "AccessGranted" and event.arguments["dataset"] == row["dataset"]]
    if len(found) != 1:
        raise VerificationError(f"data set {row['dataset']}: expected one grant on chain, got {len(found)}")
    return found[0]


def ask_queries(group: Party, hospitals: Sequence[Hospital]) -> dict[str, Any]:
    """Send one table query to every hospital's agent, and one that isolates patients to the first.

    Returns:
        The part `query` of the report.

    Raises:
        VerificationError: an answer to another question, or the isolating query was released.
    """
    with group.session("marketplace") as connection:
        client = QueryClient(connection)
        asked_for = [(hospital.dataset, DIAGNOSIS_BY_AGE) for hospital in hospitals] + [(hospitals[0].dataset, ISOLATING)]
        queries = [client.submit(dataset, PURPOSE, query, idempotency_key=token_hex(16)) for dataset, query in asked_for]
        *released, stopped = [client.wait_for(query.id, timeout_s=QUERY_TIMEOUT_S) for query in queries]
    asked = TableQuery.parse(DIAGNOSIS_BY_AGE)
    answers = [{"hospital": hospital.name, **_answer(asked, found)} for hospital, found in zip(hospitals, released, strict=True)]
    if not any(answer["rows"] for answer in answers):
        raise VerificationError("expected a released table from at least one hospital, got none")
    if stopped.state not in ("held", "refused"):
        raise VerificationError(f"expected the isolating query to be stopped, got {stopped.state}")
    question = f"Women of 70 or 71 years by diagnosis, at {hospitals[0].name}: so few that the table would point at persons."
    return {
        "text": "Diagnosis by age band, counted by each hospital's own agent.",
        "answers": answers,
        "stopped": [{"state": stopped.state, "text": question, "note": stopped.rule or stopped.note or ""}],
    }


def exact_tables(hospitals: Sequence[Hospital]) -> list[bytes]:
    """The counts of the released query before rounding and suppression, as JSON would carry them: they must stay with each hospital."""
    edges = DIAGNOSIS_BY_AGE["dimensions"][0]["bands"]
    texts = []
    for hospital in hospitals:
        table = read_table(hospital.table)
        counts = [0] * (len(DIAGNOSIS) * (len(edges) + 1))
        for age, diagnosis in zip(table.column("age"), table.column("num"), strict=True):
            counts[len(DIAGNOSIS) * bisect_right(edges, int(age)) + (int(diagnosis) > 0)] += 1
        texts += [json.dumps(counts), json.dumps(counts, separators=(",", ":"))]
    return [text.strip("[]").encode() for text in texts]


def _ask(client: AccessClient, hospital: Hospital, purpose: Mapping[str, Any]) -> AccessRequest:
    return client.request(hospital.dataset, purpose, DAYS, text=QUESTION, idempotency_key=token_hex(16))


def _refusal(client: AccessClient, hospital: Hospital, purpose: Mapping[str, Any]) -> str:
    try:
        _ask(client, hospital, purpose)
    except ServiceError as error:
        return str(error.problem.get("detail") or error)
    raise VerificationError(f"expected the purpose {purpose} to be refused")


def _answer(asked: TableQuery, found: Query) -> dict[str, Any]:
    """A released table as rows of the first dimension; other outcomes with their note."""
    note = found.rule or found.note or ""
    columns = [asked.dimensions[0].column, *DIAGNOSIS]
    if found.result is None:
        return {"state": found.state, "note": note, "columns": columns, "rows": []}
    result = TableResult.parse(found.result)
    result.check(asked)
    width = len(DIAGNOSIS)
    rows = [
        {"label": label, "cells": list(result.cells[width * place : width * (place + 1)])}
        for place, label in enumerate(asked.dimensions[0].labels)
    ]
    return {"state": found.state, "note": note, "columns": columns, "rows": rows}
