"""Claims about evidence, and what checking them gave: the one place where a verification's exception becomes a verdict.

The functions that verify raise, so that nobody can overlook their answer. A report has to go on after a failure and must say what it did
not look at: a claim that nothing was given for is NOT CHECKED, never silently passed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rexis.errors import EncodingError, ProtocolError, VerificationError

REFUSALS = (VerificationError, ProtocolError, EncodingError)


class Verdict(StrEnum):
    """What is known of a claim after the checks."""

    PASS = "PASS"
    FAIL = "FAIL"
    NOT_CHECKED = "NOT CHECKED"


@dataclass(frozen=True)
class Claim:
    """One line of a report.

    Attributes:
        name: stable, for programs.
        statement: what holds if the verdict is PASS.
        verdict: see `Verdict`.
        why: what was found, or what is missing for the check; empty where there is nothing to add.
    """

    name: str
    statement: str
    verdict: Verdict
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON value with exactly the fields."""
        return {"name": self.name, "statement": self.statement, "verdict": self.verdict.value, "why": self.why}


@dataclass(frozen=True)
class Check:
    """How a claim is checked.

    Attributes:
        verify: raises one of `REFUSALS` if the claim does not hold.
        needs: claims that must have passed before; else this one says nothing, and is not checked.
    """

    verify: Callable[[], None]
    needs: Sequence[str] = ()


def assess(statements: Mapping[str, str], checks: Mapping[str, Check | str]) -> list[Claim]:
    """Check every claim, whatever became of those before it.

    Args:
        statements: by name, in the order of the report; a claim comes after those that it needs.
        checks: by name; a text says why the claim is not checked.

    Raises:
        ValueError: a claim without check, or a check without claim.
        Exception: whatever a check raises besides `REFUSALS`, such as `UnavailableError`: that is no verdict.
    """
    if set(statements) != set(checks):
        raise ValueError(f"expected one check for each claim, differing: {sorted(set(statements) ^ set(checks))}")
    claims: dict[str, Claim] = {}
    for name, statement in statements.items():
        claims[name] = Claim(name, statement, *_verdict(checks[name], claims))
    return list(claims.values())


def _verdict(check: Check | str, before: Mapping[str, Claim]) -> tuple[Verdict, str]:
    if isinstance(check, str):
        return Verdict.NOT_CHECKED, check
    missing = [name for name in check.needs if before[name].verdict is not Verdict.PASS]
    if missing:
        return Verdict.NOT_CHECKED, f"says something only once {' and '.join(missing)} passed"
    try:
        check.verify()
    except REFUSALS as error:
        return Verdict.FAIL, str(error)
    return Verdict.PASS, ""
