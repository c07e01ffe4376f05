"""Federations whose aggregator never has the model: members take their pads off, and say what a round made; and members who check.

Agent, journal and chain are real; the aggregator is the stand-in that lies when it is told to.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rexis.agent.federation.contribution import model_file_spec, read_model
from rexis.agent.federation.founding import FederationPlan
from rexis.agent.federation.given_up import given_up
from rexis.agent.federation.group_keys import PATIENCE_S, GroupKeys, group_key
from rexis.agent.federation.recomputed import RecomputedRounds, RoundSum, recompute
from rexis.agent.federation.registry import Registry
from rexis.agent.journal import Journal
from rexis.client.aggregator import AggregatorClient
from rexis.encoding import from_hex, to_hex
from rexis.errors import MalformedMessageError, UnexpectedMessageError
from rexis.protocol.batch import write_file
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.member_results import NO_RESULT, disagreement
from tests.services.federation_stand_in import AGGREGATOR, FOUNDER, PASSPHRASE, Hospital, Line, StandIn, config_of, plain_update, problem

STAGES = ("keys", "shares", "masked", "unmask", "results")
# A state at the server, two vectors long.
ADAM = {"name": "fedadam", "learning_rate": "0.1", "beta1": "0.9", "beta2": "0.99", "tau": "0.001"}


@dataclass
class Group:
    """Four hospitals and a founder who is none of them, in a federation with the group pad, which all of them joined."""

    stand_in: StandIn
    hospitals: list[Hospital]
    federation: bytes
    founder: GroupKeys
    journal: Journal
    now: float = 0.0

    @property
    def config(self) -> FederationConfig:
        return self.stand_in.kept[self.federation].config

    def keys(self, who: int) -> GroupKeys:
        hospital = self.hospitals[who]
        return GroupKeys(hospital.journal, hospital.signer, Registry(hospital.chain), hospital.line, clock=lambda: self.now)

    def agree(self) -> None:
        self.founder.agree(self.federation, self.config)
        for _ in range(2):
            for who in range(4):
                self.keys(who).agree(self.federation, self.config)
        self.founder.agree(self.federation, self.config)

    def play(self, absent: dict[str, list[int]] | None = None, *, stages: Sequence[str] = STAGES, leave_open: bool = False) -> None:
        """A round up to the last of these stages; `absent` names those at which hospitals are not there."""
        self.stand_in.open_round(self.federation)
        for stage in stages:
            for who, hospital in enumerate(self.hospitals):
                if who not in (absent or {}).get(stage, ()):
                    hospital.poll()
            if stage != stages[-1] or not leave_open:
                self.stand_in.close(self.federation)

    def rounds(self, who: int) -> RecomputedRounds:
        hospital = self.hospitals[who]
        return RecomputedRounds(hospital.journal, Registry(hospital.chain), hospital.client)

    def founders_rounds(self) -> RecomputedRounds:
        return RecomputedRounds(self.journal, Registry(self.stand_in.chain), AggregatorClient(Line(self.stand_in, FOUNDER.address)))

    def reasons(self, who: int) -> list[str]:
        entries = self.hospitals[who].journal.entries(subject=f"federation {to_hex(self.federation)}", limit=1000)
        return [str(entry.detail["reason"]) for entry in entries if entry.stage in ("refused", "dropped", "given up")]


def grouped(stand_in: StandIn, hospitals: list[Hospital], folder: Path, **changes: Any) -> Group:
    config = config_of(hospitals, "training", group_pad=True, **changes)
    federation = stand_in.found(FederationPlan(FederationConfig.parse(config), seed=3))
    for hospital in hospitals:
        hospital.join(federation)
    journal = Journal.open(folder / "founder.sqlite", PASSPHRASE, work_factor=2)
    keys = GroupKeys(journal, FOUNDER, Registry(stand_in.chain), Line(stand_in, FOUNDER.address))
    return Group(stand_in, hospitals, federation, keys, journal)


@pytest.fixture
def group(stand_in: StandIn, hospitals: list[Hospital], tmp_path: Path) -> Iterator[Group]:
    made = grouped(stand_in, hospitals, tmp_path, strategy=ADAM, weight_band=1, rounds=5)
    yield made
    made.journal.close()


def adam(base: Any, updates: list[tuple[Any, int]], memory: list[Any]) -> Any:
    """FedAdam's step (Reddi et al., ICLR 2021, algorithm 2) in float64, from plain updates and weights."""
    delta = sum(weight * update for update, weight in updates) / sum(weight for _, weight in updates)
    first, second = memory if memory else (np.zeros_like(delta), np.full_like(delta, 0.001**2))
    first, second = 0.9 * first + 0.1 * delta, 0.99 * second + 0.01 * delta**2
    memory[:] = [first, second]
    return base + 0.1 * first / (np.sqrt(second) + 0.001)


def vector_of(config: FederationConfig, content: bytes, record: bytes) -> Any:
    assert config.training is not None
    tensors = read_model(config.training, content, record)
    return np.concatenate([tensors["0.weight"].ravel(), tensors["0.bias"].ravel()]).astype(np.float64)


