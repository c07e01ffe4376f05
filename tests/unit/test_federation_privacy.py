"""What a private federation claims: the noise in its sums, what its rounds cost, and what its vectors do not tell."""

import math
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rexis.agent.federation.founding import FederationPlan
from rexis.dp.accountant import GaussianEvent, SkellamEvent, epsilon
from rexis.encoding import checksum_address
from rexis.errors import MalformedMessageError, UnexpectedMessageError
from rexis.models.features import FeatureSpec
from rexis.protocol.federation_config import FederationConfig
from rexis.secagg.payloads import decode_update, encode_update, update_encoding
from rexis.secagg.privacy import check_claim, declared_epsilon, declared_micro, round_event, site_variance

INPUTS = 255
FEATURES = {
    "version": 1,
    "inputs": [{"column": f"x{number}", "kind": "number"} for number in range(INPUTS)],
    "target": {"column": "num", "above": "0"},
}
DP_SGD = {
    "mechanism": "dp-sgd",
    "noise_multiplier": "1.5",
    "clipping_norm": "1",
    "sampling_rate": "0.1",
    "delta": "0.00001",
    "epsilon": "8",
}
SKELLAM = {"mechanism": "skellam", "noise_multiplier": "8", "delta": "0.00001", "epsilon": "8"}
CONFIG: dict[str, Any] = {
    "version": 1,
    "name": "private",
    "kind": "training",
    "founder": checksum_address("0x" + 40 * "a"),
    "members": [{"address": checksum_address("0x" + 40 * digit), "dataset": number} for number, digit in enumerate("12345", start=1)],
    "aggregators": [checksum_address("0x" + 40 * "b")],
    "quorum": 1,
    "collusion_bound": 1,
    "threshold": 4,
    "min_survivors": 4,
    "purpose": 6,
    "features": FEATURES,
    "stage_s": 10,
    "training": {
        "model": {"version": 1, "family": "logistic", "config": {"inputs": INPUTS, "outputs": 1}},
        "rounds": 10,
        "steps": 5,
        "learning_rate": "0.5",
        "batch_size": 16,
        "proximal": "0",
        "clipping_norm": "2",
        "weight_cap": 200,
        "weight_band": 25,
        "standardisation": None,
        "privacy": DP_SGD,
    },
    "statistics": None,
    "protection": "secagg+dp",
}
PARAMETERS = INPUTS + 1


def config_of(privacy: Any = SKELLAM, outer: dict[str, Any] | None = None, **training: Any) -> FederationConfig:
    document = deepcopy({**CONFIG, **(outer or {})})
    document["training"] |= {"privacy": privacy, **training}
    return FederationConfig.parse(document)


def signed(vector: Any) -> Any:
    return vector.view(np.int32).astype(np.int64)


@pytest.mark.parametrize("privacy", [DP_SGD, SKELLAM])
def test_a_private_config_has_one_document(privacy: dict[str, str]) -> None:
    config = config_of(privacy)
    assert FederationConfig.parse(config.document()) == config


@pytest.mark.parametrize(
    ("privacy", "training", "outer", "reason"),
    [
        (DP_SGD, {"strategy": {"name": "scaffold", "learning_rate": "1"}}, {}, "scaffold"),
        (DP_SGD, {"stopping": {"holdout": "0.2", "patience": 3, "improvement": "0"}}, {}, "stopping"),
        (DP_SGD, {"personal": ["bias"]}, {}, "personal"),
        (DP_SGD, {"optimizer": "adam"}, {}, "optimizer"),
        (DP_SGD, {"batch_size": None}, {}, "batch_size"),
        (DP_SGD, {}, {"protection": "secagg"}, "secagg\\+dp"),
        ({**DP_SGD, "epsilon": "51"}, {}, {}, "protects nobody"),
        ({**DP_SGD, "noise_multiplier": "0.001"}, {}, {}, "noise_multiplier"),
        ({**SKELLAM, "noise_multiplier": "1e300"}, {}, {}, "noise_multiplier"),
        ({**SKELLAM, "delta": "0.1"}, {}, {}, "delta"),
        ({**DP_SGD, "sampling_rate": "1e-300"}, {}, {}, "sampling_rate"),
        (SKELLAM, {}, {"collusion_bound": 0}, "its own noise"),
    ],
)
def test_what_would_tell_more_than_is_accounted_is_refused(privacy: Any, training: Any, outer: Any, reason: str) -> None:
    with pytest.raises(MalformedMessageError, match=reason):
        config_of(privacy, outer, **training)


