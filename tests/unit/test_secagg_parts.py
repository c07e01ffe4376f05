"""What the two sides of a round are made of: terms, graph, history, streams of bytes, rebuilt secrets."""

import secrets
from dataclasses import replace
from itertools import combinations, pairwise
from math import exp, lgamma
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rexis.encoding import keccak256, sha256
from rexis.errors import BelowThresholdError, InvalidShareError, MalformedMessageError, UnexpectedMessageError
from rexis.protocol.uploads import PART_SIZE, UploadManifest
from rexis.secagg import graph, shamir
from rexis.secagg.blocks import UploadDigest, apply_masks, blocks, vector_digest, whole_entries
from rexis.secagg.group_pad import pad_seed
from rexis.secagg.history import AttemptRecord, Outcome
from rexis.secagg.masks import apply_mask
from rexis.secagg.reconstruction import MAX_SUBSETS, reconstruct
from rexis.secagg.thresholds import Thresholds
from tests.unit.secagg_rounds import ROSTER, make_terms

SEED = keccak256(b"block")


@pytest.mark.parametrize(
    "changes",
    [
        {"federation": bytes(31)},
        {"manifest_hash": b""},
        {"base_model": bytes(33)},
        {"registry": "0x00000000000000000000000000000000000000aa"},
        {"roster": (ROSTER[0].lower(), *ROSTER[1:4])},
        {"roster": (ROSTER[0], ROSTER[0], *ROSTER[2:4])},
        {"round": -1},
        {"attempt": -1},
        {"length": 0},
        {"ring_bits": 8},
        {"degree": 1},
        {"roster": ROSTER[:5]},
        {"needed": Thresholds(5, 1, 4, 4)},
        {"needed": Thresholds(4, 1, 2, 3)},
        {"needed": Thresholds(4, 1, 3, 2)},
        {"needed": Thresholds(4, 0, 3, 2)},
        {"needed": Thresholds(4, 1, 4, 3)},
        {"needed": Thresholds(4, 1, 3, 5)},
    ],
)
def test_unsound_terms_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        make_terms(4, **changes)


def test_a_collusion_bound_that_no_roster_of_that_size_bears_is_refused() -> None:
    with pytest.raises(BelowThresholdError):
        make_terms(4, needed=Thresholds(4, 3, 4, 4))


def test_higher_thresholds_than_needed_are_sound() -> None:
    assert make_terms(5, needed=Thresholds(5, 1, 5, 5)).thresholds.dropouts == 0


def test_parameters_and_context_tell_all_terms_apart() -> None:
    terms = make_terms(4)
    assert terms.ctx == make_terms(4).ctx
    in_context = [
        {"chain_id": 1},
        {"federation": bytes(32)},
        {"round": 9},
        {"attempt": 9},
        {"manifest_hash": bytes(32)},
        {"registry": ROSTER[9]},
    ]
    assert len({replace(terms, **changes).ctx for changes in in_context} | {terms.ctx}) == 7
    in_parameters: list[dict[str, Any]] = [
        {"base_model": bytes(32)},
        {"length": 6},
        {"ring_bits": 64},
        {"degree": 4},
        {"roster": (ROSTER[1], ROSTER[0], *ROSTER[2:4])},
        {"thresholds": Thresholds(4, 1, 4, 4)},
        {"thresholds": Thresholds(4, 1, 3, 4)},
        {"thresholds": Thresholds(4, 0, 3, 3)},
    ]
    assert len({replace(terms, **changes).parameters for changes in in_parameters} | {terms.parameters}) == 9


def test_the_complete_graph() -> None:
    assert graph.neighbours([2, 5, 9], None, SEED) == {2: {5, 9}, 5: {2, 9}, 9: {2, 5}}
    # A sparse one that has shrunk becomes complete.
    assert graph.neighbours([1, 2, 3, 4, 5], 4, SEED) == graph.neighbours([1, 2, 3, 4, 5], None, bytes(32))


