"""What the demo's experimenter computes from the vendored file of all hospitals: how good each way of training is, on the same test rows.

No party in Rexis sees these rows together. The experimenter is the demo itself, which has the file; so its numbers say what federation is
worth, and are labelled `COMPUTED_BY` wherever they are shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn

from examples.heart.hospitals import COUNTS
from examples.heart.split import read_split, split_rows
from rexis.models.builders import build
from rexis.models.features import Features, FeatureSpec
from rexis.models.mlp import LogisticConfig
from rexis.models.spec import ModelSpec
from rexis.training.evaluation import evaluate
from rexis.training.local import LocalSteps, train_local

COMPUTED_BY = "computed by the demo's experimenter from the vendored file; no party in Rexis sees this"
FEATURES = Path(__file__).with_name("features.yaml")
LEARNING_RATE = 0.5
# The federation's own number of steps, and one at which the loss no longer falls. Each baseline is quoted at its better one.
STEPS = (50, 1000)
RESAMPLES = 1000
INTERVAL = (2.5, 97.5)


@dataclass(frozen=True, eq=False)
class Examples:
    """Rows as a model takes them: `inputs` f32 [n, 13] standardised, `labels` i64 [n]."""

    inputs: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Score:
    """One model on the pooled test rows.

    Attributes:
        name: how it was trained.
        auc: area under the ROC curve.
        low, high: percentile bootstrap interval of 95 % over patients.
        accuracy: at probability 0.5.
        steps: gradient steps.
        own_auc: on the test rows of the hospital that trained it; None if it has no such rows, or too few of one class.
    """

    name: str
    auc: float
    low: float
    high: float
    accuracy: float
    steps: int
    own_auc: float | None = None


def feature_spec() -> FeatureSpec:
    """The 13 features."""
    return FeatureSpec.parse(yaml.safe_load(FEATURES.read_text(encoding="utf-8")))


class Experiment:
    """The split, standardised with given moments; 254 test rows of all hospitals together.

    Args:
        mean, sd: f64 [13], as the statistics federation found them, so that all models get the same inputs.
    """

    def __init__(self, mean: Sequence[float], sd: Sequence[float]) -> None:
        self._mean, self._sd = np.asarray(mean, dtype=np.float64), np.asarray(sd, dtype=np.float64)
        spec, split = feature_spec(), read_split()
        self.train: dict[str, Examples] = {}
        self.test: dict[str, Examples] = {}
        for hospital in COUNTS:
            columns, train, test = split_rows(hospital, split)
            self.train[hospital] = self._examples(spec.encode(columns, train))
            self.test[hospital] = self._examples(spec.encode(columns, test))
        self.pooled_test = _pool(self.test)

    def score(self, name: str, model: nn.Module, *, steps: int, own: str | None = None) -> Score:
        """Test a model on the pooled test rows, and on those of hospital `own`.

        Raises:
            ValueError: the pooled test rows have one class only, which the committed split excludes.
        """
        with torch.no_grad():
            margins = model(self.pooled_test.inputs).squeeze(-1).double().numpy()
        if margins.ndim == 2:
            margins = margins[:, 1] - margins[:, 0]
        labels = self.pooled_test.labels.numpy()
        found = evaluate(model, self.pooled_test.inputs, self.pooled_test.labels)
        if found.auc is None:
            raise ValueError("expected both classes among the test rows")
        low, high = bootstrap_interval(margins, labels)
        return Score(name, found.auc, low, high, found.accuracy, steps, self._own_auc(model, own))

    def baselines(self) -> list[Score]:
        """Logistic regression on all training rows together, and on each hospital's alone, with the recipe of the federation."""
        return [self._baseline("pooled", _pool(self.train), None), *(self._baseline(name, rows, name) for name, rows in self.train.items())]

    def _baseline(self, name: str, rows: Examples, own: str | None) -> Score:
        spec = ModelSpec(LogisticConfig(rows.inputs.shape[1]))
        scores = []
        for steps in STEPS:
            model = build(spec, seed=0)
            train_local(model, rows.inputs, rows.labels, LocalSteps(steps, LEARNING_RATE), seed=0)
            scores.append(self.score(name, model, steps=steps, own=own))
        return max(scores, key=lambda score: score.auc)

    def _own_auc(self, model: nn.Module, hospital: str | None) -> float | None:
        if hospital is None:
            return None
        rows = self.test[hospital]
        fewest = min(int((rows.labels == label).sum()) for label in (0, 1))
        # One patient without disease makes an AUC of one comparison chain.
        return evaluate(model, rows.inputs, rows.labels).auc if fewest > 1 else None

    def _examples(self, features: Features) -> Examples:
        standardised = (features.inputs - self._mean) / self._sd
        return Examples(torch.tensor(standardised, dtype=torch.float32), torch.tensor(features.labels))


def bootstrap_interval(margins: NDArray[np.float64], labels: NDArray[np.int64], *, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the AUC over patients drawn again, `RESAMPLES` times.

    Args:
        margins: f64 [n], larger for disease.
        labels: 0 or 1 [n].
        seed: of the draws, the same for every model, so that intervals differ by the models alone.
    """
    generator = np.random.default_rng(seed)
    draws = generator.integers(0, len(labels), size=(RESAMPLES, len(labels)))
    # How often each patient was drawn; then every resample's AUC from the same comparisons of pairs.
    drawn = np.stack([np.bincount(draw, minlength=len(labels)) for draw in draws]).astype(np.float64)
    positive, negative = labels == 1, labels == 0
    outranks = np.sign(margins[positive][:, None] - margins[negative][None, :]) / 2 + 0.5
    pairs = drawn[:, positive].sum(axis=1) * drawn[:, negative].sum(axis=1)
    won = ((drawn[:, positive] @ outranks) * drawn[:, negative]).sum(axis=1)
    values = won[pairs > 0] / pairs[pairs > 0]
    low, high = np.percentile(values, INTERVAL)
    return float(low), float(high)


def _pool(parts: Mapping[str, Examples]) -> Examples:
    return Examples(torch.cat([part.inputs for part in parts.values()]), torch.cat([part.labels for part in parts.values()]))
