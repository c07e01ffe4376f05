"""The privacy report of one job: what the attacks found on its owner's own data and model, graded, as a document and as a digest.

The report stays with the owner. `summary()` is what travels: grade, verdicts, versions, and the salted digest of the document, by which the
owner can show later that a report is the one that stood beside the model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self, get_args

from rexis.attacks.findings import Advice, Finding, NoiseLevel, number_text, parse_number, rounded, text
from rexis.attacks.suite import BY_NAME, Knows, Reads
from rexis.encoding import canonical_json, domain_tag, parse_json, sha256, to_hex
from rexis.errors import EncodingError, MalformedMessageError
from rexis.models.knowledge import Knowledge, protection
from rexis.protocol.document_members import bytes32, integer, members_of
from rexis.protocol.report_summary import GRADES, MAX_ATTACKS, MAX_VERSIONS, AttackVerdict, Grade, ReportSummary, Verdict, best_grade

MAX_BYTES = 1 << 20
MAX_SEED = 1 << 53
MAX_RECORDS = 1 << 40


@dataclass(frozen=True)
class Job:
    """What a report is about.

    Attributes:
        key_id: public name of the key, 0x and 32 digits.
        spec_digest: of the model's specification, 32 bytes.
        family, mode, suite: of the model and its key.
        knowledge: who holds the plain weights.
        inputs: "rows" or "tokens".
        records, width: n and d, or the number of texts and their length.
        reference: whose data the attacker's cohort was: "given", or "half of the owner's own".
        noise: standard deviation of the noise before the key, in units of the rows.
    """

    key_id: str
    spec_digest: bytes
    family: str
    mode: str
    suite: str
    knowledge: Knowledge
    inputs: str
    records: int
    width: int
    reference: str
    noise: float

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read what `document` wrote.

        Raises:
            MalformedMessageError: other members, or one out of bounds.
        """
        members = members_of("job", value, "key_id spec_digest family mode suite knowledge inputs records width reference noise")
        knowledge = members["knowledge"]
        if knowledge not in get_args(Knowledge):
            raise MalformedMessageError(f"knowledge: expected one of {', '.join(get_args(Knowledge))}, got {str(knowledge)[:40]!r}")
        return cls(
            **{name: text(name, members[name]) for name in ("key_id", "family", "mode", "suite", "inputs", "reference")},
            knowledge=knowledge,
            spec_digest=bytes32("spec_digest", members["spec_digest"]),
            records=integer("records", members["records"], 1, MAX_RECORDS),
            width=integer("width", members["width"], 1, MAX_RECORDS),
            noise=parse_number("noise", members["noise"]),
        )

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {**vars(self), "spec_digest": to_hex(self.spec_digest), "noise": number_text(self.noise)}


