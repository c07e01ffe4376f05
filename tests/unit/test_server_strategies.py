"""Server strategies against torch's optimisers and numbers worked by hand, and the round that every party computes alike."""

import math
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch

from rexis.encoding import from_hex, sha256
from rexis.errors import DigestMismatchError, EncodingError, MalformedMessageError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.plan_parts import StoppingRule
from rexis.secagg.payloads import Holdout, decode_update, encode_update, sent_variate
from rexis.secagg.server_steps import holdout_losses, initial_state, read_state, server_step
from rexis.training.strategies import ServerStrategy, control_variate, variate_change
from tests.unit.test_federation_config import CONFIG

DELTAS = [np.random.default_rng(number).normal(0, 0.3, 5) for number in range(6)]
START = np.random.default_rng(99).normal(size=5)
ADAPTIVE = {"beta1": 0.9, "beta2": 0.99, "tau": 0.01}


def followed(strategy: ServerStrategy) -> Any:
    """Where a strategy goes through `DELTAS`."""
    weights, state = START, strategy.initial_state(5)
    for delta in DELTAS:
        weights, state = strategy.step(weights, state, delta)
    return weights


def followed_by_torch(make: Any, prepare: Any = lambda _optimizer, _parameter: None) -> Any:
    """Where an optimiser of torch goes that gets the updates as negative gradients."""
    parameter = torch.nn.Parameter(torch.from_numpy(START.copy()))
    optimizer = make([parameter])
    prepare(optimizer, parameter)
    for delta in DELTAS:
        parameter.grad = torch.from_numpy(-delta)
        optimizer.step()
    return parameter.detach().numpy()


def far_on(optimizer: Any, parameter: Any) -> None:
    """Adam so far on that its bias corrections, which Reddi's FedAdam does not have, are 1; and v = τ² as there."""
    tau = ADAPTIVE["tau"]
    optimizer.state[parameter] = {
        "step": torch.tensor(1e7),
        "exp_avg": torch.zeros(5, dtype=torch.float64),
        "exp_avg_sq": torch.full((5,), tau * tau, dtype=torch.float64),
    }


def test_strategies_are_torchs_optimisers_where_they_coincide() -> None:
    momentum = ServerStrategy("fedavgm", 0.7, {"momentum": 0.9})
    assert followed(momentum) == pytest.approx(followed_by_torch(lambda p: torch.optim.SGD(p, lr=0.7, momentum=0.9)), abs=1e-14)
    adagrad = ServerStrategy("fedadagrad", 0.1, {"beta1": 0.0, "tau": 0.01})
    theirs = followed_by_torch(lambda p: torch.optim.Adagrad(p, lr=0.1, initial_accumulator_value=0.01**2, eps=0.01))
    assert followed(adagrad) == pytest.approx(theirs, abs=1e-13)
    adam = ServerStrategy("fedadam", 0.1, ADAPTIVE)
    theirs = followed_by_torch(lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.9, 0.99), eps=0.01), far_on)
    assert followed(adam) == pytest.approx(theirs, abs=1e-13)


def test_yogi_is_its_formula_entry_by_entry() -> None:
    expected = []
    for start, deltas in zip(START, np.array(DELTAS).T, strict=True):
        x, m, v = float(start), 0.0, 0.01**2
        for d in map(float, deltas):
            m = 0.9 * m + 0.1 * d
            v = v - 0.01 * d * d * (1 if v > d * d else -1 if v < d * d else 0)
            x += 0.1 * m / (math.sqrt(v) + 0.01)
        expected.append(x)
    assert followed(ServerStrategy("fedyogi", 0.1, ADAPTIVE)) == pytest.approx(expected, abs=1e-13)


def test_the_first_step_of_the_adaptive_strategies_by_hand() -> None:
    """x = 1, Δ = 3, τ = 4, β₁ = 0.5, β₂ = 0.75, η = 2: m = 1.5 and v₀ = 16, from which each takes its own v."""
    settings = {"beta1": 0.5, "beta2": 0.75, "tau": 4.0}
    for name, second in (("fedadagrad", 25.0), ("fedyogi", 13.75), ("fedadam", 14.25)):
        strategy = ServerStrategy(name, 2.0, settings)
        weights, state = strategy.step(np.ones(1), strategy.initial_state(1), np.full(1, 3.0))
        assert (state["momentum"][0], state["second_moment"][0]) == (1.5, second)
        assert weights[0] == pytest.approx(1 + 2 * 1.5 / (second**0.5 + 4), abs=1e-15)


def test_momentum_zero_at_rate_one_is_federated_averaging_to_the_last_bit() -> None:
    assert (followed(ServerStrategy("fedavgm", 1.0, {"momentum": 0.0})) == followed(ServerStrategy("fedavg"))).all()


