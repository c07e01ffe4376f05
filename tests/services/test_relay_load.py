"""Five hundred signed calls from several threads at once, through the real API and two relays that overlap: each lands exactly once."""

import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select

from rexis.chain.connection import Chain
from rexis.chain.deployments import Deployment, load
from rexis.chain.signer import LocalSigner
from rexis.client.connection import Connection
from rexis.client.relayed_calls import RelayClient, sign_call
from rexis.encoding import to_hex
from services.foundation.database import migrate, open_engine, transaction
from services.foundation.outbox.transactions import ChainIntent, ChainTransaction
from services.foundation.settings import LOCAL_CHAIN_ID
from tests.campaign.accounting import read
from tests.services.access_on_chain import DAY, HMB
from tests.services.conftest import free_port
from tests.services.marketplace_on_chain import RELAYER_KEY, running_chain
from tests.services.service_applications import authorised, serving, settings_for

ROOT = Path(__file__).parents[2]
RELAYER = LocalSigner(bytes.fromhex(RELAYER_KEY))
# Fewer each than one account may have under way.
THREADS, INSTITUTIONS, CALLS = 8, 25, 20
DEADLINE_S = 150.0


@dataclass(frozen=True)
class Owner:
    """An institution with a data set."""

    signer: LocalSigner
    dataset: int
    relays: RelayClient
    deployment: Deployment

    def grant(self) -> tuple[str, str]:
        """Hand a grant in; the relay's id, and what names the grant in its event."""
        conditions = secrets.token_bytes(32)
        terms = {
            "dataset": self.dataset,
            "consumer": LocalSigner.generate().address,
            "purpose": HMB,
            "until": int(time.time()) + 90 * DAY,
            "policyVersion": 1,
            "grantEpoch": 0,
            "conditionsHash": conditions,
        }
        signed = sign_call(self.signer, self.deployment, "AccessManager", "grant", terms)
        return self.relays.hand_in(signed).id, to_hex(conditions)


def registered(chain: Chain, signers: Sequence[LocalSigner]) -> list[int]:
    """A data set for each, from its registrant; the token ids."""
    registry = chain.contract("DatasetRegistry")
    operator = chain.web3.eth.accounts[0]
    sent = []
    for signer in signers:
        registration = (secrets.token_bytes(32), secrets.token_bytes(32), secrets.token_bytes(32), "https://example.org/d", [], 0)
        registry.functions.register(registration).transact({"from": operator})
        sent.append(registry.functions.transferFrom(operator, signer.address, len(sent) + 1).transact({"from": operator}))
    assert all(chain.web3.eth.wait_for_transaction_receipt(each, poll_latency=0.01)["status"] == 1 for each in sent)
    return list(range(1, len(sent) + 1))


@contextmanager
def relays(count: int, database_url: str, rpc_url: str) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Relay processes on one database with one key."""
    command = [sys.executable, "-m", "tests.services.relay_process", database_url, rpc_url, RELAYER_KEY]
    processes = [subprocess.Popen(command, cwd=ROOT) for _ in range(count)]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.parametrize("dialect", ["postgres"], indirect=True)
def test_five_hundred_calls_from_eight_threads_land_once_each(database_url: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        rpc_url = stack.enter_context(running_chain(tmp_path))
        chain = Chain.connect(rpc_url, load(LOCAL_CHAIN_ID))
        settings = settings_for(
            "marketplace",
            database_url,
            public_url=f"http://127.0.0.1:{free_port()}",
            chain_rpc_url=rpc_url,
            relayer_key=RELAYER_KEY,
        )
        engine = open_engine(database_url)
        stack.callback(engine.dispose)
        migrate(engine, "services.marketplace")
        signers = [LocalSigner.generate() for _ in range(INSTITUTIONS)]
        owners = []
        for signer, dataset in zip(signers, registered(chain, signers), strict=True):
            token = authorised(settings, signer)["Authorization"].removeprefix("Bearer ")
            connection = stack.enter_context(Connection(settings.public_url, authorise=lambda _renew, token=token: token))
            owners.append(Owner(signer, dataset, RelayClient(connection), chain.deployment))
        processes = stack.enter_context(relays(2, database_url, rpc_url))
        stack.enter_context(serving(settings))

        # One call of each institution after the other, so that every thread carries calls of all of them.
        with ThreadPoolExecutor(THREADS) as threads:
            handed_in = list(threads.map(Owner.grant, owners * CALLS))

        def states() -> Counter[str]:
            with transaction(engine, read_only=True) as session:
                return Counter(session.scalars(select(ChainIntent.state)))

        deadline = time.monotonic() + DEADLINE_S
        while states() != {"final": len(handed_in)}:
            assert all(process.poll() is None for process in processes), "a relay has ended"
            assert time.monotonic() < deadline, states()
            time.sleep(0.1)
        assert len(handed_in) == 500 == len({relay for relay, _ in handed_in})
        found = read(chain, gate=RELAYER.address)
        assert {mark[1]: times for mark, times in found.marks.items() if mark[0] == "AccessGranted"} == {mark: 1 for _, mark in handed_in}
        assert sum(found.requests.values()) == len(found.requests) == len(handed_in)
        # One nonce each; what waited too long was signed again with the one that it had.
        assert chain.web3.eth.get_transaction_count(RELAYER.address) == len(handed_in)
        with transaction(engine, read_only=True) as session:
            assert set(session.scalars(select(ChainTransaction.nonce))) == set(range(len(handed_in)))
            assert set(session.scalars(select(ChainIntent.attempts))) == {1}
