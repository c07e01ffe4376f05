"""Who is calling: sign-in with Ethereum (EIP-4361) once, then a short-lived token for this service only.

The nonce in the signed text was given out by this service, and one sign-in uses it up: of two that carry the same one, whichever
process they reach, one succeeds. The token is an EdDSA JWT of 15 minutes, bound by `aud` to this service's public URL. An institution's
agent signs with a key that the institution delegated to: the text names the institution, and so does the token. After a revocation no
new token is given out; those that were, end within their 15 minutes.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import APIRouter, Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AwareDatetime, BaseModel, Field
from sqlalchemy import Engine, String, delete, select
from sqlalchemy.orm import Mapped, mapped_column

from rexis.chain.account_signatures import check_account_signature
from rexis.chain.delegations import SIGN_IN, Scope
from rexis.encoding import checksum_address, from_hex
from rexis.errors import EncodingError
from rexis.protocol.sign_in import MAX_TEXT_CHARACTERS, SignInMessage
from services.foundation.database import FoundationBase, Instant, SessionDep, now, transaction
from services.foundation.problems import Problem
from services.foundation.settings import ServiceSettings

NONCE_LIFETIME = timedelta(minutes=5)
TOKEN_LIFETIME = timedelta(minutes=15)
# Clocks of honest callers differ by less.
CLOCK_SKEW = timedelta(seconds=60)
ALGORITHM = "EdDSA"
CLAIMS = ("iss", "aud", "sub", "iat", "exp", "jti", "chain_id")

# A multisig of a few dozen owners fits; nothing the chain runs for us for free may be longer.
MAX_SIGNATURE_BYTES = 8192


class SignInNonce(FoundationBase):
    """A nonce that was given out and not used yet."""

    __tablename__ = "sign_in_nonce"

    nonce: Mapped[str] = mapped_column(String(64), primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(Instant, index=True)


class NonceAnswer(BaseModel):
    """What the caller puts into the text that it signs."""

    nonce: str
    domain: str
    uri: str
    chain_id: int
    expires_at: AwareDatetime


class SignInRequest(BaseModel):
    """The signed text and its signature, 0x-hexadecimal: 65 bytes of a key, or whatever the account's contract takes."""

    message: str = Field(max_length=MAX_TEXT_CHARACTERS)
    signature: str = Field(max_length=2 + 2 * MAX_SIGNATURE_BYTES)


class SignInAnswer(BaseModel):
    """A bearer token for this service."""

    token: str
    expires_at: AwareDatetime


@dataclass(frozen=True)
class Caller:
    """The account on whose behalf a request runs; `address` has its checksum."""

    address: str


