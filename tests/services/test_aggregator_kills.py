"""A round whose aggregator dies again and again: background process and API, at every commit, by SIGKILL."""

import itertools
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from rexis.chain.connection import Chain
from rexis.chain.deployments import load
from rexis.encoding import from_hex
from rexis.secagg.server_steps import read_state
from services.foundation.settings import LOCAL_CHAIN_ID
from tests.services.federations_on_chain import (
    TRAINING,
    api_arguments,
    gathered,
    mean_pull,
    migrated,
    started,
    survivors_of,
    weights_in,
)
from tests.services.marketplace_on_chain import running_chain

# Its first step is FedAvg's, and its state the step itself.
MOMENTUM = {"name": "fedavgm", "learning_rate": "1", "momentum": "0.9"}
START = np.array([0.5, -1.0, 2.0])
# At which commit of its life each process dies; 1 lets nothing through, so another number has to follow it.
LIVES = itertools.cycle([(6, "before"), (3, "after"), (11, "before"), (8, "after"), (1, "before"), (14, "after"), (2, "before")])


def test_a_round_survives_kills_at_every_commit(tmp_path: Path) -> None:
    with ExitStack() as stack, running_chain(tmp_path) as rpc_url:
        chain = Chain.connect(rpc_url, load(LOCAL_CHAIN_ID))
        settings = migrated(tmp_path, rpc_url)
        api = started(settings, "uvicorn", *api_arguments(settings))
        carrier = started(settings, "tests.services.rounds_process", "9", "after")
        kills, api_kills = 0, 0

        def kill_and_start_again() -> None:
            nonlocal api, carrier, kills, api_kills
            if carrier.poll() is not None:
                kills += 1
                commit, when = next(LIVES)
                carrier = started(settings, "tests.services.rounds_process", str(commit), when)
            if kills == 2 * (api_kills + 1) and api_kills < 2:
                api_kills += 1
                api.kill()
                api.wait()
                api = started(settings, "uvicorn", *api_arguments(settings))

        stack.callback(lambda: (carrier.kill(), carrier.wait(), api.kill(), api.wait()))
        with gathered(settings, chain, tmp_path) as gathering:
            federation = gathering.found("killed", training={**TRAINING, "rounds": 1, "strategy": MOMENTUM}, stage_s=120)
            ended = gathering.play(federation, until_s=150, then=kill_and_start_again)[federation]
            assert (ended.state, ended.reason) == ("finished", "")
            assert (kills >= 5, api_kills) == (True, 2)
            (record,) = gathering.founder.rounds(federation)
            assert survivors_of(record.survivors, gathering.members) == [0, 1, 2, 3]
            np.testing.assert_allclose(weights_in(gathering.founder.model(federation)), mean_pull(START, [0, 1, 2, 3]), atol=1e-5)
            state, plan = gathering.founder.server_state(federation), ended.config.training
            assert record.metrics is not None
            assert plan is not None
            moments = read_state(plan, state, from_hex(record.metrics["state"], 32))
            np.testing.assert_allclose(moments["momentum"], mean_pull(START, [0, 1, 2, 3]) - START, atol=1e-6)
            for event in ("RoundOpened", "SurvivorsFixed", "RoundFinalised"):
                found = getattr(chain.contract("FederationRegistry").events, event)().get_logs(from_block=0)
                assert len(found) == 1, event
            assert not chain.contract("FederationRegistry").events.RoundAbandoned().get_logs(from_block=0)
