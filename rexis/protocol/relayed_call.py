"""A contract call that its sender signs and a service relays through the Forwarder (wire formats, section 6)."""

import secrets
from dataclasses import dataclass
from typing import Any

from rexis.encoding import checksum_address, from_hex, to_hex
from rexis.errors import EncodingError, MalformedMessageError
from rexis.protocol.typed_data import Domain, TypedMessage

DOMAIN_NAME = "RexisForwarder"
REQUEST_TYPE = "Request(address from,address to,uint256 gas,uint256 nonce,uint48 deadline,bytes data)"
# An honest call carries hashes, addresses and one URI; a relayer pays for every byte.
MAX_CALLDATA_BYTES = 64 * 1024

_FIELDS = ("from", "to", "gas", "nonce", "deadline", "data")


@dataclass(frozen=True)
class RelayedCall:
    """What the Forwarder executes on behalf of `sender`.

    Attributes:
        sender: checksum address of the signer; the target sees it as `_msgSender()`.
        to: checksum address of a Rexis contract.
        gas: gas given to the inner call.
        nonce: any number the sender has not used: bit `nonce & 255` of word `nonce >> 8`, so parallel calls do not block each other.
        deadline: Unix time in seconds after which the Forwarder refuses.
        data: calldata: selector and arguments.

    Raises:
        ValueError: a field out of range.
    """

    sender: str
    to: str
    gas: int
    nonce: int
    deadline: int
    data: bytes

    def __post_init__(self) -> None:
        for name, address in (("from", self.sender), ("to", self.to)):
            if address != checksum_address(address):
                raise ValueError(f"{name}: expected a checksum address, got {address}")
        for name, value, bits in (("gas", self.gas, 256), ("nonce", self.nonce, 256), ("deadline", self.deadline, 48)):
            if not 0 <= value < 1 << bits:
                raise ValueError(f"{name}: expected an unsigned integer of {bits} bits, got {value}")
        if len(self.data) > MAX_CALLDATA_BYTES:
            raise ValueError(f"data: expected at most {MAX_CALLDATA_BYTES} bytes, got {len(self.data)}")

    def typed_data(self, chain_id: int, forwarder: str) -> TypedMessage:
        """The message that the sender signs for this chain's Forwarder (checksum address)."""
        message = {"from": self.sender, "to": self.to, "gas": self.gas, "nonce": self.nonce, "deadline": self.deadline, "data": self.data}
        return TypedMessage(Domain(chain_id, forwarder, name=DOMAIN_NAME), REQUEST_TYPE, message)

    def to_json(self) -> dict[str, str]:
        """JSON value; numbers as decimal strings, because a nonce has up to 256 bits."""
        return {
            "from": self.sender,
            "to": self.to,
            "gas": str(self.gas),
            "nonce": str(self.nonce),
            "deadline": str(self.deadline),
            "data": to_hex(self.data),
        }

    @classmethod
    def parse(cls, value: Any) -> "RelayedCall":
        """Read what `to_json` writes.

        Raises:
            MalformedMessageError: a missing, unknown or ill-formed field.
        """
        if not isinstance(value, dict) or set(value) != set(_FIELDS) or not all(isinstance(text, str) for text in value.values()):
            raise MalformedMessageError(f"relayed call: expected an object of strings with exactly the fields {', '.join(_FIELDS)}")
        if len(value["data"]) > 2 + 2 * MAX_CALLDATA_BYTES:
            raise MalformedMessageError(f"relayed call: expected at most {MAX_CALLDATA_BYTES} bytes of data")
        try:
            return cls(
                sender=value["from"],
                to=value["to"],
                gas=_decimal("gas", value["gas"]),
                nonce=_decimal("nonce", value["nonce"]),
                deadline=_decimal("deadline", value["deadline"]),
                data=from_hex(value["data"]),
            )
        except (EncodingError, ValueError) as error:
            raise MalformedMessageError(f"relayed call: {error}") from error


def random_nonce() -> int:
    """A nonce that was never used, from the operating system: 256 random bits."""
    return secrets.randbits(256)


def _decimal(name: str, text: str) -> int:
    # 78 digits hold 256 bits; int() of a longer text costs time that grows with its square.
    if not (text.isascii() and text.isdigit() and len(text) <= 78) or text != str(int(text)):
        raise ValueError(f"{name}: expected a decimal number without sign or leading zeros, got {text[:40]!r}")
    return int(text)
