"""What a job or a published model carries of its owner's privacy report: grade, verdicts, versions and a salted digest. Torch-free.

The report itself (`rexis.attacks`) stays with the owner: its figures tell an attacker which attack pays. The digest is salted, so that it
says nothing until the owner shows the report to somebody, who then checks that it is the one that stood beside the model.

    {"version": 1, "grade": "D", "attacks": [{"name": "known_pairs", "version": 1, "verdict": "fail"}],
     "versions": {"suite": "1"}, "report": "0x…"}
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal, Self, get_args

from rexis.encoding import to_hex
from rexis.errors import MalformedMessageError
from rexis.models.knowledge import KEYED, protection
from rexis.protocol.document_members import bytes32, integer, members_of

Grade = Literal["A", "B", "C", "D", "F"]
GRADES: tuple[str, ...] = get_args(Grade)

MAX_ATTACKS = 64
MAX_VERSIONS = 16
MAX_VERSION = 1 << 16
NAME_PATTERN = "^[a-z][a-z0-9_]{0,39}$"
VERSION_PATTERN = r"^[0-9A-Za-z.+_-]{1,40}$"
_NAME = re.compile(NAME_PATTERN.removesuffix("$"), re.ASCII)
_VERSION = re.compile(VERSION_PATTERN.removesuffix("$"), re.ASCII)


class Verdict(StrEnum):
    """What an attack came to. "not run" is no pass: it applies, and nobody knows."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    NOT_RUN = "not run"


def best_grade(verdicts: Iterable[str], knowledge: str) -> Grade:
    """The best grade that these verdicts admit.

    A: every attack ran and stayed under its limits. B: some came near. C: some that apply did not run. D: no better than obfuscation,
    because an attack got through, fewer ran than not, or others hold the plain weights (`knowledge` "members" or "public"), whatever the
    attacks gave. F is for the report to say: records, tokens or the key were read from what leaves the premises and what anybody may hold.

    Raises:
        ValueError: no such knowledge.
    """
    given = list(verdicts)
    missing = given.count(Verdict.NOT_RUN)
    if protection(knowledge) != KEYED or Verdict.FAIL in given or 2 * missing > len(given) or not given:
        return "D"
    if missing:
        return "C"
    return "B" if Verdict.WARN in given else "A"


@dataclass(frozen=True)
class AttackVerdict:
    """One attack of the report.

    Attributes:
        name: of the attack, as in `rexis.attacks.suite`.
        version: of the attack; another version may find more.
        verdict: what it came to.
    """

    name: str
    version: int
    verdict: Verdict

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read what someone else wrote.

        Raises:
            MalformedMessageError: other members, or one out of bounds.
        """
        members = members_of("attack of a report", value, "name version verdict")
        verdict = members["verdict"]
        if not isinstance(verdict, str) or verdict not in list(Verdict):
            raise MalformedMessageError(f"verdict: expected one of {', '.join(Verdict)}, got {str(verdict)[:40]!r}")
        name, version = _matching("name of an attack", members["name"], _NAME), integer("version", members["version"], 1, MAX_VERSION)
        return cls(name, version, Verdict(verdict))

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {"name": self.name, "version": self.version, "verdict": self.verdict.value}


@dataclass(frozen=True)
class ReportSummary:
    """The part of a privacy report that is not kept to oneself.

    Attributes:
        grade: A to F, see `best_grade`; by the owner's word, like everything here.
        attacks: what was tried, each name once, in the order of the report.
        versions: of the suite and of the libraries that it ran on, by name.
        report: salted digest of the whole report, 32 bytes.
    """

    grade: Grade
    attacks: tuple[AttackVerdict, ...]
    versions: Mapping[str, str]
    report: bytes

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read what someone else wrote.

        Raises:
            MalformedMessageError: other members, one out of bounds, or a grade that the verdicts do not admit.
        """
        members = members_of("summary of a privacy report", value, "version grade attacks versions report")
        integer("version", members["version"], 1, 1)
        grade, attacks, versions = members["grade"], members["attacks"], members["versions"]
        if not isinstance(grade, str) or grade not in GRADES:
            raise MalformedMessageError(f"grade: expected one of {', '.join(GRADES)}, got {str(grade)[:40]!r}")
        if not isinstance(attacks, list) or not 0 < len(attacks) <= MAX_ATTACKS:
            raise MalformedMessageError(f"attacks: expected a list of 1 to {MAX_ATTACKS}")
        if not isinstance(versions, Mapping) or len(versions) > MAX_VERSIONS:
            raise MalformedMessageError(f"versions: expected an object of at most {MAX_VERSIONS} members")
        read = tuple(AttackVerdict.parse(attack) for attack in attacks)
        if len({attack.name for attack in read}) < len(read):
            raise MalformedMessageError("attacks: expected each name once")
        named = {_matching("name in versions", name, _NAME): _matching("version", version, _VERSION) for name, version in versions.items()}
        known: Grade = next(each for each in get_args(Grade) if each == grade)
        summary = cls(known, read, MappingProxyType(named), bytes32("report", members["report"]))
        summary.check_knowledge("private")
        return summary

    def check_knowledge(self, knowledge: str) -> None:
        """Return if the verdicts, and who knows the plain weights, admit the grade.

        Raises:
            MalformedMessageError: they admit a lower one at best.
        """
        best = best_grade((attack.verdict for attack in self.attacks), knowledge)
        if self.grade < best:
            raise MalformedMessageError(
                f"grade: expected {best} or worse for these verdicts and plain weights that are {knowledge}, got {self.grade}"
            )

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {
            "version": 1,
            "grade": self.grade,
            "attacks": [attack.document() for attack in self.attacks],
            "versions": dict(self.versions),
            "report": to_hex(self.report),
        }

    def line(self) -> str:
        """The summary as people read it: `grade D: 2 fail, 1 warn, 3 pass of 6 attacks`."""
        counts = {verdict: sum(attack.verdict is verdict for attack in self.attacks) for verdict in reversed(Verdict)}
        found = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
        return f"grade {self.grade}: {found} of {len(self.attacks)} attacks"


def _matching(name: str, value: Any, pattern: re.Pattern[str]) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise MalformedMessageError(f"{name}: expected text of the form {pattern.pattern}, got {str(value)[:60]!r}")
    return value
