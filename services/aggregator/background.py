"""The aggregator's background process: `python -m services.aggregator.background`.

It relays calls, indexes the chain and notes when it is away, carries the rounds, witnesses those that other aggregators lead and takes
over from who is gone, and deletes masked vectors whose round is over.
"""

from functools import partial

from sqlalchemy import Engine

from rexis.chain.silence import ChainSilence
from services.aggregator import opened_sums
from services.aggregator.gossip import Gossip
from services.aggregator.peers import open_peers
from services.aggregator.projection import FederationProjection
from services.aggregator.registry_calls import Calls, Registry
from services.aggregator.rounds import Rounds
from services.aggregator.settings import AggregatorSettings
from services.aggregator.takeovers import Takeovers
from services.aggregator.witnesses import Witnesses
from services.foundation.assembly import chain_jobs, connect_chain, deployment_of, relayer, run_service_background
from services.foundation.background import Job
from services.foundation.objects import open_store
from services.foundation.uploads import reap_uploads

PROJECTIONS = (FederationProjection(),)
# A round waits for the chain three times, with everybody in it waiting too.
ROUNDS_TICK_S = CHAIN_TICK_S = 0.25
REAP_S = 5.0
SILENCE_TICK_S = 1.0
WITNESS_TICK_S, GOSSIP_TICK_S, TAKEOVER_TICK_S = 0.5, 2.0, 1.0


def jobs(settings: AggregatorSettings, engine: Engine) -> list[Job]:
    """Everything periodic of the aggregator; raises as `chain_jobs` and `deployment_of` do."""
    objects = open_store(settings.object_store_url)
    registry, signer = Registry.of(deployment_of(settings)), relayer(settings)
    silence = ChainSilence(partial(connect_chain, settings))
    rounds = Rounds(engine, objects, registry, signer, silence)
    peers = open_peers(settings.peer_urls, signer, settings.chain_id)
    witnessing = [
        Job("witness", WITNESS_TICK_S, Witnesses(engine, objects, registry, signer, peers).run_once),
        Job("gossip", GOSSIP_TICK_S, Gossip(engine, registry, peers).run_once),
        Job("takeover", TAKEOVER_TICK_S, Takeovers(engine, objects, Calls(registry, signer, silence), peers).run_once),
    ]
    return [
        *chain_jobs(settings, engine, PROJECTIONS, tick_s=CHAIN_TICK_S),
        Job("chain silence", SILENCE_TICK_S, silence.look),
        Job("rounds", ROUNDS_TICK_S, rounds.run_once),
        Job("uploads", REAP_S, lambda: reap_uploads(engine, objects)),
        Job("opened sums", REAP_S, lambda: opened_sums.drop_aborted(engine, objects)),
        *(witnessing if peers else ()),
    ]


if __name__ == "__main__":
    run_service_background(AggregatorSettings, jobs)
