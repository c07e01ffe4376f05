"""Several aggregators: one that missed rounds joins in, one that led is gone for good, and two who want the lead get one attempt."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rexis.chain.connection import Chain
from rexis.chain.deployments import load
from rexis.client.aggregator import changes_of_lead
from rexis.client.connection import Answer
from rexis.encoding import sha256, to_hex
from rexis.protocol.approvals import Kind
from rexis.protocol.uploads import content_digest_header
from services.aggregator import approvals, leads
from services.aggregator.models import Federation
from services.foundation.database import transaction
from services.foundation.settings import LOCAL_CHAIN_ID
from tests.services.aggregators_on_chain import Operator, Stage, config_changes, operators, stage_of
from tests.services.federations_on_chain import LOOK_S, TRAINING, Gathering, Institution, gathered, wait_until
from tests.services.marketplace_on_chain import running_chain

ADAM = {"name": "fedadam", "learning_rate": "0.1", "beta1": "0.9", "beta2": "0.99", "tau": "0.01"}
MOMENTUM = {"name": "fedavgm", "learning_rate": "1", "momentum": "0.9"}
STAGE_S = 15
# Most of it is waiting: nobody else may lead before an attempt's deadline.
pytestmark = pytest.mark.timeout(480)


@dataclasses.dataclass
class Party:
    """Everybody at each operator; an institution is the same one wherever it is asked from."""

    stages: list[Stage]
    quiet: set[tuple[str, int]]

    @property
    def operators(self) -> list[Operator]:
        return self.stages[0].operators

    def work(self) -> None:
        for operator in self.operators:
            operator.work()
        for stage in self.stages:
            for institution in stage.gathering.institutions:
                institution.act()

    def until(self, condition: Callable[[], bool], seconds: float = 240.0, pause_s: float = 2 * LOOK_S) -> None:
        def acted() -> bool:
            self.work()
            time.sleep(pause_s)
            return condition()

        wait_until(acted, seconds=seconds)

    def found(self, leader: int, name: str, quorum: int = 2, **changes: Any) -> bytes:
        return self.stages[leader].gathering.found(name, **{**config_changes(self.operators, quorum), **changes})

    def row(self, number: int, federation: bytes) -> Federation | None:
        """An operator's row of a federation."""
        with transaction(self.operators[number].engine, read_only=True) as session:
            return session.get(Federation, to_hex(federation))

    def state(self, number: int, federation: bytes) -> tuple[str, str | None, str | None]:
        row = self.row(number, federation)
        return ("", None, None) if row is None else (row.state, row.reason, row.leader)

    def opened(self, federation: bytes) -> list[tuple[int, int, str]]:
        """Round, attempt and opener of each attempt that stands on chain."""
        logs = self.stages[0].gathering.chain.contract("FederationRegistry").events.RoundOpened().get_logs(from_block=0)
        found = [log["args"] for log in logs if log["args"]["federation"] == federation]
        return [(given["round"], given["attempt"], given["openedBy"]) for given in found]

    def next_after(self, leader: int) -> tuple[int, int]:
        """Whose turn it is when an operator is gone, and whose then."""
        order = sorted(range(3), key=lambda number: self.operators[number].signer.address.lower())
        place = order.index(leader)
        return order[(place + 1) % 3], order[(place + 2) % 3]


@pytest.fixture(scope="module")
def party(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Party]:
    folder, quiet = tmp_path_factory.mktemp("takeover"), set[tuple[str, int]]()
    with running_chain(folder) as rpc_url, operators(folder, rpc_url, first_leads=False) as made:
        chain = Chain.connect(rpc_url, load(LOCAL_CHAIN_ID))
        with gathered(made[0].settings, chain, folder, lambda _number, name, round_number, *_: (name, round_number) in quiet) as first:
            gatherings = [first, *(at(operator, first, folder) for operator in made[1:])]
            yield Party([Stage(gathering, made, rpc_url) for gathering in gatherings], quiet)


