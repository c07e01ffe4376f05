"""The campaign against the chain layer: kill, restart, and count."""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from services.local.supervisor import CRASH_WINDOW_S, MAX_CRASHES
from services.marketplace.background import PROJECTIONS
from tests.campaign.accounting import Account, check_nonces, check_projections, read, settle_accounts
from tests.campaign.estate import SERVICE, VICTIMS, Estate, Kill
from tests.campaign.operations import Book, Institution, Stream
from tests.campaign.record import commit
from tests.services.chain_process import Gate

INSTITUTIONS, THREADS, RATE = 12, 4, 3.0
# Calls of the service's own that are handed in at once before a kill, so that it meets a queue.
BURST = 12
LONGEST_PAUSE_S = 6.0
TEARS = 0.3
# What the relay has just done when the kill comes: a call got into one of these states; or anything.
MOMENTS: tuple[tuple[str, ...], ...] = (("signed",), ("submitted",), ("mined", "confirmed"), ("mined", "confirmed"), ())
# Nothing at all may go on for so long before a run gives up: longer than the longest back-off of a background job.
PATIENCE_S = 180.0


def campaign(
    folder: Path,
    *,
    kills: int,
    seed: int,
    victims: Sequence[str] = (),
    rate: float = RATE,
    pause_s: float = LONGEST_PAUSE_S,
    tell: Callable[[str], None] = lambda _line: None,
) -> dict[str, Any]:
    """Run it in `folder`, which is empty. Returns what `python -m tests.campaign` prints.

    Args:
        victims: who dies first, in this order; afterwards the seed chooses.
    """
    choice, started = random.Random(seed), time.monotonic()
    with Estate(folder) as estate:
        chain, book = estate.connect(), Book()
        gate, made = Gate(estate.chain_url), time.time()
        institutions = [Institution(estate.url, chain.deployment, book, random.Random(choice.random())) for _ in range(INSTITUTIONS)]
        stream = Stream(institutions, estate.engine, gate.address, book, threads=THREADS, rate=rate)
        # The gate is in no service's outbox, so nobody would bring it back.
        estate.wait(lambda: estate.is_kept(made, copied=False), "the state with the gate is kept")
        stream.start()
        done: list[Kill] = []
        try:
            for number in range(kills):
                victim = victims[number] if number < len(victims) else choice.choice(VICTIMS)
                done.append(_next_kill(estate, stream, choice, done, victim, pause_s, made))
                tell(f"{number + 1} of {kills}: {done[-1]}")
        finally:
            stream.stop()
        estate.settle(PATIENCE_S)
        account = Account()
        settle_accounts(account, estate.engine, book.promises, read(chain, gate.address))
        nonces = check_nonces(account, chain, estate.engine, estate.relayer)
        rows = check_projections(account, chain, estate.engine, SERVICE, PROJECTIONS, folder)
        for institution in institutions:
            institution.close()
        return {
            "campaign": "chain",
            "seed": seed,
            "commit": commit(),
            "kills": dict(Counter(kill.victim for kill in done)),
            "operations": dict(sorted(Counter(promise.kind for promise in book.promises).items())),
            "promised": len(book.promises),
            "landed": sum(account.landed.values()),
            "refused_with_a_true_reason": sum(account.refused.values()),
            "refused_at_the_door": dict(sorted(book.refused.items())),
            "broken_streams": [str(error) for error in stream.errors],
            "faults": account.faults,
            "lost": len(account.lost),
            "duplicated": len(account.duplicated),
            "transactions": nonces,
            "projected_rows": rows,
            "blocks_lost": sum(kill.blocks_lost for kill in done),
            "sent_again": estate.logged("relay", "the chain lost a transaction"),
            "reorganisations_followed": estate.logged("index", "the chain was reorganised"),
            "duration_s": round(time.monotonic() - started, 1),
            "kills_in_order": [asdict(kill) for kill in done],
        }


def _next_kill(
    estate: Estate, stream: Stream, choice: random.Random, done: Sequence[Kill], victim: str, pause_s: float, made: float
) -> Kill:
    time.sleep(choice.uniform(0.2, pause_s))
    torn = choice.random() < TEARS and victim == "chain" and estate.is_kept(made, copied=True)
    _spare(estate, done, victim)
    if choice.random() < 0.7:
        stream.burst(choice.randint(1, BURST))
    moment = choice.choice(MOMENTS)
    if moment:
        estate.meet(moment)
    else:
        time.sleep(choice.uniform(0.0, 1.5))
    return estate.kill(victim, torn=torn)


def _spare(estate: Estate, done: Sequence[Kill], victim: str) -> None:
    """Wait until the supervisor would not give the victim up, because it died too often within a minute."""
    times = [kill.at_s for kill in done if kill.victim == victim][-(MAX_CRASHES - 1) :]
    if len(times) == MAX_CRASHES - 1:
        time.sleep(max(0.0, times[0] + CRASH_WINDOW_S + 1 - (time.monotonic() - estate.started)))


def passed(result: dict[str, Any]) -> bool:
    """Whether nothing was lost, done twice, or left unexplained."""
    return (
        not result["faults"]
        and not result["broken_streams"]
        and result["landed"] + result["refused_with_a_true_reason"] == result["promised"]
    )
