"""A session at one service: signs in with Ethereum (EIP-4361) when a token is needed, and again before it expires.

The message names the origin this client really connects to, not one that the service claims: a signature given to one service is of no
use at another.
"""

import threading
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from rexis.chain.signer import Signer
from rexis.client.answers import Fields
from rexis.client.connection import Connection
from rexis.encoding import to_hex
from rexis.errors import MalformedMessageError
from rexis.protocol.sign_in import SignInMessage

STATEMENT = "Sign in to Rexis. This costs nothing and moves nothing."
MESSAGE_LIFETIME = timedelta(minutes=5)
# A token is renewed this long before it expires, so that it does not expire on the way.
RENEWAL_MARGIN = timedelta(seconds=30)


class SignInSession:
    """Tokens for one service and one account; give its `token` to a `Connection` as `authorise`.

    Args:
        connection: the service, without an authoriser of its own for these calls.
        signer: the account.
        chain_id: chain on which a contract account would be asked (ERC-1271).
    """

    def __init__(self, connection: Connection, signer: Signer, chain_id: int) -> None:
        self._connection, self._signer, self._chain_id = connection, signer, chain_id
        self._token = ""
        self._expires_at = datetime.fromtimestamp(0, UTC)
        self._lock = threading.Lock()

    def token(self, renew: bool = False) -> str:
        """A bearer token that is valid for a while; `renew` asks for a new one in any case.

        Raises:
            ServiceError: the service refuses the sign-in.
            MalformedMessageError: it gave out something that is no nonce or token.
        """
        with self._lock:
            if renew or datetime.now(UTC) + RENEWAL_MARGIN > self._expires_at:
                self._sign_in()
            return self._token

    def _sign_in(self) -> None:
        nonce = Fields("sign-in nonce", self._connection.post("/v1/sign-in/nonce", {}, repeatable=True, authorised=False)).text("nonce")
        issued_at = datetime.now(UTC).replace(microsecond=0)
        try:
            message = SignInMessage(
                domain=urlsplit(self._connection.base_url).netloc,
                address=self._signer.address,
                statement=STATEMENT,
                uri=self._connection.base_url,
                version="1",
                chain_id=self._chain_id,
                nonce=nonce,
                issued_at=issued_at,
                expiration_time=issued_at + MESSAGE_LIFETIME,
            )
        except ValueError as error:
            raise MalformedMessageError(f"{self._connection.service}: {error}") from error
        body = {"message": message.text(), "signature": to_hex(self._signer.sign_in(message))}
        answer = Fields("sign-in", self._connection.post("/v1/sign-in", body, authorised=False))
        token = answer.text("token")
        if not token.isascii() or " " in token:
            raise MalformedMessageError(f"{self._connection.service}: expected a bearer token, got other characters")
        self._token, self._expires_at = token, answer.instant("expires_at")
