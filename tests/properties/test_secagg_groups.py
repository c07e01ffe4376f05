"""Laws of rounds in groups: draws split the roster evenly, each group's sum is exact or closed, and no part of a group is ever opened."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rexis.encoding import keccak256, sha256
from rexis.errors import BelowThresholdError, MalformedMessageError, UnexpectedMessageError
from rexis.protocol.plan_parts import GroupPlan
from rexis.protocol.secagg_messages import Stage
from rexis.secagg.groups import draw_groups
from rexis.secagg.survivors import FixedSurvivors
from rexis.secagg.thresholds import thresholds
from rexis.secagg.transcript import KeyDirectory, ShareDirectory
from tests.unit.secagg_rounds import ROSTER, Simulation, make_terms, noted_signatures, plain_sum, resigned

MEDIAN_OF_THREE = GroupPlan(3, "median")
SEED = keccak256(b"block")


@pytest.fixture(scope="module", autouse=True)
def _noted_signatures() -> Iterator[None]:
    with noted_signatures():
        yield


@given(seed=st.binary(min_size=32, max_size=32), members=st.integers(3, 128), data=st.data())
def test_groups_are_disjoint_cover_the_roster_and_differ_by_one(seed: bytes, members: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, members // 3))
    groups = draw_groups(seed, members, count)
    assert sorted(position for group in groups for position in group) == list(range(1, members + 1))
    assert len(groups) == count
    assert max(map(len, groups)) - min(map(len, groups)) <= 1
    assert all(list(group) == sorted(group) for group in groups)
    assert draw_groups(seed, members, count) == groups


def test_the_draw_is_the_one_of_the_wire_format() -> None:
    order = sorted(
        range(1, 12), key=lambda position: hashlib.sha256(b"rexis/secagg/groups/1\0" + SEED + position.to_bytes(8, "big")).digest()
    )
    expected = [sorted(order[0::3]), sorted(order[1::3]), sorted(order[2::3])]
    assert [list(group) for group in draw_groups(SEED, 11, 3)] == expected


def test_every_pair_meets_as_often_as_chance_has_it() -> None:
    """Over seeds, two of nine are in one group of three with probability 2/8, and each is in each group with 1/3."""
    draws = [draw_groups(sha256(number.to_bytes(4)), 9, 3) for number in range(3000)]
    pairs = Counter(pair for groups in draws for group in groups for pair in combinations(group, 2))
    places = Counter((position, number) for groups in draws for number, group in enumerate(groups) for position in group)
    # Five standard deviations of a binomial.
    assert all(abs(pairs[pair] - 750) < 5 * 24 for pair in combinations(range(1, 10), 2))
    assert all(abs(places[position, number] - 1000) < 5 * 26 for position in range(1, 10) for number in range(3))


@pytest.mark.parametrize(("seed", "members", "count"), [(bytes(31), 9, 3), (bytes(32), 8, 3), (bytes(32), 9, 0)])
def test_groups_that_can_not_be_are_refused(seed: bytes, members: int, count: int) -> None:
    with pytest.raises(ValueError, match="members to each group"):
        draw_groups(seed, members, count)


@st.composite
def rounds(draw: st.DrawFn) -> dict[str, Any]:
    members, collusion_bound = draw(st.integers(9, 14)), draw(st.integers(0, 1))
    leaves = draw(st.dictionaries(st.integers(1, members), st.sampled_from(list(Stage)), max_size=3))
    return {
        "members": members,
        "collusion_bound": collusion_bound,
        "count": draw(st.integers(3, members // 3)),
        "leaves": leaves,
        "seed": draw(st.binary(min_size=32, max_size=32)),
        "killed": draw(st.booleans()),
    }


@settings(max_examples=25, deadline=None)
@given(chosen=rounds())
def test_each_groups_sum_is_exact_or_closed(chosen: dict[str, Any]) -> None:
    plan = GroupPlan(chosen["count"], "median")
    terms = make_terms(chosen["members"], chosen["collusion_bound"], groups=plan)
    groups = [set(group) for group in draw_groups(chosen["seed"], chosen["members"], plan.count)]
    needed = [thresholds(len(group), chosen["collusion_bound"]) for group in groups]
    simulation, stages = Simulation(terms, graph_seed=chosen["seed"], killed=chosen["killed"]), list(Stage)
    counted = set(simulation.everybody)
    for stage, play in ((Stage.KEYS, simulation.keys), (Stage.SHARES, simulation.shares), (Stage.MASKED, simulation.masked)):
        dealers = counted
        there = {i for i in counted if i not in chosen["leaves"] or stages.index(chosen["leaves"][i]) > stages.index(stage)}
        left = [group for group, least in zip(groups, needed, strict=True) if len(group & there) >= least.min_survivors]
        counted = there.intersection(*[set().union(*left)])
        if len(left) < plan.least or len(counted) < terms.thresholds.min_survivors:
            with pytest.raises(BelowThresholdError):
                play(there)
            with pytest.raises(UnexpectedMessageError):
                simulation.coordinator.masked_sums()
            return
        assert {message.sender for message in play(there)} == {ROSTER[i - 1] for i in counted}
    fixed = simulation.fix_on_chain()
    concerned = dealers & set().union(*left)
    answering = {i for i in concerned if chosen["leaves"].get(i) not in (Stage.UNMASK, Stage.SURVIVORS)}
    play_answers = [simulation.act(i, lambda one: one.unmask_fixed(simulation.messages[Stage.MASKED], fixed)) for i in sorted(answering)]
    for answer in play_answers:
        simulation.coordinator.receive(answer)
    opened = [group & counted for group in left if len(group & answering) >= needed[groups.index(group)].threshold]
    if len(opened) < plan.least or sum(map(len, opened)) < terms.thresholds.min_survivors:
        with pytest.raises(BelowThresholdError):
            simulation.opened_groups()
        return
    totals = simulation.opened_groups()
    assert simulation.coordinator.opened == tuple(map(frozenset, opened))
    for group, total in zip(opened, totals, strict=True):
        assert np.array_equal(total, plain_sum(terms, group))


def round_of_twelve() -> tuple[Simulation, tuple[tuple[int, ...], ...]]:
    """Four groups of three, all of whom have shared their secrets; in groups of three nobody may drop out."""
    simulation = Simulation(make_terms(12, groups=GroupPlan(4, "median")), graph_seed=SEED)
    simulation.keys()
    simulation.shares()
    return simulation, draw_groups(SEED, 12, 4)


def test_nothing_of_a_group_that_lost_one_is_opened() -> None:
    """Its members answer nothing, and no answer holds a share of theirs, though two of their vectors were uploaded."""
    simulation, groups = round_of_twelve()
    lost = groups[1]
    simulation.masked(set(simulation.everybody) - {lost[0]})
    survivors = simulation.coordinator.survivors
    assert survivors.positions == frozenset(simulation.everybody) - set(lost)
    assert not survivors.dropped
    assert survivors.answerers == survivors.positions
    fixed = simulation.fix_on_chain()
    for position in lost[1:]:
        with pytest.raises(UnexpectedMessageError, match="not among those who may answer"):
            simulation.participants[position].unmask_fixed(simulation.messages[Stage.MASKED], fixed)
    answers = [simulation.participants[i].unmask_fixed(simulation.messages[Stage.MASKED], fixed) for i in sorted(survivors.positions)]
    named = {entry["of"] for answer in answers for field in ("self", "pairwise") for entry in answer.payload[field]}
    assert named == {ROSTER[i - 1] for i in survivors.positions}
    for answer in answers:
        simulation.coordinator.receive(answer)
    left = [group for group in groups if group != lost]
    for group, total in zip(left, simulation.opened_groups(), strict=True):
        assert np.array_equal(total, plain_sum(simulation.terms, group))


@pytest.mark.parametrize("lies", [False, True])
def test_a_member_that_keeps_its_shares_or_gives_wrong_ones_costs_its_group_and_not_the_round(lies: bool) -> None:
    simulation, groups = round_of_twelve()
    simulation.masked()
    fixed = simulation.fix_on_chain()
    bad = groups[2][1]
    for i in simulation.everybody:
        answer = simulation.participants[i].unmask_fixed(simulation.messages[Stage.MASKED], fixed)
        if i == bad:
            wrong = [{**entry, "share": "0x" + 33 * "00"} for entry in answer.payload["self"]]
            answer = resigned(answer, i, self=wrong)
        if i != bad or lies:
            simulation.coordinator.receive(answer)
    totals = simulation.opened_groups()
    left = [group for group in groups if bad not in group]
    assert simulation.coordinator.opened == tuple(map(frozenset, left))
    for group, total in zip(left, totals, strict=True):
        assert np.array_equal(total, plain_sum(simulation.terms, group))


def test_a_site_refuses_survivors_that_are_part_of_a_group() -> None:
    """Whether the aggregator shows them or the chain fixed them: a sum of two of three, one of them a colluder, is one site's update."""
    simulation, groups = round_of_twelve()
    simulation.open()
    uploads = {i: simulation.upload(i) for i in simulation.everybody}
    part = [uploads[i] for i in simulation.everybody if i != groups[0][0]]
    few = [uploads[i] for i in simulation.everybody if i in groups[0] + groups[1]]
    for shown, reason in ((part, "members of a group"), (few, "survivors of the round")):
        for position in (groups[0][1], groups[1][0]):
            with pytest.raises(BelowThresholdError, match=reason):
                simulation.participants[position].consent(shown)
            with pytest.raises(BelowThresholdError, match=reason):
                simulation.participants[position].unmask_fixed(shown, FixedSurvivors(bytes(32), bytes(32)))
    terms, keys, shares = simulation.terms, simulation.messages[Stage.KEYS], simulation.messages[Stage.SHARES]
    for messages in (keys[:-1], [message for message in keys if terms.position(message.sender) not in groups[0] + groups[1]]):
        with pytest.raises(BelowThresholdError):
            KeyDirectory.freeze(terms, {terms.position(message.sender): message for message in messages}, SEED)
    whole = KeyDirectory.freeze(terms, {terms.position(message.sender): message for message in keys}, SEED)
    with pytest.raises(BelowThresholdError, match="members of a group"):
        ShareDirectory.freeze(whole, {terms.position(message.sender): message for message in shares[1:]})


