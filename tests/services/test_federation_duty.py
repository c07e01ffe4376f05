"""An institution's agent against an aggregator that stops anywhere and lies about anything; chain, journal and protocol are real."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rexis.agent.federation.founding import FederationPlan
from rexis.agent.federation.registry import Registry
from rexis.agent.federation.site_policy import SitePolicy
from rexis.agent.journal import Journal
from rexis.chain.connection import Chain
from rexis.chain.deployments import load
from rexis.encoding import to_hex
from rexis.errors import BelowThresholdError, DigestMismatchError, PolicyError, RexisError, UnexpectedMessageError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.manifest import Manifest
from rexis.secagg.graph import neighbours
from rexis.secagg.payloads import decode_update, update_encoding
from tests.services.federation_stand_in import (
    AGGREGATOR,
    CHAIN_ID,
    COUNTS,
    FOUNDER,
    HMB,
    HOSPITALS,
    PASSPHRASE,
    Hospital,
    StandIn,
    config_of,
    moments_of,
    plain_update,
    play,
    problem,
    send,
)


def found(stand_in: StandIn, config: dict[str, Any], *, seed: int | None = 0, **changes: Any) -> bytes:
    return stand_in.found(FederationPlan(FederationConfig.parse(config), seed=seed), **changes)


def joined(stand_in: StandIn, hospitals: list[Hospital], kind: str = "training", **changes: Any) -> bytes:
    """A federation that all hospitals joined."""
    federation = found(stand_in, config_of(hospitals, kind, **changes))
    for hospital in hospitals:
        hospital.join(federation)
    return federation


def test_a_round_with_a_drop_out_gives_the_plain_weighted_mean_of_those_who_stayed(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    federation = joined(stand_in, hospitals)
    for absent in ({}, {"masked": [1], "unmask": [1]}, {"shares": [2], "masked": [2], "unmask": [2]}):
        kept = stand_in.kept[federation]
        present = [hospital for i, hospital in enumerate(hospitals) if i not in absent.get("masked", ())]
        updates = [plain_update(hospital, kept.config, kept.model, kept.content) for hospital in present]
        stand_in.open_round(federation)
        play(stand_in, federation, hospitals, absent=absent)
        expected = sum(weight * delta for delta, weight in updates) / sum(weight for _, weight in updates)
        mean = decode_update(kept.config, kept.sums[-1])
        # Half a step of each site; what is missing in it says that nobody's update was lost or changed.
        assert np.abs(mean.delta - expected).max() < 1e-8
        assert mean.weight == sum(weight for _, weight in updates)
    assert Registry(stand_in.chain).federation(federation).round == 4


def test_a_compressed_round_takes_two_bytes_an_entry_and_the_vector_that_was_stored_first(
    stand_in: StandIn, hospitals: list[Hospital]
) -> None:
    federation = joined(stand_in, hospitals, ring_bits=16)
    kept = stand_in.kept[federation]
    updates = [plain_update(hospital, kept.config, kept.model, kept.content) for hospital in hospitals]
    attempt = stand_in.open_round(federation)
    for hospital in hospitals:
        hospital.poll()
        # Rounding is at random: another vector, after the first was committed to, would be refused.
        hospital.restart()
    vectors = [hospital.records.vector(kept.config, attempt.manifest) for hospital in hospitals]
    play(stand_in, federation, hospitals)
    total = sum((vector for vector in vectors if vector is not None), np.zeros(kept.config.length, dtype=np.uint16))
    assert kept.sums[-1].tolist() == total.tolist()
    assert {len(upload) for upload in attempt.uploads.values()} == {2 * (3 + 2 * 5)}
    mean = decode_update(kept.config, kept.sums[-1])
    assert mean.weight == sum(weight for _, weight in updates)
    expected = sum(weight * delta for delta, weight in updates) / mean.weight
    assert np.abs(mean.delta - expected).max() < len(hospitals) * 40 / update_encoding(kept.config).scale / mean.weight


def test_the_block_that_opened_an_attempt_orders_the_neighbours_and_an_aggregator_has_one_only(
    stand_in: StandIn, hospitals: list[Hospital]
) -> None:
    federation = joined(stand_in, hospitals, degree=2)
    kept = stand_in.kept[federation]
    updates = [plain_update(hospital, kept.config, kept.model, kept.content) for hospital in hospitals]
    attempt = stand_in.open_round(federation)
    registry = Registry(stand_in.chain)
    seen, latest = registry.federation(federation), registry.block_number()
    assert registry.opening_block(federation, seen, since=latest) == attempt.graph_seed != bytes(32)
    # It can not have the attempt opened again in a block that suits it, nor another one before the deadline of this one.
    deadlines = attempt.manifest.deadlines
    for number in (attempt.manifest.attempt, attempt.manifest.attempt + 1):
        again = (federation, attempt.manifest.round, number, attempt.manifest.digest, deadlines.masked, deadlines.abandon)
        with pytest.raises(AssertionError, match="openRound"):
            send(stand_in.chain, AGGREGATOR, "FederationRegistry", "openRound", *again)
    with pytest.raises(AssertionError, match="abandon"):
        send(stand_in.chain, AGGREGATOR, "FederationRegistry", "abandon", federation, 1, 1)
    play(stand_in, federation, hospitals)
    mean = decode_update(kept.config, kept.sums[-1])
    expected = sum(weight * delta for delta, weight in updates) / sum(weight for _, weight in updates)
    assert np.abs(mean.delta - expected).max() < 1e-8


def test_an_aggregator_that_orders_the_neighbours_by_another_block_gets_no_sum(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    federation = joined(stand_in, hospitals, degree=2)
    attempt = stand_in.open_round(federation)
    roster = range(1, len(hospitals) + 1)
    honest = neighbours(roster, 2, attempt.graph_seed)
    attempt.graph_seed = next(seed for seed in (bytes([n]) * 32 for n in range(64)) if neighbours(roster, 2, seed) != honest)
    for _ in ("keys", "shares"):
        for hospital in hospitals:
            hospital.poll()
        if attempt.stage == "keys":
            stand_in.close(federation)
    # What they sealed is for the neighbours that their own nodes name.
    with pytest.raises(BelowThresholdError):
        stand_in.close(federation)


def test_two_federations_run_at_once_on_a_standardised_table(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    statistic = joined(stand_in, hospitals, "statistics")
    stand_in.open_round(statistic)
    play(stand_in, statistic, hospitals)
    moments = moments_of(stand_in, statistic)
    together = np.concatenate([_inputs(stand_in, statistic, hospital) for hospital in hospitals])
    assert moments.count == sum(COUNTS)
    assert np.allclose(moments.mean, together.mean(axis=0), atol=1e-3)
    assert np.allclose(moments.sd, together.std(axis=0), atol=1e-3)

    scaled = {"standardisation": to_hex(statistic), "clipping_norm": "8"}
    network = {"version": 1, "family": "mlp", "config": {"inputs": 2, "hidden": [4], "outputs": 1, "activation": "relu"}}
    both = [joined(stand_in, hospitals, name="a", **scaled), joined(stand_in, hospitals, name="b", model=network, **scaled)]
    for federation in both:
        stand_in.open_round(federation)
    for _ in ("keys", "shares", "masked", "unmask"):
        for hospital in hospitals:
            hospital.poll()
        for federation in both:
            stand_in.close(federation)
    assert [Registry(stand_in.chain).federation(federation).round for federation in both] == [2, 2]
    weight = 24 + 32 + 24 + 16
    assert [decode_update(stand_in.kept[each].config, stand_in.kept[each].sums[0]).weight for each in both] == [weight, weight]


def _inputs(stand_in: StandIn, federation: bytes, hospital: Hospital) -> Any:
    return stand_in.kept[federation].config.features.encode(hospital.table.columns, hospital.table.rows).inputs


@pytest.mark.parametrize("ending", ["messages/keys", "messages/shares", "parts/1", "messages/masked", "messages/unmask", "/relays"])
def test_an_agent_killed_between_persisting_and_sending_sends_the_same_bytes_later(
    stand_in: StandIn, hospitals: list[Hospital], ending: str, rpc_url: str, tmp_path: Path
) -> None:
    federation = joined(stand_in, hospitals)
    stand_in.open_round(federation)
    victim, note = hospitals[0], tmp_path / "killed-with"
    for stage in ("keys", "shares", "masked", "unmask"):
        if ending.endswith(stage) or (stage, ending) in (("masked", "parts/1"), ("keys", "/relays")):
            victim.stop()
            if (pid := os.fork()) == 0:
                _die_sending(victim, ending, rpc_url, note)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
            victim.start()
            if stage == "unmask":
                # Once a share may have left, no other attempt of this round may get anything.
                assert victim.records.unended()[0].stage == "answered"
            before = len(stand_in.received)
            # The work goes on while it is away.
            for hospital in hospitals[1:]:
                hospital.poll()
            victim.poll()
            sent = {content for _, _, content in stand_in.received[before:]}
            assert note.read_bytes() in sent
        for hospital in hospitals:
            hospital.poll()
        stand_in.close(federation)
    assert Registry(stand_in.chain).federation(federation).round == 2


def _die_sending(victim: Hospital, ending: str, rpc_url: str, note: Path) -> None:
    """In a child process: an agent that is killed at the moment when its message would leave."""
    torch.set_num_threads(1)
    victim.chain = victim.line.stand_in.chain = Chain.connect(rpc_url, load(CHAIN_ID))
    victim.start()

    def die(method: str, path: str, content: bytes | None) -> None:
        if method in ("PUT", "POST") and path.endswith(ending):
            note.write_bytes(content or b"")
            os.kill(os.getpid(), signal.SIGKILL)

    victim.line.before = die
    victim.poll()
    os._exit(0)


def test_after_a_restart_another_attempt_masks_the_same_vector_and_the_old_one_stays_shut(
    stand_in: StandIn, hospitals: list[Hospital]
) -> None:
    federation = joined(stand_in, hospitals)
    stand_in.open_round(federation)
    for _ in ("keys", "shares"):
        for hospital in hospitals:
            hospital.poll()
        stand_in.close(federation)
    for hospital in hospitals:
        hospital.poll()
    vectors = [hospital.records.vector(stand_in.kept[federation].config, hospital.records.unended()[0].manifest) for hospital in hospitals]
    stand_in.abandon(federation)
    second = stand_in.open_round(federation)
    for hospital in hospitals:
        hospital.restart()
    play(stand_in, federation, hospitals)
    assert second.manifest.attempt == 2
    total = np.zeros_like(vectors[0])
    for vector in vectors:
        total += vector
    assert (stand_in.kept[federation].sums[0] == total).all()
    for hospital in hospitals:
        first = hospital.records.attempt(federation, 1, 1)
        assert first is not None
        assert (first.stage, first.sealed_state) == ("dropped", None)


def test_secrets_are_gone_when_an_attempt_is_over_and_the_vector_with_the_round(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    federation = joined(stand_in, hospitals)
    stand_in.open_round(federation)
    play(stand_in, federation, hospitals)
    hospital = hospitals[0]
    assert hospital.records.unended() != []
    hospital.restart()
    hospital.poll()
    assert hospital.records.unended() == []
    assert hospital.journal.rows("SELECT * FROM round_vector") == []
    over = hospital.records.attempt(federation, 1, 1)
    assert over is not None
    assert (over.stage, over.sealed_state) == ("answered", None)
    # What later attempts must know of it stays.
    assert hospital.journal.rows("SELECT 1 FROM attempt WHERE sealed_record IS NOT NULL") != []


def test_the_journal_and_its_entries_tell_no_count_loss_or_vector(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    federation = joined(stand_in, hospitals)
    stand_in.open_round(federation)
    play(stand_in, federation, hospitals)
    hospitals[0].poll()
    entries = hospitals[0].journal.entries(limit=1000)
    names = {name for entry in entries if entry.subject.startswith("federation") for name in entry.detail}
    assert names == {"config", "round", "attempt", "ctx"}


def refused(hospital: Hospital, federation: bytes) -> str:
    """The reason that the journal gives for not going on."""
    entries = hospital.journal.entries(subject=f"federation {to_hex(federation)}", limit=1000)
    reasons = [str(entry.detail["reason"]) for entry in entries if entry.stage in ("refused", "dropped")]
    assert len(reasons) == 1, [entry.stage for entry in entries]
    return reasons[0]


def sent_by(stand_in: StandIn, hospital: Hospital) -> list[str]:
    return [what for caller, what, _ in stand_in.received if caller == hospital.signer.address]


def test_a_manifest_that_is_not_the_one_on_chain_is_refused(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    federation = joined(stand_in, hospitals)
    stand_in.open_round(federation)

    def longer(work: Any) -> Any:
        for item in work["items"]:
            item["manifest"]["deadlines"]["unmask"] += 1
        return work

    stand_in.lies["/work"] = longer
    hospitals[0].poll()
    assert "manifest of round 1" in refused(hospitals[0], federation)
    stand_in.lies.clear()
    hospitals[0].poll()
    assert sent_by(stand_in, hospitals[0]) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"min_survivors": 2}, "min_survivors"),
        ({"roster": [each.address for each in HOSPITALS[:3]]}, "roster"),
        ({"base_model": to_hex(b"m" * 32)}, "base_model"),
        ({"clipping_norm": "100"}, "clipping_norm"),
    ],
)
def test_a_manifest_on_chain_that_does_not_follow_from_the_config_is_refused(
    stand_in: StandIn, hospitals: list[Hospital], change: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = joined(stand_in, hospitals)
    honest = Manifest.of

    def of(*arguments: Any, **given: Any) -> Manifest:
        return Manifest.parse({**honest(*arguments, **given).document(), **change})

    with monkeypatch.context() as patch:
        # The aggregator's, which signs what it likes; the agents compute their own again below.
        patch.setattr(Manifest, "of", of)
        attempt = stand_in.open_round(federation)
    assert Registry(stand_in.chain).federation(federation).manifest_hash == attempt.manifest.digest
    hospitals[0].poll()
    assert named in refused(hospitals[0], federation)
    assert sent_by(stand_in, hospitals[0]) == []


def test_another_model_than_stands_on_chain_is_not_trained_on(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    federation = joined(stand_in, hospitals)
    other = FederationPlan(stand_in.kept[federation].config, seed=99).initial
    stand_in.open_round(federation)
    stand_in.lies["/initial-model"] = lambda _content: other
    hospitals[0].poll()
    assert "global model" in refused(hospitals[0], federation)
    assert sent_by(stand_in, hospitals[0]) == ["keys"]


def test_other_survivors_than_stand_on_chain_get_no_share(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    federation = joined(stand_in, hospitals)
    stand_in.open_round(federation)
    for _ in ("keys", "shares", "masked"):
        for hospital in hospitals:
            hospital.poll()
        stand_in.close(federation)
    stand_in.lies["messages/masked"] = lambda value: {"messages": value["messages"][1:]} if value is not None else None
    hospitals[0].poll()
    assert "chain fixed survivors" in refused(hospitals[0], federation)
    stand_in.lies.clear()
    hospitals[0].poll()
    assert "unmask" not in sent_by(stand_in, hospitals[0])


def test_a_grant_that_was_revoked_between_stages_keeps_the_vector_here(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    federation = joined(stand_in, hospitals)
    stand_in.open_round(federation)
    for _ in ("keys", "shares"):
        for hospital in hospitals:
            hospital.poll()
        stand_in.close(federation)
    send(stand_in.chain, hospitals[0].signer, "AccessManager", "revoke", hospitals[0].dataset, FOUNDER.address, HMB)
    hospitals[0].poll()
    assert "rule on access" in refused(hospitals[0], federation)
    assert sent_by(stand_in, hospitals[0]) == ["keys", "relay", "shares"]


def test_a_commitment_that_the_chain_refuses_for_now_is_handed_in_again_and_is_the_same(
    stand_in: StandIn, hospitals: list[Hospital], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rexis.agent.federation.update_commitments.COMMIT_AGAIN_S", -1.0)
    federation = joined(stand_in, hospitals)
    attempt = stand_in.open_round(federation)
    calls: list[bytes | None] = []

    def behind(_method: str, path: str, content: bytes | None) -> None:
        if path == "/v1/relays":
            calls.append(content)
            if len(calls) == 1:
                raise problem(409, "contract-reverted")

    hospitals[0].line.before = behind
    ctx, registry = attempt.coordinator.terms.ctx, Registry(stand_in.chain)
    hospitals[0].poll()
    assert not any(registry.commitment(ctx, hospitals[0].signer.address))
    hospitals[0].restart()
    hospitals[0].poll()
    assert any(registry.commitment(ctx, hospitals[0].signer.address))
    assert calls == [calls[0]] * 2
    play(stand_in, federation, hospitals)


def test_no_second_federation_starts_from_a_model_that_was_trained_on(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    first = joined(stand_in, hospitals, name="first")
    stand_in.open_round(first)
    play(stand_in, first, hospitals)
    # Three of the four: the difference of the two sums would be the fourth's update.
    second = found(stand_in, config_of(hospitals[:3], "training", name="second"))
    with pytest.raises(PolicyError, match="another seed"):
        hospitals[0].join(second)
    # Joined before the first one was summed, it is refused in the round.
    hospitals[0].records.join(second, stand_in.kept[second].config, hospitals[0].records.membership(first).content_root)
    stand_in.open_round(second)
    stand_in.received.clear()
    hospitals[0].poll()
    assert "never twice" in refused(hospitals[0], second)
    assert stand_in.received == []


def test_a_federation_that_was_not_joined_gets_nothing(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    federation = found(stand_in, config_of(hospitals, "training"))
    stand_in.open_round(federation)
    hospitals[0].poll()
    assert stand_in.received == []


def test_a_statistic_of_a_data_set_is_answered_for_one_federation_only(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    first = joined(stand_in, hospitals, "statistics")
    # The same columns summed by three instead of four would give the fourth's away.
    second = found(stand_in, config_of(hospitals[:3], "statistics"))
    hospitals[0].join(second)
    stand_in.open_round(first)
    play(stand_in, first, hospitals)
    with pytest.raises(PolicyError, match="answered once"):
        hospitals[1].join(second)
    stand_in.open_round(second)
    stand_in.received.clear()
    hospitals[0].poll()
    assert "answered once" in refused(hospitals[0], second)
    assert stand_in.received == []


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"collusion_bound": 0}, PolicyError, "collusion bound"),
        ({"threshold": 2, "min_survivors": 3}, UnexpectedMessageError, "could be exposed"),
        ({"purpose": 42}, PolicyError, "rule on access"),
    ],
)
def test_a_federation_against_the_rules_is_not_joined(
    stand_in: StandIn, hospitals: list[Hospital], change: dict[str, Any], error: type[RexisError], words: str
) -> None:
    config = FederationConfig.parse(config_of(hospitals, "training", **change))
    plan = FederationPlan(FederationConfig.parse(config_of(hospitals, "training")))
    plan.config = config
    federation = stand_in.found(plan)
    with pytest.raises(error, match=words):
        hospitals[0].join(federation)
    assert stand_in.kept[federation].joined == set()
    assert hospitals[0].records.membership(federation) is None


@pytest.mark.parametrize(
    ("founding", "words"),
    [
        ({"participants": [each.address for each in HOSPITALS[:3]]}, "roster"),
        ({"minSurvivors": 4}, "min_survivors"),
        ({"aggregators": [FOUNDER.address]}, AGGREGATOR.address),
    ],
)
def test_a_federation_that_was_founded_otherwise_than_its_config_says_is_not_joined(
    stand_in: StandIn, hospitals: list[Hospital], founding: dict[str, Any], words: str
) -> None:
    federation = found(stand_in, config_of(hospitals, "training"), **founding)
    with pytest.raises(UnexpectedMessageError, match=words):
        hospitals[0].join(federation)


def test_another_roster_on_chain_than_was_joined_gets_nothing(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    federation = found(stand_in, config_of(hospitals, "training"), participants=[each.address for each in HOSPITALS[:3]])
    root = hospitals[0].records.journal.rows("SELECT content_root FROM registration")[0]["content_root"]
    hospitals[0].records.join(federation, stand_in.kept[federation].config, root)
    stand_in.open_round(federation)
    hospitals[0].poll()
    assert "expected the roster" in refused(hospitals[0], federation)
    assert stand_in.received == []


def test_a_config_that_is_not_the_one_on_chain_is_not_joined(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    federation = found(stand_in, config_of(hospitals, "training"))
    stand_in.kept[federation].config = FederationConfig.parse(config_of(hospitals, "training", clipping_norm="500"))
    with pytest.raises(UnexpectedMessageError, match="another's"):
        hospitals[0].join(federation)


def test_a_statistic_other_than_the_chains_scales_nothing(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    statistic = joined(stand_in, hospitals, "statistics")
    training = found(stand_in, config_of(hospitals, "training", standardisation=to_hex(statistic)))
    with pytest.raises(UnexpectedMessageError, match="no result on chain yet"):
        hospitals[0].join(training)
    stand_in.open_round(statistic)
    play(stand_in, statistic, hospitals)
    stand_in.lies["/result"] = lambda content: content.replace(b'"count":83', b'"count":84')
    with pytest.raises(DigestMismatchError, match="result of the statistic"):
        hospitals[0].join(training)
    stand_in.lies.clear()
    hospitals[0].join(training)


def test_too_few_rows_are_refused_without_saying_how_many(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    hospitals[3].policy = SitePolicy(examples=13)
    hospitals[3].restart()
    federation = joined(stand_in, hospitals)
    stand_in.open_round(federation)
    hospitals[3].poll()
    assert "at least 13 rows" in (reason := refused(hospitals[3], federation))
    assert "12" not in reason
    assert sent_by(stand_in, hospitals[3]) == []


def test_a_second_agent_on_one_journal_sends_nothing_of_its_own(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    federation = joined(stand_in, hospitals)
    stand_in.open_round(federation)
    hospital = hospitals[0]
    hospital.poll()
    stored = hospital.records.attempt(federation, 1, 1)
    assert stored is not None
    with Journal.open(hospital.journal_file, PASSPHRASE) as other:
        records = type(hospital.records)(other)
        for each in hospitals[1:]:
            each.poll()
        stand_in.close(federation)
        hospital.poll()
        with pytest.raises(UnexpectedMessageError, match="another agent"):
            records.drop(stored, "by an agent that read the journal too early")
