"""The campaign against the aggregator's commits: its background process and its API die at every one of them, during one whole round.

Four real agents take part. However often the aggregator dies, nobody may drop out, and every fact stands on chain once.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import stamina

from rexis.agent.federation.founding import FederationPlan
from rexis.chain.connection import Chain
from rexis.chain.deployments import load
from rexis.chain.signer import LOCAL_CHAIN_ID
from rexis.client.aggregator import AggregatorClient, Federation
from rexis.errors import RexisError
from rexis.protocol.federation_config import FederationConfig
from services.foundation.database import open_engine
from services.foundation.settings import ServiceSettings
from tests.campaign.record import commit
from tests.campaign.round_accounts import PlainAverage, ended_attempts, faults_of, read_facts
from tests.services.federation_stand_in import FOUNDER, HOSPITALS, Hospital, config_of, rows_of
from tests.services.federations_on_chain import LOOK_S, api_arguments, migrated, started
from tests.services.marketplace_on_chain import running_chain
from tests.services.service_applications import connected

Result = TypeVar("Result")

# What dies, and by which rule; see `mortal_process`.
PARTS = (("rounds", "after"), ("rounds", "before"), ("api", "points"))
COUNTS = (23, 31, 17, 12)
STAGE_S, PATIENCE_S = 300, 600.0


def campaign(folder: Path, parts: Sequence[tuple[str, str]] = PARTS, tell: Callable[[str], None] = lambda _line: None) -> dict[str, Any]:
    """Run it in `folder`, which is empty. Returns what `python -m tests.campaign` prints."""
    begun, found = time.monotonic(), {}
    # An aggregator that is away is what this is about: a line for each retry says nothing.
    stamina.instrumentation.set_on_retry_hooks(())
    for part, rule in parts:
        place = folder / f"{part}-{rule}"
        place.mkdir()
        found[f"{part}, {rule}"] = _round(place, part, rule)
        tell(f"{part}, {rule}: {found[f'{part}, {rule}']}")
    return {"campaign": "commits", "commit": commit(), "parts": found, "duration_s": round(time.monotonic() - begun, 1)}


def passed(result: dict[str, Any]) -> bool:
    """Whether every part died, and its round is final once with everybody in it."""
    return all(
        part["deaths"] and part["state"] == "finished" and part["survivors"] == [len(COUNTS)] and not part["faults"]
        for part in result["parts"].values()
    )


def _round(folder: Path, part: str, rule: str) -> dict[str, Any]:
    note = folder / "deaths"
    with running_chain(folder) as rpc_url, ExitStack() as stack:
        chain, settings = Chain.connect(rpc_url, load(LOCAL_CHAIN_ID)), migrated(folder, rpc_url)
        mortal = ("tests.campaign.mortal_process", part, rule, str(note))
        carrier = mortal if part == "rounds" else ("services.aggregator.background",)
        stack.enter_context(_running(settings, *carrier))
        stack.enter_context(_running(settings, *(mortal if part == "api" else ("uvicorn", *api_arguments(settings)))))
        founding, *lines = stack.enter_context(connected(settings, FOUNDER, *HOSPITALS))
        founder, hospitals = AggregatorClient(founding), []
        for number, (signer, line) in enumerate(zip(HOSPITALS, lines, strict=True)):
            hospital = Hospital(chain, signer, rows_of(number, COUNTS[number]), folder / f"{number}.sqlite", line)
            stack.callback(hospital.stop)
            hospital.register()
            hospital.grant()
            hospitals.append(hospital)
        _again(founder.account)
        plan = FederationPlan(FederationConfig.parse(config_of(hospitals, "training", name="mortal", rounds=1, stage_s=STAGE_S)))
        federation = _again(lambda: plan.found(founder, FOUNDER, load(LOCAL_CHAIN_ID))).id
        _until(lambda: _again(lambda: founder.federation(federation)).state != "founding")
        for hospital in hospitals:
            _again(partial(hospital.join, federation))
        ended = _play(founder, hospitals, federation)
        facts, engine = read_facts(chain, federation), open_engine(settings.database_url)
        plain = PlainAverage(plan, federation, {each.signer.address: each.table for each in hospitals})
        faults = faults_of(
            facts, ended_attempts(engine, federation), rounds=1, initial=plan.model, least=plan.config.min_survivors, plain=plain.round
        )
        engine.dispose()
    lines_of_death = note.read_text().splitlines() if note.exists() else []
    return {
        "deaths": len(lines_of_death),
        "points": dict(sorted(Counter(lines_of_death).items())),
        "state": ended.state,
        "reason": ended.reason,
        "attempts": len(facts.opened),
        "survivors": [len(survivors) for _, survivors in facts.fixed],
        "faults": faults,
    }


def _play(founder: AggregatorClient, hospitals: Sequence[Hospital], federation: bytes) -> Federation:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        for hospital in hospitals:
            # As in the agent's loop: whatever fails is asked again.
            with suppress(RexisError):
                hospital.poll()
        seen = _again(lambda: founder.federation(federation))
        if seen.state in ("finished", "failed"):
            return seen
        assert time.monotonic() < deadline, f"not ended: round {seen.round} is {seen.state}"
        time.sleep(LOOK_S)


def _again(act: Callable[[], Result]) -> Result:
    """Until the aggregator is there for long enough."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return act()
        except RexisError:
            assert time.monotonic() < deadline, "the aggregator did not come back"
            time.sleep(0.05)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@contextmanager
def _running(settings: ServiceSettings, module: str, *arguments: str) -> Iterator[None]:
    process = started(settings, module, *arguments)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