def test_a_round_needs_as_many_groups_as_its_rule_takes() -> None:
    """Two groups of five that are left have survivors enough, but of two sums there is no robust mean."""
    terms = make_terms(15, groups=MEDIAN_OF_THREE)
    simulation = Simulation(terms, graph_seed=SEED)
    simulation.keys()
    simulation.shares()
    lost = draw_groups(SEED, 15, 3)[2]
    with pytest.raises(BelowThresholdError, match="groups for the median"):
        simulation.masked(set(simulation.everybody) - set(lost[:3]))


def test_who_is_shown_another_draw_shares_with_nobody() -> None:
    """An aggregator that shows each site groups of its own gets secrets that are in nobody's hands, and the others see it."""
    simulation = Simulation(make_terms(9, groups=MEDIAN_OF_THREE), graph_seed=SEED)
    keys = simulation.keys()
    honest = next(group for group in draw_groups(SEED, 9, 3) if 1 in group)
    other = next(seed for seed in (bytes([n]) * 32 for n in range(64)) if honest not in draw_groups(seed, 9, 3))
    shares = [simulation.participants[i].share(keys, graph_seed=other if i == 1 else SEED) for i in simulation.everybody]
    for i in simulation.everybody:
        with pytest.raises(MalformedMessageError, match="a ciphertext for each of its"):
            simulation.participants[i].open_shares(shares)


@pytest.mark.parametrize(
    ("members", "collusion_bound", "changes"),
    [(9, 2, {"groups": MEDIAN_OF_THREE}), (11, 2, {"groups": MEDIAN_OF_THREE}), (9, 1, {"groups": MEDIAN_OF_THREE, "degree": 6})],
)
def test_terms_under_which_a_group_could_expose_one_are_refused(members: int, collusion_bound: int, changes: dict[str, Any]) -> None:
    with pytest.raises((BelowThresholdError, ValueError)):
        make_terms(members, collusion_bound, **changes)


def test_groups_change_the_parameters_and_nothing_else_does() -> None:
    """Terms without groups keep the digest they always had."""
    plain, of_three, of_four = make_terms(12), make_terms(12, groups=MEDIAN_OF_THREE), make_terms(12, groups=GroupPlan(4, "median"))
    trimmed = make_terms(12, groups=GroupPlan(4, "trimmed-mean", 1))
    assert len({terms.parameters for terms in (plain, of_three, of_four)}) == 3
    # The rule is the config's, whose digest is in the manifest; what counts here is how many groups a round takes.
    assert trimmed.parameters == of_four.parameters
