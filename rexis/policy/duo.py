"""GA4GH Data Use Ontology: the policy of a data set, the purpose of a use, and the rule that decides between them.

A policy document is JSON (or YAML that reads as the same):

    {"version": 1, "permission": "DS", "diseases": ["MONDO:0005267"],
     "modifiers": {"IRB": [], "NCU": [], "GS": ["CH", "DE"], "TS": ["2030-12-31"]}}

Its hash on chain is over the canonical form of `DataUsePolicy.document`. Codes and meanings: EBISPOT/DUO; the order of
the permissions: Lawson et al., Cell Genomics 2021.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import Enum
from types import MappingProxyType
from typing import Any, Self, TypeVar

from rexis.encoding import canonical_json, sha256
from rexis.errors import MalformedMessageError, PolicyError

MAX_PARAMETERS = 256
MAX_PARAMETER_LENGTH = 128

_DISEASE = re.compile(r"[A-Za-z]{2,16}:[0-9A-Za-z.]{1,16}", re.ASCII)
_COUNTRY = re.compile(r"[A-Z]{2}", re.ASCII)


class _Code(Enum):
    """A DUO term: the shorthand is the member's name, the value its number and label."""

    @property
    def number(self) -> int:
        """The digits of `DUO:00000nn`; what stands on chain."""
        number: int = self.value[0]
        return number

    def __str__(self) -> str:
        return f"{self.name} (DUO:{self.number:07d}, {self.value[1]})"


Code = TypeVar("Code", bound=_Code)


class Permission(_Code):
    """What kind of use is allowed at all. A policy has exactly one, and so has a purpose."""

    NRES = (4, "no restriction")
    GRU = (42, "general research use")
    HMB = (6, "health or medical or biomedical research")
    DS = (7, "disease specific research")
    POA = (11, "population origins or ancestry research only")


class Modifier(_Code):
    """A further condition; those of `PARAMETERS` list what they are limited to."""

    RS = (12, "research specific restrictions")
    NMDS = (15, "no general methods research")
    GSO = (16, "genetic studies only")
    NPUNCU = (18, "not for profit, non commercial use only")
    PUB = (19, "publication required")
    COL = (20, "collaboration required")
    IRB = (21, "ethics approval required")
    GS = (22, "geographical restriction")
    MOR = (24, "publication moratorium")
    TS = (25, "time limit on use")
    US = (26, "user specific restriction")
    PS = (27, "project specific restriction")
    IS = (28, "institution specific restriction")
    RTN = (29, "return to database or resource")
    CC = (43, "clinical care use")
    NPOA = (44, "population origins or ancestry research prohibited")
    NPU = (45, "not for profit organisation use only")
    NCU = (46, "non-commercial use only")


# Modifiers with parameters, and what those are; every other modifier takes an empty list.
PARAMETERS: Mapping[Modifier, str] = MappingProxyType(
    {
        Modifier.RS: "research types",
        Modifier.GS: "ISO 3166 country codes",
        Modifier.MOR: "one date",
        Modifier.TS: "one date",
        Modifier.US: "addresses of users",
        Modifier.PS: "project identifiers",
        Modifier.IS: "addresses of institutions",
    }
)

# Which purposes a permission covers. HMB leaves out ancestry by its definition.
_COVERS: Mapping[Permission, frozenset[Permission]] = MappingProxyType(
    {
        Permission.NRES: frozenset(Permission),
        Permission.GRU: frozenset({Permission.GRU, Permission.HMB, Permission.DS, Permission.POA}),
        Permission.HMB: frozenset({Permission.HMB, Permission.DS}),
        Permission.DS: frozenset({Permission.DS}),
        Permission.POA: frozenset({Permission.POA}),
    }
)


