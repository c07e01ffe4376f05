"""Scores in a config, the bundle that they are computed from, and the statement that anybody computes again."""

import json
from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from rexis.contribution.formula import UNIT
from rexis.contribution.group_values import group_values
from rexis.encoding import canonical_json, to_hex
from rexis.errors import BelowThresholdError, MalformedMessageError
from rexis.protocol.contributions import ContributionBundle, ContributionStatement
from rexis.protocol.federation_config import FederationConfig
from rexis.secagg.groups import draw_groups
from rexis.secagg.payloads import MeanUpdate, encode_update
from rexis.secagg.scored_rounds import METRIC, scored_round, values_of
from rexis.secagg.server_steps import server_step
from tests.unit.scored_federations import MEMBERS, SCORES, bundle_of, metrics_of, scored_document, seed_of

CONFIG = FederationConfig.parse(scored_document())


def test_a_config_with_scores_has_one_document() -> None:
    assert CONFIG.document() == scored_document()
    assert CONFIG.scores is not None
    assert CONFIG.digest != FederationConfig.parse(scored_document(scores={**SCORES, "bands": 5})).digest


def training(**changes: Any) -> dict[str, Any]:
    plan: dict[str, Any] = scored_document()["training"]
    return {"training": plan | changes}


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"scores": {**SCORES, "formula": "0x" + 64 * "1"}}, "expected the formula 0x"),
        ({"scores": {**SCORES, "bands": 0}}, "bands: expected an integer of 1 to 16"),
        ({"scores": {**SCORES, "confidence": "1"}}, "confidence: expected 0.5 to 0.999"),
        ({"scores": {**SCORES, "confidence": 0.9}}, "expected a decimal string"),
        ({"scores": {**SCORES, "floor": "1"}}, "a floor of"),
        ({"scores": {**SCORES, "cap": "0"}}, "a cap of"),
        ({"scores": {**SCORES, "more": 1}}, "exactly the fields"),
        ({"groups": {"count": 3, "rule": "median"}}, "expected groups with redrawn"),
        (training(rounds=8), "expected 9 to 1000 rounds for 9 members in 3 groups"),
        (training(rounds=1001), "expected 9 to 1000 rounds"),
        ({"group_pad": True}, "scores and group_pad"),
    ],
)
def test_what_no_score_can_be_computed_from_is_refused(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(MalformedMessageError, match=rule):
        FederationConfig.parse(scored_document(**changes))


def test_scores_need_groups_and_groups_need_twice_as_many_members_as_a_group_has_at_least() -> None:
    without = scored_document()
    del without["groups"]
    with pytest.raises(MalformedMessageError, match="expected groups with redrawn"):
        FederationConfig.parse(without)
    # max(3, t_c + 2) to each of three groups: more than the 2 · max(3, t_c + 2) below which groups are leave-one-outs over rounds.
    with pytest.raises(MalformedMessageError, match=r"max\(3, collusion_bound \+ 2\) members to each"):
        FederationConfig.parse(scored_document(MEMBERS[:8], threshold=5, min_survivors=5))


def test_a_bundle_and_a_statement_have_one_document_each() -> None:
    bundle = bundle_of(CONFIG, b"\1" * 32)
    assert ContributionBundle.parse(json.loads(canonical_json(bundle.document()))) == bundle
    statement = ContributionStatement.of(CONFIG, bundle)
    assert ContributionStatement.parse(json.loads(canonical_json(statement.document()))) == statement
    assert statement.bundle == bundle.digest
    assert [member.rounds for member in statement.members] == [10] * 9
    assert set(statement.bands) == {1}
    assert all(abs(member.score.score - UNIT) < UNIT // 10 for member in statement.members if member.score is not None)


def test_a_site_that_sends_nothing_is_in_band_zero() -> None:
    statement = ContributionStatement.of(CONFIG, bundle_of(CONFIG, idle=1))
    assert statement.bands == (0, *[1] * 8)


def test_three_groups_and_ten_rounds_do_not_tell_two_idle_sites_of_nine_apart() -> None:
    """They then share everybody's band: what an interval does not show is paid. Twenty rounds show it."""
    assert set(ContributionStatement.of(CONFIG, bundle_of(CONFIG, idle=2)).bands) == {1}
    longer = FederationConfig.parse(scored_document(**training(rounds=20)))
    assert ContributionStatement.of(longer, bundle_of(longer, rounds=20, idle=2)).bands == (1, 1, *[2] * 7)


def test_the_bundle_names_who_was_in_the_sums_and_leaves_out_groups_that_could_not_be_read() -> None:
    survivors = [address for address in CONFIG.roster if address != MEMBERS[4]]
    metrics = metrics_of(CONFIG, 3, survivors)
    found = scored_round(CONFIG, 3, seed_of(3), survivors, metrics)
    assert {member for group in found.groups for member in group} == set(survivors)
    spoiled = {**metrics, METRIC: [None, *metrics[METRIC][1:]]}
    assert scored_round(CONFIG, 3, seed_of(3), survivors, spoiled).groups == found.groups[1:]
    for wrong in ([], [1, 2], ["1", 2, 3], [UNIT + 1, 2, 3], [True, 2, 3], None):
        with pytest.raises(MalformedMessageError, match=METRIC):
            scored_round(CONFIG, 3, seed_of(3), survivors, {**metrics, METRIC: wrong})


def test_too_few_rounds_give_no_statement() -> None:
    with pytest.raises(BelowThresholdError, match="degrees of freedom"):
        ContributionStatement.of(CONFIG, bundle_of(CONFIG, rounds=8))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("version", 2),
        ("version", True),
        ("federation", "0x12"),
        ("rounds", {}),
        ("rounds.0.round", 2),
        ("rounds.0.round", 0),
        ("rounds.0.groups", []),
        ("rounds.0.groups.0.value", UNIT + 1),
        ("rounds.0.groups.0.value", 0.5),
        ("rounds.0.groups.0.members", list(MEMBERS[:2])),
        ("rounds.0.groups.0.members", [MEMBERS[1], MEMBERS[0], MEMBERS[2]]),
        ("rounds.0.groups.0.more", 1),
    ],
)
def test_a_bundle_out_of_bounds_is_refused(path: str, value: Any) -> None:
    document = deepcopy(bundle_of(CONFIG).document())
    *folders, name = path.split(".")
    place: Any = document
    for folder in folders:
        place = place[int(folder) if folder.isdigit() else folder]
    place[name] = value
    with pytest.raises(MalformedMessageError):
        ContributionBundle.parse(document)