@settings(max_examples=50, deadline=None)
@given(positions=st.sets(st.integers(1, 1024), min_size=4, max_size=60), half=st.integers(1, 12), seed=st.binary(min_size=32, max_size=32))
def test_the_sparse_graph_is_regular_symmetric_and_connected(positions: set[int], half: int, seed: bytes) -> None:
    found = graph.neighbours(positions, 2 * half, seed)
    assert found == graph.neighbours(sorted(positions), 2 * half, seed)
    assert set(found) == positions
    assert {len(neighbours) for neighbours in found.values()} == {min(2 * half, len(positions) - 1)}
    for position, neighbours in found.items():
        assert position not in neighbours
        assert all(position in found[other] for other in neighbours)
    reached, frontier = set(), {min(positions)}
    while frontier:
        reached |= frontier
        frontier = set().union(*(found[position] for position in frontier)) - reached
    assert reached == positions


def test_the_seed_draws_the_graph() -> None:
    """Everybody is everybody's neighbour about equally often: 500 graphs, probability 6/39, within six standard deviations."""
    counts = np.zeros((40, 40))
    for number in range(500):
        for position, neighbours in graph.neighbours(range(40), 6, keccak256(b"%d" % number)).items():
            counts[position, sorted(neighbours)] += 1
    expected = 500 * 6 / 39
    off_diagonal = counts[~np.eye(40, dtype=bool)]
    assert np.abs(off_diagonal - expected).max() < 6 * (expected * (1 - 6 / 39)) ** 0.5


def test_neighbourhood_thresholds_leave_no_room_for_colluders() -> None:
    for participants, collusion_bound in ((20, 1), (40, 4), (100, 10), (100, 33), (1000, 100)):
        refused = 0
        for degree in range(2, min(participants - 1, 120), 2):
            try:
                threshold = graph.neighbourhood_threshold(participants, collusion_bound, degree)
            except BelowThresholdError:
                refused += 1
                assert not threshold_found_before(participants, collusion_bound, degree)
                continue
            colluders = most_likely_colluders(participants, collusion_bound, degree)
            assert 2 * threshold > degree + 1 + colluders
            assert threshold - colluders >= 2
            assert threshold <= degree + 1
        assert refused < 60
    with pytest.raises(ValueError, match="even degree"):
        graph.neighbourhood_threshold(20, 1, 5)
    with pytest.raises(BelowThresholdError, match="larger degree or the complete graph"):
        graph.neighbourhood_threshold(100, 33, 4)


def most_likely_colluders(participants: int, collusion_bound: int, degree: int) -> int:
    """The same bound in floating point, from ratios of neighbouring probabilities."""

    def choose(n: int, k: int) -> float:
        return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)

    others = participants - 1
    tail = 0.0
    for count in range(min(collusion_bound, degree), -1, -1):
        if degree - count <= others - collusion_bound:
            tail += exp(choose(collusion_bound, count) + choose(others - collusion_bound, degree - count) - choose(others, degree))
        if participants * tail > 2.0**-40:
            return count
    return 0


