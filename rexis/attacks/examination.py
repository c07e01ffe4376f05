"""`privacy_report`: every attack that applies, on the owner's own data and model, within a time budget."""

import secrets
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from rexis import ee
from rexis.attacks.advice import advise
from rexis.attacks.exposure import Exposure, Floats, Integers, expose
from rexis.attacks.findings import Finding, NoiseLevel
from rexis.attacks.limits import judge
from rexis.attacks.noise_curve import NoiseLevel as Level
from rexis.attacks.noise_curve import noise_curve
from rexis.attacks.report import MAX_SEED, Job, PrivacyReport
from rexis.attacks.suite import BY_NAME, SUITE, SUITE_VERSION, Attack
from rexis.attacks.suite.rows import COHORT_ROWS, above_chance
from rexis.protocol.report_summary import Verdict

LIBRARIES = ("numpy", "scipy", "torch")
# Tried where an attack came near that noise stops (`specs/equivariant-encryption.md` 1e), in units of the columns' standard deviation.
SIGMAS = (0.0, 0.5, 1.0, 2.0)
STOPPED_BY_NOISE = ("known_pairs", "cohort_alignment")
SALT_BYTES = 32

# Called before each step with its title, how many steps are done, and how many there are.
Progress = Callable[[str, int, int], None]


def privacy_report(
    data: Tensor,
    model: nn.Module,
    key: ee.Key,
    reference: Tensor | None = None,
    budget_s: float = 60.0,
    *,
    labels: Tensor | None = None,
    unseen: tuple[Tensor, Tensor] | None = None,
    base: nn.Module | None = None,
    earlier: nn.Module | None = None,
    known_records: int | None = None,
    noise: float | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
) -> PrivacyReport:
    """Attack one's own job before it goes out.

    Nothing leaves the process. An attack that does not fit into what is left of the budget is reported as not run, which is no pass; one
    that was begun is not broken off, so that the budget can be exceeded by the last one.

    Args:
        data: what the job would send: float rows [n, d] as the model takes them, embeddings [n, length, d], or i64 token ids [n, length],
            negative in the place of padding.
        model: plain, on the CPU; used in its own precision.
        key: of the job.
        reference: data of the same kind that an attacker may hold; None takes a half of the owner's own for it.
        budget_s: seconds for all attacks.
        labels: i64 [n], classes, for the attacks that look for them.
        unseen: records and classes that the model was not trained on, where it was on `data` and `labels`: for membership inference.
        base: the model that the owner's one came from, if others hold it.
        earlier: a keyed model that went out before, for linking.
        known_records: how many records may be known in plain; None for one in a hundred.
        noise: standard deviation of the Gaussian noise that the job adds to its rows before the key; None for that of the key's scheme.
        seed: repeats a report, below 2^53; None draws one.
        progress: told before each step.

    Raises:
        ValueError: data, reference and labels that do not fit each other.
        KeyFileError: the key is for another architecture.
    """
    started = time.monotonic()
    drawn = secrets.randbelow(MAX_SEED) if seed is None else seed
    exposure = expose(
        data,
        model,
        key,
        generator=np.random.default_rng(drawn),
        reference=reference,
        labels=labels,
        unseen=unseen,
        base=base,
        earlier=earlier,
        known=known_records,
        noise=noise,
    )
    tell: Progress = progress or (lambda _title, _done, _total: None)
    left_out = {attack.name: reason for attack in SUITE if (reason := attack.missing(exposure))}
    findings: list[Finding] = []
    applying = [attack for attack in SUITE if attack.name not in left_out]
    for done, attack in enumerate(applying):
        tell(attack.title, done, len(applying))
        left = budget_s - (time.monotonic() - started)
        # Of its own, so that what one attack draws does not depend on whether another one ran.
        findings.append(_attempt(attack, exposure, np.random.default_rng([drawn, *attack.name.encode()]), left))
    tell("Noise", len(applying), len(applying))
    levels = _noise_levels(exposure, findings, np.random.default_rng([drawn, *b"noise"]), budget_s - (time.monotonic() - started))
    job = Job(
        key_id=key.id,
        spec_digest=key.spec.digest(),
        family=key.spec.family,
        mode=key.mode,
        suite=key.suite,
        knowledge=key.knowledge,
        inputs="rows" if exposure.rows is not None else "tokens",
        records=exposure.records,
        width=exposure.width,
        reference="half of the owner's own" if reference is None else "given",
        noise=exposure.noise,
    )
    return PrivacyReport(
        job=job,
        findings=tuple(findings),
        left_out=left_out,
        advice=advise(job, findings, levels),
        noise_levels=levels,
        versions={"suite": str(SUITE_VERSION), **{name: version(name) for name in LIBRARIES}},
        seed=drawn,
        budget_s=budget_s,
        seconds=time.monotonic() - started,
        salt=secrets.token_bytes(SALT_BYTES),
    )


