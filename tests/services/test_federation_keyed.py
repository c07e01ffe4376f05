"""Rounds under the members' key: the aggregator has neither an update nor a model, and the members have what plain averaging gives."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest

from rexis.agent.federation.contribution import model_file_spec, read_model
from rexis.agent.federation.founding import FederationPlan
from rexis.agent.federation.group_keys import GroupKeys
from rexis.agent.federation.keyed_updates import opened_model, update_key
from rexis.agent.federation.membership import fetch_model
from rexis.agent.federation.registry import Registry
from rexis.agent.federation.site_policy import SitePolicy
from rexis.agent.journal import Journal
from rexis.errors import MalformedMessageError, PolicyError, UnexpectedMessageError
from rexis.protocol.batch import digest_file, read_file
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.group_keys import recipients_of
from rexis.secagg.payloads import decode_update
from rexis.secagg.server_steps import flatten
from tests.services.federation_stand_in import FOUNDER, Hospital, Line, StandIn, config_of, plain_update, play

KEYED: dict[str, Any] = {"protection": "ee", "collusion_bound": 0}
MOMENTUM = {"name": "fedavgm", "learning_rate": "0.5", "momentum": "0.5"}


def founded(stand_in: StandIn, hospitals: list[Hospital], **changes: Any) -> bytes:
    return stand_in.found(FederationPlan(FederationConfig.parse(config_of(hospitals, "training", **KEYED, **changes))))


def allow(hospital: Hospital) -> None:
    hospital.policy = SitePolicy(protections=frozenset({"ee"}))
    hospital.restart()


def agreed(stand_in: StandIn, hospitals: list[Hospital], founder: Journal, **changes: Any) -> bytes:
    """A federation that everybody joined, and has the key of."""
    federation, registry = founded(stand_in, hospitals, **changes), Registry(stand_in.chain)
    config = stand_in.kept[federation].config
    for hospital in hospitals:
        allow(hospital)
        hospital.join(federation)
    late = iter(range(0, 10_000, 100))
    keys = [
        GroupKeys(journal, signer, registry, line, clock=lambda: float(next(late)))
        for journal, signer, line in [
            (founder, FOUNDER, Line(stand_in, FOUNDER.address)),
            *((each.journal, each.signer, each.line) for each in hospitals),
        ]
    ]
    assert len(keys) == len(recipients_of(config))
    for _ in range(4):
        found = [each.agree(federation, config) for each in keys]
    assert len(set(found)) == 1
    assert found[0] is not None
    return federation


@pytest.fixture
def founder(tmp_path: Any) -> Any:
    with Journal.open(tmp_path / "founder.sqlite", "a passphrase for tests", work_factor=2) as journal:
        yield journal


def test_keyed_rounds_are_federated_averaging_for_members_and_founder_and_the_aggregator_has_neither_update_nor_model(
    stand_in: StandIn, hospitals: list[Hospital], founder: Journal
) -> None:
    federation = agreed(stand_in, hospitals, founder, strategy=MOMENTUM)
    kept = stand_in.kept[federation]
    plan = kept.config.training
    assert plan is not None
    assert not any(read_model(plan, kept.content, kept.model)[name].any() for name in plan.model.shapes)
    momentum, journal = np.zeros(plan.parameters), hospitals[0].journal
    for absent in ({}, {"masked": [1]}):
        base = opened_model(journal, federation, plan, kept.content, kept.model)
        record = digest_file(BytesIO(base), model_file_spec(plan), len(base)).record
        present = [hospital for i, hospital in enumerate(hospitals) if i not in absent.get("masked", ())]
        updates = [plain_update(hospital, kept.config, record, base) for hospital in present]
        stand_in.open_round(federation)
        play(stand_in, federation, hospitals, absent=absent)
        expected = sum(weight * delta for delta, weight in updates) / sum(weight for _, weight in updates)
        seen = decode_update(kept.config, kept.sums[-1])
        key = update_key(journal, federation, plan)
        assert np.abs(seen.delta - key.keyed(expected)).max() < 1e-8
        assert np.abs(seen.delta - expected).max() > 1e-3
        momentum = 0.5 * momentum + expected
        content, on_chain = fetch_model(Registry(stand_in.chain), hospitals[2].client, federation, kept.config)
        found = opened_model(hospitals[2].journal, federation, plan, content, on_chain)
        tensors = read_file(BytesIO(found), model_file_spec(plan), len(found))
        before = flatten(plan, read_file(BytesIO(base), model_file_spec(plan), len(base)))
        assert np.abs(flatten(plan, tensors) - (before + 0.5 * momentum)).max() < 1e-6
        assert opened_model(founder, federation, plan, content, on_chain) == found
    assert [event.detail["protection"] for event in hospitals[0].events if event.what == "takes part"] == ["ee", "ee"]


def test_federations_begin_from_one_record_and_train_on_different_models(
    stand_in: StandIn, hospitals: list[Hospital], founder: Journal
) -> None:
    first, second = (agreed(stand_in, hospitals, founder, name=name) for name in ("first", "second"))
    one, other = stand_in.kept[first], stand_in.kept[second]
    assert one.model == other.model
    for federation in (first, second):
        stand_in.open_round(federation)
        play(stand_in, federation, hospitals)
        assert Registry(stand_in.chain).federation(federation).round == 2
    plan = one.config.training
    assert plan is not None
    models = [update_key(hospitals[0].journal, each, plan).initial()["0.weight"] for each in (first, second)]
    assert np.abs(models[0] - models[1]).max() > 1e-3
    rows = [row["base_model"] for row in hospitals[0].journal.rows("SELECT base_model FROM attempt")]
    assert len(set(rows)) == 2


def test_a_site_without_the_key_or_whose_policy_does_not_name_it_sends_nothing(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    federation = founded(stand_in, hospitals)
    with pytest.raises(PolicyError, match=r"rule of this site on protections: expected secagg, secagg\+dp, the federation has ee"):
        hospitals[0].join(federation)
    allow(hospitals[0])
    hospitals[0].join(federation)
    stand_in.open_round(federation)
    stand_in.received.clear()
    hospitals[0].poll()
    # Its public key, so that somebody can deal it one; nothing of the round.
    assert {what for _, what, _ in stand_in.received} == {"recipient"}
    kept = stand_in.kept[federation]
    plan = kept.config.training
    assert plan is not None
    with pytest.raises(UnexpectedMessageError, match="no group key"):
        opened_model(hospitals[0].journal, federation, plan, kept.content, kept.model)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"strategy": {"name": "fedadam", "learning_rate": "1", "beta1": "0.5", "beta2": "0.5", "tau": "0.1"}}, "fedadam"),
        ({"strategy": {"name": "scaffold", "learning_rate": "1"}}, "scaffold"),
        ({"personal": ["0.bias"]}, "personal"),
        ({"stopping": {"holdout": "0.2", "patience": 1, "improvement": "0"}}, "stopping"),
        ({"collusion_bound": 1}, "reads every update"),
        ({"group_pad": True}, "without group_pad"),
    ],
)
def test_what_the_key_does_not_go_with_is_refused_by_name(hospitals: list[Hospital], changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(MalformedMessageError, match=reason):
        FederationConfig.parse(config_of(hospitals, "training", **(KEYED | changes)))
