"""secp256k1 signatures over 32-byte digests, in the one form that Ethereum's tools make and OpenZeppelin accepts.

A contract account (ERC-1271) has no key to recover: services check those through their chain connection.
"""

from coincurve import PrivateKey, PublicKey

from rexis.encoding import checksum_address, keccak256, to_hex
from rexis.errors import SignatureError

SIGNATURE_BYTES = 65
_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def sign_digest(digest: bytes, private_key: bytes) -> bytes:
    """Sign 32 bytes deterministically (RFC 6979): r ‖ s ‖ v, 65 bytes, s in the lower half, v 27 or 28."""
    signature = PrivateKey(private_key).sign_recoverable(digest, hasher=None)
    return signature[:64] + bytes([27 + signature[64]])


def canonical_signature(digest: bytes, r: int, s: int, expected: str) -> bytes:
    """A signature in the form of `sign_digest`, from a vault that knows neither low s nor v.

    Args:
        digest: the 32 bytes that were signed.
        expected: checksum address of the key that should have signed.

    Raises:
        SignatureError: r or s out of range, or another key, or another digest, was used.
    """
    if not 0 < r < _ORDER or not 0 < s < _ORDER:
        raise SignatureError("expected 0 < r < n and 0 < s < n: this is no signature")
    low = min(s, _ORDER - s)
    for v in (27, 28):
        signature = r.to_bytes(32, "big") + low.to_bytes(32, "big") + bytes([v])
        try:
            if recover_address(digest, signature) == expected:
                return signature
        except SignatureError:
            # No point of the curve belongs to this r and v.
            continue
    raise SignatureError(f"expected a signature by {expected}, got one by another key or over other bytes")


def recover_address(digest: bytes, signature: bytes) -> str:
    """Checksum address of the key that signed `digest` (32 bytes).

    Raises:
        SignatureError: not 65 bytes, v other than 27 or 28, r or s out of range, s in the upper half (the same signature in a
            second form), or no key fits.
    """
    if len(signature) != SIGNATURE_BYTES:
        raise SignatureError(f"expected a signature of {SIGNATURE_BYTES} bytes (r, s, v), got {len(signature)}")
    r, s, v = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big"), signature[64]
    if v not in (27, 28):
        raise SignatureError(f"expected v 27 or 28, got {v}")
    if not 0 < r < _ORDER or not 0 < s <= _ORDER // 2:
        raise SignatureError("expected 0 < r < n and 0 < s <= n/2: this is a malleated or damaged signature")
    try:
        public_key = PublicKey.from_signature_and_message(signature[:64] + bytes([v - 27]), digest, hasher=None)
    except ValueError as error:
        raise SignatureError(f"no key made this signature: {error}") from error
    return _address_of(public_key)


def address_of(private_key: bytes) -> str:
    """Checksum address of a 32-byte private key."""
    return _address_of(PrivateKey(private_key).public_key)


def address_of_public_key(point: bytes) -> str:
    """Checksum address of a public key: x ‖ y, 64 bytes.

    Raises:
        SignatureError: not 64 bytes.
    """
    if len(point) != 64:
        raise SignatureError(f"expected a public key of 64 bytes, got {len(point)}")
    return checksum_address(to_hex(keccak256(point)[-20:]))


def _address_of(public_key: PublicKey) -> str:
    return address_of_public_key(public_key.format(compressed=False)[1:])
