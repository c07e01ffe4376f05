"""Parties with a home of their own who use the command, and a marketplace's work going on behind them."""

import json
import os
import secrets
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eth_account import Account
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from rexis.chain.signer import LocalSigner
from rexis.cli.command import app
from rexis.cli.home import Profile
from rexis.client.connection import Connection
from rexis.client.sign_in import SignInSession
from services.foundation.background import Job
from services.foundation.database import migrate, open_engine
from services.marketplace.background import jobs
from services.marketplace.settings import MarketplaceSettings
from tests.services.conftest import free_port
from tests.services.marketplace_on_chain import RELAYER_KEY, running_chain
from tests.services.service_applications import serving, settings_for

PASSPHRASE = "a passphrase for tests"

# Typer sets it and takes it away for each parameter of a command, under the eyes of the threads here; one that stands, it leaves.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")


@contextmanager
def unsettled_environment() -> Iterator[None]:
    """Leave the block when a variable goes while the block reads the environment, as an HTTP client does at each request.

    A command beside it sets and unsets variables in this same process, the library that runs it does too; a process of its own has no
    such neighbour. A key that is missing anywhere else is a defect, and is raised.
    """
    try:
        yield
    except KeyError as missing:
        if traceback.extract_tb(missing.__traceback__)[-1].filename != type(os.environ).__getitem__.__code__.co_filename:
            raise


@contextmanager
def working(jobs_of_it: Sequence[Job]) -> Iterator[None]:
    """Periodic jobs of a service in a thread of this process, without their pauses being as long."""
    stopping = threading.Event()

    def run() -> None:
        while not stopping.wait(0.1):
            for job in jobs_of_it:
                with unsettled_environment():
                    job.run()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(20)


@contextmanager
def background(settings: MarketplaceSettings, engine: Engine) -> Iterator[None]:
    """The marketplace's periodic jobs."""
    with working(jobs(settings, engine)):
        yield


def seal_again(keystore: Path) -> None:
    """Give a key file a work factor that costs nothing: every command opens it anew."""
    key = Account.decrypt(json.loads(keystore.read_text()), PASSPHRASE)
    keystore.write_text(json.dumps(Account.encrypt(key, PASSPHRASE, iterations=2)))


@contextmanager
def marketplace_at_work(folder: Path) -> Iterator[tuple[str, str]]:
    """URLs of a marketplace and of its chain's node."""
    with running_chain(folder) as rpc_url:
        url = f"http://127.0.0.1:{free_port()}"
        settings = settings_for(
            "marketplace", f"sqlite:///{folder / 'rows.sqlite'}", public_url=url, chain_rpc_url=rpc_url, relayer_key=RELAYER_KEY
        )
        assert isinstance(settings, MarketplaceSettings)
        engine = open_engine(settings.database_url)
        migrate(engine, "services.marketplace")
        with serving(settings), background(settings, engine):
            yield url, rpc_url
        engine.dispose()


class Machine:
    """A computer with a home of its own, on which somebody uses the command."""

    def __init__(self, folder: Path, **surroundings: str) -> None:
        self.home = folder
        self.surroundings = {"REXIS_HOME": str(folder), "REXIS_PASSPHRASE": PASSPHRASE, "COLUMNS": "200", **surroundings}
        folder.mkdir()

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments), env=self.surroundings)

    def json(self, *arguments: str) -> Any:
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def failure(self, *arguments: str) -> str:
        result = self.run(*arguments, "--json")
        assert result.exit_code == 1, result.output
        return str(json.loads(result.stdout)["error"]["message"])


class Party(Machine):
    """Somebody who is logged in at a marketplace with a key of their own."""

    def __init__(self, folder: Path, url: str, **surroundings: str) -> None:
        super().__init__(folder, **surroundings)
        self.url, keystore = url, folder / "key.json"
        # A work factor that costs nothing: every command opens the file anew.
        keystore.write_text(json.dumps(Account.encrypt(secrets.token_bytes(32), PASSPHRASE, iterations=2)))
        self.address = self.json("login", "--keystore", str(keystore), "--marketplace", url)["address"]

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        profile = Profile(**json.loads((self.home / "profile.json").read_text()))
        signer = LocalSigner.from_keystore(Path(profile.keystore), PASSPHRASE)
        with Connection(self.url) as connection:
            connection.authorise = SignInSession(connection, signer, profile.chain_id).token
            yield connection
