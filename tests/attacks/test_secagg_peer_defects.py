"""Defects found in another implementation of this protocol (`specs/secure-aggregation.md` section 4), each shown not to be ours."""

from collections.abc import Iterator
from functools import reduce
from operator import and_, or_, xor

import numpy as np
import pytest

from rexis.encoding import keccak256
from rexis.errors import BelowThresholdError
from rexis.protocol.secagg_messages import Envelope, Stage
from rexis.secagg.key_agreement import KeyPairs, pairwise_seed
from rexis.secagg.masks import apply_mask
from tests.unit.secagg_rounds import ROSTER, Simulation, make_terms, noted_signatures, plain_sum, update_of


@pytest.fixture(scope="module", autouse=True)
def _noted_signatures() -> Iterator[None]:
    with noted_signatures():
        yield


def test_mask_seeds_have_their_full_entropy() -> None:
    """There, seeds were folded to 28 bits. Here every one of the 256 is sometimes set and sometimes not, also after folding words."""
    mine = KeyPairs(keccak256(b"my mask"), keccak256(b"my encryption"))
    seeds = []
    for number in range(200):
        other = KeyPairs(keccak256(b"mask %d" % number), keccak256(b"encryption %d" % number))
        seeds.append(pairwise_seed(keccak256(b"ctx"), mine.mask_key, 1, 2, other.public.mask))
    bits = [int.from_bytes(seed, "big") for seed in seeds]
    assert (reduce(or_, bits), reduce(and_, bits)) == (2**256 - 1, 0)
    folded = [reduce(xor, (int.from_bytes(seed[at : at + 4], "big") for at in range(0, 32, 4))) for seed in seeds]
    assert (reduce(or_, folded), reduce(and_, folded)) == (2**32 - 1, 0)
    # And every bit counts in the mask.
    base = np.zeros(8, "<u4")
    apply_mask(base, seeds[0], 1)
    for bit in range(256):
        flipped = np.zeros(8, "<u4")
        apply_mask(flipped, (bits[0] ^ 1 << bit).to_bytes(32, "big"), 1)
        assert np.count_nonzero(flipped == base) <= 1


def test_seeds_of_two_attempts_have_nothing_in_common() -> None:
    """Even if a site's random numbers repeated."""
    one, two = KeyPairs(keccak256(b"a"), keccak256(b"b")), KeyPairs(keccak256(b"c"), keccak256(b"d"))
    seeds = {pairwise_seed(make_terms(3, attempt=attempt).ctx, one.mask_key, 1, 2, two.public.mask) for attempt in range(50)}
    assert len(seeds) == 50
    assert pairwise_seed(bytes(32), two.mask_key, 2, 1, one.public.mask) == pairwise_seed(bytes(32), one.mask_key, 1, 2, two.public.mask)
    assert pairwise_seed(bytes(32), two.mask_key, 3, 1, one.public.mask) != pairwise_seed(bytes(32), one.mask_key, 1, 2, two.public.mask)


def test_nothing_about_the_data_stands_beside_the_vector() -> None:
    """There, the sample count went in clear. Here two very different vectors give messages of the same fields and sizes."""
    shapes = []
    for value in (0, 2**31 - 1):
        simulation = Simulation(make_terms(3))
        simulation.keys()
        simulation.shares()
        simulation.open()
        vector = np.full(5, value, "<u4")
        simulation.participants[1].mask(vector)
        message = simulation.participants[1].announce_masked("upload-1")
        assert set(message.payload) == {"upload", "digest", "bits", "length"}
        shapes.append([shape_of(envelope) for envelope in simulation.participants[1].sent])
    assert shapes[0] == shapes[1]


def shape_of(message: Envelope) -> tuple[str, int, list[str]]:
    return message.stage.value, len(message.to_bytes()), sorted(message.payload)


@pytest.mark.parametrize("stage", [Stage.KEYS, Stage.SHARES], ids=str)
def test_dropping_out_before_the_shares_costs_nothing(stage: Stage) -> None:
    """There, the survivors died of it."""
    simulation = Simulation(make_terms(4))
    stay = {1, 2, 4}
    simulation.keys(stay if stage is Stage.KEYS else None)
    simulation.shares(stay)
    simulation.masked(stay)
    simulation.survivors()
    assert np.array_equal(simulation.unmask(), plain_sum(simulation.terms, stay))
    # No mask with the one who left is in anybody's vector: nothing of it has to be rebuilt.
    assert all(simulation.participants[i].sent[-1].payload["pairwise"] == [] for i in stay)


def test_a_round_that_ends_without_a_sum_says_so() -> None:
    """There, the caller saw success."""
    simulation = Simulation(make_terms(4))
    simulation.keys()
    simulation.shares()
    with pytest.raises(BelowThresholdError, match=r"survivors of the round: at least 3 are required, got 2"):
        simulation.masked({1, 2})
    simulation.coordinator.abort("2 of at least 3 survivors by the deadline")
    assert (simulation.coordinator.phase.value, simulation.coordinator.awaited) == ("aborted", ())


def test_masks_take_every_value_of_the_ring() -> None:
    """There, the top value could not occur."""
    mask = np.zeros(1 << 20, "<u4")
    apply_mask(mask, keccak256(b"seed"), 1)
    for part in (mask >> 16, mask & 0xFFFF):
        seen = np.bincount(part, minlength=1 << 16)
        # 16 expected of each of 65536 values, the top one among them.
        assert (seen.min() > 0, seen[-1] > 0, len(seen)) == (True, True, 1 << 16)
        # Chi-square with 65535 degrees of freedom, within six standard deviations.
        assert abs(float(np.sum((seen - 16.0) ** 2 / 16)) - 65535) < 6 * (2 * 65535) ** 0.5


def test_a_masked_vector_looks_like_nothing() -> None:
    """The aggregator's whole view of one update, before any share is given, is uniform."""
    terms = make_terms(3, length=20_000)
    simulation = Simulation(terms)
    simulation.keys()
    simulation.shares()
    simulation.masked()
    masked = np.frombuffer(simulation.uploads[ROSTER[0]], dtype=terms.dtype)
    update = update_of(terms, 1)
    seen = np.bincount(masked >> 24, minlength=256)
    assert abs(float(np.sum((seen - masked.size / 256) ** 2 / (masked.size / 256))) - 255) < 6 * (2 * 255) ** 0.5
    assert abs(float(np.corrcoef(masked.astype(float), update.view(np.int32).astype(float))[0, 1])) < 6 / masked.size**0.5