def at(operator: Operator, first: Gathering, folder: Path) -> Gathering:
    """The same founder and institutions, at another operator."""
    institutions = [
        Institution(
            each.number,
            each.signer,
            operator.connection(each.signer),
            each.chain,
            folder,
            each.silence,
            each.participants,
            each.configs,
            each.promised,
        )
        for each in first.institutions
    ]
    founder = operator.view(first.founder_signer)
    return Gathering(operator.settings, first.chain, folder, founder, first.founder_signer, first.stranger, institutions)


def other_state(path: str, answer: Answer) -> Answer | None:
    """A leader that shows another state, whole on its way."""
    if not path.endswith("/server-state"):
        return None
    raw = answer.raw[:-1] + bytes([answer.raw[-1] ^ 1])
    return dataclasses.replace(answer, raw=raw, headers={**answer.headers, "content-digest": content_digest_header(sha256(raw))})


def other_losses(path: str, answer: Answer) -> Answer | None:
    """A leader that shows better losses than stand on chain."""
    if not path.endswith("/rounds"):
        return None
    items = [{**item, "metrics": {**(item["metrics"] or {}), "holdout_loss": "0.000001"}} for item in answer.body["items"]]
    return dataclasses.replace(answer, body={"items": items})


def test_the_next_one_goes_on_when_a_leader_is_gone_and_who_missed_rounds_joins_in(party: Party) -> None:
    """Two federations at once, so that one waits while the other works: C leads `lost` and dies in its round 2, A leads `adam`."""
    gone = 2
    first, _ = party.next_after(gone)
    stopping = {"holdout": "0.2", "patience": 9, "improvement": "0"}
    lost = party.found(gone, "lost", training={**TRAINING, "strategy": MOMENTUM, "stopping": stopping}, stage_s=STAGE_S)
    party.until(lambda: len(party.opened(lost)) == 2 and stage_of(party.operators[gone], lost) == "masked")
    party.operators[gone].alive = False
    party.quiet.add(("adam", 3))
    adam = party.found(0, "adam", training={**TRAINING, "rounds": 3, "strategy": ADAM, "stopping": stopping}, stage_s=120)
    party.until(lambda: len(party.opened(adam)) == 3)
    # For a minute nothing happens but that a deadline passes.
    party.until(lambda: len(party.opened(lost)) == 3, pause_s=2.0)
    party.until(lambda: party.state(first, lost)[0] == "finished")
    leader = party.operators[gone].signer.address
    taker = party.operators[first].signer.address
    assert party.opened(lost) == [(1, 1, leader), (2, 1, leader), (2, 2, taker)]
    check_lost(party, lost, first)
    # The old leader is back: a witness of what it led, and of three rounds that it has not seen two of.
    witness, dead = party.operators[gone], party.operators[1]
    dead.alive, witness.alive, witness.shown.lie = False, True, other_losses
    witness.start()
    party.until(lambda: "metrics of round 1" in (party.state(gone, adam)[1] or ""))
    witness.shown.lie = other_state
    witness.start()
    party.until(lambda: "state of the server after round 2" in (party.state(gone, adam)[1] or ""))
    assert f"as {party.operators[0].signer.address} shows it" in (party.state(gone, adam)[1] or "")
    witness.shown.lie = lambda _path, _answer: None
    witness.start()
    party.quiet.clear()
    party.until(lambda: {party.state(number, adam)[0] for number in (0, gone)} == {"finished"})
    assert party.stages[0].signers(adam, "RoundFinalised")[2] == {party.operators[0].signer.address, leader}
    founder = party.stages[0].gathering.founder_signer
    shown, fetched = party.operators[0].view(founder), witness.view(founder)
    assert (shown.model(adam), shown.server_state(adam)) == (fetched.model(adam), fetched.server_state(adam))
    assert party.state(gone, lost) == ("finished", None, taker)
    assert party.opened(lost) == [(1, 1, leader), (2, 1, leader), (2, 2, taker)]
    dead.alive = True


