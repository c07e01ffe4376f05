"""DP-SGD against a loop over records, and on keyed batches against plain ones under the mapped noise; the budget comes first."""

import math

import pytest
import torch
from torch import Tensor, nn

from rexis import ee
from rexis.dp.accountant import GaussianEvent, epsilon
from rexis.dp.budget import PrivacyBudget
from rexis.errors import PrivacyBudgetExceededError
from rexis.models.bert import BertConfig
from rexis.models.builders import build
from rexis.models.spec import MLPConfig, ModelSpec
from rexis.training.local import classification_loss
from rexis.training.private_steps import (
    GRADIENT_BYTES,
    PrivateSteps,
    clipped_gradient_sum,
    gaussian_noise,
    poisson_batch,
    private_step,
    records_at_once,
    train_privately,
)

SPEC = ModelSpec(MLPConfig(12, (16, 16), 3, "tanh"))
GENERATOR = torch.Generator().manual_seed(4)
X = torch.randn(200, 12, generator=GENERATOR, dtype=torch.float64)
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0.5).long()
STEPS = PrivateSteps(count=5, clipping_norm=0.5, noise_multiplier=3.0, sampling_probability=0.2)


def model() -> nn.Module:
    return build(SPEC, seed=1, dtype=torch.float64)


def flat(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_each_records_gradient_is_clipped_before_they_are_summed() -> None:
    plain, rows = model(), X[:30] * torch.linspace(0.01, 5, 30, dtype=torch.float64)[:, None]
    expected, lengths = torch.zeros(len(flat(plain)), dtype=torch.float64), []
    for row, label in zip(rows, Y[:30], strict=True):
        gradients = torch.autograd.grad(classification_loss(plain(row[None]), label[None]), list(plain.parameters()))
        gradient = torch.cat([part.flatten() for part in gradients])
        lengths.append(gradient.norm().item())
        expected += gradient * min(1.0, 2.0 / lengths[-1])
    assert min(lengths) < 2.0 < max(lengths)
    for at_once in (None, 1, 7, 30):
        found = clipped_gradient_sum(plain, rows, Y[:30], 2.0, at_once=at_once)
        torch.testing.assert_close(torch.cat([part.flatten() for part in found.values()]), expected, rtol=0, atol=1e-12)


def test_the_gradients_held_at_once_are_bounded_by_bytes_and_never_none() -> None:
    parameters = sum(parameter.numel() for parameter in model().parameters())
    assert records_at_once(model()) == GRADIENT_BYTES // (8 * parameters)
    huge = nn.Linear(GRADIENT_BYTES, 2, device="meta")
    assert records_at_once(huge) == 1
    assert records_at_once(huge.requires_grad_(False)) >= 1


def test_a_transformers_records_are_clipped_apart_too() -> None:
    spec = ModelSpec(BertConfig(vocabulary=40, positions=16, hidden=16, layers=1, heads=2, intermediate=24, outputs=2))
    bert = build(spec, seed=1, dtype=torch.float64)
    ids, labels = torch.arange(40).reshape(5, 8), torch.tensor([0, 1, 1, 0, 1])
    found = clipped_gradient_sum(bert, ids, labels, 1e9)
    torch.autograd.backward(5 * classification_loss(bert(ids).logits, labels))
    for name, parameter in bert.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=0, atol=1e-12)
    clipped = clipped_gradient_sum(bert, ids[:1], labels[:1], 1e-3)
    assert torch.stack([part.norm() for part in clipped.values()]).norm().item() == pytest.approx(1e-3)


