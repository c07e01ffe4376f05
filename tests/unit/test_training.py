"""Local steps against a closed form and torch's own loop, clipping, and the metrics against worked values."""

import math

import numpy as np
import pytest
import torch

from rexis.models.builders import build
from rexis.models.mlp import LogisticConfig, MLPConfig
from rexis.models.spec import ModelSpec
from rexis.training.evaluation import auc, evaluate
from rexis.training.local import LocalSteps, apply_update, classification_loss, clip_update, train_local

GENERATOR = torch.Generator().manual_seed(3)
X = torch.randn(40, 6, generator=GENERATOR)
Y = (X @ torch.randn(6, generator=GENERATOR) > 0).long()
LOGISTIC = ModelSpec(LogisticConfig(6))
MLP = ModelSpec(MLPConfig(6, (8,), 3, "tanh"))


def test_one_full_batch_step_of_logistic_regression_is_the_gradient_written_out() -> None:
    model = build(LOGISTIC, seed=1, dtype=torch.float64)
    weight, bias = model[0].weight.detach().clone(), model[0].bias.detach().clone()
    update = train_local(model, X.double(), Y, LocalSteps(1, 0.5), seed=0)
    error = torch.sigmoid(X.double() @ weight[0] + bias) - Y
    expected = -0.5 * torch.cat([(error[:, None] * X.double()).mean(dim=0), error.mean()[None]])
    torch.testing.assert_close(update.delta, expected, rtol=0, atol=1e-12)
    assert update.examples == 40
    assert torch.allclose(model[0].weight[0], weight[0] + expected[:6])


def test_training_lowers_the_loss_and_reports_the_one_before() -> None:
    model = build(LOGISTIC, seed=1)
    before = classification_loss(model(X), Y).item()
    update = train_local(model, X, Y, LocalSteps(50, 0.5), seed=0)
    assert update.loss == pytest.approx(before)
    assert classification_loss(model(X), Y).item() < 0.5 * before


def test_mini_batches_belong_to_the_seed_and_cover_every_example() -> None:
    steps = LocalSteps(7, 0.3, batch_size=10, momentum=0.9)
    first, again, other = (train_local(build(MLP, seed=1), X, Y, steps, seed=seed).delta for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    # One epoch of single examples with a step so small that the gradients add up: the full batch's gradient times n.
    tiny = 1e-6
    epoch = train_local(build(MLP, seed=1, dtype=torch.float64), X.double(), Y, LocalSteps(40, tiny, batch_size=1), seed=5).delta
    whole = train_local(build(MLP, seed=1, dtype=torch.float64), X.double(), Y, LocalSteps(1, tiny), seed=5).delta
    torch.testing.assert_close(epoch, 40 * whole, rtol=0, atol=1e-9)
    assert whole.abs().max() > 1e-8


def test_full_batches_do_not_depend_on_the_seed() -> None:
    deltas = [
        train_local(build(MLP, seed=1), X, Y, LocalSteps(5, 0.5, batch_size=size), seed=seed).delta
        for size, seed in ((None, 1), (None, 2), (40, 3))
    ]
    assert torch.equal(deltas[0], deltas[1])
    assert torch.equal(deltas[0], deltas[2])


def test_the_proximal_term_holds_the_update_back_and_not_the_first_step() -> None:
    def update(count: int, proximal: float) -> torch.Tensor:
        return train_local(build(MLP, seed=1), X, Y, LocalSteps(count, 0.5, proximal=proximal), seed=0).delta

    torch.testing.assert_close(update(1, 1.0), update(1, 0.0))
    assert update(30, 1.0).norm() < 0.8 * update(30, 0.0).norm()


def test_adam_is_torchs_and_begins_anew_in_every_round() -> None:
    model, reference = build(LOGISTIC, seed=0), build(LOGISTIC, seed=0)
    for _ in range(2):
        optimizer = torch.optim.Adam(reference.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            torch.autograd.backward(classification_loss(reference(X), Y))
            optimizer.step()
        train_local(model, X, Y, LocalSteps(3, 0.1, optimizer="adam"), seed=0)
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), reference.parameters(), strict=True))
    with pytest.raises(ValueError, match="adam without momentum"):
        LocalSteps(1, 0.1, momentum=0.5, optimizer="adam")


def test_a_correction_moves_every_step_by_the_same() -> None:
    """A weight that meets inputs of zero has no gradient of its own; nor has a bias of zero under balanced labels."""
    model, correction = build(LOGISTIC, seed=0), torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0, 0.25, 0.0])
    with torch.no_grad():
        model[0].bias.zero_()
    steps = LocalSteps(5, 0.1)
    update = train_local(model, torch.zeros(4, 6), torch.tensor([0, 1, 0, 1]), steps, seed=0, correction=correction)
    torch.testing.assert_close(update.delta, -0.5 * correction, rtol=0, atol=1e-6)


