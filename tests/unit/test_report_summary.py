"""What a published model says of its privacy: bounded, typed, and never better than its own verdicts or the knowledge of its weights."""

import json
from typing import Any

import pytest

from rexis.errors import MalformedMessageError
from rexis.protocol.report_summary import MAX_ATTACKS, MAX_VERSIONS, ReportSummary, best_grade


def document(**changes: Any) -> dict[str, Any]:
    attacks = [{"name": "exactness", "version": 1, "verdict": "pass"}, {"name": "geometry", "version": 2, "verdict": "warn"}]
    whole = {"version": 1, "grade": "B", "attacks": attacks, "versions": {"suite": "1", "torch": "2.13.0+cpu"}, "report": "0x" + 64 * "a"}
    return {**whole, **changes}


def attack(name: str = "geometry", version: Any = 1, verdict: Any = "pass") -> dict[str, Any]:
    return {"name": name, "version": version, "verdict": verdict}


def test_a_summary_is_its_document() -> None:
    summary = ReportSummary.parse(json.loads(json.dumps(document())))
    assert summary.document() == document()
    assert ReportSummary.parse(summary.document()) == summary
    assert summary.line() == "grade B: 1 warn, 1 pass of 2 attacks"


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"version": True},
        {"grade": "E"},
        {"grade": "A+"},
        {"grade": ["A"]},
        {"attacks": []},
        {"attacks": [attack(f"a{number}") for number in range(MAX_ATTACKS + 1)]},
        {"attacks": [attack(), attack()]},
        {"attacks": [attack("Geometry")]},
        {"attacks": [attack("geometry\n")]},
        {"attacks": [attack("a" * 41)]},
        {"attacks": [attack(version=0)]},
        {"attacks": [attack(version="1")]},
        {"attacks": [attack(verdict="passed")]},
        {"attacks": [attack(verdict=None)]},
        {"attacks": [{**attack(), "figures": {}}]},
        {"versions": {"suite": "1 2"}},
        {"versions": {"suite": 1}},
        {"versions": {"<b>": "1"}},
        {"versions": {f"v{number}": "1" for number in range(MAX_VERSIONS + 1)}},
        {"report": "0x" + 62 * "a"},
        {"report": None},
        {"salt": "0x" + 64 * "a"},
    ],
)
def test_anything_else_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessageError):
        ReportSummary.parse(document(**changes))


@pytest.mark.parametrize(
    ("verdicts", "knowledge", "grade"),
    [
        (["pass", "pass"], "private", "A"),
        (["pass", "warn"], "private", "B"),
        (["pass", "warn", "not run"], "private", "C"),
        (["pass", "not run", "not run"], "private", "D"),
        (["pass", "fail"], "private", "D"),
        ([], "private", "D"),
        (["pass", "pass"], "members", "D"),
        (["pass", "pass"], "public", "D"),
    ],
)
def test_no_grade_is_better_than_verdicts_and_knowledge_admit(verdicts: list[str], knowledge: str, grade: str) -> None:
    assert best_grade(verdicts, knowledge) == grade
    attacks = [attack(f"a{number}", verdict=verdict) for number, verdict in enumerate(verdicts)] or [attack(verdict="not run")]
    for claimed in "ABCDF":
        claim = document(grade=claimed, attacks=attacks)
        if claimed < grade:
            with pytest.raises(MalformedMessageError):
                ReportSummary.parse(claim).check_knowledge(knowledge)
        else:
            ReportSummary.parse(claim).check_knowledge(knowledge)
