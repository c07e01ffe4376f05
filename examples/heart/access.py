"""Who may use which table for what, and the questions that are asked under it."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import yaml

from examples.heart.ledger import LedgerEvent
from examples.heart.parties import CommandRefusedError, Hospital, Party, in_parallel
from rexis.errors import VerificationError
from rexis.protocol.queries import TableQuery, TableResult

PURPOSE = "HMB"
DECLARED = ("--non-commercial", "--publish-from", "2027-06-01", "--text", "Which findings predict narrowed coronary arteries?")
# Purposes that the tables' policy does not cover, as options of `rexis access request`.
REFUSED = {
    "POA": ("--purpose", "POA", *DECLARED),
    "HMB, commercial": ("--purpose", "HMB", "--publish-from", "2027-06-01"),
}
DIAGNOSIS_BY_AGE = {
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
    ask = [partial(group.rexis, "access", "request", hospital.dataset, "--purpose", PURPOSE, *DECLARED) for hospital in hospitals]
    requests = in_parallel(ask)
    answers = in_parallel(
        [partial(hospital.rexis, "access", "grant", request["id"], "--yes") for hospital, request in zip(hospitals, requests, strict=True)]
    )
    rows = [
        {
            "hospital": hospital.name,
            "purpose": PURPOSE,
            "decision": answer["state"],
            "reason": "covered by the policy, signed by the hospital",
        }
        for hospital, answer in zip(hospitals, answers, strict=True)
    ]
    refusals = in_parallel([partial(_refusal, group, hospitals[0], options) for options in REFUSED.values()])
    rows += [
        {"hospital": hospitals[0].name, "purpose": purpose, "decision": "refused", "reason": reason}
        for purpose, reason in zip(REFUSED, refusals, strict=True)
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
    table = group.write("diagnosis-by-age.yaml", yaml.safe_dump(DIAGNOSIS_BY_AGE, sort_keys=False))
    isolating = group.write("isolating.yaml", yaml.safe_dump(ISOLATING, sort_keys=False))
    datasets = [hospital.dataset for hospital in hospitals]
    released, stopped = in_parallel(
        [
            partial(group.rexis, "query", "submit", *datasets, table, "--purpose", PURPOSE, "--wait"),
            partial(group.rexis, "query", "submit", datasets[0], isolating, "--purpose", PURPOSE, "--wait"),
        ]
    )
    asked = TableQuery.parse(DIAGNOSIS_BY_AGE)
    answers = [{"hospital": hospital.name, **_answer(asked, found)} for hospital, found in zip(hospitals, released, strict=True)]
    if not any(answer["rows"] for answer in answers):
        raise VerificationError("expected a released table from at least one hospital, got none")
    for found in stopped:
        if found["state"] not in ("held", "refused"):
            raise VerificationError(f"expected the isolating query to be stopped, got {found['state']}")
    return {
        "text": "Diagnosis by age band, counted by each hospital's own agent.",
        "answers": answers,
        "stopped": [
            {
                "state": found["state"],
                "text": f"Women of 70 or 71 years by diagnosis, at {hospitals[0].name}: so few that the table would point at persons.",
                "note": found["rule"] or found["note"] or "",
            }
            for found in stopped
        ],
    }


def _refusal(group: Party, hospital: Hospital, options: Sequence[str]) -> str:
    try:
        group.rexis("access", "request", hospital.dataset, *options)
    except CommandRefusedError as error:
        return error.message
    raise VerificationError(f"expected the request with {' '.join(options)} to be refused")


def _answer(asked: TableQuery, found: dict[str, Any]) -> dict[str, Any]:
    """A released table as rows of the first dimension; other outcomes with their note."""
    note = found["rule"] or found["note"] or ""
    columns = [asked.dimensions[0].column, *DIAGNOSIS]
    if found["result"] is None:
        return {"state": found["state"], "note": note, "columns": columns, "rows": []}
    result = TableResult.parse(found["result"])
    result.check(asked)
    width = len(DIAGNOSIS)
    rows = [
        {"label": label, "cells": list(result.cells[width * place : width * (place + 1)])}
        for place, label in enumerate(asked.dimensions[0].labels)
    ]
    return {"state": found["state"], "note": note, "columns": columns, "rows": rows}
