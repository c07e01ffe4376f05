"""The account of a service on a chain: its nonces, taken under the lock of a row, and its signatures."""

from typing import Any

import structlog
from sqlalchemy import Engine, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from web3 import Web3

from rexis.chain.connection import Chain
from rexis.chain.signer import Signer
from rexis.encoding import keccak256, to_hex
from rexis.errors import WrongChainError
from services.foundation.database import transaction
from services.foundation.outbox.fees import Fees
from services.foundation.outbox.preflight import Call
from services.foundation.outbox.transactions import ChainAccount, ChainTransaction

log = structlog.get_logger(__name__)

PLAIN_TRANSFER_GAS = 21_000


class Account:
    """A key that pays, on one chain, with the database that knows its nonces."""

    def __init__(self, engine: Engine, chain: Chain, signer: Signer) -> None:
        self.engine, self.chain, self.signer = engine, chain, signer
        self.chain_id, self.address = chain.deployment.chain_id, signer.address
        self._genesis = ""

    @property
    def eth(self) -> Any:
        """The node."""
        return self.chain.web3.eth

    def check_genesis(self) -> None:
        """Compare the chain with the one on which this service has made its calls.

        Raises:
            WrongChainError: it was replaced by a new one.
        """
        genesis = to_hex(self.eth.get_block(0)["hash"])
        with transaction(self.engine, read_only=True) as session:
            known = session.scalars(select(ChainAccount).where(ChainAccount.chain_id == self.chain_id)).first()
        if known is not None and known.genesis_hash != genesis:
            raise WrongChainError(
                f"chain {self.chain_id} had genesis {known.genesis_hash}, got {genesis}: it was replaced; "
                "give this service the database that belongs to the chain, or an empty one"
            )
        self._genesis = genesis

    def nonces_used(self, sender: str) -> int:
        """How many nonces of an account, this one or one that the service had before, are in blocks."""
        return int(self.eth.get_transaction_count(Web3.to_checksum_address(sender), "latest"))

    def lock(self, session: Session) -> ChainAccount:
        """The row that whoever takes or reuses a nonce holds, opened if it is not there."""
        identity = (self.chain_id, self.address)
        account = session.get(ChainAccount, identity, with_for_update=True)
        if account is not None:
            return account
        try:
            with session.begin_nested():
                session.add(ChainAccount(chain_id=self.chain_id, address=self.address, genesis_hash=self._genesis, next_nonce=0))
        except IntegrityError:
            log.info("another relay opened the account first", address=self.address)
        return session.get_one(ChainAccount, identity, with_for_update=True)

    def sign(self, call: Call, nonce: int, fees: Fees) -> ChainTransaction:
        """Signed bytes, to be stored before they are sent; `call.gas` is signed as it is."""
        fields = {"chainId": self.chain_id, "nonce": nonce, "to": call.to, "value": 0, "data": call.data, "gas": call.gas, **fees.fields()}
        raw = self.signer.sign_transaction(fields)
        return ChainTransaction(hash=to_hex(keccak256(raw)), chain_id=self.chain_id, sender=call.sender, nonce=nonce, raw=raw)

    def empty_call(self) -> Call:
        """One that does nothing, for a nonce that has to be used up."""
        return Call(sender=self.address, to=self.address, data=b"", gas=PLAIN_TRANSFER_GAS)
