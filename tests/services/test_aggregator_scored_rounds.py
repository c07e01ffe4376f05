"""Nine institutions in three groups at the real aggregator: what a round's groups were worth, rebuilt from the chain by a member."""

from pathlib import Path

import numpy as np

from rexis.agent.federation.registry import Registry
from rexis.agent.federation.scores import bundle_on_chain
from rexis.chain.connection import Chain
from rexis.chain.deployments import load
from rexis.contribution.group_values import group_values
from rexis.encoding import to_hex
from rexis.secagg.groups import draw_groups
from services.aggregator.settings import AggregatorSettings
from services.foundation.database import open_engine
from services.foundation.settings import LOCAL_CHAIN_ID
from tests.services.aggregator_at_work import at_work
from tests.services.federations_on_chain import POINTS, TRAINING, gathered, migrated, wait_until
from tests.services.marketplace_on_chain import running_chain
from tests.unit.scored_federations import PRIVACY, SCORES

MEMBERS, STAGE_S = 9, 30
START = np.array([0.5, -1.0, 2.0])


def test_a_member_rebuilds_from_the_chain_what_each_group_was_worth(tmp_path: Path) -> None:
    with running_chain(tmp_path) as rpc_url:
        chain = Chain.connect(rpc_url, load(LOCAL_CHAIN_ID))
        settings = migrated(tmp_path, rpc_url)
        assert isinstance(settings, AggregatorSettings)
        engine = open_engine(settings.database_url)
        with at_work(settings, engine), gathered(settings, chain, tmp_path, count=MEMBERS) as gathering:
            training = TRAINING | {"rounds": 9, "batch_size": 8, "privacy": PRIVACY}
            plan = {"groups": {"count": 3, "rule": "median", "redrawn": True}, "scores": SCORES, "protection": "secagg+dp"}
            federation = gathering.found("scored", training=training, threshold=6, min_survivors=6, stage_s=STAGE_S, **plan)
            registry, member = Registry(chain), gathering.institutions[3].client

            def is_first_round_over() -> bool:
                for institution in gathering.institutions:
                    institution.act()
                return registry.federation(federation).round > 1

            wait_until(is_first_round_over, 3 * STAGE_S)
            config = member.federation(federation).config
            wait_until(lambda: any(each.state == "finished" for each in member.rounds(federation)))
            rebuilt = bundle_on_chain(registry, member, federation, config)
            (only,) = rebuilt.rounds
            drawn = draw_groups(registry.final_openings(federation, [1])[1], MEMBERS, 3)
            assert only.groups == tuple(tuple(config.roster[position - 1] for position in group) for group in drawn)
            means = [np.mean([0.5 * (POINTS[(position - 1) % 4] - START) for position in group], axis=0) for group in drawn]
            assert np.abs(np.array(only.values) - group_values(means)).max() <= 2, to_hex(federation)
        engine.dispose()