def _attempt(attack: Attack, exposure: Exposure, generator: np.random.Generator, left: float) -> Finding:
    expected = attack.seconds(exposure)
    if left <= 0 or expected > left:
        note = f"takes up to {expected:.0f} s, and {max(left, 0):.0f} s of the budget were left"
        return Finding(attack.name, attack.version, Verdict.NOT_RUN, note=note)
    started = time.monotonic()
    try:
        outcome = attack.run(exposure, generator)
        verdict = judge(attack.name, outcome.figures)
    except (ValueError, np.linalg.LinAlgError) as error:
        # A defect of one attack must not hide what the others find; and it is no pass.
        note = f"did not come to an end: {error}"[:500]
        return Finding(attack.name, attack.version, Verdict.NOT_RUN, seconds=time.monotonic() - started, note=note)
    return Finding(attack.name, attack.version, verdict, outcome.figures, outcome.curve, time.monotonic() - started, outcome.note)


def _noise_levels(exposure: Exposure, findings: list[Finding], generator: np.random.Generator, left: float) -> tuple[NoiseLevel, ...]:
    """What noise would change, where attacks that noise stops came near; nothing without rows, or without time for it."""
    stopped = any(finding.attack in STOPPED_BY_NOISE and finding.verdict in (Verdict.WARN, Verdict.FAIL) for finding in findings)
    cohort = exposure.cohort
    if exposure.rows is None or cohort is None or len(cohort) < 2 or not stopped:
        return ()
    if left < len(SIGMAS) * BY_NAME["cohort_alignment"].seconds(exposure):
        return ()
    plain = exposure.rows[:COHORT_ROWS]
    scale = float(f"{np.sqrt(exposure.rows.var(axis=0).mean()):.1g}")
    labels = None if exposure.labels is None else exposure.labels[:COHORT_ROWS]
    utility = None if labels is None or len(np.unique(labels)) < 2 else _probe(plain, labels)
    found = noise_curve(
        plain,
        cohort[:COHORT_ROWS],
        generator=generator,
        sigmas=[share * scale for share in SIGMAS],
        pairs=max(1, min(exposure.known, len(plain) // 2)),
        utility=utility,
    )
    return tuple(_level(level, len(plain)) for level in found.levels)


def _level(level: Level, records: int) -> NoiseLevel:
    figures = {
        "r2": max(0.0, level.cohort_r2),
        "reidentified_above_chance": above_chance(level.reidentified, 1 / records),
        "r2_known": max(0.0, level.pairs_r2),
    }
    if np.isfinite(level.mu):
        figures["mu"] = level.mu
    if np.isfinite(level.utility):
        figures["accuracy"] = level.utility
    return NoiseLevel(level.sigma, figures)


def _probe(plain: Floats, labels: Integers) -> Callable[[Floats], float]:
    """Accuracy on clean records of a linear model trained on noisy ones: what the noise costs, measured as in 1e of the spec."""
    half = len(plain) // 2

    def accuracy(noisy: Floats) -> float:
        fitted = LogisticRegression(max_iter=1_000).fit(noisy[:half], labels[:half])
        return float(fitted.score(plain[half:], labels[half:]))

    return accuracy