def threshold_found_before(participants: int, collusion_bound: int, degree: int) -> bool:
    colluders = most_likely_colluders(participants, collusion_bound, degree)
    return max((degree + 1 + colluders) // 2 + 1, colluders + 2) <= degree + 1


def test_the_smallest_degree_pays_off_for_large_rosters_only() -> None:
    assert graph.smallest_degree(10, 3, 3) is None
    assert graph.smallest_degree(100, 33, 33) is None
    found = {n: graph.smallest_degree(n, n // 20, n // 20) for n in (100, 200, 500)}
    assert all(degree is not None and degree % 2 == 0 and degree < n - 1 for n, degree in found.items())
    for n, degree in found.items():
        assert degree is not None
        assert graph.neighbourhood_threshold(n, n // 20, degree) <= degree + 1


def test_records_survive_storage_and_nothing_else_parses() -> None:
    record = AttemptRecord.of(make_terms(4), None, Outcome.OPEN)
    for each in (record, replace(record, vector=bytes(32), outcome=Outcome.ANSWERED)):
        assert AttemptRecord.parse(each.to_bytes()) == each
    data = record.to_bytes()
    for damaged in (b"", b"{}", data[:-1], data.replace(b'"open"', b'"shut"'), data.replace(b'"version":1', b'"version":2'), data + b" "):
        with pytest.raises(MalformedMessageError):
            AttemptRecord.parse(damaged)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=20), entry=st.sampled_from([4, 8]))
def test_chunks_end_on_entries_and_lose_no_byte(data: bytes, cuts: list[int], entry: int) -> None:
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    chunks = [data[low:high] for low, high in pairwise(bounds)]
    whole = [bytes(chunk) for chunk in whole_entries(chunks, entry)]
    assert b"".join(whole) == data
    assert all(chunk and len(chunk) % entry == 0 for chunk in whole[:-1])


@pytest.mark.parametrize("size", [1, PART_SIZE - 1, PART_SIZE, PART_SIZE + 1, 2 * PART_SIZE])
def test_the_digest_of_an_upload_does_not_depend_on_the_chunks(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    expected = UploadManifest(size, tuple(sha256(data[at : at + PART_SIZE]) for at in range(0, size, PART_SIZE)))
    for step in (1_000_003, PART_SIZE, 3 * PART_SIZE):
        digest = UploadDigest()
        for at in range(0, size, step):
            digest.update(data[at : at + step])
        assert digest.manifest() == expected
    with pytest.raises(ValueError, match="1 to"):
        UploadDigest().manifest()


@pytest.mark.parametrize("dtype", ["<u4", "<u8"])
def test_masks_in_blocks_are_masks(dtype: str) -> None:
    length = 600_001
    seeds = [(secrets.token_bytes(32), sign) for sign in (1, -1, 1)]
    expected, found = np.arange(length, dtype=dtype), np.arange(length, dtype=dtype)
    for seed, sign in seeds:
        apply_mask(expected, seed, sign)
    apply_masks(found, seeds)
    assert np.array_equal(found, expected)
    assert sum(map(len, blocks(found))) == length


def test_vector_digests_know_the_ring() -> None:
    vector = np.arange(6, dtype="<u4")
    assert vector_digest(vector) == sha256(b"rexis/secagg/vector/1\0\x04" + vector.tobytes())
    assert vector_digest(vector) != vector_digest(vector.view("<u8"))


def test_pads_differ_by_site_attempt_and_group() -> None:
    pads = {pad_seed(key, ctx, i) for key in (bytes(32), SEED) for ctx in (bytes(32), SEED) for i in (1, 2, 3)}
    assert len(pads) == 12
    with pytest.raises(ValueError, match="group key"):
        pad_seed(bytes(31), SEED, 1)


@pytest.mark.parametrize("liars", [0, 1, 2, 3])
def test_a_secret_is_rebuilt_around_every_set_of_liars(liars: int) -> None:
    secret = secrets.token_bytes(32)
    shares = shamir.split(secret, 4, range(1, 8))
    for lying in combinations(shares, liars):
        given_shares = shares | dict.fromkeys(lying, secrets.token_bytes(33))
        rebuilt, wrong = reconstruct(ROSTER[0], given_shares, 4, secret.__eq__, frozenset())
        assert (rebuilt, wrong) == (secret, set(lying))
    with pytest.raises(InvalidShareError, match="no 4 of 7"):
        reconstruct(ROSTER[0], shares | dict.fromkeys((1, 2, 3, 4), bytes(33)), 4, secret.__eq__, frozenset())
    with pytest.raises(BelowThresholdError):
        reconstruct(ROSTER[0], {i: shares[i] for i in (1, 2, 3)}, 4, secret.__eq__, frozenset())


def test_known_liars_are_tried_last_and_the_search_is_bounded() -> None:
    secret = secrets.token_bytes(32)
    tried: list[bytes] = []
    shares = shamir.split(secret, 3, range(1, 31))

    def is_secret(candidate: bytes) -> bool:
        tried.append(candidate)
        return candidate == secret

    reconstruct(ROSTER[0], shares | {1: bytes(33), 2: bytes(33)}, 3, is_secret, frozenset({1, 2}))
    assert len(tried) == 1
    tried.clear()
    with pytest.raises(InvalidShareError):
        reconstruct(ROSTER[0], dict.fromkeys(range(1, 31), bytes(33)), 3, is_secret, frozenset())
    assert 0 < len(tried) <= MAX_SUBSETS


def test_addresses_and_positions() -> None:
    terms = make_terms(6)
    assert [terms.position(address) for address in terms.roster] == [1, 2, 3, 4, 5, 6]
    assert terms.addresses(range(1, 7)) == sorted(terms.roster, key=lambda address: bytes.fromhex(address[2:]))
    with pytest.raises(UnexpectedMessageError, match="not in the roster"):
        terms.position(ROSTER[6])