@pytest.mark.parametrize("privacy", [DP_SGD, SKELLAM])
def test_a_vector_tells_neither_count_nor_loss_nor_that_training_diverged(privacy: dict[str, str]) -> None:
    config = config_of(privacy)
    vectors = [encode_update(config, np.zeros(PARAMETERS), examples=count, loss=loss) for count, loss in ((1, 0.0), (10**5, 99.0))]
    vectors += [encode_update(config, np.full(PARAMETERS, wrong), examples=1, loss=0.0) for wrong in (math.nan, math.inf, 1e300)]
    for vector in vectors:
        assert signed(vector[PARAMETERS:]).tolist() == [1, 0]
    assert (vectors[2][:PARAMETERS] == 0).all() == (privacy is DP_SGD)
    total = vectors[0] + vectors[1] + vectors[2] + vectors[3]
    mean = decode_update(config, total)
    assert (mean.weight, mean.metrics()) == (4, {"version": 1, "weight": 4})
    assert np.abs(mean.delta).max() < 6 * 2 * 8 * math.sqrt(4 / 3) / 4
    with pytest.raises(MalformedMessageError, match="weights"):
        decode_update(config, total + total)


def test_every_site_counts_the_same() -> None:
    config = config_of(DP_SGD)
    updates = np.random.default_rng(1).normal(0, 0.01, (4, PARAMETERS))
    total = sum(
        (encode_update(config, update, examples=10**site, loss=0.1) for site, update in enumerate(updates)),
        np.zeros(config.length, dtype=np.uint32),
    )
    assert decode_update(config, total).delta == pytest.approx(updates.mean(axis=0), abs=1e-8)


@pytest.mark.parametrize("survivors", [4, 5])
def test_the_noise_of_the_sum_is_what_is_accounted_when_colluders_take_theirs_out(survivors: int) -> None:
    """Five members, one of whom may drop out and one collude: the noise of three is the accounted one."""
    config = config_of()
    event, scale = round_event(config), update_encoding(config).scale
    assert isinstance(event, SkellamEvent)
    assert event.variance == pytest.approx((8 * 2.0 * scale) ** 2)
    assert site_variance(config) == pytest.approx(event.variance / 3)
    rounds = [
        sum((signed(encode_update(config, np.zeros(PARAMETERS), examples=9, loss=0.0)[:-2]) for _ in range(survivors - 1)), np.int64(0))
        for _ in range(40)
    ]
    variance = np.var(np.concatenate(rounds))
    assert variance == pytest.approx(event.variance * (survivors - 1) / 3, rel=0.1)
    assert variance > 0.9 * event.variance


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.floats(1e-6, 1e6), sparse=st.booleans())
def test_no_rounded_update_is_longer_than_half_the_sensitivity(seed: int, size: float, sparse: bool) -> None:
    """So that whatever an institution's rows become, the sum moves by no more than the sensitivity."""
    config = config_of()
    event, encoding = round_event(config), update_encoding(config)
    assert isinstance(event, SkellamEvent)
    generator = np.random.default_rng(seed)
    update = generator.choice([-1.0, 1.0], PARAMETERS) * (generator.random(PARAMETERS) < (0.02 if sparse else 1.0)) * size
    # As far from a step's middle as rounding goes.
    update = update + np.sign(update) * 0.49 / encoding.scale
    steps = signed(encoding.encode(update))
    assert np.linalg.norm(steps) <= event.l2 / 2
    assert np.abs(steps).sum() <= event.l1 / 2