def test_members_make_each_model_the_aggregator_has_none_and_who_was_away_comes_after(group: Group) -> None:
    stand_in, hospitals, federation = group.stand_in, group.hospitals, group.federation
    group.agree()
    kept, memory = stand_in.kept[federation], []
    expected = vector_of(group.config, kept.initial, kept.model)
    states = []
    for absent in ({}, {"masked": [1], "unmask": [1], "results": [1]}, {stage: [1] for stage in STAGES}):
        base = states[-1] if states else group.rounds(0).after(federation, group.config, 0)
        present = [hospital for who, hospital in enumerate(hospitals) if who not in absent.get("masked", ())]
        updates = [plain_update(hospital, group.config, base.record, base.model) for hospital in present]
        group.play(absent)
        expected = adam(expected, updates, memory)
        states.append(group.rounds(0).after(federation, group.config, len(states) + 1))
        assert states[-1].record == kept.model
        assert vector_of(group.config, states[-1].model, kept.model) == pytest.approx(expected, abs=1e-5)
        assert states[-1].metrics is not None
        assert states[-1].metrics["weight"] == sum(weight for _, weight in updates)
    # It was away for two rounds, one of them whole, and starts again with the sums of both; the founder has seen none.
    hospitals[1].restart()
    for rounds in (group.rounds(1), group.founders_rounds()):
        found = rounds.after(federation, group.config, 3)
        assert (found.model, found.state, found.metrics) == (states[-1].model, states[-1].state, states[-1].metrics)
    # From there it takes part again, where its update counts.
    base, again = states[-1], hospitals[1]
    updates = [plain_update(hospital, group.config, base.record, base.model) for hospital in hospitals]
    group.play()
    assert again.signer.address in kept.rounds[-1]["survivors"]
    found = group.rounds(1).after(federation, group.config, 4)
    assert vector_of(group.config, found.model, kept.model) == pytest.approx(adam(expected, updates, memory), abs=1e-5)


def test_nothing_that_the_aggregator_gets_is_enough_for_the_model_or_its_metrics(group: Group) -> None:
    group.agree()
    group.play(leave_open=True)
    stand_in, federation = group.stand_in, group.federation
    kept = stand_in.kept[federation]
    key = group_key(group.hospitals[0].journal, federation)
    assert key is not None
    base = group.rounds(0).after(federation, group.config, 0)
    attempt = kept.attempt
    assert attempt is not None
    padded = kept.opened[1, 1]
    everybody = tuple(group.config.roster)
    ctx = attempt.coordinator.terms.ctx
    made = recompute(group.config, base, RoundSum(padded, ctx, everybody, key))
    # The members stated exactly this, and it is in nothing else that ever came, in no form.
    assert {each.said[3:] for each in attempt.stated.values()} == {(made.record, made.metrics_digest)}
    heard = b"".join(content for _, what, content in stand_in.received if what != "results") + padded.tobytes() + kept.initial
    for secret in (key, made.record, made.metrics_digest, made.model[-12:]):
        assert secret not in heard
        assert secret.hex().encode() not in heard
    # Under other keys, for other survivors or of another attempt the pads do not come off.
    for other in (
        RoundSum(padded, ctx, everybody, None),
        RoundSum(padded, ctx, everybody, bytes(32)),
        RoundSum(padded, ctx, everybody[1:], key),
        RoundSum(padded, bytes(32), everybody, key),
    ):
        with pytest.raises(MalformedMessageError):
            recompute(group.config, base, other)
    # The metrics, all of whose numbers can be guessed, do not have the digest that stands on chain without the members' salt.
    assert made.metrics is not None
    unsalted = {name: value for name, value in made.metrics.items() if name != "salt"}
    assert len(from_hex(made.metrics["salt"], 32)) == 32
    stripped = type(made)(1, made.model, made.record, made.state, unsalted)
    assert stripped.metrics_digest != made.metrics_digest


def test_killed_between_writing_and_sending_a_member_states_the_same_bytes_later(group: Group) -> None:
    group.agree()
    first = group.hospitals[0]
    group.play(stages=STAGES[:4])
    sent: list[bytes] = []

    def dies(method: str, path: str, content: bytes | None) -> None:
        if path.endswith("/results") and not sent:
            sent.append(content or b"")
            raise ConnectionError("killed")

    first.line.before = dies
    with pytest.raises(ConnectionError):
        first.poll()
    first.restart()
    # The aggregator shows another sum now; what was written is what is said.
    group.stand_in.lies["/sum"] = lambda content: bytes(len(content))
    first.poll()
    assert [content for caller, what, content in group.stand_in.received if what == "results"] == sent
    # And nobody who sees that sum agrees with those who saw the right one.
    group.hospitals[1].poll()
    stated = group.stand_in.kept[group.federation].attempt
    assert stated is not None
    assert stated.stated[group.hospitals[1].signer.address].model == NO_RESULT
    told = disagreement(list(stated.stated.values()))
    assert first.signer.address in told
    assert group.hospitals[1].signer.address in told


