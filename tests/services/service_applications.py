"""The four services as their own `create_app` makes them, with settings for a test."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr

from rexis.chain.signer import LocalSigner
from rexis.client.connection import Connection
from rexis.client.sign_in import SignInSession
from services.foundation.settings import ServiceSettings
from services.foundation.sign_in import SessionTokens

SERVICES = ("marketplace", "trainer", "aggregator", "verifier")
SESSION_KEYS = {name: f"{number:02x}" * 32 for number, name in enumerate(SERVICES, start=1)}


def settings_for(service: str, database_url: str, **changes: Any) -> ServiceSettings:
    """Settings of a service. Redis, store and chain answer only where `changes` name real ones."""
    given = {
        "public_url": f"http://{service}.test",
        "database_url": database_url,
        "redis_url": "redis://127.0.0.1:1/0",
        "object_store_url": "memory://",
        "session_key": SESSION_KEYS[service],
        "chain_rpc_url": "http://127.0.0.1:1",
    }
    settings_class = getattr(import_module(f"services.{service}.settings"), f"{service.title()}Settings")
    settings: ServiceSettings = settings_class(**{**given, **changes})
    return settings


def application(settings: ServiceSettings) -> FastAPI:
    """The service's application; nothing is opened yet."""
    app: FastAPI = import_module(f"services.{settings.service}.app").create_app(settings)
    return app


def client_of(settings: ServiceSettings) -> TestClient:
    """A client of the service's application; as a context manager it runs the lifespan."""
    return TestClient(application(settings), base_url=settings.public_url)


def authorised(settings: ServiceSettings, account: LocalSigner | str) -> dict[str, str]:
    """The headers of an account that has signed in."""
    address = account if isinstance(account, str) else account.address
    return {"Authorization": f"Bearer {SessionTokens(settings).issue(address).token}"}


def environment_of(settings: ServiceSettings) -> dict[str, str]:
    """The environment in which a process of the service reads these settings, and no others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("REXIS_")}
    shown = {name: getattr(settings, name) for name in type(settings).model_fields}
    plain = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else str(value) for name, value in shown.items() if value is not None
    }
    return {**inherited, **{f"REXIS_{name.upper()}": value for name, value in plain.items()}}


@contextmanager
def serving(settings: ServiceSettings) -> Iterator[None]:
    """The service's API on the port of its public URL."""
    port = int(settings.public_url.rpartition(":")[2])
    server = uvicorn.Server(uvicorn.Config(application(settings), host="127.0.0.1", port=port, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive(), "the service did not start"
            assert time.monotonic() < deadline, "the service did not start in time"
            time.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        thread.join(20)


@contextmanager
def connected(settings: ServiceSettings, *signers: LocalSigner) -> Iterator[list[Connection]]:
    """One signed-in connection for each account."""
    connections = [Connection(settings.public_url, service=f"the {settings.service}", attempts=2) for _ in signers]
    for connection, signer in zip(connections, signers, strict=True):
        connection.authorise = SignInSession(Connection(settings.public_url), signer, settings.chain_id).token
    try:
        yield connections
    finally:
        for connection in connections:
            connection.close()