@pytest.mark.parametrize(("multiplier", "bound"), [("0.01", "2"), ("0.5", "2"), ("8", "1000"), ("200", "0.01")])
def test_the_ring_holds_the_largest_sum_and_ten_deviations_of_noise(multiplier: str, bound: str) -> None:
    config = config_of({**SKELLAM, "noise_multiplier": multiplier}, clipping_norm=bound)
    largest = len(config.members) * update_encoding(config).bound
    assert largest + 10 * math.sqrt(len(config.members) * site_variance(config)) <= 2**31 - 1
    encode_update(config, np.ones(PARAMETERS), examples=1, loss=0.0)


def test_noise_that_leaves_no_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="scale"):
        update_encoding(config_of({**SKELLAM, "noise_multiplier": "10000"}, clipping_norm="100"))


def test_a_skellam_federation_costs_a_little_more_than_gaussian_noise_of_that_size() -> None:
    """A change of all of an institution's rows is twice the clipping norm: half the multiplier."""
    config = config_of()
    found, gaussian = declared_epsilon(config, 10), epsilon([GaussianEvent(4.0, count=10)], 1e-5)
    assert found is not None
    assert gaussian < found < 1.15 * gaussian


def test_the_declared_loss_grows_with_the_rounds_and_is_rounded_up() -> None:
    config = config_of(DP_SGD)
    assert round_event(config) == GaussianEvent(1.5, 0.1, 5)
    found = [declared_micro(config, rounds) for rounds in (1, 2, 10)]
    assert found == sorted(set(found))
    exact = epsilon([GaussianEvent(1.5, 0.1, 50)], 1e-5)
    assert exact * 1e6 <= found[-1] < exact * 1e6 + 1000
    assert found[-1] % 1000 == 0
    document = deepcopy({**CONFIG, "protection": "secagg"})
    del document["training"]["privacy"]
    without = FederationConfig.parse(document)
    assert (declared_epsilon(without, 10), declared_micro(without, 10)) == (None, 0)


def test_a_plan_that_costs_more_than_it_says_is_refused_and_an_absurd_one_at_once() -> None:
    check_claim(config_of(DP_SGD))
    for privacy, training in (
        ({**DP_SGD, "epsilon": "0.5"}, {}),
        ({**SKELLAM, "noise_multiplier": "1"}, {}),
        # Its loss distribution would not fit any memory.
        ({**DP_SGD, "noise_multiplier": "0.01"}, {"steps": 1_000_000, "rounds": 10_000}),
    ):
        with pytest.raises(UnexpectedMessageError, match="more noise"):
            check_claim(config_of(privacy, **training))
    with pytest.raises(UnexpectedMessageError, match="more noise"):
        FederationPlan(config_of({**DP_SGD, "epsilon": "0.5"}))


def test_features_may_say_whose_record_a_row_is() -> None:
    plain = {**FEATURES, "inputs": FEATURES["inputs"][:1]}
    document = {**plain, "patient": "pid"}
    spec = FeatureSpec.parse(document)
    assert spec.document() == document
    assert spec.names == ("x0",)
    assert spec.digest() != FeatureSpec.parse(plain).digest()
    made = spec.encode(["num", "pid", "x0"], [["0", "b", "1"], ["1", "a", "2"], ["0", "b", "3"]])
    assert made.patients is not None
    assert made.patients.tolist() == [1, 0, 1]
    assert FeatureSpec.parse(plain).encode(["num", "x0"], [["0", "1"]]).patients is None
    with pytest.raises(MalformedMessageError, match="lacks the columns pid"):
        spec.encode(["num", "x0"], [["0", "1"]])
    for wrong in ("x0", "num", "", None):
        with pytest.raises(MalformedMessageError):
            FeatureSpec.parse({**plain, "patient": wrong})