def check_lost(party: Party, lost: bytes, first: int) -> None:
    """One set of survivors and one result a round; the new leader tells the whole history."""
    stage = party.stages[first]
    assert len(stage.signers(lost, "SurvivorsFixed")) == len(stage.signers(lost, "RoundFinalised")) == 2
    founder = stage.gathering.founder
    federation, rounds = founder.federation(lost), founder.rounds(lost)
    leaders = [(each.round, each.attempt, each.state, each.leader) for each in rounds]
    opened = party.opened(lost)
    assert leaders == [(1, 1, "finished", opened[0][2]), (2, 1, "aborted", opened[1][2]), (2, 2, "finished", opened[2][2])]
    assert federation.leader == opened[2][2]
    assert changes_of_lead(rounds) == [(rounds[1], rounds[2])]
    assert rounds[0].survivors == rounds[2].survivors == federation.config.roster
    assert to_hex(sha256(founder.server_state(lost))) == (rounds[2].metrics or {})["state"]


def result_signers(party: Party, number: int, federation: bytes) -> set[int]:
    """Whose signatures under the result of the first attempt an operator has."""
    with transaction(party.operators[number].engine, read_only=True) as session:
        kept = approvals.of_attempt(session, to_hex(federation), 1, 1, Kind.RESULT)
    addresses = [operator.signer.address for operator in party.operators]
    return {addresses.index(approval.signer) for approval in kept}


def test_two_that_take_over_at_once_are_one_that_leads_and_all_three_end_with_the_same_round(party: Party) -> None:
    """C opens an attempt of a second a stage, and is gone; the others come when both have their turn. Meanwhile another one converges."""
    gone = 2
    stopping = {"holdout": "0.2", "patience": 1, "improvement": "10"}
    # Of this one a quorum has signed the result when its leader is gone: whoever has the signatures records it.
    signed = party.found(gone, "signed", training=None, stage_s=60, quorum=3)
    party.until(lambda: stage_of(party.operators[gone], signed) in ("unmask", "finalising"))
    party.operators[0].pauses = {"witness"}
    party.until(lambda: result_signers(party, 1, signed) == {1, gone})
    party.operators[gone].alive = False
    party.operators[0].pauses = set()
    party.until(lambda: all(party.state(number, signed)[0] == "finished" for number in (0, 1)))
    assert len(party.stages[0].signers(signed, "RoundFinalised")) == 1
    raced = party.found(gone, "raced", training=None, stage_s=1)
    party.quiet.update(("raced", number) for number in range(1, 4))
    party.operators[gone].alive = True
    party.until(lambda: bool(party.opened(raced)))
    party.operators[gone].alive = False
    party.until(lambda: all(party.row(number, raced) is not None for number in (0, 1)))
    others = [party.operators[number] for number in (0, 1)]
    config = party.stages[0].gathering.founder.federation(raced).config
    for operator in others:
        operator.pauses = {"takeover"}

    def is_due(operator: Operator) -> bool:
        with transaction(operator.engine, read_only=True) as session:
            last = leads.newest(session, to_hex(raced))
        due = None if last is None else leads.due_at(config, last, operator.signer.address)
        return due is not None and time.time() > due + 1

    converging = party.found(0, "converging", training={**TRAINING, "rounds": 4, "stopping": stopping}, stage_s=60)
    party.until(lambda: all(map(is_due, others)) and {party.state(number, converging)[0] for number in (0, 1)} == {"finished"})
    assert party.opened(raced) == [(1, 1, party.operators[gone].signer.address)]
    assert len(party.opened(converging)) == 2
    for operator in others:
        operator.pauses = set()
    party.until(lambda: len(party.opened(raced)) == 2 and {party.state(number, raced)[0] for number in (0, 1)} == {"running", "witnessing"})
    winner = party.opened(raced)[1][2]
    assert [party.operators[number].signer.address for number in (0, 1) if party.state(number, raced)[0] == "running"] == [winner]
    abandoned = party.stages[0].gathering.chain.contract("FederationRegistry").events.RoundAbandoned().get_logs(from_block=0)
    assert len([log for log in abandoned if log["args"]["federation"] == raced]) == 1
    # Who was away for all of it finds from the chain and the others' metrics when training ended.
    party.operators[gone].alive = True
    party.operators[gone].start()
    party.until(lambda: party.state(gone, raced)[0] == "witnessing")
    assert party.state(gone, raced)[2] == winner