def test_a_bundle_of_another_federation_gives_no_statement() -> None:
    other = FederationConfig.parse(scored_document(name="other"))
    with pytest.raises(MalformedMessageError, match=to_hex(CONFIG.digest)):
        ContributionStatement.of(CONFIG, bundle_of(other))
    document = bundle_of(CONFIG).document()
    stranger = "0x" + 39 * "0" + "1"
    members = document["rounds"][0]["groups"][0]["members"]
    document["rounds"][0]["groups"][0]["members"] = [stranger, *members[1:]]
    with pytest.raises(MalformedMessageError, match="members of the federation"):
        ContributionStatement.of(CONFIG, ContributionBundle.parse(document))


def test_the_values_of_a_rounds_metrics_are_those_of_the_plain_group_means() -> None:
    generator = np.random.default_rng(0)
    updates = 0.5 + 0.2 * generator.normal(size=(9, 2))
    groups = draw_groups(seed_of(1), 9, 3)
    sums = [
        sum(
            (encode_update(CONFIG, updates[position - 1], examples=20, loss=0.5) for position in group[1:]),
            start=encode_update(CONFIG, updates[group[0] - 1], examples=20, loss=0.5),
        )
        for group in groups
    ]
    assert CONFIG.training is not None
    base = {name: np.zeros(shape, dtype=np.float32) for name, shape in CONFIG.training.model.shapes.items()}
    metrics = server_step(CONFIG, base, b"", sums).metrics
    plain = group_values([np.mean([updates[position - 1] for position in group], axis=0) for group in groups])
    assert metrics[METRIC] == pytest.approx(plain, abs=2)
    # A site that writes nonsense into its slots costs its group its value, and nobody else's group changes places.
    spoiled = [sums[0] * 0, *sums[1:]]
    unscored = FederationConfig.parse({name: value for name, value in scored_document().items() if name != "scores"})
    assert METRIC not in server_step(unscored, base, b"", sums).metrics
    with pytest.raises(BelowThresholdError):
        server_step(CONFIG, base, b"", spoiled)
    assert values_of([None, *[MeanUpdate(updates[group].mean(axis=0), None, 3) for group in ([0, 1, 2], [3, 4, 5])]])[0] is None
