"""The document whose digest a grant puts on chain: one form, bounded, and nothing in it that is not read."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from rexis.encoding import canonical_json, sha256, to_hex
from rexis.errors import EncodingError, MalformedMessageError
from rexis.policy.conditions import Conditions, parse_purpose, permission, purpose_document
from rexis.policy.duo import Permission, Purpose
from rexis.protocol.queries import TableQuery

PURPOSE = Purpose(
    Permission.DS,
    date(2027, 5, 20),
    diseases=frozenset({"MONDO:0005267", "MONDO:0004995"}),
    country="CH",
    publish_from=date(2027, 1, 1),
    commercial=False,
    ethics_approval=True,
)
CONDITIONS = Conditions(
    "5b0f6a0a4a0f4e0d8a3a8f6f0b1c2d3e", 7, "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC", b"\x02" * 32, PURPOSE, 90, "Ärzte."
)


def test_the_document_is_read_back_and_its_digest_is_that_of_its_canonical_json() -> None:
    document = CONDITIONS.document()
    assert Conditions.parse(document) == CONDITIONS
    assert CONDITIONS.digest() == sha256(canonical_json(document))
    assert document["purpose"]["diseases"] == ["MONDO:0004995", "MONDO:0005267"]


def test_silence_in_a_purpose_promises_nothing() -> None:
    declared = parse_purpose({"use": "HMB", "until": "2027-01-01"})
    assert declared == Purpose(Permission.HMB, date(2027, 1, 1))
    assert parse_purpose(purpose_document(PURPOSE)) == PURPOSE


@pytest.mark.parametrize("text", ["HMB", "hmb", "6", "DUO:0000006", 6])
def test_a_purpose_has_several_names(text: str | int) -> None:
    assert permission(text) is Permission.HMB


@pytest.mark.parametrize("text", ["IRB", "21", "", "DUO:6", True, None, "HMB "])
def test_what_is_no_permission_is_no_purpose(text: Any) -> None:
    with pytest.raises(MalformedMessageError, match=r"NRES \(4\)"):
        permission(text)


WRONG: dict[str, dict[str, Any]] = {
    "another version": {"version": 2},
    "a version that is true": {"version": True},
    "an unknown field": {"price": 5},
    "no request": {"request": None},
    "a request in capitals": {"request": "5B" * 16},
    "data set zero": {"dataset": 0},
    "a data set beyond JSON": {"dataset": 2**53},
    "a data set that is true": {"dataset": True},
    "no address": {"consumer": "0x12"},
    "an address without checksum": {"consumer": CONDITIONS.consumer.lower()},
    "a short hash": {"policy_hash": "0x00"},
    "too long a term": {"days": 730},
    "no term": {"days": 0},
    "too much text": {"text": "x" * 2001},
    "no text": {"text": None},
    "no purpose": {"purpose": None},
}
WRONG_PURPOSE: dict[str, dict[str, Any]] = {
    "a modifier": {"use": "IRB"},
    "a number for its name": {"use": 7},
    "no end": {"until": None},
    "another notation of a date": {"until": "20270520"},
    "a date that is none": {"publish_from": "2027-02-30"},
    "diseases out of order": {"diseases": ["MONDO:0005267", "MONDO:0004995"]},
    "a disease twice": {"diseases": ["MONDO:0005267", "MONDO:0005267"]},
    "too many diseases": {"diseases": [f"MONDO:{number:07d}" for number in range(257)]},
    "a disease that is a list": {"diseases": [["MONDO:0005267"]]},
    "a flag that is a number": {"commercial": 0},
    "a flag that is nothing": {"commercial": None},
    "another user than the consumer": {"user": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"},
    "a country that is a number": {"country": 41},
    "an empty project": {"project": ""},
    "a project too long": {"project": "x" * 129},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_document_in_another_form_is_refused(name: str) -> None:
    with pytest.raises(MalformedMessageError):
        Conditions.parse({**CONDITIONS.document(), **WRONG[name]})


@pytest.mark.parametrize("name", WRONG_PURPOSE)
def test_a_purpose_in_another_form_is_refused(name: str) -> None:
    with pytest.raises(MalformedMessageError):
        Conditions.parse({**CONDITIONS.document(), "purpose": {**CONDITIONS.document()["purpose"], **WRONG_PURPOSE[name]}})


@pytest.mark.parametrize("field", sorted(CONDITIONS.document()))
def test_no_field_may_be_missing(field: str) -> None:
    with pytest.raises(MalformedMessageError):
        Conditions.parse({name: value for name, value in CONDITIONS.document().items() if name != field})


@pytest.mark.parametrize("text", ["approved\u202e", "\x1b[2J", " "])
def test_words_that_people_could_not_read_are_refused(text: str) -> None:
    with pytest.raises(EncodingError):
        Conditions.parse({**CONDITIONS.document(), "text": text})


def test_an_independent_reference_computes_the_same_digests() -> None:
    vector = json.loads((Path(__file__).parents[1] / "vectors" / "questions.json").read_text())
    conditions, question = vector["conditions"], vector["question"]
    assert to_hex(Conditions.parse(conditions["document"]).digest()) == conditions["digest"]
    parsed = TableQuery.parse(question["document"])
    assert parsed.document() == question["document"]
    assert to_hex(parsed.digest) == question["digest"]
