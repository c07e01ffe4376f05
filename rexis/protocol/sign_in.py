"""Sign-in with Ethereum: the EIP-4361 text, written and read in one strict form. No network, no clock.

Stricter than the standard where it leaves a choice: a statement is required; times are UTC in whole seconds; the optional
scheme, not-before time, request id and resources are refused. So a text that parses is the text that `SignInMessage.text` writes.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from rexis.encoding import checksum_address, keccak256
from rexis.errors import EncodingError, MalformedMessageError
from rexis.protocol.signatures import recover_address, sign_digest

VERSION = "1"
MAX_TEXT_CHARACTERS = 4096
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"

# RFC 3986: an authority without user information, and the characters of a URI (unreserved, reserved, percent-encoded).
_DOMAIN = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,253}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?", re.ASCII)
_URI = re.compile(r"[a-z][a-z0-9+.-]{0,15}://(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2}){1,2048}", re.ASCII)
_STATEMENT = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;= ]{1,512}", re.ASCII)
_NONCE = re.compile(r"[A-Za-z0-9]{8,64}", re.ASCII)
_TEXT = re.compile(
    r"(?P<domain>[^\n ]+) wants you to sign in with your Ethereum account:\n"
    r"(?P<address>[^\n]+)\n\n(?P<statement>[^\n]+)\n\n"
    r"URI: (?P<uri>[^\n]+)\nVersion: (?P<version>[^\n]+)\nChain ID: (?P<chain_id>[0-9]{1,20})\nNonce: (?P<nonce>[^\n]+)\n"
    r"Issued At: (?P<issued_at>[^\n]+)\nExpiration Time: (?P<expiration_time>[^\n]+)",
    re.ASCII,
)


@dataclass(frozen=True)
class SignInMessage:
    """What an account signs to open a session at one service.

    Attributes:
        domain: host and port of the service, as the account's owner reads it.
        address: checksum address of the account.
        statement: one line of plain ASCII.
        uri: the service's public URL.
        version: always "1".
        chain_id: chain on which a contract account would be asked (ERC-1271).
        nonce: 8 to 64 letters and digits that the service gave out for one use.
        issued_at, expiration_time: UTC, whole seconds.

    Raises:
        ValueError: a field of another form, or an expiration that is not after the issue.
    """

    domain: str
    address: str
    statement: str
    uri: str
    version: str
    chain_id: int
    nonce: str
    issued_at: datetime
    expiration_time: datetime

    def __post_init__(self) -> None:
        for name, value, pattern in (
            ("domain", self.domain, _DOMAIN),
            ("statement", self.statement, _STATEMENT),
            ("URI", self.uri, _URI),
            ("nonce", self.nonce, _NONCE),
        ):
            if not pattern.fullmatch(value):
                raise ValueError(f"{name}: not in the form that EIP-4361 asks for: {value[:80]!r}")
        if self.address != checksum_address(self.address):
            raise ValueError(f"address: expected a checksum address, got {self.address}")
        if self.version != VERSION:
            raise ValueError(f"version: expected {VERSION}, got {self.version[:40]!r}")
        if not 0 < self.chain_id < 2**64:
            raise ValueError(f"chain id: expected 1 to 2^64 - 1, got {self.chain_id}")
        for name, time in (("issued at", self.issued_at), ("expiration time", self.expiration_time)):
            if time.tzinfo is not UTC or time.microsecond or time.year < 1970:
                raise ValueError(f"{name}: expected UTC in whole seconds, got {time.isoformat()}")
        if self.expiration_time <= self.issued_at:
            raise ValueError("expiration time: expected a time after the issue")

    def text(self) -> str:
        """The text that is shown to the owner and signed."""
        return (
            f"{self.domain} wants you to sign in with your Ethereum account:\n{self.address}\n\n{self.statement}\n\n"
            f"URI: {self.uri}\nVersion: {self.version}\nChain ID: {self.chain_id}\nNonce: {self.nonce}\n"
            f"Issued At: {self.issued_at.strftime(_TIME_FORMAT)}\nExpiration Time: {self.expiration_time.strftime(_TIME_FORMAT)}"
        )

    @classmethod
    def parse(cls, text: str) -> "SignInMessage":
        """Read a text; it must be byte for byte what `text` writes.

        Raises:
            MalformedMessageError: another layout, a field out of form, or an optional field of EIP-4361 that Rexis does not take.
        """
        found = _TEXT.fullmatch(text) if len(text) <= MAX_TEXT_CHARACTERS else None
        if not found:
            raise MalformedMessageError(
                "sign-in: expected the EIP-4361 text with a statement, URI, Version, Chain ID, Nonce, Issued At, Expiration Time, no more"
            )
        try:
            message = cls(
                domain=found["domain"],
                address=found["address"],
                statement=found["statement"],
                uri=found["uri"],
                version=found["version"],
                chain_id=int(found["chain_id"]),
                nonce=found["nonce"],
                issued_at=datetime.strptime(found["issued_at"], _TIME_FORMAT).replace(tzinfo=UTC),
                expiration_time=datetime.strptime(found["expiration_time"], _TIME_FORMAT).replace(tzinfo=UTC),
            )
        except (EncodingError, ValueError) as error:
            raise MalformedMessageError(f"sign-in: {error}") from error
        if message.text() != text:
            raise MalformedMessageError("sign-in: expected times as YYYY-MM-DDTHH:MM:SSZ and numbers without leading zeros")
        return message

    def preimage(self) -> bytes:
        """What is hashed and signed: the text in the envelope of EIP-191 version 0x45 ("personal message")."""
        body = self.text().encode("ascii")
        return b"\x19Ethereum Signed Message:\n" + str(len(body)).encode("ascii") + body

    def digest(self) -> bytes:
        """The 32 bytes that are signed: keccak256 of `preimage`."""
        return keccak256(self.preimage())

    def sign(self, private_key: bytes) -> bytes:
        """Signature of 65 bytes by a 32-byte private key."""
        return sign_digest(self.digest(), private_key)

    def recover_signer(self, signature: bytes) -> str:
        """Checksum address of the account (EOA) that signed; the caller compares it with `address`.

        Raises:
            SignatureError: malformed, malleated, or not recoverable.
        """
        return recover_address(self.digest(), signature)
