"""DP-SGD with the patient as unit: whatever one patient's rows are, a step's sum moves by no more than the clipping norm."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rexis.models.builders import build
from rexis.models.spec import MLPConfig, ModelSpec
from rexis.training.local import classification_loss
from rexis.training.patient_level import train_patients
from rexis.training.private_steps import PrivateSteps

SPEC = ModelSpec(MLPConfig(4, (6,), 2, "tanh"))
WIDE = ModelSpec(MLPConfig(30, (300,), 2, "tanh"))
BOUND = 1.5
# Noise that is there and does not show.
QUIET = PrivateSteps(1, BOUND, 1e-9, 1.0)
GENERATOR = torch.Generator().manual_seed(3)
X = torch.randn(12, 4, generator=GENERATOR)
Y = (X[:, 0] > 0).long()
PATIENTS = torch.tensor([0, 0, 0, 1, 2, 2, 3, 4, 4, 4, 4, 5])


def model(spec: ModelSpec = SPEC) -> nn.Module:
    return build(spec, seed=1)


def step_of(rows: Tensor, labels: Tensor, patients: Tensor, steps: PrivateSteps = QUIET) -> Tensor:
    """The clipped sum of one step over all patients, as a step of length 1 shows it."""
    return -train_patients(model(), rows, labels, patients, steps, learning_rate=1.0, divisor=1).double()


def gradient_of(rows: Tensor, labels: Tensor) -> Tensor:
    plain = model()
    torch.autograd.backward(classification_loss(plain(rows), labels) * len(rows))
    return torch.cat([parameter.grad.flatten() for parameter in plain.parameters() if parameter.grad is not None]).double()


def test_all_rows_of_a_patient_are_clipped_as_one() -> None:
    expected, lengths = torch.zeros(len(gradient_of(X, Y)), dtype=torch.float64), []
    for patient in range(6):
        gradient = gradient_of(X[patient == PATIENTS], Y[patient == PATIENTS])
        lengths.append(gradient.norm().item())
        expected += gradient * min(1.0, BOUND / lengths[-1])
    assert min(lengths) < BOUND < max(lengths)
    torch.testing.assert_close(step_of(X, Y, PATIENTS), expected, rtol=0, atol=2e-6)
    # As many rows of as many patients weigh more than as many rows of one.
    assert step_of(X, Y, torch.arange(12)).norm() > step_of(X, Y, torch.zeros(12, dtype=torch.int64)).norm()


@settings(max_examples=25, deadline=None)
@given(
    size=st.sampled_from([0.0, 1.0, 1e3, 1e10, 1e30, float("inf"), float("nan")]),
    rows=st.integers(1, 5),
    label=st.integers(0, 1),
    seed=st.integers(0, 1000),
)
def test_one_patient_more_moves_the_sum_by_no_more_than_the_clipping_norm(size: float, rows: int, label: int, seed: int) -> None:
    theirs = torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed)) * size
    more = step_of(
        torch.cat([X, theirs]),
        torch.cat([Y, torch.full((rows,), label)]),
        torch.cat([PATIENTS, torch.full((rows,), 6)]),
    )
    assert torch.isfinite(more).all()
    assert (more - step_of(X, Y, PATIENTS)).norm() <= BOUND * (1 + 1e-5)


class LargestTensor(TorchDispatchMode):
    """Counts the entries of the largest tensor that is made meanwhile."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.entries = max([self.entries, *(each.numel() for each in tree_leaves(made) if isinstance(each, Tensor))])
        return made


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_patients_in_groups_and_records_in_parts_are_the_same_sum_in_bounded_memory(at_once: int) -> None:
    """Patient 4 has more records than a part."""
    whole = step_of(X, Y, PATIENTS)
    found = train_patients(model(), X, Y, PATIENTS, QUIET, learning_rate=1.0, divisor=1, at_once=at_once)
    torch.testing.assert_close(-found.double(), whole, rtol=0, atol=2e-6)
    wide, rows = ModelSpec(MLPConfig(4, (200,), 2)), torch.randn(40, 4, generator=GENERATOR)
    labels, patients, weights = (rows[:, 0] > 0).long(), torch.arange(40), 200 * 4
    with LargestTensor() as parts:
        train_patients(model(wide), rows, labels, patients, QUIET, learning_rate=1.0, divisor=1, at_once=at_once)
    # Of the largest layer, or all parameters once for the update.
    assert parts.entries <= max(at_once * weights, 7 * weights)
    with LargestTensor() as parts:
        train_patients(model(wide), rows, labels, patients, QUIET, learning_rate=1.0, divisor=1)
    assert parts.entries >= 40 * weights


