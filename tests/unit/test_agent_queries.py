"""The query duty: nothing runs without a grant on chain, nothing leaves before it is in the journal, and no answer is ever another one."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rexis.agent.duty import Event
from rexis.agent.execution.ledger import DisclosureLedger
from rexis.agent.journal import Journal
from rexis.encoding import sha256
from rexis.errors import PolicyError, ServiceError, UnavailableError, UnexpectedMessageError
from rexis.policy.duo import Permission, Purpose
from tests.unit.query_agent import (
    DATASET,
    PASSPHRASE,
    RULES,
    SEX,
    SICK,
    Grants,
    QueryServer,
    conditions,
    problem,
    query_duty,
    registered_journal,
    serving,
)

ISOLATING = ({"column": "age", "from": "62"},)


@pytest.fixture
def server() -> QueryServer:
    return QueryServer()


@pytest.fixture
def url(server: QueryServer) -> Iterator[str]:
    with serving(server) as found:
        yield found


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def outcomes(server: QueryServer) -> list[dict[str, Any]]:
    return [json.loads(body) for _, body in server.puts]


def test_a_query_is_answered_once_and_then_there_is_nothing_to_do(server: QueryServer, url: str, journal: Path) -> None:
    server.hand_in(SEX, SICK)
    events: list[Event] = []
    with query_duty(journal, url, events=events) as duty:
        assert duty.poll()
        assert not duty.poll()
    (outcome,) = outcomes(server)
    assert outcome["state"] == "released"
    assert outcome["result"]["cells"] == [30, 20, 35, 15]
    assert [event.what for event in events] == ["query released"]


def test_the_same_query_is_answered_with_the_same_result_and_costs_nothing(server: QueryServer, url: str, journal: Path) -> None:
    with query_duty(journal, url, rules=replace(RULES, budget=1)) as duty:
        for _ in range(3):
            server.hand_in(SEX, SICK)
            duty.poll()
        server.hand_in(SICK, SEX)
        duty.poll()
    told = outcomes(server)
    assert [outcome["state"] for outcome in told] == ["released"] * 3 + ["refused"]
    assert len({outcome["result_digest"] for outcome in told[:3]}) == 1
    assert "rule query budget" in told[3]["rule"]


def test_snapping_outlives_the_process_and_is_shown_to_the_owner_only(server: QueryServer, url: str, journal: Path) -> None:
    for below in (60, 57):
        server.hand_in(SICK, filters=[{"column": "age", "below": below}])
        with query_duty(journal, url) as duty:
            duty.poll()
    first, second = outcomes(server)
    assert first["result"]["cells"] == second["result"]["cells"]
    assert first["result"].keys() == second["result"].keys()
    with Journal.open(journal, None) as opened:
        assert [entry.detail["snapped"] for entry in opened.entries() if entry.stage == "released"] == [0, 1]


def test_what_isolates_a_patient_is_held_and_told_without_a_reason(server: QueryServer, url: str, journal: Path) -> None:
    query = server.hand_in(SICK, filters=ISOLATING)
    with query_duty(journal, url) as duty:
        duty.poll()
    assert outcomes(server) == [{"state": "held", "result": None, "rule": None, "result_digest": None}]
    with Journal.open(journal, PASSPHRASE) as opened:
        (job,) = DisclosureLedger(opened).held()
    assert job.asked.id == query
    assert "minimum number of subjects" in str(job.rule)


@pytest.mark.parametrize("release", [True, False])
def test_a_person_decides_about_what_is_held(server: QueryServer, url: str, journal: Path, release: bool) -> None:
    query = server.hand_in(SICK, filters=ISOLATING)
    with query_duty(journal, url) as duty:
        duty.poll()
        with Journal.open(journal, PASSPHRASE) as opened:
            ledger = DisclosureLedger(opened)
            ledger.decide(query, release=release, by="the owner")
            ledger.decide(query, release=release, by="the owner")
            with pytest.raises(UnexpectedMessageError, match="does not wait"):
                ledger.decide(query, release=not release, by="the owner")
        assert duty.poll()
        assert not duty.poll()
    told = outcomes(server)
    assert [outcome["state"] for outcome in told] == ["held", "released" if release else "refused"]
    assert told[1]["rule"] is None
    if release:
        assert told[1]["result"]["rules"] == {"minimum_cell": None, "rounding": 5}


def test_a_person_who_is_faster_than_the_network_changes_nothing(server: QueryServer, url: str, journal: Path) -> None:
    """The marketplace takes a decision of a person only after the hold."""
    query = server.hand_in(SICK, filters=ISOLATING)
    server.answer_put = lambda _query: problem(503, "unavailable")
    with query_duty(journal, url) as duty:
        with pytest.raises(ServiceError):
            duty.poll()
        with Journal.open(journal, PASSPHRASE) as opened:
            DisclosureLedger(opened).decide(query, release=False, by="the owner")
        server.answer_put, server.puts = (lambda _query: None), []
        duty.poll()
    assert [outcome["state"] for outcome in outcomes(server)] == ["held", "refused"]


@pytest.mark.parametrize(
    ("grants", "declared", "rule"),
    [
        ("no grant", {}, "grant on chain"),
        ("other conditions", {}, "conditions of the grant"),
        ("right", {"policy_hash": sha256(b"another policy")}, "policy in force"),
        ("right", {"purpose": Purpose(Permission.HMB, conditions().purpose.until, commercial=True)}, "NCU"),
        ("right", {"purpose": Purpose(Permission.HMB, conditions().purpose.until.replace(year=2020), commercial=False)}, "term"),
        ("right", {"consumer": "0x90F79bf6EB2c4f870365E785982E1f101E93b906"}, "conditions of the grant"),
        ("right", {"dataset": DATASET + 1}, "conditions of the grant"),
        ("right", {"purpose": Purpose(Permission.GRU, conditions().purpose.until, commercial=False)}, "conditions of the grant"),
    ],
)
def test_the_marketplace_is_not_believed(
    server: QueryServer, url: str, journal: Path, grants: str, declared: dict[str, Any], rule: str
) -> None:
    shown = conditions(**declared)

    def chain() -> bytes:
        if grants == "no grant":
            raise PolicyError("rule grant on chain: none")
        return shown.digest() if grants == "right" else sha256(b"other conditions")

    server.hand_in(SEX, SICK, declared=shown)
    with query_duty(journal, url, grants=Grants(chain)) as duty:
        duty.poll()
    (outcome,) = outcomes(server)
    assert outcome["state"] == "refused"
    assert f"rule {rule}" in outcome["rule"]
    assert outcome["result"] is None
    with Journal.open(journal, PASSPHRASE) as opened:
        assert opened.rows("SELECT * FROM answered_query") == []


def test_without_declared_conditions_only_a_policy_without_conditions_is_met(server: QueryServer, url: str, journal: Path) -> None:
    server.hand_in(SEX, SICK)
    server.work[0]["conditions"] = None
    with query_duty(journal, url) as duty:
        duty.poll()
    assert "rule NCU" in outcomes(server)[0]["rule"]


def test_nothing_is_decided_while_the_chain_is_away(server: QueryServer, url: str, journal: Path) -> None:
    def away() -> bytes:
        raise UnavailableError("this site's chain node does not answer")

    grants = Grants(away)
    server.hand_in(SEX, SICK)
    with query_duty(journal, url, grants=grants) as duty:
        with pytest.raises(UnavailableError):
            duty.poll()
        assert server.puts == []
        grants.found = lambda: conditions().digest()
        duty.poll()
    assert outcomes(server)[0]["state"] == "released"


def test_other_peoples_data_sets_are_left_alone(server: QueryServer, url: str, journal: Path) -> None:
    server.hand_in(SEX, SICK, dataset=DATASET + 1)
    events: list[Event] = []
    with query_duty(journal, url, events=events) as duty:
        duty.poll()
        assert not duty.poll()
    assert server.puts == []
    assert [event.what for event in events] == ["query left alone"]


def test_an_outcome_that_is_not_taken_is_not_sent_for_ever(server: QueryServer, url: str, journal: Path) -> None:
    server.hand_in(SEX, SICK)
    server.answer_put = lambda _query: problem(409, "query-over")
    with query_duty(journal, url) as duty:
        duty.poll()
        duty.poll()
    assert len(server.puts) == 1
    with query_duty(journal, url) as duty:
        server.work = []
        assert not duty.poll()


def test_a_marketplace_that_forgot_is_told_the_same_again(server: QueryServer, url: str, journal: Path) -> None:
    server.hand_in(SEX, SICK)
    lost = list(server.work)
    with query_duty(journal, url) as duty:
        duty.poll()
        server.work = lost
        duty.poll()
    assert server.puts[0] == server.puts[1]


def test_an_agent_that_is_killed_before_its_answer_arrives_sends_the_same_bytes(server: QueryServer, url: str, journal: Path) -> None:
    registered_journal(journal).close()
    server.hand_in(SEX, SICK)
    in_journal: list[str] = []

    def kill() -> None:
        if not in_journal:
            with Journal.open(journal, None) as opened:
                in_journal.extend(row["state"] for row in opened.rows("SELECT state FROM query_job WHERE told IS NULL"))
            os.kill(agent.pid, signal.SIGKILL)

    server.before_put = kill
    program = [sys.executable, str(Path(__file__).with_name("query_agent.py")), str(journal), url]
    with subprocess.Popen(program, cwd=Path(__file__).parents[2], env={**os.environ, "PYTHONPATH": "."}) as agent:
        assert agent.wait(timeout=60) == -signal.SIGKILL
    # It was on disk before it was sent.
    assert in_journal == ["released"]
    with query_duty(journal, url) as duty:
        duty.poll()
    assert len(server.puts) == 2
    assert server.puts[0] == server.puts[1]


def test_the_file_shows_no_result_and_no_population(server: QueryServer, url: str, journal: Path) -> None:
    server.hand_in(SICK, filters=ISOLATING)
    server.hand_in(SEX, SICK)
    with query_duty(journal, url) as duty:
        duty.poll()
    content = b"".join(file.read_bytes() for file in journal.parent.glob("journal.sqlite*"))
    assert b'"cells"' not in content
    with Journal.open(journal, PASSPHRASE) as opened, pytest.raises(sqlite3.IntegrityError, match="answered once"):
        opened.rows("UPDATE answered_query SET held = NULL")


def test_a_query_that_was_exchanged_under_its_id_is_not_run(server: QueryServer, url: str, journal: Path) -> None:
    query = server.hand_in(SEX, SICK)
    with query_duty(journal, url) as duty:
        duty.poll()
        server.hand_in(SICK, filters=ISOLATING)
        server.work[0]["id"] = query
        duty.poll()
    assert server.puts[0] == server.puts[1]
