"""The demo's report: one HTML file that needs nothing else, made from what the run measured (`Report.document`)."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from examples.heart.experimenter import COMPUTED_BY, STEPS, Score
from rexis.pages import charts
from rexis.pages.page import render

TEMPLATE = Path(__file__).with_name("report.html.j2")
AUC_TICKS = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


@dataclass(frozen=True)
class Report:
    """Everything that the page shows; each value is of this run.

    Attributes:
        finished_at: date and time, for people.
        seconds: of the whole story.
        cores: of this machine.
        hospitals: names.
        scores: all models on the pooled test rows; `federated` names the one of the headline.
        test_rows: how many those are.
        features: of each patient.
        federations: of kind training, each with its rounds; see `story`.
        statistics: the result document of the statistics federation.
        dropped: who dropped out and how many survived, or None.
        access, query, inference, verification, chain, views, checks, limits: tables of the page.
        timings: seconds by step.
    """

    finished_at: str
    seconds: float
    cores: int
    hospitals: tuple[str, ...]
    scores: tuple[Score, ...]
    federated: str
    test_rows: int
    features: int
    trainings: list[dict[str, Any]]
    statistics: dict[str, Any]
    dropped: dict[str, Any] | None
    access: list[dict[str, Any]]
    query: dict[str, Any]
    inference: dict[str, Any]
    verification: list[dict[str, Any]]
    chain: dict[str, Any]
    views: list[dict[str, Any]]
    checks: list[str]
    limits: list[str]
    timings: dict[str, float]

    def document(self) -> dict[str, Any]:
        """The report as one JSON value."""
        document = asdict(self)
        rows = document.pop("scores")
        scores = {"rows": rows, "federated": document.pop("federated"), "test_rows": document.pop("test_rows")}
        return {**document, "scores": {**scores, "steps": list(STEPS), "computed_by": COMPUTED_BY}}

    def html(self) -> str:
        """The page."""
        return render(TEMPLATE, self.document(), charts=self._charts())

    def write(self, path: Path) -> None:
        """Write the page."""
        path.write_text(self.html(), encoding="utf-8")

    def _charts(self) -> dict[str, str]:
        series = [_series(training["name"], training["rounds"], len(self.hospitals)) for training in self.trainings]
        return {
            "auc": charts.dot_plot([_estimate(score) for score in self.scores], unit="AUC", emphasised=self.federated, ticks=AUC_TICKS),
            "loss": charts.line_chart(series, unit="mean loss"),
            "timings": charts.bars(self.timings),
        }


def _estimate(score: Score) -> charts.Estimate:
    return charts.Estimate(score.name, score.auc, score.low, score.high)


def _series(name: str, rounds: list[dict[str, Any]], members: int) -> charts.Series:
    """The loss of each finished round; those that lost a member are marked."""
    finished = [entry for entry in rounds if entry["loss"] is not None]
    marked = frozenset(entry["round"] for entry in finished if entry["survivors"] < members)
    return charts.Series(name, tuple(entry["loss"] for entry in finished), marked)
