"""Masked vectors of 16 bits: two bytes a parameter, exact slots, unbiased rounding, and what that costs a real training."""

from typing import Any

import numpy as np
import pytest

from rexis.errors import MalformedMessageError
from rexis.protocol.federation_config import FederationConfig
from rexis.secagg.payloads import Holdout, decode_update, encode_update, update_encoding
from rexis.secagg.quantization import FixedPoint
from rexis.secagg.slots import MAX_SLOT, decode_slots, encode_slots
from tests.unit.secagg_rounds import Simulation, make_terms, noted_signatures, plain_sum
from tests.unit.test_federation_config import CONFIG, PARTS, changed
from tests.unit.test_federation_groups import config_of
from tests.unit.test_federation_privacy import SKELLAM


def compressed(**training: Any) -> FederationConfig:
    return FederationConfig.parse({**CONFIG, "training": {**CONFIG["training"], "ring_bits": 16, **training}})


def test_a_round_of_sixteen_bits_is_exact_with_a_drop_out_and_uploads_two_bytes_an_entry() -> None:
    with noted_signatures():
        terms = make_terms(4, ring_bits=16, length=1001)
        simulation = Simulation(terms, killed=True)
        simulation.keys()
        simulation.shares()
        simulation.masked({1, 2, 4})
        assert {len(upload) for upload in simulation.uploads.values()} == {2 * 1001}
        simulation.survivors({1, 2, 3, 4})
        assert np.array_equal(simulation.unmask({1, 2, 3, 4}), plain_sum(terms, {1, 2, 4}))


@pytest.mark.parametrize("members", [3, 128, 257])
def test_slots_of_sixteen_bits_are_exact_at_their_bounds(members: int) -> None:
    encoding = FixedPoint(members, 1.0, 16)
    total = sum((encode_slots(encoding, [MAX_SLOT, number]) for number in range(members)), np.zeros(10, dtype=np.uint16))
    assert decode_slots(encoding, total) == [members * MAX_SLOT, members * (members - 1) // 2]


def test_slots_without_room_are_refused() -> None:
    for participants, value in ((258, 1), (3, MAX_SLOT + 1), (3, -1)):
        with pytest.raises(ValueError, match="expected slots of 0 to"):
            encode_slots(FixedPoint(participants, 1.0, 16), [value])


def test_weights_and_losses_of_an_update_are_as_exact_as_in_thirty_two_bits() -> None:
    config = compressed(stopping=PARTS["stopping"], weight_cap=1_000_000, weight_band=1)
    assert config.length == 4 + 4 * 5
    sites = [(999_999, 99.999, 1000, 0.001), (1, 0.0, 1, 100.0), (123_456, 0.693, 54_321, 1.5)]
    vectors = [
        encode_update(config, np.ones(4), examples=count, loss=loss, holdout=Holdout(held, held_loss))
        for count, loss, held, held_loss in sites
    ]
    assert {vector.nbytes for vector in vectors} == {2 * config.length}
    mean = decode_update(config, sum(vectors, np.zeros(config.length, dtype=np.uint16)))
    assert (mean.weight, mean.holdout_weight) == (999_999 + 1 + 123_456, 1000 + 1 + 54_321)
    assert mean.loss == pytest.approx((999_999 * 99.999 + 123_456 * 0.693) / mean.weight, rel=1e-12)
    assert mean.holdout_loss == pytest.approx((1000 * 0.001 + 100.0 + 54_321 * 1.5) / mean.holdout_weight, rel=1e-12)


def test_rounding_is_unbiased_random_and_never_further_than_a_step() -> None:
    encoding = FixedPoint(20, 1.0, 16)
    update = np.random.default_rng(4).normal(size=500)
    update *= 0.9 / np.linalg.norm(update)
    drawn = np.array([encoding.decode(encoding.encode(update)) for _ in range(400)])
    assert np.abs(drawn - update).max() < 1 / encoding.scale
    assert len({row.tobytes() for row in drawn}) == 400
    # Six standard deviations of a mean of 400, each at most half a step.
    assert np.abs(drawn.mean(axis=0) - update).max() < 6 * 0.5 / encoding.scale / 20
    # A number of whole steps is itself.
    whole = np.arange(-100, 101)
    assert encoding.decode_integers(encoding.encode(whole / encoding.scale)).tolist() == whole.tolist()


@pytest.mark.parametrize("members", [3, 20, 128])
def test_no_sum_of_sixteen_bits_can_wrap(members: int) -> None:
    encoding = FixedPoint(members, 0.37, 16)
    total = sum((encoding.encode(np.array([5.0])) for _ in range(members)), np.zeros(1, dtype=np.uint16))
    assert 0 < encoding.decode_integers(total)[0] <= 2**15 - 1


def test_a_model_too_large_for_its_steps_is_refused_and_groups_make_room() -> None:
    """Four steps to an entry: floor(32767 / n) of at least 4 sqrt(d)."""
    large = {"model": {"version": 1, "family": "mlp", "config": {"inputs": 3, "hidden": [24_000], "outputs": 1, "activation": "relu"}}}
    whole = config_of(90, {"count": 3, "rule": "median"}, training={"ring_bits": 16, **large})
    with pytest.raises(ValueError, match=r"at least 4 sqrt\(d\)"):
        update_encoding(whole)
    update_encoding(config_of(90, {"count": 10, "rule": "median"}, training={"ring_bits": 16, **large}))


def test_skellam_noise_has_no_room_in_sixteen_bits() -> None:
    private = {**CONFIG, "protection": "secagg+dp"}
    with pytest.raises(MalformedMessageError, match="no room for noise"):
        FederationConfig.parse({**private, "training": {**CONFIG["training"], "privacy": SKELLAM, "ring_bits": 16}})
    assert FederationConfig.parse(changed("training.rounds", 3)).ring_bits == 32
