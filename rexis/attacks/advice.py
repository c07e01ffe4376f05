"""What follows from the findings: noise, a record budget, other keys and data, or another scheme.

Each sentence names the figure that it follows from, and none promises more than the attacks and `specs/equivariant-encryption.md` show.
"""

from collections.abc import Mapping, Sequence

from rexis.attacks.findings import Advice, Finding, NoiseLevel
from rexis.attacks.limits import LIMITS
from rexis.attacks.report import Job
from rexis.attacks.suite import BY_NAME
from rexis.protocol.report_summary import Verdict

MASKED = (
    "`masked` (two providers that do not collude) does not rest on secret weights, and `client_encoder` keeps a public encoder at home and "
    "sends only a private head"
)
# Of the effective rank: how many records may be known under one key (corrections, item 5).
BUDGET_SHARE = 0.25
# Which figure of a noise level belongs to which attack.
NOISE_FIGURES: Mapping[str, str] = {"r2": "cohort_alignment", "reidentified_above_chance": "cohort_alignment", "r2_known": "known_pairs"}
CAME_NEAR = (Verdict.WARN, Verdict.FAIL)


def advise(job: Job, findings: Sequence[Finding], noise_levels: Sequence[NoiseLevel]) -> tuple[Advice, ...]:
    """What to do, the weightiest first."""
    found = {finding.attack: finding for finding in findings}
    near = {name for name, finding in found.items() if finding.verdict in CAME_NEAR}
    given: list[Advice | None] = [
        _knowledge(job),
        _weights(job, near),
        _tokens(found, near),
        _noise(job, noise_levels),
        _records(found.get("record_budget")),
        _shown(found, near),
        _linked(near),
        _exactness(near),
        _missing(findings),
    ]
    advice = tuple(each for each in given if each is not None)
    if advice or near:
        return advice
    return (
        Advice("key", "None of these attacks came near. That speaks of these attacks only: one key a job, and a check before each upload."),
    )


def _knowledge(job: Job) -> Advice | None:
    if job.knowledge == "private":
        return None
    return Advice(
        "scheme",
        f"The plain weights are {job.knowledge}: whoever holds them and works with the provider recovers the key: obfuscation only, "
        f"whatever the attacks found. {MASKED[0].upper()}{MASKED[1:]}.",
    )


def _weights(job: Job, near: set[str]) -> Advice | None:
    hit = sorted(near & {"public_base", "vocabulary", "norm_gains", "public_fingerprint", "plain_activations"})
    if not hit:
        return None
    elsewhere = f" {MASKED[0].upper()}{MASKED[1:]}." if job.knowledge == "private" else ""
    return Advice(
        "scheme",
        f"The weights are known ({'; '.join(BY_NAME[name].title for name in hit)}): no key, noise or fine-tuning mends that, "
        f"only weights that are your own from the start.{elsewhere}",
    )


def _tokens(found: Mapping[str, Finding], near: set[str]) -> Advice | None:
    read = []
    if "token_frequencies" in near:
        read.append(f"{found['token_frequencies'].figures['running_tokens']:.0%} of the running tokens were read by counting")
    if "known_texts" in near:
        figures = found["known_texts"].figures
        texts = "one known text" if figures["known_texts"] == 1 else f"{figures['known_texts']:.0f} known texts"
        read.append(f"{figures['running_known']:.0%} by {texts}")
    if not read:
        return None
    return Advice(
        "scheme",
        f"{' and '.join(read)}: a permuted vocabulary is a substitution cipher. Send embeddings that you looked up yourself, with noise "
        "(scheme `noise`), or use `client_encoder` or `masked`.",
    )


def _noise(job: Job, levels: Sequence[NoiseLevel]) -> Advice | None:
    """The least noise at which no attack that noise stops gets through, with its price; and CKKS where none does."""
    if not levels:
        return None
    for level in levels:
        if level.sigma > 0 and _worst(level) is not Verdict.FAIL:
            still = " Some still come near." if _worst(level) is Verdict.WARN else ""
            return Advice(
                "noise",
                f"Gaussian noise of standard deviation {level.sigma:g} before the key (scheme `noise`) lowers what a cohort and known "
                f"pairs read to R² {level.figures['r2']:.2f} and {level.figures['r2_known']:.2f}.{still}{_price(level, levels)} "
                f"Proved, against any attack: {1 / level.sigma:.3g}-Gaussian-DP for records that are one unit apart; most are farther "
                "apart.",
            )
    ckks = "; `ckks` computes on ciphertexts for linear models and small networks" if job.family in ("mlp", "logistic") else ""
    return Advice(
        "scheme", f"Noise up to {levels[-1].sigma:g} stops neither a cohort nor known pairs. {MASKED[0].upper()}{MASKED[1:]}{ckks}."
    )


def _worst(level: NoiseLevel) -> Verdict:
    verdicts = [
        limit.judge(level.figures[limit.figure])
        for figure, attack in NOISE_FIGURES.items()
        for limit in LIMITS[attack]
        if limit.figure == figure and figure in level.figures
    ]
    return max(verdicts, key=(Verdict.PASS, Verdict.WARN, Verdict.FAIL).index, default=Verdict.PASS)


def _price(level: NoiseLevel, levels: Sequence[NoiseLevel]) -> str:
    clean = next((each.figures.get("accuracy") for each in levels if each.sigma == 0), None)
    noisy = level.figures.get("accuracy")
    if clean is None or noisy is None:
        return ""
    return f" A linear model trained on such rows scores {noisy:.1%} on clean ones, {clean:.1%} without noise."


def _records(finding: Finding | None) -> Advice | None:
    if finding is None or not finding.figures:
        return None
    known, rank = finding.figures["known_records"], finding.figures["effective_rank"]
    budget = max(1, int(BUDGET_SHARE * rank))
    if finding.verdict is Verdict.PASS:
        return Advice("records", f"Under one key at most {budget} records may be known in plain: a quarter of effective rank {rank:.1f}.")
    return Advice(
        "records",
        f"{known:.0f} records may be known in plain, and the data vary in {rank:.1f} directions only: at most {budget} may be known "
        "under one key. Leave out records that others hold, or spread them over jobs with other keys and other weights.",
    )


def _shown(found: Mapping[str, Finding], near: set[str]) -> Advice | None:
    shown = []
    if "geometry" in near:
        gain = found["geometry"].figures.get("purity_gain")
        shown.append(
            "distances and neighbours" if gain is None else f"distances, neighbours and clusters ({gain:.0%} of the way to classes)"
        )
    if "label_partition" in near:
        shown.append("which records share a class")
    if not shown:
        return None
    return Advice(
        "data",
        f"The provider sees {' and '.join(shown)}, whatever the key: it is pseudonymised data of persons, not anonymous data.",
    )


def _linked(near: set[str]) -> Advice | None:
    if "linking" not in near:
        return None
    return Advice(
        "key", "This upload is seen to have the weights of an earlier one, and what is known of one helps with both. Train on first."
    )


def _exactness(near: set[str]) -> Advice | None:
    if "exactness" not in near:
        return None
    return Advice("key", "The keyed model answers less exactly than it should: use orthogonal keys (condition 1) or a wider number format.")


def _missing(findings: Sequence[Finding]) -> Advice | None:
    missing = [BY_NAME[finding.attack].title for finding in findings if finding.verdict is Verdict.NOT_RUN]
    if not missing:
        return None
    return Advice("key", f"Not run: {'; '.join(missing)}. That is no pass: give more time, and check again.")
