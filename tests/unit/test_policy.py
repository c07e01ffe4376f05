"""DUO policies: each rule allows what it should, refuses what it should by name, and the document has one hash."""

from dataclasses import replace
from datetime import date

import pytest

from rexis.encoding import sha256
from rexis.errors import MalformedMessageError, PolicyError
from rexis.policy import DataUsePolicy, Modifier, Permission, Purpose, evaluate

NEXT_YEAR = date(2030, 1, 1)


def policy(permission: str = "GRU", diseases: list[str] | None = None, **modifiers: list[str]) -> DataUsePolicy:
    return DataUsePolicy.parse({"version": 1, "permission": permission, "diseases": diseases or [], "modifiers": modifiers})


COVERED = {
    "NRES": {"NRES", "GRU", "HMB", "DS", "POA"},
    "GRU": {"GRU", "HMB", "DS", "POA"},
    "HMB": {"HMB", "DS"},
    "DS": {"DS"},
    "POA": {"POA"},
}


@pytest.mark.parametrize("permission", COVERED)
@pytest.mark.parametrize("use", COVERED)
def test_permission_covers_exactly_these_uses(permission: str, use: str) -> None:
    diseases = frozenset({"MONDO:0005267"})
    offered = policy(permission, sorted(diseases) if permission == "DS" else None)
    purpose = Purpose(Permission[use], NEXT_YEAR, diseases=diseases)
    if use in COVERED[permission]:
        evaluate(offered, purpose)
    else:
        with pytest.raises(PolicyError, match=rf"{permission} \(DUO:00000\d\d"):
            evaluate(offered, purpose)


@pytest.mark.parametrize(
    ("diseases", "allowed"),
    [({"MONDO:0005267"}, True), ({"MONDO:0005267", "MONDO:0005148"}, True), ({"MONDO:0004992"}, False), (set(), False)],
)
def test_disease_specific_research(diseases: set[str], allowed: bool) -> None:
    offered = policy("DS", ["MONDO:0005267", "MONDO:0005148"])
    purpose = Purpose(Permission.DS, NEXT_YEAR, diseases=frozenset(diseases))
    if allowed:
        evaluate(offered, purpose)
    else:
        with pytest.raises(PolicyError, match="DUO:0000007"):
            evaluate(offered, purpose)


def test_one_disease_outside_the_list_is_refused() -> None:
    purpose = Purpose(Permission.DS, NEXT_YEAR, diseases=frozenset({"MONDO:0005267", "MONDO:0004992"}))
    with pytest.raises(PolicyError, match="MONDO:0004992"):
        evaluate(policy("DS", ["MONDO:0005267"]), purpose)


# modifier, parameters, a declaration that satisfies it, one that does not
RULES = [
    ("RS", ["cardiology"], {"research_type": "cardiology"}, {"research_type": "oncology"}),
    ("NMDS", [], {"methods_development": False}, {"methods_development": True}),
    ("GSO", [], {"genetic_study": True}, {"genetic_study": False}),
    ("NPUNCU", [], {"for_profit": False, "commercial": False}, {"for_profit": False, "commercial": True}),
    ("NPUNCU", [], {"for_profit": False, "commercial": False}, {"for_profit": True, "commercial": False}),
    ("PUB", [], {"publish_from": date(2031, 1, 1)}, {"publish_from": None}),
    ("COL", [], {"collaboration": True}, {"collaboration": False}),
    ("IRB", [], {"ethics_approval": True}, {"ethics_approval": False}),
    ("GS", ["CH", "DE"], {"country": "DE"}, {"country": "US"}),
    ("GS", ["CH", "DE"], {"country": "CH"}, {"country": None}),
    ("MOR", ["2030-06-30"], {"publish_from": date(2030, 6, 30)}, {"publish_from": date(2030, 6, 29)}),
    ("MOR", ["2030-06-30"], {"publish_from": None}, {"publish_from": date(2029, 12, 31)}),
    ("TS", ["2030-06-30"], {"until": date(2030, 6, 30)}, {"until": date(2030, 7, 1)}),
    ("US", ["0xAb"], {"user": "0xAb"}, {"user": "0xab"}),
    ("PS", ["heart-7"], {"project": "heart-7"}, {"project": "heart-77"}),
    ("IS", ["0xCd"], {"institution": "0xCd"}, {"institution": None}),
    ("RTN", [], {"returns_results": True}, {"returns_results": False}),
    ("NPOA", [], {"use": Permission.HMB}, {"use": Permission.POA}),
    ("NPU", [], {"for_profit": False}, {"for_profit": True}),
    ("NCU", [], {"commercial": False}, {"commercial": True}),
]


@pytest.mark.parametrize(("code", "parameters", "good", "bad"), RULES)
def test_modifier(code: str, parameters: list[str], good: dict[str, object], bad: dict[str, object]) -> None:
    offered = policy(**{code: parameters})
    purpose = Purpose(Permission.HMB, NEXT_YEAR)
    evaluate(offered, replace(purpose, **good))
    with pytest.raises(PolicyError, match=f"rule {code} .DUO:{Modifier[code].number:07d}"):
        evaluate(offered, replace(purpose, **bad))