def test_a_site_with_one_class_trains() -> None:
    update = train_local(build(LOGISTIC, seed=1), X, torch.ones(40, dtype=torch.int64), LocalSteps(5, 0.5), seed=0)
    assert torch.isfinite(update.delta).all()
    assert update.delta[-1] > 0


def test_an_applied_update_leads_where_training_went() -> None:
    trained, start = build(MLP, seed=1, dtype=torch.float64), build(MLP, seed=1, dtype=torch.float64)
    update = train_local(trained, X.double(), Y, LocalSteps(5, 0.5), seed=0)
    apply_update(start, update.delta)
    for a, b in zip(start.parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)
    with pytest.raises(ValueError, match="parameters"):
        apply_update(start, update.delta[:-1])


def test_clipping_bounds_the_norm_and_keeps_the_direction() -> None:
    delta = torch.tensor([3.0, -4.0])
    assert torch.equal(clip_update(delta, 5.0), delta)
    torch.testing.assert_close(clip_update(delta, 1.0), torch.tensor([0.6, -0.8]))
    assert torch.equal(clip_update(torch.zeros(2), 1.0), torch.zeros(2))
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="diverged"):
            clip_update(torch.tensor([1.0, bad]), 1.0)


@pytest.mark.parametrize("arguments", [(0, 0.1), (1, 0.0), (1, 0.1, 0), (1, 0.1, None, 1.0), (1, 0.1, None, 0.0, -1.0)])
def test_steps_are_checked(arguments: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        LocalSteps(*arguments)


def test_examples_are_checked() -> None:
    for features, labels in ((X[:0], Y[:0]), (X, Y[:-1])):
        with pytest.raises(ValueError, match="same examples"):
            train_local(build(LOGISTIC, seed=1), features, labels, LocalSteps(1, 0.1), seed=0)
        with pytest.raises(ValueError, match="same examples"):
            evaluate(build(LOGISTIC, seed=1), features, labels)


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 0.75),
        ([1, 2, 3, 4], [0, 0, 1, 1], 1.0),
        ([4, 3, 2, 1], [0, 0, 1, 1], 0.0),
        ([5, 5, 5, 5], [0, 1, 0, 1], 0.5),
        ([1, 2, 2, 3], [0, 0, 1, 1], 0.875),
        ([1, 2], [1, 1], None),
        ([1, 2], [0, 0], None),
    ],
)
def test_auc_of_worked_examples(scores: list[float], labels: list[int], expected: float | None) -> None:
    assert auc(scores, labels) == expected


def test_auc_counts_pairs() -> None:
    generator = np.random.default_rng(1)
    scores, labels = generator.integers(0, 12, 200), generator.integers(0, 2, 200)
    positive, negative = scores[labels == 1][:, None], scores[labels == 0][None, :]
    assert auc(scores, labels) == pytest.approx(((positive > negative) + 0.5 * (positive == negative)).mean(), abs=1e-12)


@pytest.mark.parametrize(("scores", "labels"), [([1.0], [0, 1]), ([math.nan, 1.0], [0, 1]), ([1.0, 2.0], [0, 2]), ([[1.0]], [[1]])])
def test_auc_checks_its_arguments(scores: list[float], labels: list[int]) -> None:
    with pytest.raises(ValueError, match="labels 0 or 1"):
        auc(scores, labels)


def test_evaluation_of_one_and_two_logits_agree() -> None:
    one = build(LOGISTIC, seed=1)
    two = build(ModelSpec(LogisticConfig(6, 2)), seed=1)
    with torch.no_grad():
        two[0].weight[0], two[0].bias[0] = 0.0, 0.0
        two[0].weight[1], two[0].bias[1] = one[0].weight[0], one[0].bias[0]
    first, second = evaluate(one.train(), X, Y), evaluate(two, X, Y)
    assert one.training
    assert (first.auc, first.accuracy, first.examples) == (second.auc, second.accuracy, 40)
    assert first.loss == pytest.approx(second.loss, rel=1e-5)
    decided = (one(X).squeeze(-1) > 0).long()
    assert first.accuracy == pytest.approx((decided == Y).double().mean().item())


def test_more_classes_have_an_accuracy_and_no_auc() -> None:
    labels = build(MLP, seed=1)(X).argmax(dim=-1)
    found = evaluate(build(MLP, seed=1), X, labels)
    assert (found.auc, found.accuracy) == (None, 1.0)
