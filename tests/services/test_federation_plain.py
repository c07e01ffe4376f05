"""Rounds without masks: by name only, with every rule that is not about masks, and nothing that is guessable beyond the aggregator."""

from typing import Any

import numpy as np
import pytest

from rexis.agent.federation.founding import FederationPlan
from rexis.agent.federation.registry import Registry
from rexis.agent.federation.site_policy import SitePolicy
from rexis.agent.federation.site_states import SiteStates
from rexis.encoding import to_hex
from rexis.errors import (
    BelowThresholdError,
    DigestMismatchError,
    EquivocationError,
    MalformedMessageError,
    PolicyError,
    SignatureError,
    UnexpectedMessageError,
)
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.secagg_messages import Envelope, Stage
from rexis.secagg.payloads import decode_update
from tests.services.federation_stand_in import CHAIN_ID, Hospital, StandIn, config_of, plain_update, play

EVERY = frozenset({"none", "secagg", "secagg+dp", "ee"})


def found(stand_in: StandIn, hospitals: list[Hospital], *, seed: int = 0, **changes: Any) -> bytes:
    config = config_of(hospitals, "training", **{"protection": "none", **changes})
    return stand_in.found(FederationPlan(FederationConfig.parse(config), seed=seed))


def allow(hospital: Hospital) -> None:
    hospital.policy = SitePolicy(protections=EVERY)
    hospital.restart()


@pytest.fixture
def willing(hospitals: list[Hospital]) -> list[Hospital]:
    for hospital in hospitals:
        allow(hospital)
    return hospitals


def joined(stand_in: StandIn, hospitals: list[Hospital], **changes: Any) -> bytes:
    federation = found(stand_in, hospitals, **changes)
    for hospital in hospitals:
        hospital.join(federation)
    return federation


def test_rounds_without_masks_are_federated_averaging_with_whoever_uploads(stand_in: StandIn, willing: list[Hospital]) -> None:
    federation = joined(stand_in, willing)
    for absent in ({}, {"masked": [2]}):
        kept = stand_in.kept[federation]
        present = [hospital for i, hospital in enumerate(willing) if i not in absent.get("masked", ())]
        updates = [plain_update(hospital, kept.config, kept.model, kept.content) for hospital in present]
        attempt = stand_in.open_round(federation)
        deadlines = attempt.manifest.deadlines
        assert deadlines.keys == deadlines.shares == deadlines.masked - kept.config.stage_s
        stand_in.received.clear()
        play(stand_in, federation, willing, absent=absent)
        mean = decode_update(kept.config, kept.sums[-1])
        expected = sum(weight * delta for delta, weight in updates) / sum(weight for _, weight in updates)
        assert np.abs(mean.delta - expected).max() < 1e-8
        assert {stage for _, stage, _ in stand_in.received} == {"relay", "part", "masked"}
    assert Registry(stand_in.chain).federation(federation).round == 3
    # An operator reads in every round what it gives away.
    told = [event.detail for event in willing[0].events if event.what == "takes part"]
    assert [(detail["round"], detail["protection"], detail["privacy"]) for detail in told] == [(n, "none", "no bound") for n in (1, 2)]
    assert told[0]["protection_means"] == "the aggregator sees the update of every single institution"


def test_what_a_plan_may_have_beside_it_works_without_masks_too(stand_in: StandIn, willing: list[Hospital]) -> None:
    network = {"version": 1, "family": "mlp", "config": {"inputs": 2, "hidden": [3], "outputs": 1, "activation": "tanh"}}
    parts = {
        "model": network,
        "strategy": {"name": "scaffold", "learning_rate": "1"},
        "personal": ["2."],
        "stopping": {"holdout": "0.1", "patience": 9, "improvement": "0"},
    }
    federation = joined(stand_in, willing, **parts)
    kept = stand_in.kept[federation]
    for absent in ({"masked": [1]}, {}):
        stand_in.open_round(federation)
        play(stand_in, federation, willing, absent=absent)
    first, last = (decode_update(kept.config, total) for total in kept.sums)
    assert first.variates is not None
    assert first.holdout_weight is not None
    assert last.weight > first.weight
    plan = kept.config.training
    assert plan is not None
    # Who was away in the first round has the founder's last layer still, and went on from zero.
    states = [SiteStates(hospital.journal).undecided(federation) for hospital in willing]
    assert states == [[2]] * 4
    assert SiteStates(willing[1].journal).current(federation, plan) is None
    assert SiteStates(willing[0].journal).current(federation, plan) is not None