@dataclass(frozen=True)
class Purpose:
    """What a requester declares. Silence promises nothing: the defaults meet no condition that asks for something.

    Attributes:
        use: kind of use asked for.
        until: last day of the use.
        diseases: identifiers such as `MONDO:0005267`; needed for `DS`.
        country: ISO 3166 code of the place of processing.
        user, institution, project, research_type: who and what, compared exactly.
        publish_from: first day on which results are published; None if they are not.
    """

    use: Permission
    until: date
    diseases: frozenset[str] = frozenset()
    country: str | None = None
    user: str | None = None
    institution: str | None = None
    project: str | None = None
    research_type: str | None = None
    publish_from: date | None = None
    commercial: bool = True
    for_profit: bool = True
    methods_development: bool = True
    genetic_study: bool = False
    clinical_care: bool = False
    ethics_approval: bool = False
    collaboration: bool = False
    returns_results: bool = False


@dataclass(frozen=True)
class DataUsePolicy:
    """The owner's conditions. Build it with `parse`, which checks what a constructor's types do not."""

    permission: Permission
    diseases: frozenset[str]
    modifiers: Mapping[Modifier, tuple[str, ...]]

    @classmethod
    def parse(cls, document: Any) -> Self:
        """Read a policy document.

        Raises:
            MalformedMessageError: unknown or missing fields, codes, parameters, or a bound exceeded.
        """
        if not isinstance(document, Mapping) or not {"version", "permission"} <= set(document) <= {
            "version",
            "permission",
            "diseases",
            "modifiers",
        }:
            raise MalformedMessageError("a policy has the fields version, permission, and where needed diseases and modifiers")
        if type(document["version"]) is not int or document["version"] != 1:
            raise MalformedMessageError(f"expected policy version 1, got {document['version']!r}")
        permission = _member(Permission, document["permission"])
        diseases = _texts("diseases", document.get("diseases", []))
        if (permission is Permission.DS) != bool(diseases):
            raise MalformedMessageError("diseases are listed with permission DS, and only there")
        for disease in diseases:
            if not _DISEASE.fullmatch(disease):
                raise MalformedMessageError(f"expected a disease identifier such as MONDO:0005267, got {disease!r}")
        listed = document.get("modifiers", {})
        if not isinstance(listed, Mapping):
            raise MalformedMessageError("modifiers map each code to its list of parameters")
        modifiers = {_member(Modifier, code): _texts(str(code), values) for code, values in listed.items()}
        for modifier, values in modifiers.items():
            _check_parameters(modifier, values)
        ordered = {modifier: modifiers[modifier] for modifier in Modifier if modifier in modifiers}
        return cls(permission, frozenset(diseases), MappingProxyType(ordered))

    def document(self) -> dict[str, Any]:
        """The one document of this policy: lists sorted, nothing left out."""
        return {
            "version": 1,
            "permission": self.permission.name,
            "diseases": sorted(self.diseases),
            "modifiers": {modifier.name: sorted(values) for modifier, values in self.modifiers.items()},
        }

    def digest(self) -> bytes:
        """The policy hash that stands on chain: SHA-256 of the canonical JSON of `document`."""
        return sha256(canonical_json(self.document()))


def evaluate(policy: DataUsePolicy, purpose: Purpose) -> None:
    """Return if the policy allows the purpose.

    Diseases are compared by identifier: a more specific term of the same ontology is another disease here, so that
    a doubtful case goes to the data access committee.

    Raises:
        PolicyError: it does not; the message names the rule.
    """
    if purpose.use not in _COVERS[policy.permission]:
        raise PolicyError(f"rule {policy.permission}: does not cover {purpose.use}")
    if policy.permission is Permission.DS and not (purpose.diseases and purpose.diseases <= policy.diseases):
        raise PolicyError(f"rule {policy.permission}: only for {', '.join(sorted(policy.diseases))}, got {_listed(purpose.diseases)}")
    if purpose.clinical_care and policy.permission is not Permission.NRES and Modifier.CC not in policy.modifiers:
        raise PolicyError(f"rule {Modifier.CC}: the policy allows research, not clinical care")
    for modifier, values in policy.modifiers.items():
        if not _SATISFIED[modifier](values, purpose):
            limit = f", only {', '.join(values)}" if values else ""
            raise PolicyError(f"rule {modifier}{limit}: the declared purpose does not satisfy it")