@dataclass(frozen=True)
class PrivacyReport:
    """What the attacks found.

    Attributes:
        job: what it is about.
        findings: one for each attack that applies, in the order of the suite.
        left_out: attacks that do not apply, with the reason.
        advice: what follows.
        noise_levels: what noise before the key would change; empty where it was not tried.
        versions: of the suite and of the libraries, by name.
        seed: of everything that the attacks left to chance.
        budget_s, seconds: that were given, and taken.
        salt: 32 bytes, so that the digest says nothing of the figures.
    """

    job: Job
    findings: tuple[Finding, ...]
    left_out: Mapping[str, str]
    advice: tuple[Advice, ...]
    noise_levels: tuple[NoiseLevel, ...]
    versions: Mapping[str, str]
    seed: int
    budget_s: float
    seconds: float
    salt: bytes = field(repr=False)

    def __post_init__(self) -> None:
        for name in ("left_out", "versions"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        for name in ("budget_s", "seconds"):
            object.__setattr__(self, name, rounded(round(getattr(self, name), 3)))

    @property
    def grade(self) -> Grade:
        """`best_grade` of the verdicts; F if records or the key were read from what goes out and what anybody may hold."""
        return grade(self.findings, self.job.knowledge)

    @property
    def protection(self) -> str:
        """The label of the job, see `rexis.models.knowledge`."""
        return protection(self.job.knowledge)

    @property
    def digest(self) -> bytes:
        """SHA-256 over `"rexis/privacy-report/1\\0"` and the canonical JSON of the document, whose salt is random: 32 bytes."""
        return sha256(domain_tag("privacy-report", 1) + b"\0" + canonical_json(self.document()))

    def summary(self) -> ReportSummary:
        """What a job or a published model carries."""
        attacks = tuple(AttackVerdict(finding.attack, finding.version, finding.verdict) for finding in self.findings)
        return ReportSummary(self.grade, attacks, self.versions, self.digest)

    def document(self) -> dict[str, Any]:
        """What `parse` reads: canonical JSON has numbers with fractions as decimal strings."""
        return {
            "version": 1,
            "grade": self.grade,
            "job": self.job.document(),
            "findings": [finding.document() for finding in self.findings],
            "left_out": dict(self.left_out),
            "advice": [advice.document() for advice in self.advice],
            "noise_levels": [level.document() for level in self.noise_levels],
            "versions": dict(self.versions),
            "seed": self.seed,
            "budget_s": number_text(self.budget_s),
            "seconds": number_text(self.seconds),
            "salt": to_hex(self.salt),
        }

    def content(self) -> bytes:
        """The file that stays with the owner: canonical JSON, and a line end."""
        return canonical_json(self.document()) + b"\n"

    @classmethod
    def read(cls, content: bytes) -> Self:
        """Read a report's file.

        Raises:
            MalformedMessageError: too large, no JSON, or not a report.
        """
        try:
            return cls.parse(parse_json(content, max_bytes=MAX_BYTES))
        except EncodingError as error:
            raise MalformedMessageError(f"privacy report: {error}") from error

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read what `document` wrote.

        Raises:
            MalformedMessageError: other members, one out of bounds, or another grade than the findings give.
        """
        names = "version grade job findings left_out advice noise_levels versions seed budget_s seconds salt"
        members = members_of("privacy report", value, names)
        integer("version", members["version"], 1, 1)
        report = cls(
            job=Job.parse(members["job"]),
            findings=tuple(Finding.parse(each) for each in _listed("findings", members["findings"])),
            left_out=_texts("left_out", members["left_out"], MAX_ATTACKS),
            advice=tuple(Advice.parse(each) for each in _listed("advice", members["advice"])),
            noise_levels=tuple(NoiseLevel.parse(each) for each in _listed("noise_levels", members["noise_levels"])),
            versions=_texts("versions", members["versions"], MAX_VERSIONS),
            seed=integer("seed", members["seed"], 0, MAX_SEED - 1),
            budget_s=parse_number("budget_s", members["budget_s"]),
            seconds=parse_number("seconds", members["seconds"]),
            salt=bytes32("salt", members["salt"]),
        )
        if members["grade"] not in GRADES or report.grade != members["grade"]:
            raise MalformedMessageError(f"grade: expected {report.grade}, which the findings give, got {str(members['grade'])[:40]!r}")
        # The summary has its own bounds; a report that has none is none.
        ReportSummary.parse(report.summary().document())
        return report


def grade(findings: tuple[Finding, ...], knowledge: Knowledge) -> Grade:
    """The grade of these findings, see `PrivacyReport.grade`.

    Members of a federation hold the plain weights, but not everybody does: an attack with them is what D says already.
    """
    everybody = {Knows.UPLOAD, Knows.PUBLIC} | (set() if knowledge == "members" else {Knows.WEIGHTS})
    for finding in findings:
        attack = BY_NAME.get(finding.attack)
        if attack is not None and finding.verdict is Verdict.FAIL and attack.reads is Reads.RECORDS and attack.knows in everybody:
            return "F"
    return best_grade((finding.verdict for finding in findings), knowledge)


def _listed(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > MAX_ATTACKS:
        raise MalformedMessageError(f"{name}: expected a list of at most {MAX_ATTACKS}")
    return value


def _texts(name: str, value: Any, most: int) -> dict[str, str]:
    if not isinstance(value, Mapping) or len(value) > most:
        raise MalformedMessageError(f"{name}: expected an object of at most {most} members")
    return {text(f"name in {name}", key): text(name, member) for key, member in value.items()}
