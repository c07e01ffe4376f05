"""The campaign against federations: many agents, a few kills, no hand on anything, and every sum made again in the clear."""

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from services.aggregator.attempts import Phase
from services.aggregator.background import PROJECTIONS
from tests.campaign.accounting import Account, check_nonces, check_projections
from tests.campaign.consortium import Consortium, Strike
from tests.campaign.record import commit
from tests.campaign.round_accounts import PlainAverage, ended_attempts, faults_of, read_facts

# Stages in which everybody acts, and those in which the aggregator waits for the chain.
MOMENTS = (Phase.KEYS, Phase.SHARES, Phase.MASKED, Phase.FIXING, Phase.UNMASK, Phase.FINALISING)
KINDS = ("agent", "aggregator", "aggregator-background")
LONGEST_DELAY_S = 1.0
# Beyond the four stages of an attempt, for a machine that has other things to do.
SLACK_S = 120.0
SETTLE_S = 120.0


def campaign(
    folder: Path,
    *,
    agents: int,
    rounds: int,
    kills: int,
    seed: int,
    stage_s: int,
    tell: Callable[[str], None] = lambda _line: None,
) -> dict[str, Any]:
    """Run it in `folder`, which is empty. Returns what `python -m tests.campaign` prints."""
    choice, load = random.Random(seed), os.getloadavg()[0]
    plan = _kills(choice, agents, rounds, kills)
    with Consortium(folder, agents, seed) as consortium:
        consortium.gather()
        tell(f"{agents} agents are at work")
        began = time.monotonic()
        federation, founding = consortium.found(rounds=rounds, stage_s=stage_s, seed=seed)
        patience_s = 4 * stage_s + SLACK_S
        struck: list[Strike] = []
        for number, stage, victim in plan:
            consortium.follow(federation, patience_s, until=(number, stage))
            time.sleep(choice.uniform(0.0, LONGEST_DELAY_S))
            struck.append(consortium.strike(victim, federation))
            tell(f"{len(struck)} of {kills}: {struck[-1]}")
        consortium.follow(federation, patience_s)
        took_s = time.monotonic() - began
        state = consortium.standing(federation)[0]
        tell(f"{state} after {took_s:.0f} s")
        consortium.settle(SETTLE_S)
        left = _left(consortium)
        chain = consortium.connect()
        facts = read_facts(chain, federation)
        plain = PlainAverage(founding, federation, {site.hospital.signer.address: site.hospital.table for site in consortium.sites})
        config = founding.config
        faults = faults_of(
            facts,
            ended_attempts(consortium.engine, federation),
            rounds=rounds,
            initial=founding.model,
            least=config.min_survivors,
            plain=plain.round,
        )
        account = Account()
        transactions = check_nonces(account, chain, consortium.engine, consortium.relayer)
        rows = check_projections(account, chain, consortium.engine, consortium.service, PROJECTIONS, folder)
        restarts = consortium.restarts()
        deaths = Counter(each.victim for each in struck)
        return {
            "campaign": "federation",
            "seed": seed,
            "commit": commit(),
            "agents": agents,
            "threshold": config.threshold,
            "min_survivors": config.min_survivors,
            "rounds": rounds,
            "rounds_finished": len({each.place[0] for each in facts.finalised}),
            "state": state,
            "attempts": len(facts.opened),
            "survivors": [len(survivors) for _, survivors in facts.fixed],
            "commitments": sum(facts.committed.values()),
            "kills": dict(Counter(victim.rstrip("0123456789").rstrip("-") for victim in deaths.elements())),
            "started_again": restarts,
            "faults": faults | account.faults,
            "lost": len(faults.get("lost", ())),
            "duplicated": len(faults.get("duplicated", ())),
            "died_unasked": sorted((Counter(restarts) - deaths).elements()),
            "secrets_left_at_sites": left,
            "transactions": transactions,
            "projected_rows": rows,
            "largest_agent_mb": round(consortium.largest_agent_mb()),
            "duration_s": round(took_s, 1),
            "stage_s": stage_s,
            "load_at_start": round(load, 1),
            "kills_in_order": [asdict(each) for each in struck],
        }


def passed(result: dict[str, Any]) -> bool:
    """Whether every round is final once with the right sum, and everything that was killed came back by itself."""
    return (
        result["state"] == "finished"
        and result["rounds_finished"] == result["rounds"]
        and not result["faults"]
        and not result["died_unasked"]
        and not result["secrets_left_at_sites"]
    )


def _kills(choice: random.Random, agents: int, rounds: int, kills: int) -> list[tuple[int, Phase, str]]:
    """Round, stage and victim of each kill in the order of time; of the first three, one of each kind."""
    kinds = [kind for _ in range(0, kills, len(KINDS)) for kind in choice.sample(KINDS, len(KINDS))][:kills]
    moments = sorted((choice.randint(1, rounds), choice.randrange(len(MOMENTS))) for _ in range(kills))
    victims = [f"agent-{choice.randrange(agents):02d}" if kind == "agent" else kind for kind in kinds]
    return [(number, MOMENTS[at], victim) for (number, at), victim in zip(moments, victims, strict=True)]


def _left(consortium: Consortium) -> dict[str, int]:
    """What sites keep of attempts, after they had time to see that everything is over."""
    deadline = time.monotonic() + SETTLE_S
    while (left := consortium.left_at_sites()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left
