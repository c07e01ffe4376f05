"""`rexis ee check`: the owner's own attacks on his job, before anything of it goes out; and reading a saved report."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text
from torch import Tensor, nn

from rexis import ee
from rexis.agent.examined_data import read_classes, read_data
from rexis.agent.model_files import read_model
from rexis.attacks import PrivacyReport, privacy_report
from rexis.attacks.examination import Progress
from rexis.attacks.findings import Finding
from rexis.attacks.limits import LIMITS
from rexis.attacks.report import MAX_BYTES
from rexis.attacks.report_page import html
from rexis.attacks.suite import BY_NAME
from rexis.cli.ee import protection_line
from rexis.cli.home import passphrase, write_private
from rexis.cli.output import console, print_json
from rexis.cli.report import grid
from rexis.encoding import to_hex
from rexis.errors import ConfigurationError, KeyFileError
from rexis.models import pretrained
from rexis.protocol.report_summary import Verdict

STYLES = {Verdict.PASS: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red", Verdict.NOT_RUN: "magenta"}
GRADES = {
    "A": "every attack ran, and none came near",
    "B": "some attacks came near",
    "C": "attacks that apply did not run",
    "D": "no better than obfuscation: an attack got through, fewer ran than not, or others hold the plain weights",
    "F": "records or the key were read from what goes out and what anybody may hold",
}


@dataclass(frozen=True)
class CheckOptions:
    """The options of `rexis ee check`; see its help."""

    model: Path
    key: Path
    data: Path
    reference: Path | None
    labels: Path | None
    unseen: Path | None
    unseen_labels: Path | None
    base: Path | None
    earlier: Path | None
    known: int | None
    noise: float | None
    budget_s: float
    seed: int | None
    output: Path | None
    html: Path | None


def check(options: CheckOptions, *, as_json: bool) -> None:
    """Attack the job, and print, save and draw what came of it."""
    key = ee.Key.load(options.key, passphrase())
    data = read_data(options.data, key.spec)
    try:
        with _steps(as_json) as progress:
            report = privacy_report(
                data,
                _model(options.model, key),
                key,
                None if options.reference is None else read_data(options.reference, key.spec),
                options.budget_s,
                labels=None if options.labels is None else read_classes(options.labels),
                unseen=_unseen(options, key),
                base=None if options.base is None else _model(options.base, key),
                earlier=None if options.earlier is None else _model(options.earlier, key),
                known_records=options.known,
                noise=options.noise,
                seed=options.seed,
                progress=progress,
            )
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    # Figures say which attack pays: both files are the owner's only.
    if options.output is not None:
        write_private(options.output, report.content())
    if options.html is not None:
        write_private(options.html, html(report).encode())
    if as_json:
        print_json({"digest": to_hex(report.digest), "summary": report.summary().document(), "report": report.document()})
        return
    _print(report)
    for what, path in (("Report", options.output), ("Page", options.html)):
        if path is not None:
            console().print(f"{what} in {path}, which only you can read.", soft_wrap=True)
    if options.output is None:
        console().print(
            "Next: keep it with --output report.json; `rexis model publish --report report.json` names its grade.", soft_wrap=True
        )
    else:
        console().print(f"Next: `rexis model publish --report {options.output}` names its grade beside the keyed model.", soft_wrap=True)


def _model(path: Path, key: ee.Key) -> nn.Module:
    return pretrained.read_model(path) if path.is_dir() else read_model(path, key.spec)


def _unseen(options: CheckOptions, key: ee.Key) -> tuple[Tensor, Tensor] | None:
    if options.unseen is None or options.unseen_labels is None:
        if options.unseen is not options.unseen_labels:
            raise ConfigurationError("give --unseen and --unseen-labels together, or neither")
        return None
    return read_data(options.unseen, key.spec), read_classes(options.unseen_labels)


def read_report(path: Path, key: ee.Key) -> PrivacyReport:
    """Read a saved report on a job under a key.

    Raises:
        MalformedMessageError: not a report.
        KeyFileError: it is about another key or another model.
    """
    with path.open("rb") as file:
        report = PrivacyReport.read(file.read(MAX_BYTES + 1))
    if report.job.key_id != key.id or report.job.spec_digest != key.spec.digest():
        raise KeyFileError(f"{path.name}: expected a report on key {key.id} and its model, got one on key {report.job.key_id}")
    return report


def _print(report: PrivacyReport) -> None:
    out = console()
    style = STYLES[Verdict.PASS if report.grade in "AB" else Verdict.WARN if report.grade == "C" else Verdict.FAIL]
    out.print(Text.assemble(("Privacy: grade ", "bold"), (report.grade, style), f", {GRADES[report.grade]}"))
    job = report.job
    out.print(
        f"[dim]{job.records} records of {job.width} {'columns' if job.inputs == 'rows' else 'tokens'}, {job.family}, {job.suite} key for "
        f"{job.mode}; cohort: {job.reference}; noise {job.noise:g}; {report.seconds:.1f} of {report.budget_s:g} s; seed {report.seed}[/]"
    )
    table = grid("attack", "the attacker has", "verdict", "figures (warn, fail)", "s")
    for finding in report.findings:
        attack = BY_NAME[finding.attack]
        table.add_row(
            attack.title,
            attack.knows.value,
            Text(finding.verdict, style=STYLES[finding.verdict]),
            _figures(finding),
            f"{finding.seconds:.1f}",
        )
    out.print(table)
    for reason in dict.fromkeys(report.left_out.values()):
        titles = "; ".join(BY_NAME[name].title for name, why in report.left_out.items() if why == reason)
        out.print(Text(f"left out, {reason}: {titles}", style="dim"), soft_wrap=True)
    for advice in report.advice:
        out.print(Text.assemble(("→ ", "bold"), advice.text), soft_wrap=True)
    out.print(f"By who holds the plain weights: {protection_line(report.protection)}; the grade above says what was read.", soft_wrap=True)
    out.print("[dim]A pass means: not read by this attack in this version. It is no proof.[/]")


def _figures(finding: Finding) -> str:
    lines = [finding.note] if finding.note else []
    for limit in LIMITS[finding.attack]:
        if limit.figure in finding.figures:
            fail = "" if limit.fail is None else f", {limit.fail:g}"
            lines.append(f"{finding.figures[limit.figure]:.3g}  {limit.meaning} ({limit.warn:g}{fail})")
    return "\n".join(lines)


@contextmanager
def _steps(as_json: bool) -> Iterator[Progress]:
    """Gives a function that shows which attack runs, as a bar on standard error."""
    if as_json:
        yield lambda _title, _done, _total: None
        return
    from rich import progress as bars

    with bars.Progress(console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("keying", total=None)

        def step(title: str, done: int, total: int) -> None:
            bar.update(task, description=title, completed=done, total=total)

        yield step