def test_several_steps_in_groups_are_several_steps() -> None:
    """What Opacus keeps of skipped groups ends with the step that they belong to."""
    steps = PrivateSteps(4, BOUND, 1e-9, 1.0)
    whole, parts = (train_patients(model(), X, Y, PATIENTS, steps, learning_rate=0.3, divisor=3, at_once=size) for size in (None, 2))
    torch.testing.assert_close(parts, whole, rtol=0, atol=2e-6)


def test_the_noise_has_the_size_that_is_accounted_and_is_there_for_an_empty_batch() -> None:
    rows, labels = torch.randn(3, 30, generator=GENERATOR), torch.tensor([0, 1, 1])
    steps = PrivateSteps(1, BOUND, 4.0, 1e-12)
    found = train_patients(model(WIDE), rows, labels, torch.arange(3), steps, learning_rate=0.5, divisor=10)
    assert found.std().item() == pytest.approx(0.5 * 4.0 * BOUND / 10, rel=0.03)


def test_neither_noise_nor_batches_follow_from_torchs_seed() -> None:
    half, drawn = PrivateSteps(3, BOUND, 1e-9, 0.5), []
    for steps in (PrivateSteps(1, BOUND, 1.0, 1.0), half):
        for _ in range(2):
            torch.manual_seed(7)
            drawn.append(step_of(X, Y, PATIENTS, steps))
    assert not (drawn[0] == drawn[1]).any()
    # Six patients in three batches: alike by chance in one run of 2^18.
    assert (drawn[2] - drawn[3]).norm() > 1e-4


def test_each_patient_is_in_a_batch_with_the_chance_that_is_accounted() -> None:
    rows, labels = X[:1].repeat(400, 1), Y[:1].repeat(400)
    one = step_of(X[:1], Y[:1], torch.tensor([0])).norm().item()
    sizes = [step_of(rows, labels, torch.arange(400), PrivateSteps(1, BOUND, 1e-9, 0.25)).norm().item() / one for _ in range(40)]
    # 100 of 400, with a standard deviation of 8.7: of the mean of 40, 1.4.
    assert sum(sizes) / len(sizes) == pytest.approx(100, abs=9)
    assert max(sizes) - min(sizes) > 8


def test_the_proximal_term_pulls_back_and_the_hooks_are_gone_afterwards() -> None:
    moved, trained = [], [model(), model()]
    for each, proximal in zip(trained, (0.0, 5.0), strict=True):
        steps = PrivateSteps(20, BOUND, 1e-9, 1.0)
        moved.append(train_patients(each, X, Y, PATIENTS, steps, learning_rate=0.1, divisor=6, proximal=proximal).norm())
    assert moved[1] < 0.7 * moved[0]
    assert not hasattr(trained[0], "autograd_grad_sample_hooks")
    torch.autograd.backward(classification_loss(trained[0](X), Y))
    assert all(vars(parameter).get("grad_sample") is None for parameter in trained[0].parameters())


@pytest.mark.parametrize(("rows", "divisor"), [(0, 1), (11, 1), (12, 0)])
def test_rows_and_divisor_are_checked(rows: int, divisor: int) -> None:
    with pytest.raises(ValueError, match="same records"):
        train_patients(model(), X[:rows], Y, PATIENTS, QUIET, learning_rate=1.0, divisor=divisor)
