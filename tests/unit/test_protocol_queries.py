"""Queries and results as documents: one normal form, bounds, and margins that nobody can make say more than the cells."""

import hashlib
import json
from typing import Any

import pytest

from rexis.encoding import canonical_json
from rexis.errors import MalformedMessageError, UnexpectedMessageError
from rexis.protocol.queries import AppliedRules, TableQuery, TableResult

AGE = {"column": "age", "bands": ["40", "50"]}
SICK = {"column": "num", "above": "0"}
QUERY: dict[str, Any] = {
    "version": 1,
    "kind": "table",
    "dimensions": [AGE, SICK],
    "filters": [{"column": "age", "from": "30", "below": "80"}, {"column": "sex", "in": ["Female", "Male"]}],
}


def query(**changes: Any) -> dict[str, Any]:
    return {**QUERY, **changes}


def test_a_query_has_one_normal_form_and_digest() -> None:
    written_otherwise = query(
        dimensions=[{"column": "age", "bands": [40, "5e1"]}, {"above": "-0.0", "column": "num"}],
        filters=[{"column": "sex", "in": ["Male", "Female"]}, {"column": "age", "from": 30, "below": "80.00"}],
    )
    parsed = TableQuery.parse(written_otherwise)
    assert parsed.document() == QUERY
    assert parsed == TableQuery.parse(QUERY)
    # The query is ASCII, so sorted keys without white space are its RFC 8785 form.
    assert parsed.digest == hashlib.sha256(json.dumps(QUERY, sort_keys=True, separators=(",", ":")).encode()).digest()
    assert parsed.shape == (3, 2)
    assert parsed.columns == {"age", "num", "sex"}
    assert [each.labels for each in parsed.dimensions] == [("below 40", "40 to below 50", "from 50"), ("up to 0", "above 0")]
    assert TableQuery.parse({"version": 1, "kind": "table", "dimensions": [SICK]}).filters == ()


def test_the_longest_number_keeps_its_digits() -> None:
    for text in ("0." + 23 * "0" + "1", 24 * "9", "1." + 23 * "3"):
        parsed = TableQuery.parse(query(dimensions=[{"column": "num", "above": text}]))
        assert parsed.document()["dimensions"][0]["above"] == text
        assert TableQuery.parse(parsed.document()) == parsed


@pytest.mark.parametrize(
    "changes",
    [
        {"version": True},
        {"version": 2},
        {"kind": "sql"},
        {"more": 1},
        {"dimensions": []},
        {"dimensions": [AGE, SICK, {"column": "sex", "levels": ["Male"]}]},
        {"dimensions": [AGE, {"column": "age", "above": "3"}]},
        {"dimensions": [{"column": "age"}]},
        {"dimensions": [{**AGE, "above": "3"}]},
        {"dimensions": [{"column": "age", "bands": []}]},
        {"dimensions": [{"column": "age", "bands": ["50", "40"]}]},
        {"dimensions": [{"column": "age", "bands": ["40", "40.0"]}]},
        {"dimensions": [{"column": "age", "bands": [str(edge) for edge in range(32)]}]},
        {"dimensions": [{"column": "age", "above": 40.5}]},
        {"dimensions": [{"column": "age", "above": True}]},
        {"dimensions": [{"column": "age", "above": "NaN"}]},
        {"dimensions": [{"column": "age", "above": "1e999999999"}]},
        {"dimensions": [{"column": "age", "above": 25 * "1"}]},
        {"dimensions": [{"column": "sex", "levels": ["Male", "Male"]}]},
        {"dimensions": [{"column": "sex", "levels": ["Ma\u202ele"]}]},
        {"dimensions": [{"column": 201 * "x", "above": "0"}]},
        {"dimensions": {"column": "age"}},
        {"filters": [{"column": "sex"}]},
        {"filters": [{"column": "age", "in": ["1"], "from": "0"}]},
        {"filters": [{"column": "age", "from": "5", "below": "5"}]},
        {"filters": [{"column": "age", "from": "5"}, {"column": "age", "below": "9"}]},
        {"filters": [{"column": f"c{index}", "below": "5"} for index in range(5)]},
        {"filters": [{"column": "sex", "in": [f"level {index}" for index in range(257)]}]},
    ],
)
def test_what_is_not_in_the_grammar_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessageError):
        TableQuery.parse(query(**changes))


def result(cells: tuple[int | None, ...]) -> TableResult:
    parsed = TableQuery.parse(QUERY)
    return TableResult(parsed.digest, parsed.dimensions, cells, AppliedRules(10, 5))


def test_margins_are_sums_of_the_kept_cells() -> None:
    made = result((10, 15, None, None, 30, 5))
    document = made.document()
    assert document["margins"] == [[25, 0, 35], [40, 20]]
    assert document["total"] == 60
    assert TableResult.parse(document) == made
    made.check(TableQuery.parse(QUERY))
    with pytest.raises(UnexpectedMessageError, match="expected the answer to query"):
        made.check(TableQuery.parse(query(filters=[])))


@pytest.mark.parametrize(
    "changes",
    [
        {"margins": [[25, 7, 35], [40, 20]]},
        {"total": 67},
        {"cells": [10, 15, None, None, 30]},
        {"cells": [10, 15, None, None, 30, 6]},
        {"cells": [10, 15, None, None, 30, -5]},
        {"cells": [10, 15, None, None, 30, True]},
        {"query": "0x00"},
        {"rules": {"minimum_cell": 10}},
        {"rules": {"minimum_cell": 0, "rounding": 5}},
        {"rules": {"minimum_cell": 10, "rounding": 0}},
        {"kind": "count"},
    ],
)
def test_a_result_that_contradicts_itself_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessageError):
        TableResult.parse({**result((10, 15, None, None, 30, 5)).document(), **changes})


def test_a_result_has_a_canonical_form() -> None:
    made = result((10, 15, None, None, 30, 5))
    assert made.digest == TableResult.parse(made.document()).digest
    assert b"null" in canonical_json(made.document())
