"""A service's outbox on a chain: its database, its account, and a contract that counts what ran."""

import secrets
import time
from dataclasses import dataclass

from sqlalchemy import Engine, select

from rexis.chain.signer import LocalSigner
from services.foundation.database import transaction
from services.foundation.outbox.policies import ChainPolicy
from services.foundation.outbox.relay import Relay
from services.foundation.outbox.transactions import ChainIntent, ChainTransaction, enqueue_call
from tests.services.chain_process import Gate, connect, rpc

AT_ONCE = ChainPolicy(confirmations=0, final_may_be_lost=True)
DEADLINE_S = 30.0


@dataclass
class Outbox:
    """A service's database, its account, and a contract that counts."""

    engine: Engine
    signer: LocalSigner
    gate: Gate

    def relay(self, policy: ChainPolicy = AT_ONCE, url: str | None = None) -> Relay:
        return Relay(self.engine, connect(url or self.gate.url), self.signer, policy)

    def promise(self, count: int = 1, *, gas: int = 100_000) -> list[bytes]:
        """Enqueue calls with fresh data; returns the data."""
        data = [secrets.token_bytes(16) for _ in range(count)]
        with transaction(self.engine) as session:
            for each in data:
                enqueue_call(session, key=each.hex(), to=self.gate.address, data=each, gas=gas, label="count")
        return data

    def intents(self) -> list[ChainIntent]:
        with transaction(self.engine, read_only=True) as session:
            return list(session.scalars(select(ChainIntent).order_by(ChainIntent.sequence)))

    def transactions(self, nonce: int) -> list[ChainTransaction]:
        """All that was signed with a nonce, oldest first."""
        with transaction(self.engine, read_only=True) as session:
            same = select(ChainTransaction).where(ChainTransaction.nonce == nonce, ChainTransaction.sender == self.signer.address)
            return list(session.scalars(same.order_by(ChainTransaction.signed_at)))

    def is_known(self, sent: ChainTransaction) -> bool:
        """Whether the node has it, in a block or waiting."""
        return rpc(self.gate.url, "eth_getTransactionByHash", sent.hash) is not None

    def states(self) -> list[str]:
        return [intent.state for intent in self.intents()]

    def nonce(self) -> int:
        """Transactions of the account that are in blocks."""
        return int(rpc(self.gate.url, "eth_getTransactionCount", self.signer.address, "latest"), 16)

    def run_until(self, relay: Relay, states: list[str]) -> None:
        """Passes of the relay until the calls are in these states."""
        deadline = time.monotonic() + DEADLINE_S
        while self.states() != states:
            assert time.monotonic() < deadline, self.states()
            relay.run_once()

    def settle(self, relay: Relay) -> None:
        """Passes of the relay until every call has ended."""
        deadline = time.monotonic() + DEADLINE_S
        while relay.run_once():
            assert time.monotonic() < deadline, self.states()