def test_a_state_of_another_strategy_is_refused() -> None:
    strategy = ServerStrategy("fedadam", 0.1, ADAPTIVE)
    for state in ({}, ServerStrategy("fedavgm", 1.0, {"momentum": 0.5}).initial_state(5), strategy.initial_state(4)):
        with pytest.raises(ValueError, match="expected vectors of one length"):
            strategy.step(START, state, DELTAS[0])


def test_two_unequal_sites_reach_the_minimum_of_their_weighted_loss_with_scaffold_and_not_without() -> None:
    """Losses aᵢ (x - bᵢ)² / 2 with weights 30 and 10: many local steps pull FedAvg aside, control variates do not, drop-outs or not."""
    curvature, centre, weights, rate, steps = np.array([1.0, 4.0]), np.array([0.0, 3.0]), np.array([30, 10]), 0.05, 20
    best = (weights * curvature * centre).sum() / (weights * curvature).sum()
    strategy, x = ServerStrategy("scaffold"), np.zeros(1)
    state, variates = strategy.initial_state(1), np.zeros((2, 1))
    plain = np.zeros(1)

    def local(number: int, start: Any, correction: Any) -> Any:
        y = start.copy()
        for _ in range(steps):
            y = y - rate * (curvature[number] * (y - centre[number]) + correction)
        return y - start

    for round_number in range(150):
        control = control_variate(state)
        # Somebody is missing at first, and now and then; the last rounds forget what that did to x.
        present = [1] if round_number == 0 else [0] if round_number % 10 == 9 and round_number < 120 else [0, 1]
        deltas = {number: local(number, x, control - variates[number]) for number in present}
        changes = {each: variate_change(control, delta, steps=steps, learning_rate=rate) for each, delta in deltas.items()}
        total = int(weights[present].sum())
        mean = sum(weights[each] * deltas[each] for each in present) / total
        x, state = strategy.step(x, state, mean, variates=sum(weights[each] * changes[each] for each in present), weight=total)
        for each in present:
            variates[each] = variates[each] + changes[each]
        plain = plain + sum(weights[each] * local(each, plain, 0.0) for each in (0, 1)) / weights.sum()
        assert state["control_sum"] == pytest.approx((weights[:, None] * variates).sum(axis=0), abs=1e-9)
    assert x[0] == pytest.approx(best, abs=1e-6)
    assert abs(plain[0] - best) > 0.1


def config_with(**parts: Any) -> FederationConfig:
    return FederationConfig.parse({**CONFIG, "training": {**CONFIG["training"], **parts}})


MODEL = {"0.weight": np.array([[0.5, -1.0, 2.0]], np.float32), "0.bias": np.array([0.25], np.float32)}
SETTINGS = {"learning_rate": "0.1", "beta1": "0.9", "beta2": "0.99", "tau": "0.01"}


def total_of(config: FederationConfig, updates: list[Any], **parts: Any) -> Any:
    total = np.zeros(config.length, dtype=np.uint32)
    for update in updates:
        total += encode_update(config, update, examples=100, loss=0.5, **parts)
    return total


def test_whoever_computes_a_round_again_gets_the_same_bytes_and_the_metrics_name_the_state() -> None:
    config = config_with(strategy={"name": "fedadam", **SETTINGS})
    assert config.training is not None
    state, base = initial_state(config.training), dict(MODEL)
    for number in range(3):
        total = total_of(config, [delta[:4] * (number + 1) for delta in DELTAS[:3]])
        first, again = server_step(config, base, state, [total]), server_step(config, dict(base), bytes(state), [total.copy()])
        assert (first.state, first.metrics) == (again.state, again.metrics)
        assert all((first.tensors[name] == again.tensors[name]).all() for name in MODEL)
        assert from_hex(first.metrics["state"], 32) == sha256(first.state) != sha256(state)
        state, base = first.state, first.tensors
    moments = read_state(config.training, state, sha256(state))
    assert set(moments) == {"momentum", "second_moment"}
    with pytest.raises(DigestMismatchError):
        read_state(config.training, state, sha256(b"another"))
    for hostile in (b"", state[:-1], state + b"\0", state[:-8] + np.array([np.nan]).tobytes()):
        with pytest.raises((MalformedMessageError, EncodingError)):
            read_state(config.training, hostile, sha256(hostile))


def test_federated_averaging_has_no_state_and_the_metrics_it_always_had() -> None:
    config = config_with()
    step = server_step(config, MODEL, b"", [total_of(config, [delta[:4] for delta in DELTAS[:4]])])
    assert (step.state, set(step.metrics)) == (b"", {"version", "loss", "weight"})
    mean = np.mean([delta[:4] for delta in DELTAS[:4]], axis=0)
    moved = np.concatenate([step.tensors[name].ravel() - MODEL[name].ravel() for name in ("0.weight", "0.bias")])
    assert moved == pytest.approx(mean, abs=1e-6)


