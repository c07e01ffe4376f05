"""Federations: thresholds that keep single updates closed, and who sees what."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rexis.chain.signer import LocalSigner
from rexis.encoding import to_hex
from rexis.errors import ProtocolError
from rexis.models.spec import ModelSpec
from services.aggregator.federations import check_thresholds
from services.foundation.database import migrate, open_engine
from services.foundation.settings import ServiceSettings
from tests.services.service_applications import authorised, client_of, settings_for

SPEC = {"version": 1, "family": "mlp", "config": {"inputs": 13, "hidden": [16], "outputs": 1, "activation": "relu"}}
HOSPITALS = [LocalSigner.generate() for _ in range(4)]


@pytest.fixture
def settings(database_url: str) -> ServiceSettings:
    engine = open_engine(database_url)
    migrate(engine, "services.aggregator")
    engine.dispose()
    return settings_for("aggregator", database_url)


@pytest.fixture
def client(settings: ServiceSettings) -> Iterator[TestClient]:
    with client_of(settings) as client:
        yield client


def rules(**changes: Any) -> dict[str, Any]:
    return {
        "name": "Four hospitals",
        "roster": [hospital.address for hospital in HOSPITALS],
        "collusion_bound": 1,
        "threshold": 3,
        "min_survivors": 3,
        "strategy": "fedavg",
        "model_spec": SPEC,
        **changes,
    }


def test_thresholds_are_refused_exactly_when_somebody_could_be_opened_or_no_round_could_end() -> None:
    for n, t_c, t, survivors in product(range(2, 9), range(5), range(1, 9), range(1, 9)):
        # From the definition, not the formula: opening both secrets of one site takes 2t shares of at most n + t_c.
        closed = 2 * t > n + t_c
        hidden = survivors - t_c >= 2
        reachable = n >= 3 and t <= n and t <= survivors <= n
        try:
            check_thresholds(n, t_c, t, survivors)
            admitted = True
        except ProtocolError:
            admitted = False
        assert admitted == (closed and hidden and reachable), (n, t_c, t, survivors)


def test_members_see_what_the_founder_founded(client: TestClient, settings: ServiceSettings) -> None:
    founded = client.post("/v1/federations", json=rules(), headers=authorised(settings, HOSPITALS[0]))
    assert founded.status_code == 201, founded.text
    federation = founded.json()
    assert federation["spec_digest"] == to_hex(ModelSpec.parse(SPEC).digest())
    assert federation["roster"] == [hospital.address for hospital in HOSPITALS]
    for hospital in HOSPITALS:
        headers = authorised(settings, hospital)
        assert client.get(f"/v1/federations/{federation['id']}", headers=headers).json() == federation
        assert client.get("/v1/federations", headers=headers).json() == {"items": [federation], "next_cursor": None}
    stranger = authorised(settings, LocalSigner.generate())
    assert client.get("/v1/federations", headers=stranger).json()["items"] == []


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"threshold": 2}, "threshold: expected at least floor((n + t_c) / 2) + 1 = 3 for n = 4 and t_c = 1, got 2"),
        ({"min_survivors": 2}, "min_survivors: expected at least max(t, t_c + 2) = 3"),
        ({"min_survivors": 5}, "min_survivors: expected at most n = 4"),
        ({"collusion_bound": 3, "threshold": 4, "min_survivors": 4}, "collusion_bound: "),
        ({"roster": [HOSPITALS[0].address] * 4}, "roster: expected distinct addresses"),
        ({"roster": [hospital.address for hospital in HOSPITALS[:3]] + ["0x" + 40 * "0"]}, "roster: the zero address"),
        ({"model_spec": {**SPEC, "code": "import os"}}, "a model spec has exactly the fields"),
    ],
)
def test_unsound_rules_are_refused_with_the_rule(client: TestClient, settings: ServiceSettings, changes: dict[str, Any], rule: str) -> None:
    headers = authorised(settings, HOSPITALS[0])
    answer = client.post("/v1/federations", json=rules(**changes), headers=headers)
    assert answer.status_code == 422
    assert rule in answer.json()["detail"]
    assert client.get("/v1/federations", headers=headers).json()["items"] == []


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_the_same_address_in_two_spellings_is_one_member(client: TestClient, settings: ServiceSettings) -> None:
    roster = [hospital.address for hospital in HOSPITALS[:3]] + [HOSPITALS[0].address.lower()]
    answer = client.post("/v1/federations", json=rules(roster=roster), headers=authorised(settings, HOSPITALS[0]))
    assert answer.status_code == 422
    assert "distinct" in answer.json()["detail"]


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_mistyped_address_is_refused(client: TestClient, settings: ServiceSettings) -> None:
    wrong = HOSPITALS[3].address.swapcase().replace("0X", "0x")
    answer = client.post("/v1/federations", json=rules(roster=[*rules()["roster"][:3], wrong]), headers=authorised(settings, HOSPITALS[0]))
    assert answer.status_code == 422
    assert "checksum" in answer.json()["detail"]


def test_a_request_sent_twice_founds_one_federation(client: TestClient, settings: ServiceSettings) -> None:
    headers = {**authorised(settings, HOSPITALS[0]), "Idempotency-Key": "first"}
    first, second = (client.post("/v1/federations", json=rules(), headers=headers) for _ in range(2))
    assert first.json() == second.json()
    assert second.headers["Idempotency-Replayed"] == "true"
    changed = client.post("/v1/federations", json=rules(name="another"), headers=headers)
    assert changed.status_code == 422
    assert len(client.get("/v1/federations", headers=headers).json()["items"]) == 1


def test_pages_hold_each_federation_once_newest_first(client: TestClient, settings: ServiceSettings) -> None:
    headers = authorised(settings, HOSPITALS[1])
    ids = [client.post("/v1/federations", json=rules(name=str(number)), headers=headers).json()["id"] for number in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        query = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = client.get("/v1/federations", params=query, headers=headers).json()
        assert len(page["items"]) <= 2
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ids[::-1]
    foreign = client.get("/v1/federations", params={"cursor": ids[0]}, headers=authorised(settings, LocalSigner.generate()))
    assert foreign.status_code == 422
    assert client.get("/v1/federations", params={"limit": 101}, headers=headers).status_code == 422


@pytest.mark.parametrize("name", ["a\x00b", "\x1b[31mred", "right\u202eleft", "   "])
def test_a_name_that_can_not_be_read_as_it_is_stored_is_refused(client: TestClient, settings: ServiceSettings, name: str) -> None:
    answer = client.post("/v1/federations", json=rules(name=name), headers=authorised(settings, HOSPITALS[0]))
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:rexis:problem:encoding"
    assert answer.json()["detail"].startswith("name: expected text")
