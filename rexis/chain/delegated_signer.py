"""A machine's key that signs for the institution which delegated to it."""

from collections.abc import Mapping
from typing import Any

from rexis.chain.signer import Signer
from rexis.errors import ConfigurationError
from rexis.protocol.relayed_call import DOMAIN_NAME
from rexis.protocol.sign_in import SignInMessage
from rexis.protocol.typed_data import TypedMessage


class DelegatedSigner:
    """Signs relayed calls and sign-in as `address`, with the key of `agent`.

    Whether the delegation covers a call is for the chain to say. Everything else that an institution signs is checked against its own
    key alone, so this signer refuses it at once.

    Attributes:
        address: checksum address of the institution.
        agent: whose key it is, checksum address.
    """

    def __init__(self, institution: str, key: Signer) -> None:
        self.address, self.agent = institution, key.address
        self._key = key

    def __repr__(self) -> str:
        return f"DelegatedSigner({self.address} by {self.agent})"

    def sign_transaction(self, transaction: Mapping[str, Any]) -> bytes:
        """Refused: a transaction is the account's own.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(self._refusal("a transaction"))

    def sign_typed_data(self, message: TypedMessage) -> bytes:
        """Sign a call for the Forwarder; see `Signer`.

        Raises:
            ConfigurationError: any other message.
        """
        if message.domain.name != DOMAIN_NAME:
            raise ConfigurationError(self._refusal(f"a message for {message.domain.name}"))
        return self._key.sign_typed_data(message)

    def sign_in(self, message: SignInMessage) -> bytes:
        """Sign; see `Signer`."""
        return self._key.sign_in(message)

    def _refusal(self, what: str) -> str:
        return (
            f"this machine holds the delegated key {self.agent}, which signs calls and sign-in for {self.address}, but not {what}: "
            "that takes the institution's own key"
        )
