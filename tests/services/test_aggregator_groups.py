"""Twelve institutions in four groups at the real aggregator: one goes missing, its group is left out, the others make the round."""

from pathlib import Path

import numpy as np

from rexis.agent.federation.registry import Registry
from rexis.chain.connection import Chain
from rexis.chain.deployments import load
from rexis.secagg.groups import draw_groups
from services.foundation.settings import LOCAL_CHAIN_ID
from tests.services.federations_on_chain import (
    TRAINING,
    gathered,
    masked_uploads,
    mean_pull,
    migrated,
    process,
    survivors_of,
    wait_until,
    weights_in,
)
from tests.services.marketplace_on_chain import running_chain
from tests.services.service_applications import serving

MEMBERS, STAGE_S = 12, 15
START = np.array([0.5, -1.0, 2.0])


def missing(who: int, _name: str, _round: int, _attempt: int, stage: str) -> bool:
    return who == 0 and stage == "masked"


def test_a_group_that_lost_a_member_is_left_out_as_a_whole(tmp_path: Path) -> None:
    with running_chain(tmp_path) as rpc_url:
        chain = Chain.connect(rpc_url, load(LOCAL_CHAIN_ID))
        settings = migrated(tmp_path, rpc_url)
        background = process(settings, "services.aggregator.background")
        with serving(settings), background, gathered(settings, chain, tmp_path, missing, count=MEMBERS) as gathering:
            training = TRAINING | {"rounds": 1}
            groups = {"count": 4, "rule": "median"}
            federation = gathering.found("groups", training=training, groups=groups, threshold=7, min_survivors=7, stage_s=STAGE_S)
            ended = gathering.play(federation)[federation]
            (record,) = gathering.founder.rounds(federation)
            drawn = draw_groups(Registry(chain).first_opening(federation), MEMBERS, 4)
            left = [[position - 1 for position in group] for group in drawn if 1 not in group]
            assert (ended.state, ended.reason) == ("finished", ""), ended
            assert survivors_of(record.survivors, gathering.members) == sorted(number for group in left for number in group)
            means = [mean_pull(START, group) for group in left]
            np.testing.assert_allclose(weights_in(gathering.founder.model(federation)), np.median(means, axis=0), atol=1e-5)
            assert record.metrics is not None
            assert record.metrics["groups"] == 3
            # Two of the group that was left out had uploaded their vectors.
            wait_until(lambda: not masked_uploads(settings))
