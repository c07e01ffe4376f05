"""Tables and survival counts among agents whose chain, journal and protocol are real: who takes part, what it costs, what is refused."""

from typing import Any

import numpy as np
import pytest

from rexis.agent.federation.founding import FederationPlan
from rexis.agent.federation.membership import fetch_result
from rexis.agent.federation.registry import Registry
from rexis.agent.federation.site_policy import PrivacyCap, SitePolicy
from rexis.encoding import to_hex
from rexis.errors import (
    BelowThresholdError,
    DigestMismatchError,
    MalformedMessageError,
    PolicyError,
    PrivacyBudgetExceededError,
    UnexpectedMessageError,
)
from rexis.protocol.federation_config import FederationConfig
from rexis.secagg.privacy import declared_epsilon, declared_micro
from rexis.secagg.statistics import ContingencyTable, Result, SurvivalCounts
from tests.services.federation_stand_in import COUNTS, Hospital, StandIn, config_of, play

BY_AGE = {"identifier": "table", "dimensions": [{"column": "age", "bands": ["55"]}], "minimum_cell": 5}
BY_SEX = {"identifier": "table", "dimensions": [{"column": "sex", "levels": ["Female", "Male"]}], "minimum_cell": 5}
NOISE = {"mechanism": "skellam", "noise_multiplier": "4", "delta": "0.00001", "epsilon": "2"}
# The tables have no times: how old somebody is does as one.
SURVIVAL = {
    "identifier": "survival",
    "time": "age",
    "event": {"column": "num", "events": ["1"], "censored": ["0"]},
    "edges": ["45", "60", "80"],
    "group": {"column": "sex", "levels": ["Female", "Male"]},
    "privacy": NOISE,
}


def found(stand_in: StandIn, hospitals: list[Hospital], plan: dict[str, Any], **changes: Any) -> bytes:
    protection = {"protection": "secagg+dp"} if "privacy" in plan else {}
    config = config_of(hospitals, "statistics", statistics=plan, **{**protection, **changes})
    return stand_in.found(FederationPlan(FederationConfig.parse(config)))


def played(stand_in: StandIn, hospitals: list[Hospital], plan: dict[str, Any], **changes: Any) -> bytes:
    """A federation that all hospitals joined, after its round."""
    federation = found(stand_in, hospitals, plan, **changes)
    for hospital in hospitals:
        hospital.join(federation)
    stand_in.open_round(federation)
    play(stand_in, federation, hospitals)
    return federation


def allow(hospitals: list[Hospital], **rules: Any) -> None:
    for hospital in hospitals:
        hospital.policy = SitePolicy(**{"cell": 5, **rules})
        hospital.restart()


def result_of(stand_in: StandIn, hospital: Hospital, federation: bytes) -> Result:
    return fetch_result(Registry(stand_in.chain), hospital.client, federation, stand_in.kept[federation].config)


def reasons(hospital: Hospital, federation: bytes) -> list[str]:
    entries = hospital.journal.entries(subject=f"federation {to_hex(federation)}", limit=1000)
    return [str(entry.detail["reason"]) for entry in entries if entry.stage in ("refused", "dropped")]


