"""Cox's model: the partial likelihood against one written out in float64 and a published example, the C-index against all pairs, and a
federation against the pooled table."""

import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rexis.agent.federation.contribution import read_model, training_vector
from rexis.agent.federation.founding import FederationPlan
from rexis.encoding import checksum_address
from rexis.models.builders import build, describe
from rexis.models.cox import CoxConfig
from rexis.models.features import Features
from rexis.models.spec import ModelSpec
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.manifest import Deadlines, Manifest
from rexis.secagg.server_steps import server_step
from rexis.training.local import LocalSteps, train_local
from rexis.training.survival import concordance, cox_loss
from services.aggregator.global_models import written

# Therneau & Grambsch, Modeling Survival Data (2000), appendix E.1, without the row that has no status.
PUBLISHED = np.array([[9, 1, 0], [1, 1, 1], [1, 0, 1], [6, 1, 1], [6, 1, 0], [8, 0, 0]], dtype=np.float64)


def written_out(eta: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """Efron's formula, term by term."""
    times, events = labels[:, 0], labels[:, 1] == 1
    total = 0.0
    for time in set(times[events].tolist()):
        tied = eta[events & (times == time)]
        at_risk = eta[times >= time]
        for number in range(len(tied)):
            total += tied[number] - math.log(np.exp(at_risk).sum() - number / len(tied) * np.exp(tied).sum())
    return -total / len(eta)


def all_pairs(hazards: NDArray[np.float64], labels: NDArray[np.float64]) -> float | None:
    pairs = right = 0.0
    for i, (time, event) in enumerate(labels):
        for j, (other, seen) in enumerate(labels):
            if event == 1 and (time < other or (time == other and seen == 0)):
                pairs += 1
                right += 1.0 if hazards[i] > hazards[j] else 0.5 if hazards[i] == hazards[j] else 0.0
    return right / pairs if pairs else None


patients = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 1), st.floats(-4, 4).map(lambda value: round(value, 1))), min_size=1, max_size=25
)


@settings(max_examples=120, deadline=None)
@given(patients)
def test_the_loss_and_its_gradient_are_the_formula_written_out(rows: list[tuple[int, int, float]]) -> None:
    table = np.array(rows, dtype=np.float64)
    labels, start = table[:, :2], table[:, 2]
    eta = torch.tensor(start[:, None], requires_grad=True)
    loss = cox_loss(eta, torch.from_numpy(labels))
    assert loss.item() == pytest.approx(written_out(start, labels), abs=1e-12)
    torch.autograd.backward(loss)
    assert eta.grad is not None
    for place in range(len(rows)):
        step = np.zeros(len(rows))
        step[place] = 1e-5
        # Central: the clamp at zero, where nobody else is at risk, has one side only.
        slope = (written_out(start + step, labels) - written_out(start - step, labels)) / 2e-5
        assert eta.grad[place, 0].item() == pytest.approx(slope, abs=1e-8)
    assert concordance(start, labels) == pytest.approx(all_pairs(start, labels))


def test_the_loss_of_the_published_example_has_its_minimum_where_the_book_has_it() -> None:
    x, labels = torch.from_numpy(PUBLISHED[:, 2:]), torch.from_numpy(PUBLISHED[:, :2])
    for beta in (0.0, 1.0, 1.676857):
        r = math.exp(beta)
        closed = 2 * beta - math.log(3 * r + 3) - math.log(r + 3) - math.log((r + 5) / 2)
        assert cox_loss(beta * x, labels).item() == pytest.approx(-closed / 6, abs=1e-12)
    model = build(ModelSpec(CoxConfig(1)), seed=0, dtype=torch.float64)
    train_local(model, x, labels, LocalSteps(400, 1.0), seed=0, loss=cox_loss)
    assert model[0].weight.item() == pytest.approx(1.676857, abs=1e-6)


def test_hazards_far_apart_overflow_nothing_and_nobody_with_the_event_moves_nothing() -> None:
    labels = torch.tensor([[1.0, 1.0], [2.0, 1.0], [2.0, 1.0], [3.0, 0.0]], dtype=torch.float64)
    eta = torch.tensor([[900.0], [-900.0], [3.0], [0.0]], requires_grad=True)
    loss = cox_loss(eta, labels)
    torch.autograd.backward(loss)
    assert eta.grad is not None
    assert torch.isfinite(loss)
    assert torch.isfinite(eta.grad).all()
    censored = labels * torch.tensor([1.0, 0.0])
    model = build(ModelSpec(CoxConfig(2)), seed=1)
    update = train_local(model, torch.randn(4, 2), censored, LocalSteps(3, 0.5), seed=0, loss=cox_loss)
    assert (update.loss, update.examples, update.delta.abs().max().item()) == (0.0, 4, 0.0)


def test_concordance_by_hand() -> None:
    labels = [[1, 1], [2, 0], [2, 1], [3, 1], [3, 1]]
    # Pairs of the first event with four others, of the third with the one censored at its time and two later ones.
    assert concordance([5, 4, 3, 2, 1], labels) == pytest.approx(6 / 7)
    assert concordance([0, 0, 0, 0, 0], labels) == 0.5
    assert concordance([1, 2], [[1, 0], [2, 0]]) is None
    assert concordance([1, 2], [[3, 1], [3, 1]]) is None
    for hazards, wrong in (([1.0], [[1, 2]]), ([math.nan], [[1, 1]]), ([1.0, 2.0], [[1, 1]]), ([1.0], [[1, math.nan]])):
        with pytest.raises(ValueError, match="expected"):
            concordance(hazards, wrong)