def test_every_modifier_has_a_rule_above() -> None:
    assert {rule[0] for rule in RULES} | {"CC"} == set(Modifier.__members__)


def test_codes_have_the_numbers_of_the_ontology() -> None:
    numbers = {code.name: code.number for kind in (Permission, Modifier) for code in kind}
    permissions = {"NRES": 4, "GRU": 42, "HMB": 6, "DS": 7, "POA": 11}
    restrictions = {
        "RS": 12,
        "NMDS": 15,
        "GSO": 16,
        "NPUNCU": 18,
        "GS": 22,
        "TS": 25,
        "US": 26,
        "PS": 27,
        "IS": 28,
        "NPOA": 44,
        "NPU": 45,
        "NCU": 46,
    }
    duties = {"PUB": 19, "COL": 20, "IRB": 21, "MOR": 24, "RTN": 29, "CC": 43}
    assert numbers == permissions | restrictions | duties


def test_clinical_care_needs_its_own_permission() -> None:
    care = Purpose(Permission.HMB, NEXT_YEAR, clinical_care=True)
    evaluate(policy("HMB", CC=[]), care)
    evaluate(policy("NRES"), care)
    evaluate(policy("HMB", CC=[]), replace(care, clinical_care=False))
    with pytest.raises(PolicyError, match="CC"):
        evaluate(policy("HMB"), care)


def test_all_modifiers_must_hold() -> None:
    offered = policy("HMB", NCU=[], GS=["CH"])
    purpose = Purpose(Permission.HMB, NEXT_YEAR, commercial=False, country="CH")
    evaluate(offered, purpose)
    with pytest.raises(PolicyError, match="GS"):
        evaluate(offered, replace(purpose, country="FR"))
    with pytest.raises(PolicyError, match="NCU"):
        evaluate(offered, replace(purpose, commercial=True))


def test_order_in_the_document_does_not_change_the_hash_and_content_does() -> None:
    first = DataUsePolicy.parse({"version": 1, "permission": "GRU", "modifiers": {"GS": ["DE", "CH"], "IRB": []}})
    second = DataUsePolicy.parse({"permission": "GRU", "modifiers": {"IRB": [], "GS": ["CH", "DE"]}, "diseases": [], "version": 1})
    assert first == second
    assert first.digest() == second.digest()
    canonical = b'{"diseases":[],"modifiers":{"GS":["CH","DE"],"IRB":[]},"permission":"GRU","version":1}'
    assert first.digest() == sha256(canonical)
    assert policy("GRU", GS=["CH"], IRB=[]).digest() != first.digest()
    assert DataUsePolicy.parse(first.document()) == first


@pytest.mark.parametrize(
    "document",
    [
        None,
        "GRU",
        {"permission": "GRU"},
        {"version": 1},
        {"version": 2, "permission": "GRU"},
        {"version": True, "permission": "GRU"},
        {"version": 1, "permission": "gru"},
        {"version": 1, "permission": ["GRU"]},
        {"version": 1, "permission": "GRU", "note": "please"},
        {"version": 1, "permission": "DS"},
        {"version": 1, "permission": "DS", "diseases": ["diabetes"]},
        {"version": 1, "permission": "DS", "diseases": ["MONDO:1", "MONDO:1"]},
        {"version": 1, "permission": "GRU", "diseases": ["MONDO:0005267"]},
        {"version": 1, "permission": "GRU", "modifiers": ["IRB"]},
        {"version": 1, "permission": "GRU", "modifiers": {"XYZ": []}},
        {"version": 1, "permission": "GRU", "modifiers": {"IRB": ["yes"]}},
        {"version": 1, "permission": "GRU", "modifiers": {"IRB": None}},
        {"version": 1, "permission": "GRU", "modifiers": {"GS": []}},
        {"version": 1, "permission": "GRU", "modifiers": {"GS": ["Switzerland"]}},
        {"version": 1, "permission": "GRU", "modifiers": {"GS": "CH"}},
        {"version": 1, "permission": "GRU", "modifiers": {"TS": ["2030-02-30"]}},
        {"version": 1, "permission": "GRU", "modifiers": {"TS": ["20300101"]}},
        {"version": 1, "permission": "GRU", "modifiers": {"TS": [date(2030, 1, 1)]}},
        {"version": 1, "permission": "GRU", "modifiers": {"TS": ["2030-01-01", "2031-01-01"]}},
        {"version": 1, "permission": "GRU", "modifiers": {"PS": ["x" * 1000]}},
        {"version": 1, "permission": "GRU", "modifiers": {"PS": [str(i) for i in range(1000)]}},
    ],
)
def test_hostile_documents_are_refused(document: object) -> None:
    with pytest.raises(MalformedMessageError):
        DataUsePolicy.parse(document)