def test_without_its_key_a_member_sends_nothing_and_with_another_one_it_is_named(group: Group) -> None:
    stand_in, hospitals, federation = group.stand_in, group.hospitals, group.federation
    # The founder has published nothing yet, so that nobody can deal.
    stand_in.open_round(federation)
    for hospital in hospitals:
        hospital.poll()
    assert not [what for _, what, _ in stand_in.received if what == "keys"]
    assert group.reasons(0) == [], "it is no reason to give the attempt up: the key may be dealt in the next moment"
    stand_in.abandon(federation)
    group.founder.publish(federation, group.config)
    # Two members deal, because each is shown no dealing, and the third and fourth see the first one's.
    records, dealings = stand_in.group_keys[federation], []
    for each in (group.keys(who) for who in (0, 1)):
        records.dealing = None
        for _ in range(2):
            each.agree(federation, group.config)
            group.now += 10 * PATIENCE_S
        dealings.append(records.dealing)
    records.dealing = dealings[0]
    for who in (2, 3):
        group.keys(who).agree(federation, group.config)
    found = [group_key(hospital.journal, federation) for hospital in hospitals]
    assert found[0] == found[2] == found[3] != found[1]
    group.play(leave_open=True)
    attempt = stand_in.kept[federation].attempt
    assert attempt is not None
    stated = list(attempt.stated.values())
    assert {each.model for each in stated} == {NO_RESULT}
    odd = hospitals[1].signer.address
    told = disagreement(stated).split("; ")
    assert len(told) == 2
    assert [part.startswith(f"{odd} found") for part in told].count(True) == 1


def test_a_model_that_does_not_follow_from_the_sum_is_not_trained_on_and_who_signed_it_is_named(
    group: Group, stand_in: StandIn, hospitals: list[Hospital]
) -> None:
    """With the pad, and without it: a model of the right form, signed and final on chain, that somebody made up."""
    plain = stand_in.found(FederationPlan(FederationConfig.parse(config_of(hospitals, "training")), seed=5))
    for hospital in hospitals:
        hospital.join(plain)
    group.agree()
    plan = group.config.training
    assert plan is not None
    stream = BytesIO()
    record = write_file(
        stream, model_file_spec(plan), {name: np.full(shape, 7.0, np.float32) for name, shape in plan.model.shapes.items()}
    ).record
    stand_in.forged["model"] = record
    group.play()
    stand_in.open_round(plain)
    for _ in STAGES[:4]:
        for hospital in hospitals:
            hospital.poll()
        stand_in.close(plain)
    stand_in.kept[plain].content = stream.getvalue()
    for federation in (group.federation, plain):
        stand_in.open_round(federation)
    for hospital in hospitals:
        hospital.poll()
    for federation in (group.federation, plain):
        entries = hospitals[0].journal.entries(subject=f"federation {to_hex(federation)}", limit=1000)
        (reason,) = [str(entry.detail["reason"]) for entry in entries if entry.stage == "given up"]
        assert AGGREGATOR.address in reason
        assert to_hex(record) in reason
        assert all(federation in given_up(hospital.journal) for hospital in hospitals)
        # Nothing but the announcement of keys left, and after a restart nothing leaves at all.
        before = len(stand_in.received)
        hospitals[0].restart()
        hospitals[0].poll()
        assert len(stand_in.received) == before


def withheld(_content: Any) -> Any:
    raise problem(404, "not-found")


def test_another_sum_than_stands_on_chain_is_not_gone_through(group: Group) -> None:
    group.agree()
    group.play({"results": [3]})
    group.stand_in.lies["/sum"] = lambda content: content[:-4] + bytes(4)
    group.stand_in.open_round(group.federation)
    group.hospitals[3].poll()
    assert "opened sum of round 1" in group.reasons(3)[0]
    assert group.federation not in given_up(group.hospitals[3].journal), "the chain is right, and another look may be too"
    # An aggregator alone that shows none gets no update either: nobody else has gone through that sum.
    group.stand_in.abandon(group.federation)
    group.stand_in.lies["/sum"] = withheld
    group.stand_in.open_round(group.federation)
    group.hospitals[3].poll()
    assert "not-found" in group.reasons(3)[-1]
    del group.stand_in.lies["/sum"]
    found = group.rounds(3).after(group.federation, group.config, 1)
    assert found.record == group.stand_in.kept[group.federation].model


def test_who_has_no_key_computes_no_model(group: Group, tmp_path: Path) -> None:
    group.agree()
    group.play()
    with Journal.open(tmp_path / "auditor.sqlite", PASSPHRASE, work_factor=2) as journal:
        rounds = RecomputedRounds(journal, Registry(group.stand_in.chain), group.hospitals[0].client)
        with pytest.raises(UnexpectedMessageError, match="no group key"):
            rounds.after(group.federation, group.config, 1)