def test_a_cox_model_is_one_layer_without_bias() -> None:
    spec = ModelSpec(CoxConfig(3))
    assert ModelSpec.parse(spec.document()) == spec
    assert describe(build(spec, seed=0)) == spec
    assert {name: tuple(tensor.shape) for name, tensor in build(spec, seed=0).state_dict().items()} == spec.shapes
    canonical = b'{"config":{"inputs":3},"family":"cox","tensors":[{"name":"0.weight","shape":[1,3]}],"version":1}'
    assert spec.digest() == hashlib.sha256(b"rexis/model-spec/1\0" + canonical).digest()


TRUE = np.array([0.9, -0.6, 0.3, 0.0])


def followed(generator: np.random.Generator, count: int, hazard: float) -> Features:
    """Patients with exponential times to the event and to being censored, in whole weeks; a site has a baseline of its own."""
    inputs = generator.normal(0, 1, (count, len(TRUE)))
    event = generator.exponential(1 / (hazard * np.exp(inputs @ TRUE)))
    censored = generator.exponential(1.5 / hazard, count)
    weeks = np.ceil(np.minimum(event, censored) * 20)
    return Features(inputs, np.column_stack([weeks, event <= censored]))


def config_of(rounds: int) -> FederationConfig:
    members = [checksum_address(f"0x{number:040x}") for number in (17, 34, 51, 68)]
    return FederationConfig.parse(
        {
            **{"version": 1, "name": "survival", "kind": "training", "founder": members[0], "aggregators": [members[0]], "quorum": 1},
            **{"collusion_bound": 1, "threshold": 3, "min_survivors": 3, "purpose": 6, "stage_s": 60, "statistics": None},
            "members": [{"address": address, "dataset": number} for number, address in enumerate(members, start=1)],
            "features": {
                "version": 1,
                "inputs": [{"column": f"x{number}", "kind": "number"} for number in range(4)],
                "target": {"time": "weeks", "event": "died"},
            },
            "training": {
                **{"model": {"version": 1, "family": "cox", "config": {"inputs": 4}}, "rounds": rounds, "steps": 5, "learning_rate": "0.5"},
                **{"batch_size": None, "proximal": "0", "clipping_norm": "4", "weight_cap": 500, "weight_band": 1, "standardisation": None},
            },
        }
    )


def test_a_federation_ranks_patients_as_the_pooled_table_does() -> None:
    """Baselines differ twentyfold, which strata take up and the pooled table without them does not."""
    generator = np.random.default_rng(7)
    sites = [followed(generator, count, hazard) for count, hazard in ((220, 1.0), (150, 0.3), (90, 2.0), (60, 0.1))]
    tests = [followed(generator, 300, hazard) for hazard in (1.0, 0.3, 2.0, 0.1)]
    config = config_of(rounds=12)
    plan, start = config.training, FederationPlan(config, seed=None)
    assert plan is not None
    content, record, federation = start.initial, start.model, bytes(32)
    for number in range(1, 13):
        base = read_model(plan, content, record)
        deadlines = Deadlines.after(0, config.stage_s)
        manifest = Manifest.of(config, federation=federation, round_number=number, attempt=1, base_model=record, deadlines=deadlines)
        total = sum((training_vector(config, manifest, base, site) for site in sites), np.zeros(config.length, dtype=np.uint32))
        file = written(server_step(config, base, b"", [total]).tensors, plan.model)
        content, record = file.content, file.record
    federated = read_model(plan, content, record)["0.weight"][0].astype(np.float64)

    def fitted(strata: list[Features]) -> NDArray[np.float64]:
        model = build(plan.model, seed=0, dtype=torch.float64)
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=100, line_search_fn="strong_wolfe")
        rows = sum(len(each.labels) for each in strata)

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            losses = [cox_loss(model(torch.from_numpy(each.inputs)), torch.from_numpy(each.labels)) * len(each.labels) for each in strata]
            loss = torch.stack(losses).sum() / rows
            torch.autograd.backward(loss)
            return loss

        optimizer.step(closure)
        weights: NDArray[np.float64] = model[0].weight.detach().numpy()[0]
        return weights

    stratified = fitted(sites)
    whole = Features(np.concatenate([each.inputs for each in sites]), np.concatenate([each.labels for each in sites]))
    # What the rounds converge to is the partial likelihood with the site as stratum, up to the drift of five local steps.
    assert federated == pytest.approx(stratified, abs=0.03)
    assert federated == pytest.approx(TRUE, abs=0.2)

    def mean_c(weights: NDArray[np.float64]) -> float:
        found = [concordance(each.inputs @ weights, each.labels) for each in tests]
        return float(np.mean([each for each in found if each is not None]))

    assert mean_c(federated) > mean_c(fitted([whole])) - 0.01
    assert mean_c(federated) > 0.7
    assert abs(mean_c(federated) - mean_c(stratified)) < 0.002