def test_personal_tensors_of_the_global_model_are_the_founders_whatever_the_sum_says() -> None:
    config = config_with(personal=["0.bias"])
    step = server_step(config, MODEL, b"", [total_of(config, [np.ones(3), np.zeros(3), np.zeros(3)])])
    assert step.tensors["0.bias"] is MODEL["0.bias"]
    assert step.tensors["0.weight"] == pytest.approx(MODEL["0.weight"] + 1 / 3, abs=1e-6)


def test_the_change_of_a_variate_has_its_own_bound_and_a_site_keeps_what_it_sent() -> None:
    config = config_with(strategy={"name": "scaffold", "learning_rate": "1"})
    assert config.training is not None
    # 2 C / (K η) with C = 10, K = 5, η = 0.5.
    assert config.training.variate_norm == 8.0
    far = np.full(4, 1e6)
    vectors = [encode_update(config, far, examples=10**6, loss=1e9, variate=-far) for _ in range(4)]
    mean = decode_update(config, sum(vectors, np.zeros(config.length, dtype=np.uint32)))
    assert mean.variates is not None
    assert mean.delta == pytest.approx(np.full(4, 5.0), abs=1e-6)
    assert mean.variates / mean.weight == pytest.approx(np.full(4, -4.0), abs=1e-6)
    assert (mean.loss, mean.weight) == (100.0, 800)
    changes = [np.array([0.1, -2.0, 3.0, 0.0]), np.array([30.0, 0.0, 0.0, 0.0])]
    sent = []
    total = np.zeros(config.length, dtype=np.uint32)
    for change, examples in zip(changes, (26, 130), strict=True):
        vector = encode_update(config, np.zeros(4), examples=examples, loss=0.1, variate=change)
        sent.append(sent_variate(config, vector, examples=examples))
        total += vector
    assert sent[0] == pytest.approx(changes[0], abs=1e-6)
    assert sent[1] == pytest.approx([8.0, 0, 0, 0], abs=1e-6)
    assert decode_update(config, total).variates == pytest.approx(50 * sent[0] + 150 * sent[1], abs=1e-9)


def test_a_vector_has_exactly_the_parts_of_its_plan() -> None:
    plain, stopping = config_with(), config_with(stopping={"holdout": "0.2", "patience": 2, "improvement": "0"})
    scaffold = config_with(strategy={"name": "scaffold", "learning_rate": "1"})
    held = Holdout(12, 0.75)
    for config, parts in ((plain, {"holdout": held}), (plain, {"variate": np.zeros(4)}), (stopping, {}), (scaffold, {})):
        with pytest.raises(ValueError, match="and only with them"):
            encode_update(config, np.zeros(4), examples=1, loss=0.0, **parts)
    for loss in (math.nan, -1.0):
        with pytest.raises(ValueError, match="finite loss"):
            encode_update(stopping, np.zeros(4), examples=1, loss=0.0, holdout=Holdout(1, loss))
    mean = decode_update(stopping, total_of(stopping, [np.zeros(4)] * 3, holdout=held))
    assert (mean.holdout_loss, mean.holdout_weight, mean.weight) == (0.75, 75, 300)
    assert mean.metrics() == {"version": 1, "loss": "0.500000", "weight": 300, "holdout_loss": "0.750000", "holdout_weight": 75}
    assert holdout_losses([mean.metrics()]) == [Decimal("0.75")]
    with pytest.raises(MalformedMessageError, match="weights"):
        decode_update(stopping, total_of(plain, [np.zeros(4)] * 3).astype(np.uint32)[[0, 1, 2, 3, 4, 5, 0, 0]])


@pytest.mark.parametrize(
    ("losses", "after"),
    [
        (["0.9", "0.8", "0.7"], None),
        (["0.9", "0.8", "0.795", "0.791"], 4),
        (["0.9", "0.8", "0.795", "0.79"], None),
        (["0.9", "0.95", "0.8", "0.8", "0.8", "0.1"], 5),
        (["0.5"], None),
        ([], None),
    ],
)
def test_training_ends_after_rounds_without_improvement(losses: list[str], after: int | None) -> None:
    rule = StoppingRule(Decimal("0.2"), 2, Decimal("0.01"))
    assert rule.converged_after([Decimal(loss) for loss in losses]) == after
    # A loss that stays is no improvement, whatever the smallest one is.
    assert replace(rule, improvement=Decimal(0)).converged_after([Decimal(1)] * 3) == 3


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"strategy": {"name": "scaffold", "learning_rate": "1"}, "optimizer": "adam"}, "scaffold"),
        ({"strategy": {"name": "scaffold", "learning_rate": "1"}, "proximal": "0.1"}, "scaffold"),
    ],
)
def test_control_variates_of_what_is_no_gradient_are_refused(parts: dict[str, Any], words: str) -> None:
    with pytest.raises(MalformedMessageError, match=words):
        config_with(**parts)