class SessionTokens:
    """Issues and reads the tokens of one service."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(settings.session_key.get_secret_value()))
        self._service, self._chain_id = settings.public_url, settings.chain_id

    def issue(self, address: str) -> SignInAnswer:
        """A token for `address`, valid from now for `TOKEN_LIFETIME`."""
        issued_at = now().replace(microsecond=0)
        expires_at = issued_at + TOKEN_LIFETIME
        claims = {
            "iss": self._service,
            "aud": self._service,
            "sub": address,
            "iat": issued_at,
            "exp": expires_at,
            "jti": secrets.token_hex(16),
            "chain_id": self._chain_id,
        }
        return SignInAnswer(token=jwt.encode(claims, self._key, algorithm=ALGORITHM), expires_at=expires_at)

    def read(self, token: str) -> Caller:
        """The caller whom `token` names.

        Raises:
            Problem: 401; its kind tells an expired token from one of another service and from a false one.
        """
        try:
            claims = jwt.decode(
                token,
                self._key.public_key(),
                algorithms=[ALGORITHM],
                audience=self._service,
                issuer=self._service,
                options={"require": list(CLAIMS)},
            )
            if claims["chain_id"] != self._chain_id:
                raise _unauthorised("token-chain", f"the token is for chain {claims['chain_id']}, this service is on {self._chain_id}")
            return Caller(checksum_address(claims["sub"]))
        except jwt.ExpiredSignatureError:
            raise _unauthorised("token-expired", "the token has expired: sign in again") from None
        except (jwt.InvalidAudienceError, jwt.InvalidIssuerError):
            raise _unauthorised("token-audience", f"the token is for another service; sign in at {self._service}") from None
        except (jwt.InvalidTokenError, EncodingError):
            raise _unauthorised("token-invalid", f"the token was not issued by this service: sign in at {self._service}") from None


def _unauthorised(kind: str, detail: str) -> Problem:
    return Problem(401, kind, "The session token is not accepted", detail, headers={"WWW-Authenticate": "Bearer"})


def _not_for_us(kind: str, detail: str) -> Problem:
    return Problem(401, f"sign-in-{kind}", "The sign-in message is not accepted", detail)


_bearer = HTTPBearer(auto_error=False, bearerFormat="JWT", description="token from POST /v1/sign-in")


def _caller(request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> Caller:
    if credentials is None:
        raise _unauthorised("token-missing", "this operation needs a session: POST /v1/sign-in, then send Authorization: Bearer <token>")
    return SessionTokens(request.app.state.settings).read(credentials.credentials)


CallerDep = Annotated[Caller, Depends(_caller)]

router = APIRouter(prefix="/v1/sign-in", tags=["sign-in"])


@router.post("/nonce", operation_id="create_sign_in_nonce")
def create_nonce(request: Request, session: SessionDep) -> NonceAnswer:
    """Give out a nonce for one sign-in within five minutes."""
    settings: ServiceSettings = request.app.state.settings
    stored = SignInNonce(nonce=secrets.token_hex(16), expires_at=now() + NONCE_LIFETIME)
    session.add(stored)
    return NonceAnswer(
        nonce=stored.nonce,
        domain=urlsplit(settings.public_url).netloc,
        uri=settings.public_url,
        chain_id=settings.chain_id,
        expires_at=stored.expires_at,
    )


@router.post("", operation_id="sign_in")
def sign_in(request: Request, body: SignInRequest) -> SignInAnswer:
    """Exchange a signed EIP-4361 text for a session token."""
    settings: ServiceSettings = request.app.state.settings
    engine: Engine = request.app.state.engine
    message = SignInMessage.parse(body.message)
    check_message(message, settings, now())
    # Three short steps instead of the request's one transaction: a slow chain must not hold a lock on the database.
    with transaction(engine, read_only=True) as session:
        live = session.scalars(select(SignInNonce.nonce).where(SignInNonce.nonce == message.nonce, SignInNonce.expires_at > now()))
        if live.first() is None:
            raise _spent_nonce()
    check_signature(message, from_hex(body.signature), request)
    use_nonce(engine, message.nonce)
    return SessionTokens(settings).issue(message.address)


def check_message(message: SignInMessage, settings: ServiceSettings, instant: datetime) -> None:
    """Check that a text was written for this service, this chain and this time.

    Raises:
        Problem: 401, with a kind of its own for each rule.
    """
    domain, asked = urlsplit(settings.public_url).netloc, urlsplit(message.uri)
    if message.domain != domain:
        raise _not_for_us("domain", f"the message is for {message.domain}, this service is {domain}")
    if (asked.scheme, asked.netloc) != (urlsplit(settings.public_url).scheme, domain):
        raise _not_for_us("uri", f"the message names the URI {message.uri}, this service is {settings.public_url}")
    if message.chain_id != settings.chain_id:
        raise _not_for_us("chain", f"the message names chain {message.chain_id}, this service is on {settings.chain_id}")
    if message.issued_at > instant + CLOCK_SKEW:
        raise _not_for_us("not-yet-valid", f"the message is dated {message.issued_at}, it is {instant:%Y-%m-%d %H:%M:%S}+00:00 here")
    if message.expiration_time <= instant:
        raise _not_for_us("expired", f"the message expired at {message.expiration_time}: ask for a nonce and sign again")


def check_signature(message: SignInMessage, signature: bytes, request: Request) -> None:
    """Check that the account of `message` signed it: by its key, by one that it delegated sign-in to, or as a contract account (ERC-1271).

    An account under EIP-7702 has both code and a key, so the key goes first.

    Raises:
        SignatureError: another account signed, the text was changed, the delegation does not hold, or the contract says no.
        UnavailableError: only the chain could tell, and it does not answer.
    """
    check_account_signature(request.app.state.chain, message.address, message.digest(), signature, Scope.of_power(SIGN_IN))


def use_nonce(engine: Engine, nonce: str) -> None:
    """Use a nonce up: deleting a row is the one thing that only one of two transactions can do.

    Raises:
        Problem: 401: it was never given out, was used, or has expired.
    """
    with transaction(engine) as session:
        live = (SignInNonce.nonce == nonce) & (SignInNonce.expires_at > now())
        if session.execute(delete(SignInNonce).where(live).returning(SignInNonce.nonce)).first() is None:
            raise _spent_nonce()


def _spent_nonce() -> Problem:
    return _not_for_us("nonce", "the nonce was not given out by this service, was used, or has expired: ask for a new one and sign again")


def delete_expired_nonces(engine: Engine) -> int:
    """Background job: forget the nonces that nobody used in time; returns how many."""
    with transaction(engine) as session:
        return len(session.execute(delete(SignInNonce).where(SignInNonce.expires_at <= now()).returning(SignInNonce.nonce)).all())
