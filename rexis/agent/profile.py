"""What a table holds, found out on the premises: types, direct identifiers, and how far its rows stand out (k-anonymity).

Direct identifiers are the classes of the HIPAA Safe Harbor rule, 45 CFR 164.514(b)(2)(i), letters in brackets below; they are refused.
Places, dates and ages above 89 belong to the rule too, but are what many studies are about: they are named as warnings and counted as
quasi-identifiers. k is the size of the smallest group of rows that agree in all quasi-identifiers (Sweeney 2002). The checks read names
and values; they find careless columns, not hidden ones, and no profile leaves the premises.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rexis.agent.table import Table

ColumnType = Literal["boolean", "integer", "decimal", "date", "text", "empty"]
Severity = Literal["refuse", "warn"]

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
MINIMUM_K = 10
OLDEST_SINGLE_AGE = 89
# Below this, "every value is different" happens by chance.
UNIQUE_FROM_ROWS = 20

_BOOLEAN = re.compile(r"true|false|yes|no", re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_DATE = re.compile(r"(?:[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{1,2}[./][0-9]{1,2}[./](?:[0-9]{4}|[0-9]{2}))(?:[T ][0-9:.]+(?:Z|[+-][0-9:]+)?)?")

# Column names are compared without case, spaces and punctuation: "Patient-Name" is "patientname".
_IDENTIFIER_NAMES: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "names (A)",
        re.compile(r"(patient|subject|full|first|last|given|family|middle|maiden|sur|fore)?names?|initials|vorname|nachname|prenom"),
    ),
    ("street address (B)", re.compile(r"(home|street|postal|mailing|patient)?address|street|adresse|anschrift")),
    ("telephone numbers (D)", re.compile(r"(tele|mobile|cell|home|work)?phone(no|number|nr)?|tel(no|nr)?|mobile|cell|telefon")),
    ("fax numbers (E)", re.compile(r"(tele)?fax(no|number|nr)?")),
    ("e-mail addresses (F)", re.compile(r"(patient)?(email|mail|emailaddress)")),
    (
        "social security numbers (G)",
        re.compile(r"ssn|socialsecurity(no|number)?|nationalid|nhs(no|number)|nin|ahv(nr)?|cpr(nr|number)?|insee"),
    ),
    ("medical record numbers (H)", re.compile(r"mrn|medicalrecord(no|number|id)?|recordnumber|chartnumber|hospitalnumber|casenumber")),
    ("health plan numbers (I)", re.compile(r"(health)?(plan|insurance|policy|member|beneficiary)(no|number|id)")),
    ("account numbers (J)", re.compile(r"account(no|number|id)?|iban")),
    (
        "certificate or licence numbers (K)",
        re.compile(r"(driver|drivers)?licen[cs]e(no|number|id)|certificate(no|number|id)|passport(no|number|id)?"),
    ),
    ("vehicle identifiers (L)", re.compile(r"vin|licen[cs]eplate|(number)?plate|vehicleid")),
    ("device identifiers (M)", re.compile(r"device(id|serial|serialnumber)|serial(no|number)|imei|udi")),
    ("web addresses (N)", re.compile(r"url|website|homepage")),
    ("IP addresses (O)", re.compile(r"ip|ipaddress|ipaddr|macaddress")),
    ("biometric identifiers (P)", re.compile(r"fingerprint|voiceprint|retina(scan)?|faceprint")),
    ("photographs (Q)", re.compile(r"photo|photograph|portrait|faceimage")),
    (
        "unique identifying numbers (R)",
        re.compile(r"(patient|subject|person|participant|case|individual)(id|no|nr|number|code|key)|pid|uuid|guid"),
    ),
)
_IDENTIFIER_VALUES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("e-mail addresses (F)", re.compile(r"[^\s@]{1,64}@[^\s@]{1,255}\.[A-Za-z]{2,}")),
    ("social security numbers (G)", re.compile(r"[0-9]{3}-[0-9]{2}-[0-9]{4}")),
    ("web addresses (N)", re.compile(r"https?://\S+")),
    ("IP addresses (O)", re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])")),
    ("telephone numbers (D)", re.compile(r"\+[0-9][0-9 ()/-]{7,18}[0-9]|(?<![0-9.])\(?0[0-9]{2,5}\)?[ /-][0-9][0-9 -]{4,12}[0-9]")),
    ("unique identifying numbers (R)", re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")),
)
_QUASI_IDENTIFIER = re.compile(
    r"age|sex|gender|race|ethnicity|ethnic(group)?|nationality|religion|occupation|job|education|marital(status)?"
    r"|(birth|admission|discharge|death|visit)?(date|year|day|month)(of(birth|admission|discharge|death|visit))?|dob|yob"
    r"|zip(code)?|post(al)?code|plz|city|town|county|district|village|municipality|country|region|state"
)
_PLACE = re.compile(r"zip(code)?|post(al)?code|plz|city|town|county|district|village|municipality")
_AGE = re.compile(r"age|ageyears|patientage|ageat[a-z]+")


@dataclass(frozen=True)
class Column:
    """One column. Counts stay on the premises."""

    name: str
    type: ColumnType
    missing: int
    distinct: int


@dataclass(frozen=True)
class Finding:
    """One broken rule. `column` is "" for a rule about the whole table."""

    column: str
    severity: Severity
    rule: str
    advice: str


@dataclass(frozen=True)
class Profile:
    """A table's profile; `k` is the smallest group over `quasi_identifiers` (the number of rows if there are none)."""

    rows: int
    columns: tuple[Column, ...]
    quasi_identifiers: tuple[str, ...]
    k: int
    unique_rows: int
    findings: tuple[Finding, ...]

    @property
    def refused(self) -> tuple[Finding, ...]:
        """The findings that forbid registration."""
        return tuple(finding for finding in self.findings if finding.severity == "refuse")


