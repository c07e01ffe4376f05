"""Twelve institutions in four groups at two real aggregators: one goes missing, its group is left out, the others make the round."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from rexis.agent.federation.registry import Registry
from rexis.chain.connection import Chain
from rexis.chain.deployments import load
from rexis.encoding import to_hex
from rexis.errors import UnexpectedMessageError
from rexis.protocol.plan_parts import GroupPlan
from rexis.secagg.groups import draw_groups
from services.aggregator import attempts
from services.aggregator.models import Attempt, Base, OnchainRound
from services.foundation.database import transaction
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