@pytest.mark.parametrize("suite", ["dense", "permutation"])
def test_dp_sgd_on_keyed_batches_is_dp_sgd_on_plain_ones_under_the_mapped_noise(suite: ee.keys.Suite) -> None:
    key, plain = ee.keygen(SPEC, mode="train", suite=suite, knowledge="private", seed=bytes(32)), model()
    keyed, start = ee.encrypt_model(plain, key), flat(plain)
    keyed_rows, keyed_labels = ee.encrypt_inputs(X, key), ee.encrypt_labels(Y, key)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.5, momentum=0.5)
    keyed_optimizer = ee.optimizer("sgd", keyed.parameters(), key=key, lr=0.5, momentum=0.5)
    generator = torch.Generator().manual_seed(8)
    for _ in range(20):
        batch = poisson_batch(len(X), STEPS.sampling_probability, generator)
        noise = gaussian_noise(keyed, STEPS.noise_multiplier * STEPS.clipping_norm, generator)
        # Without shifts weights are keyed linearly, so that a model made of noise decrypts to the noise that the plain run must see.
        carrier = build(SPEC, seed=0, dtype=torch.float64)
        carrier.load_state_dict(noise)
        mapped = {name: parameter.detach() for name, parameter in ee.decrypt_model(carrier, key).named_parameters()}
        for name, values in mapped.items():
            assert values.norm().item() == pytest.approx(noise[name].norm().item(), rel=1e-12)
        private_step(plain, optimizer, clipped_gradient_sum(plain, X[batch], Y[batch], STEPS.clipping_norm), mapped, 40)
        keyed_sum = clipped_gradient_sum(keyed, keyed_rows[batch], keyed_labels[batch], STEPS.clipping_norm)
        private_step(keyed, keyed_optimizer, keyed_sum, noise, 40)
    assert (flat(plain) - start).norm() > 0.02 * start.norm()
    assert (flat(ee.decrypt_model(keyed, key)) - flat(plain)).norm() <= 1e-9 * flat(plain).norm()


def test_a_run_debits_what_the_accountant_says_before_it_trains() -> None:
    budget, private = PrivacyBudget(20.0, 1e-5), model()
    optimizer = torch.optim.SGD(private.parameters(), lr=0.2)
    before = flat(private)
    spent = train_privately(private, optimizer, X, Y, STEPS, budget=budget)
    assert spent == epsilon([GaussianEvent(3.0, 0.2, 5)], 1e-5)
    assert 0.05 < spent < 10
    after = flat(private)
    assert (after - before).norm() > 0.01
    exhausted = PrivacyBudget(1.2 * spent, 1e-5, budget.events)
    with pytest.raises(PrivacyBudgetExceededError):
        train_privately(private, optimizer, X, Y, STEPS, budget=exhausted)
    assert torch.equal(flat(private), after)
    assert exhausted.events == budget.events == (STEPS.event,)


def test_private_training_learns_when_the_noise_is_small() -> None:
    private, quiet = model(), PrivateSteps(count=60, clipping_norm=1.0, noise_multiplier=4.0, sampling_probability=1.0)
    with torch.no_grad():
        before = classification_loss(private(X), Y).item()
    optimizer = torch.optim.SGD(private.parameters(), lr=0.5, momentum=0.5)
    train_privately(private, optimizer, X, Y, quiet, budget=PrivacyBudget(20.0, 1e-5), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert classification_loss(private(X), Y).item() < 0.6 * before


def test_an_empty_batch_still_makes_a_noisy_step() -> None:
    private = build(ModelSpec(MLPConfig(50, (400,), 2)), seed=1, dtype=torch.float64)
    optimizer, before = torch.optim.SGD(private.parameters(), lr=1.0), flat(private)
    noise = gaussian_noise(private, 3.0, torch.Generator().manual_seed(1))
    private_step(private, optimizer, clipped_gradient_sum(private, X[:0], Y[:0], 1.0), noise, 10.0)
    moved = flat(private) - before
    torch.testing.assert_close(moved, -torch.cat([part.flatten() for part in noise.values()]) / 10)
    assert moved.std().item() == pytest.approx(0.3, rel=0.03)


def test_every_record_is_drawn_independently_with_the_same_chance() -> None:
    generator = torch.Generator().manual_seed(1)
    sizes = torch.tensor([len(poisson_batch(200, 0.2, generator)) for _ in range(2000)], dtype=torch.float64)
    assert sizes.mean().item() == pytest.approx(40, abs=0.6)
    assert sizes.std().item() == pytest.approx(math.sqrt(200 * 0.2 * 0.8), rel=0.08)
    assert not torch.equal(torch.rand(3), torch.rand(3))


@pytest.mark.parametrize("arguments", [(0, 1.0, 1.0, 0.1), (1, 0.0, 1.0, 0.1), (1, 1.0, 0.0, 0.1), (1, 1.0, 1.0, 1.1)])
def test_private_steps_are_checked(arguments: tuple[int, float, float, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        PrivateSteps(*arguments)


def test_records_are_checked_before_the_budget_is_debited() -> None:
    budget, private = PrivacyBudget(20.0, 1e-5), model()
    optimizer = torch.optim.SGD(private.parameters(), lr=0.2)
    for rows, labels in ((X[:0], Y[:0]), (X, Y[:-1])):
        with pytest.raises(ValueError, match="same records"):
            train_privately(private, optimizer, rows, labels, STEPS, budget=budget)
    assert budget.events == ()