def profile_table(table: Table, *, quasi_identifiers: Sequence[str] | None = None, minimum_k: int = MINIMUM_K) -> Profile:
    """Profile a table.

    Args:
        table: the table.
        quasi_identifiers: columns that outsiders may know of a person; None finds them by name and type.
        minimum_k: smaller groups are reported.

    Raises:
        ValueError: a quasi-identifier that is not a column, or `minimum_k` below 2.
    """
    unknown = sorted(set(quasi_identifiers or ()) - set(table.columns))
    if unknown:
        raise ValueError(f"there is no column {', '.join(unknown)}; the columns are {', '.join(table.columns)}")
    if minimum_k < 2:
        raise ValueError(f"a group of {minimum_k} hides nobody: expected a minimum of at least 2")
    columns: list[Column] = []
    findings: list[Finding] = []
    for name in table.columns:
        values = [value for value in table.column(name) if value.strip().lower() not in MISSING]
        column = Column(name, column_type(values), len(table.rows) - len(values), len(set(values)))
        columns.append(column)
        findings += _column_findings(column, values)
    quasi = tuple(quasi_identifiers) if quasi_identifiers is not None else _quasi_identifiers(columns)
    k, unique = _anonymity(table, quasi)
    if quasi and k < minimum_k:
        rule = f"k-anonymity: the smallest group that agrees in {', '.join(quasi)} has {k} row(s), fewer than {minimum_k}"
        findings.append(Finding("", "warn", rule, "rows stay here; answers about groups that small are for the output gate to refuse"))
    return Profile(len(table.rows), tuple(columns), quasi, k, unique, tuple(findings))


def column_type(values: Sequence[str]) -> ColumnType:
    """The narrowest type that every value has; `values` without the missing ones."""
    if not values:
        return "empty"
    types: tuple[tuple[ColumnType, re.Pattern[str]], ...] = (
        ("boolean", _BOOLEAN),
        ("integer", _INTEGER),
        ("decimal", _DECIMAL),
        ("date", _DATE),
    )
    return next((name for name, pattern in types if all(pattern.fullmatch(value.strip()) for value in values)), "text")


def _column_findings(column: Column, values: Sequence[str]) -> list[Finding]:
    name = _plain(column.name)
    refused = [rule for rule, pattern in _IDENTIFIER_NAMES if pattern.fullmatch(name)]
    if column.type == "text":
        refused += [rule for rule, pattern in _IDENTIFIER_VALUES if any(pattern.search(value) for value in values)]
    if not refused and _numbers_the_rows(column, values):
        refused.append("unique identifying numbers (R)")
    advice = f"remove the column, or leave it out with --exclude {column.name!r}"
    if refused:
        return [Finding(column.name, "refuse", f"direct identifier: {refused[0]}", advice)]
    warnings: list[tuple[bool, str, str]] = [
        (column.type == "date", "dates other than the year (C)", "shift the dates or keep the year"),
        (bool(_PLACE.fullmatch(name)), "places smaller than a state (B)", "keep at most the first three digits, or the region"),
        (
            bool(_AGE.fullmatch(name)) and column.type in ("integer", "decimal") and max(map(float, values)) > OLDEST_SINGLE_AGE,
            "ages above 89 (C)",
            "pool them as 90",
        ),
        (
            column.type == "text" and bool(values) and sum(map(len, values)) > 40 * len(values),
            "free text can name anybody",
            "code it, or leave the column out",
        ),
    ]
    return [Finding(column.name, "warn", rule, what) for broken, rule, what in warnings if broken]


def _numbers_the_rows(column: Column, values: Sequence[str]) -> bool:
    """Whether the column tells every row apart: codes that are all different, or a running number."""
    if len(values) < UNIQUE_FROM_ROWS or column.distinct < len(values):
        return False
    if column.type == "text":
        return max(map(len, values)) <= 64
    if column.type != "integer":
        return False
    numbers = [int(value) for value in values]
    return max(numbers) - min(numbers) + 1 == len(numbers) or _plain(column.name).endswith(("id", "no", "nr", "number", "code", "key"))


def _quasi_identifiers(columns: Sequence[Column]) -> tuple[str, ...]:
    return tuple(column.name for column in columns if column.type == "date" or _QUASI_IDENTIFIER.fullmatch(_plain(column.name)))


def _anonymity(table: Table, quasi_identifiers: Sequence[str]) -> tuple[int, int]:
    if not quasi_identifiers:
        return len(table.rows), 0
    groups = Counter(zip(*(table.column(name) for name in quasi_identifiers), strict=True))
    return min(groups.values()), sum(1 for size in groups.values() if size == 1)


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