_SATISFIED: Mapping[Modifier, Callable[[Sequence[str], Purpose], bool]] = MappingProxyType(
    {
        Modifier.RS: lambda values, purpose: purpose.research_type in values,
        Modifier.NMDS: lambda _, purpose: not purpose.methods_development,
        Modifier.GSO: lambda _, purpose: purpose.genetic_study,
        Modifier.NPUNCU: lambda _, purpose: not purpose.for_profit and not purpose.commercial,
        Modifier.PUB: lambda _, purpose: purpose.publish_from is not None,
        Modifier.COL: lambda _, purpose: purpose.collaboration,
        Modifier.IRB: lambda _, purpose: purpose.ethics_approval,
        Modifier.GS: lambda values, purpose: purpose.country in values,
        Modifier.MOR: lambda values, purpose: purpose.publish_from is None or purpose.publish_from >= date.fromisoformat(values[0]),
        Modifier.TS: lambda values, purpose: purpose.until <= date.fromisoformat(values[0]),
        Modifier.US: lambda values, purpose: purpose.user in values,
        Modifier.PS: lambda values, purpose: purpose.project in values,
        Modifier.IS: lambda values, purpose: purpose.institution in values,
        Modifier.RTN: lambda _, purpose: purpose.returns_results,
        # A permission to treat patients restricts nobody.
        Modifier.CC: lambda _, __: True,
        Modifier.NPOA: lambda _, purpose: purpose.use is not Permission.POA,
        Modifier.NPU: lambda _, purpose: not purpose.for_profit,
        Modifier.NCU: lambda _, purpose: not purpose.commercial,
    }
)


def _member(kind: type[Code], name: Any) -> Code:
    if not isinstance(name, str) or name not in kind.__members__:
        raise MalformedMessageError(f"expected one of {', '.join(kind.__members__)}, got {str(name)[:40]!r}")
    return kind[name]


def _texts(field: str, values: Any) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or len(values) > MAX_PARAMETERS:
        raise MalformedMessageError(f"{field}: expected a list of at most {MAX_PARAMETERS} texts")
    for value in values:
        if not isinstance(value, str) or not 0 < len(value) <= MAX_PARAMETER_LENGTH:
            raise MalformedMessageError(
                f"{field}: expected texts of 1 to {MAX_PARAMETER_LENGTH} characters (dates in quotes), got {value!r:.80}"
            )
    if len(set(values)) != len(values):
        raise MalformedMessageError(f"{field}: a value is listed twice")
    return tuple(sorted(values))


def _check_parameters(modifier: Modifier, values: Sequence[str]) -> None:
    if modifier not in PARAMETERS:
        if values:
            raise MalformedMessageError(f"{modifier} takes no parameters, got {len(values)}")
        return
    if not values:
        raise MalformedMessageError(f"{modifier} needs its parameters: {PARAMETERS[modifier]}")
    if modifier in (Modifier.MOR, Modifier.TS):
        if len(values) != 1:
            raise MalformedMessageError(f"{modifier} takes one date, got {len(values)}")
        try:
            canonical = date.fromisoformat(values[0]).isoformat()
        except ValueError as error:
            raise MalformedMessageError(f"{modifier}: expected a date as YYYY-MM-DD, got {values[0]!r}") from error
        if canonical != values[0]:
            raise MalformedMessageError(f"{modifier}: expected the date as {canonical}, got {values[0]!r}")
    if modifier is Modifier.GS and not all(_COUNTRY.fullmatch(value) for value in values):
        raise MalformedMessageError(f"{modifier}: expected ISO 3166 codes of two capitals, got {', '.join(values)[:80]}")


def _listed(values: frozenset[str]) -> str:
    return ", ".join(sorted(values)) or "none"