def test_an_exact_table_is_summed_once_and_no_other_one_about_its_columns(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    with pytest.raises(PolicyError, match="cells of at least 10 rows"):
        hospitals[0].join(found(stand_in, hospitals, BY_AGE, name="below the minimum of the site"))
    allow(hospitals)
    federation = played(stand_in, hospitals, BY_AGE)
    table = result_of(stand_in, hospitals[1], federation)
    assert isinstance(table, ContingencyTable)
    ages = np.array([int(age) for hospital in hospitals for age in hospital.table.column("age")])
    assert table.counts.tolist() == [int((ages < 55).sum()), int((ages >= 55).sum()), 0, 0]
    # The sum of a cut one year further would differ by whoever is 55.
    further = {**BY_AGE, "dimensions": [{"column": "age", "bands": ["56"]}]}
    exact = {name: value for name, value in SURVIVAL.items() if name != "privacy"} | {"minimum_cell": 5}
    for plan in (BY_AGE, further, {**BY_AGE, "dimensions": [*BY_SEX["dimensions"], *BY_AGE["dimensions"]]}, exact):
        with pytest.raises(PolicyError, match="counts of age of data set"):
            hospitals[0].join(found(stand_in, hospitals, plan, name="another"))
    # Another column, moments, and noisy counts say what they say on their own.
    for plan in (BY_SEX, {"identifier": "moments", "scale_bits": 16}, SURVIVAL):
        hospitals[0].join(found(stand_in, hospitals, plan, name="another"))


def test_a_table_that_was_joined_before_the_other_was_answered_is_refused_in_its_round(
    stand_in: StandIn, hospitals: list[Hospital]
) -> None:
    allow(hospitals)
    further = {**BY_AGE, "dimensions": [{"column": "age", "bands": ["56"]}]}
    both = [found(stand_in, hospitals, plan) for plan in (BY_AGE, further)]
    for federation in both:
        for hospital in hospitals:
            hospital.join(federation)
        stand_in.open_round(federation)
    play(stand_in, both[0], hospitals)
    # Its keys and shares were taken meanwhile, and nothing of its table leaves.
    for _ in ("shares", "masked"):
        stand_in.close(both[1])
        for hospital in hospitals:
            hospital.poll()
    for hospital in hospitals:
        assert "counts of age of data set" in reasons(hospital, both[1])[0]
    with pytest.raises(BelowThresholdError):
        stand_in.close(both[1])


def test_a_site_with_a_small_cell_stays_away_and_is_not_asked_for_ever(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    allow(hospitals)
    federation = found(stand_in, hospitals, BY_SEX)
    for hospital in hospitals:
        hospital.join(federation)
    stand_in.open_round(federation)
    stand_in.received.clear()
    hospitals[3].poll()
    assert stand_in.received == []
    (reason,) = reasons(hospitals[3], federation)
    assert "rule on cells" in reason
    # Neither which cell, nor how many are in it.
    assert "4" not in reason
    assert "Male" not in reason
    play(stand_in, federation, hospitals)
    table = result_of(stand_in, hospitals[0], federation)
    assert isinstance(table, ContingencyTable)
    sexes = [sex for hospital in hospitals[:3] for sex in hospital.table.column("sex")]
    assert table.counts.tolist() == [sexes.count("Female"), sexes.count("Male"), 0, 0]
    # Each refusal tells whether a cell is small: the fourth federation that asks gets not even that.
    for number in range(2):
        again = found(stand_in, hospitals, BY_SEX, name=f"again {number}")
        hospitals[3].join(again)
        stand_in.open_round(again)
        hospitals[3].poll()
        assert "rule on cells" in reasons(hospitals[3], again)[0]
    with pytest.raises(PolicyError, match="at most 3 federations that count column 'sex'"):
        hospitals[3].join(found(stand_in, hospitals, BY_SEX, name="once more"))


def test_noisy_survival_counts_are_debited_and_declared_and_a_budget_ends_them(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    config = FederationConfig.parse(config_of(hospitals, "statistics", statistics=SURVIVAL, protection="secagg+dp"))
    whole = declared_epsilon(config, 1)
    assert whole is not None
    allow(hospitals, privacy=PrivacyCap(1.2 * whole, 1e-5))
    federation = played(stand_in, hospitals, SURVIVAL)
    counts = result_of(stand_in, hospitals[0], federation)
    assert isinstance(counts, SurvivalCounts)
    assert Registry(stand_in.chain).declared_loss(federation, 1) == declared_micro(config, 1)
    rows = [(int(age), sex, num) for hospital in hospitals for age, sex, num in hospital.table.rows]
    for group, sex in enumerate(("Female", "Male")):
        plain = [sum(low < age <= high and s == sex and num == "1" for age, s, num in rows) for low, high in ((0, 45), (45, 60), (60, 80))]
        # All four sites' noise: variance 64.
        assert np.abs(counts.events[group] - plain).max() < 6 * 8
    whole_sum = counts.at_risk[:, 0].sum() + counts.left_out
    assert abs(whole_sum - sum(COUNTS)) < 6 * 8 * np.sqrt(15)
    for hospital in hospitals:
        rows_of = hospital.journal.rows("SELECT release FROM privacy_release")
        assert [row["release"] for row in rows_of] == [f"federation {to_hex(federation)} round 1"]
    # Another grid is a release of its own, and there is not enough left for it.
    with pytest.raises(PrivacyBudgetExceededError):
        hospitals[0].join(found(stand_in, hospitals, {**SURVIVAL, "edges": ["46", "60", "80"]}))


def test_an_aggregator_that_shows_another_result_or_another_loss_is_believed_nothing(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    allow(hospitals)
    federation = played(stand_in, hospitals, BY_AGE)
    for lie, error in (
        (lambda content: content.replace(b"cells", b"sells"), MalformedMessageError),
        (lambda content: content + b" ", MalformedMessageError),
        (lambda _content: b'{"cells":[36,35,0,0],"statistic":"table","version":1}', DigestMismatchError),
    ):
        stand_in.lies["/result"] = lie
        with pytest.raises(error):
            result_of(stand_in, hospitals[0], federation)
    stand_in.lies.clear()
    stand_in.declared = lambda _config, _rounds: 0
    noisy = played(stand_in, hospitals, SURVIVAL)
    with pytest.raises(UnexpectedMessageError, match="another loss"):
        result_of(stand_in, hospitals[0], noisy)
    # A model's inputs can be scaled by moments only.
    training = FederationConfig.parse(config_of(hospitals, "training", standardisation=to_hex(federation)))
    scaled = stand_in.found(FederationPlan(training))
    with pytest.raises(UnexpectedMessageError, match="expected moments"):
        hospitals[0].join(scaled)
