"""What leaves the premises carries no value; what is mocked comes from common levels only."""

import json
from datetime import date
from decimal import Decimal
from random import Random

import pytest

from rexis.agent.metadata import Description, croissant, document_hash, row_band
from rexis.agent.mock_data import codebook, mock_rows
from rexis.agent.profile import profile_table
from rexis.agent.table import Table
from rexis.errors import EncodingError
from rexis.policy import DataUsePolicy

POLICY = DataUsePolicy.parse({"version": 1, "permission": "HMB", "modifiers": {"NCU": []}})
DESCRIPTION = Description("Heart disease", "Two hundred rows.", date(2026, 11, 21), creator="A hospital")
# 200 rows: `rare` occurs nine times, the outermost numbers once.
ROWS = tuple(
    (
        str(30 + i % 50) if 0 < i < 199 else str(i * 4321),
        "rare-level" if i < 9 else ("frequent" if i % 2 else "usual"),
        f"{i / 8}",
        "secret",
    )
    for i in range(200)
)
TABLE = Table(("age", "finding", "marker", "constant"), ROWS)


def test_the_metadata_name_types_and_terms_and_no_value() -> None:
    document = croissant(DESCRIPTION, profile_table(TABLE), POLICY)
    fields = {field["name"]: field["dataType"] for field in document["recordSet"][0]["field"]}
    assert fields == {"age": "sc:Integer", "finding": "sc:Text", "marker": "sc:Float", "constant": "sc:Text"}
    assert [term["termCode"] for term in document["usageInfo"]] == ["DUO:0000006", "DUO:0000046"]
    assert document["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    text = json.dumps(document)
    for value in ("rare-level", "frequent", "usual", "secret", "859879", "24.875"):
        assert value not in text
    assert "sha256" not in text.lower()


def test_the_row_count_is_a_band() -> None:
    assert [row_band(n) for n in (3, 10, 19, 46, 303, 12_345)] == [
        "fewer than 10 rows",
        "at least 10 rows",
        "at least 10 rows",
        "at least 40 rows",
        "at least 300 rows",
        "at least 10000 rows",
    ]


def test_the_hash_depends_on_every_member() -> None:
    document = croissant(DESCRIPTION, profile_table(TABLE), POLICY)
    assert document_hash(document) == document_hash(json.loads(json.dumps(document)))
    for member in document:
        assert document_hash({**document, member: "changed"}) != document_hash(document)


def test_a_title_is_needed_and_bounded() -> None:
    profile = profile_table(TABLE)
    for title in ("", "x" * 201):
        with pytest.raises(EncodingError, match="title"):
            croissant(Description(title, "", date(2026, 1, 1)), profile, POLICY)
    with pytest.raises(EncodingError, match="description"):
        croissant(Description("x", "y" * 10_001, date(2026, 1, 1)), profile, POLICY)


def test_mock_data_know_neither_rare_levels_nor_extremes() -> None:
    entries = codebook(TABLE, profile_table(TABLE))
    age, finding, marker, constant = entries
    assert [value for value, _ in finding.levels] == ["frequent", "usual"]
    # Ten rows lie at or beyond each bound; the extremes are 0 and 859,879.
    assert age.bounds == (Decimal(32), Decimal(77))
    assert marker.bounds == (Decimal("1.2"), Decimal("24"))
    rows = mock_rows(entries, 500, Random(7))
    assert {row[1] for row in rows} == {"frequent", "usual"}
    assert all(32 <= int(row[0]) <= 77 for row in rows)
    assert constant.levels == (("secret", 20),)
    assert rows == mock_rows(entries, 500, Random(7))


def test_too_few_rows_give_no_codebook() -> None:
    table = Table(("chol", "sex", "seen"), tuple((str(100 + i), "m", "2020-01-01") for i in range(9)))
    entries = codebook(table, profile_table(table))
    assert [(entry.levels, entry.bounds) for entry in entries] == [((), None)] * 3
    assert all(0 <= int(row[0]) <= 1 and row[1] == "text" and row[2] != "2020-01-01" for row in mock_rows(entries, 50, Random(1)))
