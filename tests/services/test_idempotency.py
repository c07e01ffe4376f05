"""Idempotency keys: one effect and one answer, whatever is repeated, raced or broken."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response
from pydantic import BaseModel
from sqlalchemy import Engine, MetaData, String, func, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from services.foundation import problems
from services.foundation.database import NAMING, SessionDep, now, transaction
from services.foundation.idempotency import IdempotencyDep, IdempotencyKey, delete_expired_keys
from services.foundation.problems import Problem
from services.foundation.settings import ServiceSettings
from tests.services.upload_application import ALICE, BOB, authorised, settings_for


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)


class Order(Base):
    __tablename__ = "order"

    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str] = mapped_column(String(50))


class OrderRequest(BaseModel):
    item: str


class OrderAnswer(BaseModel):
    id: int
    item: str
    blob: str = "0x00"


class Gate:
    """Holds handlers in the middle of their transaction."""

    def __init__(self) -> None:
        self.closed = False
        self.entered, self.opened = threading.Event(), threading.Event()

    def pass_through(self) -> None:
        if self.closed:
            self.entered.set()
            assert self.opened.wait(30)


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> ServiceSettings:
    return settings_for(database_url, tmp_path.as_uri())


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def client(settings: ServiceSettings, engine: Engine, gate: Gate) -> Iterator[TestClient]:
    Base.metadata.create_all(engine)
    app = FastAPI()
    app.state.settings, app.state.engine = settings, engine

    def ordered(session: SessionDep, item: str) -> OrderAnswer:
        order = Order(item=item)
        session.add(order)
        session.flush()
        gate.pass_through()
        if item == "refused":
            raise Problem(409, "sold-out", "Sold out", "there is none left")
        if item == "defect":
            raise ZeroDivisionError
        return OrderAnswer(id=order.id, item=item)

    @app.post("/orders", status_code=201)
    def create(body: OrderRequest, session: SessionDep, idempotency: IdempotencyDep) -> OrderAnswer:
        return idempotency.once(OrderAnswer, lambda: ordered(session, body.item))

    @app.post("/{shop}/orders", status_code=202)
    def create_in_shop(shop: str, body: OrderRequest, session: SessionDep, idempotency: IdempotencyDep) -> OrderAnswer:
        return idempotency.once(OrderAnswer, lambda: ordered(session, f"{shop}/{body.item}"))

    problems.install(app)
    with TestClient(app) as opened:
        yield opened


def order(
    client: TestClient, settings: ServiceSettings, key: str | None, item: str = "a", *, owner: str = ALICE, path: str = "/orders"
) -> Response:
    headers = authorised(settings, owner) | ({"Idempotency-Key": key} if key is not None else {})
    return client.post(path, json={"item": item}, headers=headers)


def orders(engine: Engine) -> int:
    with transaction(engine, read_only=True) as session:
        return session.scalar(select(func.count()).select_from(Order)) or 0


def test_the_same_request_twice_has_one_effect_and_one_answer(client: TestClient, settings: ServiceSettings, engine: Engine) -> None:
    first, second = (order(client, settings, "k") for _ in range(2))
    assert (first.status_code, first.json()) == (201, {"id": 1, "item": "a", "blob": "0x00"})
    assert (second.status_code, second.json()) == (first.status_code, first.json())
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert orders(engine) == 1


def test_without_a_key_every_request_counts(client: TestClient, settings: ServiceSettings, engine: Engine) -> None:
    assert [order(client, settings, None).json()["id"] for _ in range(2)] == [1, 2]
    assert orders(engine) == 2


def test_another_body_under_the_key_is_refused(client: TestClient, settings: ServiceSettings, engine: Engine) -> None:
    order(client, settings, "k")
    answer = order(client, settings, "k", "b")
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:rexis:problem:idempotency-key-reused")
    assert orders(engine) == 1


def test_a_key_belongs_to_one_caller_and_one_operation(client: TestClient, settings: ServiceSettings, engine: Engine) -> None:
    answers = [
        order(client, settings, "k"),
        order(client, settings, "k", owner=BOB),
        order(client, settings, "k", path="/one/orders"),
        order(client, settings, "k", path="/two/orders"),
        order(client, settings, "K"),
    ]
    assert [answer.status_code for answer in answers] == [201, 201, 202, 202, 201]
    assert orders(engine) == len(answers)


@pytest.mark.parametrize(("item", "status"), [("refused", 409), ("defect", 500)])
def test_a_failure_is_not_remembered(item: str, status: int, client: TestClient, settings: ServiceSettings, engine: Engine) -> None:
    for _ in range(2):
        assert order(client, settings, "k", item).status_code == status
    assert orders(engine) == 0
    assert order(client, settings, "k", "a").status_code == 201


def test_many_at_the_same_time_have_one_effect(client: TestClient, settings: ServiceSettings, engine: Engine) -> None:
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: order(client, settings, "k"), range(12)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert {answer.text for answer in answers if answer.status_code == 201} == {'{"id":1,"item":"a","blob":"0x00"}'}
    assert all(answer.json()["type"] == "urn:rexis:problem:request-in-flight" for answer in answers if answer.status_code == 409)
    assert orders(engine) == 1


@pytest.mark.parametrize("dialect", ["postgres"], indirect=True)
def test_while_the_first_one_runs_the_second_is_told_so(client: TestClient, settings: ServiceSettings, engine: Engine, gate: Gate) -> None:
    gate.closed = True
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(order, client, settings, "k")
        assert gate.entered.wait(30)
        second = order(client, settings, "k")
        gate.opened.set()
    assert (second.status_code, second.json()["type"]) == (409, "urn:rexis:problem:request-in-flight")
    assert first.result().status_code == 201
    assert order(client, settings, "k").json() == first.result().json()
    assert orders(engine) == 1


@pytest.mark.parametrize("key", ["", "a b", "a\tb", "x" * 129])
def test_keys_that_are_none(key: str, client: TestClient, settings: ServiceSettings, engine: Engine) -> None:
    assert order(client, settings, key).status_code == 422
    assert orders(engine) == 0


def test_an_answer_expires(client: TestClient, settings: ServiceSettings, engine: Engine) -> None:
    order(client, settings, "k")
    order(client, settings, "other")
    with transaction(engine) as session:
        session.execute(update(IdempotencyKey).where(IdempotencyKey.key == "k").values(expires_at=now() - timedelta(seconds=1)))
    # A key whose time is over counts as unused, also before the clean-up came to it.
    assert order(client, settings, "k", "b").json() == {"id": 3, "item": "b", "blob": "0x00"}
    assert order(client, settings, "k", "b").json()["id"] == 3
    with transaction(engine) as session:
        session.execute(update(IdempotencyKey).where(IdempotencyKey.key == "k").values(expires_at=now() - timedelta(seconds=1)))
    assert delete_expired_keys(engine) == 1
    assert delete_expired_keys(engine) == 0
    assert order(client, settings, "other").json()["id"] == 2
