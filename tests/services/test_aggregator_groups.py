"""Twelve institutions in four groups at two real aggregators: one goes missing, its group is left out, the others make the round."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from rexis.agent.federation.contribution import read_model
from rexis.agent.federation.registry import Registry
from rexis.chain.connection import Chain
from rexis.chain.deployments import load
from rexis.encoding import sha256, to_hex
from rexis.errors import UnexpectedMessageError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.plan_parts import GroupPlan
from rexis.protocol.secagg_messages import Envelope
from rexis.secagg.groups import draw_groups
from rexis.secagg.payloads import encode_update
from rexis.secagg.terms import RoundTerms
from services.aggregator import attempts, global_models, results
from services.aggregator.models import Attempt, Base, GlobalModel, OnchainRound
from services.foundation.database import transaction
from services.foundation.objects import open_store
from services.foundation.settings import LOCAL_CHAIN_ID
from services.foundation.uploads.records import Upload
from tests.services.aggregators_on_chain import config_changes, operators
from tests.services.federations_on_chain import (
    TRAINING,
    gathered,
    mean_pull,
    survivors_of,
    weights_in,
)
from tests.services.marketplace_on_chain import running_chain
from tests.unit.secagg_rounds import ROSTER, Simulation, make_terms, noted_signatures
from tests.unit.test_federation_groups import config_of as groups_of

MEMBERS, STAGE_S = 12, 20
START = np.array([0.5, -1.0, 2.0])


def missing(who: int, _name: str, _round: int, _attempt: int, stage: str) -> bool:
    return who == 0 and stage == "masked"


def test_a_group_that_lost_a_member_is_left_out_and_a_witness_finds_the_same(tmp_path: Path) -> None:
    """Both aggregators have to sign, and the witness signs what it finds in its own sums of the groups."""
    with running_chain(tmp_path) as rpc_url, operators(tmp_path, rpc_url, count=2) as made:
        chain = Chain.connect(rpc_url, load(LOCAL_CHAIN_ID))

        def work() -> None:
            for operator in made:
                operator.work()

        with gathered(made[0].settings, chain, tmp_path, missing, count=MEMBERS) as gathering:
            given = {"groups": {"count": 4, "rule": "median"}, "threshold": 7, "min_survivors": 7, "stage_s": STAGE_S}
            federation = gathering.found("groups", training=TRAINING | {"rounds": 1}, **given, **config_changes(made, 2))
            ended = gathering.play(federation, then=work)[federation]
            (record,) = gathering.founder.rounds(federation)
            drawn = draw_groups(Registry(chain).first_opening(federation), MEMBERS, 4)
            left = [[position - 1 for position in group] for group in drawn if 1 not in group]
            assert (ended.state, ended.reason) == ("finished", ""), ended
            assert survivors_of(record.survivors, gathering.members) == sorted(number for group in left for number in group)
            means = [mean_pull(START, group) for group in left]
            np.testing.assert_allclose(weights_in(gathering.founder.model(federation)), np.median(means, axis=0), atol=1e-5)
            assert record.metrics is not None
            assert record.metrics["groups"] == 3
            assert made[1].view(gathering.members[0]).model(federation) == gathering.founder.model(federation)
            # Two of the group that was left out had uploaded their vectors.
            with transaction(made[0].engine, read_only=True) as session:
                states = Counter(upload.state for upload in session.query(Upload) if upload.owner != gathering.founder_signer.address)
            assert states == {"abandoned": MEMBERS - 1}


def test_groups_are_drawn_by_the_first_opening_and_redrawn_ones_by_their_own() -> None:
    engine, federation = create_engine("sqlite://"), to_hex(bytes(32))
    Base.metadata.create_all(engine)
    config = groups_of(9, {"count": 3, "rule": "median"})
    redrawn = replace(config, groups=GroupPlan(3, "median", redrawn=True))
    sparse, complete = replace(config, groups=None, degree=4), replace(config, groups=None)
    with Session(engine) as session:
        third = Attempt(federation_id=federation, round=2, number=1)
        for each in (config, redrawn, sparse):
            with pytest.raises(UnexpectedMessageError, match="not open on chain"):
                attempts.graph_seed(session, each, third)
        for place, (number, attempt) in enumerate([(1, 1), (1, 2), (2, 1)], start=1):
            opened = OnchainRound(federation_id=federation, round=number, attempt=attempt, opened_block=to_hex(bytes([place]) * 32))
            opened.manifest_hash = opened.base_model = opened.opened_transaction = to_hex(bytes(32))
            session.add(opened)
        session.flush()
        found = {name: attempts.graph_seed(session, each, third) for name, each in (("kept", config), ("redrawn", redrawn), ("k", sparse))}
        assert found == {"kept": bytes([1]) * 32, "redrawn": bytes([3]) * 32, "k": bytes([3]) * 32}
        assert attempts.graph_seed(session, complete, third) == bytes(32)


class Trained(Simulation):
    """An attempt in which each site's update is its position in every coordinate."""

    def __init__(self, terms: RoundTerms, config: FederationConfig) -> None:
        super().__init__(terms, graph_seed=bytes(32))
        self.config = config

    def upload(self, i: int) -> Envelope:
        vector = encode_update(self.config, np.full(4, 0.1 * i), examples=25, loss=0.5)
        self.participants[i].mask(vector)
        self.uploads[ROSTER[i - 1]] = vector.tobytes()
        return self.participants[i].announce_masked(f"upload-{i}")


def test_a_round_is_made_of_the_groups_that_were_opened_when_one_keeps_its_shares(tmp_path: Path) -> None:
    config, objects = groups_of(MEMBERS, {"count": 4, "rule": "median"}), open_store(f"file://{tmp_path}")
    assert config.training is not None
    spec, drawn = config.training.model, draw_groups(bytes(32), MEMBERS, 4)
    file = global_models.written({name: np.zeros(shape, dtype=np.float32) for name, shape in spec.shapes.items()}, spec)
    base = GlobalModel(object_key=global_models.keep(objects, "0x00", file), file_digest=to_hex(sha256(file.content)))
    with noted_signatures():
        played = Trained(make_terms(MEMBERS, groups=config.groups, length=config.length), config)
        played.keys()
        played.shares()
        played.masked()
        fixed = played.fix_on_chain()
        for i in set(played.everybody) - {drawn[1][0]}:
            played.coordinator.receive(played.answer(i, fixed))
        outcome = results.decoded(objects, results.Opening(config, played.coordinator, {}, base), played.opened_groups())
    left = [group for group in drawn if group != drawn[1]]
    assert outcome.file is not None
    moved = read_model(config.training, outcome.file.content, outcome.file.record)
    middle = np.median([0.1 * np.mean(group) for group in left])
    assert np.concatenate([tensor.ravel() for tensor in moved.values()]) == pytest.approx(np.full(4, middle), abs=1e-6)
    assert outcome.metrics is not None
    assert outcome.metrics["groups"] == 3