def test_a_site_takes_part_only_if_its_policy_names_it(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    federation = found(stand_in, hospitals)
    with pytest.raises(PolicyError, match=r"rule of this site on protections: expected secagg, secagg\+dp, the federation has none"):
        hospitals[0].join(federation)
    for hospital in hospitals:
        allow(hospital)
        hospital.join(federation)
    # It joined, and thought better of it.
    hospitals[0].policy = SitePolicy()
    hospitals[0].restart()
    stand_in.open_round(federation)
    stand_in.received.clear()
    hospitals[0].poll()
    assert stand_in.received == []
    (entry,) = hospitals[0].journal.entries(subject=f"federation {to_hex(federation)}", limit=1)
    assert "rule of this site on protections" in entry.detail["reason"]


def test_what_members_and_chain_see_of_a_vector_is_salted(stand_in: StandIn, willing: list[Hospital]) -> None:
    federation = joined(stand_in, willing)
    attempt = stand_in.open_round(federation)
    for hospital in willing:
        hospital.poll()
    config, kept = stand_in.kept[federation].config, stand_in.kept[federation]
    assert kept.attempt is not None
    salts = set()
    for hospital in willing:
        vector, sent = hospital.records.vector(config, attempt.manifest), kept.attempt.uploads[hospital.signer.address]
        assert vector is not None
        assert sent[: vector.nbytes] == vector.tobytes()
        assert len(sent) == vector.nbytes + 32
        salts.add(sent[vector.nbytes :])
    assert len(salts) == len(willing)
    # The salts are not in the sum that becomes the model.
    stand_in.close(federation)
    stand_in.close(federation)
    (total,) = kept.sums
    vectors = [hospital.records.vector(config, attempt.manifest) for hospital in willing]
    assert (total == sum(vector for vector in vectors if vector is not None)).all()


class Cut(Exception):
    """The process ends here."""


def cut(hospital: Hospital, method: str, ending: str) -> None:
    """Stop the agent before a call leaves."""

    def before(called: str, path: str, _content: bytes | None) -> None:
        if called == method and ending in path:
            raise Cut

    hospital.line.before = before


@pytest.mark.parametrize(
    ("method", "where"), [("GET", "/model"), ("POST", "relays"), ("POST", "uploads"), ("PUT", "/parts/"), ("PUT", "/messages/masked")]
)
def test_an_agent_that_is_killed_anywhere_sends_the_same_bytes(stand_in: StandIn, willing: list[Hospital], method: str, where: str) -> None:
    federation, victim = joined(stand_in, willing), willing[0]
    attempt = stand_in.open_round(federation)
    cut(victim, method, where)
    with pytest.raises(Cut):
        victim.poll()
    victim.line.before = lambda *_: None
    for _ in range(3):
        victim.restart()
        victim.poll()
    messages = [content for sender, stage, content in stand_in.received if (sender, stage) == (victim.signer.address, "masked")]
    assert len(set(messages)) == 1
    for hospital in willing[1:]:
        hospital.poll()
    stand_in.close(federation)
    stand_in.close(federation)
    vector = stand_in.kept[federation].sums[0]
    assert decode_update(stand_in.kept[federation].config, vector).weight > 0
    assert Registry(stand_in.chain).federation(federation).round == attempt.manifest.round + 1


def test_a_later_attempt_gets_the_same_vector_and_no_other_federation_an_update_of_that_model(
    stand_in: StandIn, willing: list[Hospital]
) -> None:
    federation, other = joined(stand_in, willing), found(stand_in, willing, name="another", protection="secagg")
    attempt = stand_in.open_round(federation)
    for hospital in willing[:2]:
        hospital.poll()
    assert attempt.coordinator.awaited == tuple(stand_in.kept[federation].config.roster[2:])
    first = dict(attempt.uploads)
    with pytest.raises(BelowThresholdError):
        attempt.coordinator.close_masked()
    stand_in.abandon(federation)
    again = stand_in.open_round(federation)
    for hospital in willing:
        hospital.poll()
    for address, sent in first.items():
        assert again.uploads[address][:-32] == sent[:-32]
        assert again.uploads[address][-32:] != sent[-32:]
    # What the aggregator of the one has of this model in plain, it could subtract from the sums of the other.
    with pytest.raises(PolicyError, match="never trains twice on one model"):
        willing[0].join(other)
    stand_in.close(federation)
    stand_in.close(federation)
    with pytest.raises(PolicyError, match="never trains twice on one model"):
        willing[0].join(other)


def test_an_aggregator_that_ends_the_stage_early_or_shows_other_deadlines_gets_nothing(stand_in: StandIn, willing: list[Hospital]) -> None:
    federation = joined(stand_in, willing)
    attempt = stand_in.open_round(federation)

    def lie(value: Any) -> Any:
        value["items"][0]["manifest"]["deadlines"]["keys"] -= 1
        return value

    stand_in.lies["/work"] = lie
    stand_in.received.clear()
    willing[0].poll()
    assert stand_in.received == []
    stand_in.lies.clear()
    attempt.stage = "keys"
    willing[1].poll()
    assert stand_in.received == []


def test_hostile_uploads_are_refused_or_stay_out_of_the_sum(stand_in: StandIn, willing: list[Hospital]) -> None:
    federation = joined(stand_in, willing)
    attempt = stand_in.open_round(federation)
    for hospital in willing:
        hospital.poll()
    coordinator, victim = attempt.coordinator, willing[0].signer
    (honest,) = (Envelope.parse(content) for sender, stage, content in stand_in.received if (sender, stage) == (victim.address, "masked"))

    def forged(hospital: Hospital, **changes: Any) -> Envelope:
        unsigned = Envelope(Stage.MASKED, honest.ctx, hospital.signer.address, {**honest.payload, **changes})
        signature = hospital.signer.sign_typed_data(unsigned.typed_data(CHAIN_ID, stand_in.registry))
        return Envelope(Stage.MASKED, honest.ctx, unsigned.sender, unsigned.payload, signature)

    coordinator.receive(honest)
    with pytest.raises(EquivocationError, match="the first one counts"):
        coordinator.receive(forged(willing[0], digest="0x" + "ab" * 32))
    with pytest.raises(SignatureError):
        coordinator.receive(Envelope(Stage.MASKED, honest.ctx, honest.sender, {**honest.payload, "upload": "other"}, honest.signature))
    fresh = type(coordinator)(coordinator.terms)
    with pytest.raises(MalformedMessageError, match="entries of 32 bits"):
        fresh.receive(forged(willing[1], length=honest.payload["length"] - 8))
    keys = Envelope(Stage.KEYS, honest.ctx, victim.address, {"position": 1, "mask": "0x" + "01" * 32, "encryption": "0x" + "02" * 32})
    with pytest.raises(UnexpectedMessageError, match="stage masked"):
        fresh.receive(keys)
    # Other bytes than were announced: the sum is void, and the owner is named.
    stand_in.close(federation)
    attempt.uploads[victim.address] = attempt.uploads[victim.address][:-1] + b"\0"
    with pytest.raises(DigestMismatchError, match=victim.address):
        stand_in.close(federation)
