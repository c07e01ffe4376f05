"""The campaign's accounts: each way to lose, repeat or misreport a call is found, so that an empty list means something."""

from collections import Counter
from typing import Any

import pytest
from sqlalchemy import Engine

from services.foundation.database import transaction
from services.foundation.outbox.transactions import ChainIntent
from tests.campaign.accounting import Account, OnChain, settle_accounts
from tests.campaign.operations import Promise

GATE, GRANT = ("Gate", "aa"), ("AccessGranted", "0x01")
TWIN = ("DatasetRegistered", "0x02")
EXISTS = {"contract": "DatasetRegistry", "error": "ContentAlreadyRegistered", "arguments": {}, "detail": ""}
OTHER = {**EXISTS, "error": "ZeroHash"}


def accounts(
    engine: Engine, promises: list[Promise], intents: dict[str, tuple[str, Any]], marks: dict[Any, int], requests: dict[str, int]
) -> Account:
    with transaction(engine) as session:
        for key, (state, error) in intents.items():
            session.add(ChainIntent(key=key, label="x", to="0x", data=b"", gas=1, state=state, error=error))
    account = Account()
    settle_accounts(account, engine, promises, OnChain(Counter(marks), Counter(requests)))
    return account


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("state", "error", "gates", "fault"),
    [
        ("final", None, 1, None),
        ("final", None, 0, "lost"),
        ("final", None, 2, "duplicated"),
        ("submitted", None, 0, "unsettled"),
        ("failed", EXISTS, 0, "untrue"),
        ("failed", OTHER, 1, "untrue"),
        (None, None, 0, "lost"),
    ],
)
def test_a_call_that_nothing_remembers(engine: Engine, state: str | None, error: Any, gates: int, fault: str | None) -> None:
    intents = {} if state is None else {"aa": (state, error)}
    found = accounts(engine, [Promise("gate", GATE, "aa")], intents, {GATE: gates}, {})
    assert next(iter(found.faults), None) == fault
    assert found.landed == ({"gate": 1} if fault is None else {})


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("requests", "marks", "fault"),
    [
        ({"0xa:1": 1}, {GRANT: 1}, None),
        ({"0xa:1": 1}, {GRANT: 0}, "untrue"),
        ({}, {GRANT: 0}, "lost"),
        ({"0xa:1": 1}, {GRANT: 2}, "duplicated"),
        ({"0xa:1": 1, "0xa:2": 1}, {GRANT: 1}, "unexplained"),
        ({"0xa:1": 1}, {GRANT: 1, GATE: 1}, "unexplained"),
    ],
)
def test_a_relayed_call(engine: Engine, requests: dict[str, int], marks: dict[Any, int], fault: str | None) -> None:
    found = accounts(engine, [Promise("grant", GRANT, "0xa:1")], {"relay:0xa:1": ("final", None)}, marks, requests)
    assert next(iter(found.faults), None) == fault


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("first", "second", "registered", "fault"),
    [
        (("final", None), ("failed", EXISTS), 1, None),
        (("final", None), ("failed", OTHER), 1, "untrue"),
        (("failed", EXISTS), ("failed", EXISTS), 0, "untrue"),
        (("failed", EXISTS), ("failed", EXISTS), 1, "untrue"),
        (("final", None), ("final", None), 2, "duplicated"),
    ],
)
def test_of_twins_one_lands_and_one_fails_for_that_reason(
    engine: Engine, first: Any, second: Any, registered: int, fault: str | None
) -> None:
    promises = [Promise("twin", TWIN, "0xa:1"), Promise("twin", TWIN, "0xa:2")]
    requests = {key: 1 for key, (state, _) in (("0xa:1", first), ("0xa:2", second)) if state == "final"}
    found = accounts(engine, promises, {"relay:0xa:1": first, "relay:0xa:2": second}, {TWIN: registered}, requests)
    assert next(iter(found.faults), None) == fault
    if fault is None:
        assert (found.landed["twin"], found.refused["twin"]) == (1, 1)
