"""Fresh keys of one attempt, what two participants derive from them, and the encryption of the shares between them.

X25519 (RFC 7748), HKDF-SHA256 (RFC 5869) salted with the round's context, AES-256-GCM. Every key serves one pair, one direction and one
purpose; positions are 8 bytes, big-endian.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from rexis.encoding import domain_tag, sha256
from rexis.errors import InvalidShareError, MalformedMessageError
from rexis.secagg.masks import SEED_SIZE
from rexis.secagg.shamir import SHARE_SIZE

RandomBytes = Callable[[int], bytes]

KEY_SIZE = 32
NONCE_SIZE = 12
_FIELD = 2**255 - 19
# u of every point of small order, on the curve and on its twist: each clamped scalar, a multiple of 8, takes them to zero (RFC 7748, 6.1).
SMALL_ORDER = frozenset(
    u.to_bytes(32, "little")
    for u in (
        0,
        1,
        _FIELD - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    )
)


@dataclass(frozen=True)
class PublicKeys:
    """What one participant announces.

    Attributes:
        mask: X25519 key from which pairwise masks are agreed, 32 bytes.
        encryption: X25519 key to which shares are encrypted, 32 bytes.

    Raises:
        MalformedMessageError: a key that is no canonical point of large order, so that everybody knows what it agrees on; or one for both.
    """

    mask: bytes
    encryption: bytes

    def __post_init__(self) -> None:
        check_public_key("mask", self.mask)
        check_public_key("encryption", self.encryption)
        if self.mask == self.encryption:
            raise MalformedMessageError("expected fresh keys, got one public key for both uses")


@dataclass(frozen=True)
class KeyPairs:
    """The private half: two X25519 scalars of 32 bytes, from the operating system, for one attempt."""

    mask: bytes = field(repr=False)
    encryption: bytes = field(repr=False)

    @classmethod
    def generate(cls, random_bytes: RandomBytes) -> "KeyPairs":
        """Fresh keys."""
        return cls(random_bytes(KEY_SIZE), random_bytes(KEY_SIZE))

    @cached_property
    def mask_key(self) -> X25519PrivateKey:
        """The mask scalar, loaded once: loading costs as much as agreeing."""
        return X25519PrivateKey.from_private_bytes(self.mask)

    @cached_property
    def encryption_key(self) -> X25519PrivateKey:
        """The encryption scalar, loaded once."""
        return X25519PrivateKey.from_private_bytes(self.encryption)

    @cached_property
    def public(self) -> PublicKeys:
        """What is announced."""
        return PublicKeys(public_key(self.mask_key), public_key(self.encryption_key))


def check_public_key(name: str, key: bytes) -> None:
    """Check a public key that somebody published.

    Raises:
        MalformedMessageError: no canonical point of large order.
    """
    if len(key) != KEY_SIZE or int.from_bytes(key, "little") >= _FIELD:
        raise MalformedMessageError(f"{name} key: expected a canonical X25519 public key of {KEY_SIZE} bytes")
    if key in SMALL_ORDER:
        raise MalformedMessageError(f"{name} key: expected a public key of large order, got one that agrees on zero with everybody")


def public_key(private: X25519PrivateKey) -> bytes:
    """The X25519 public key of a scalar, 32 bytes."""
    return private.public_key().public_bytes_raw()


def exchange(private: X25519PrivateKey, public: bytes) -> bytes:
    """The X25519 shared secret, 32 bytes.

    Raises:
        MalformedMessageError: the public key has small order, so that the secret would be zero.
    """
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise MalformedMessageError("expected a public key of large order, got one that agrees on zero with everybody") from error


def pairwise_seed(ctx: bytes, private: X25519PrivateKey, me: int, other: int, their_mask: bytes) -> bytes:
    """s_ij, the seed of the mask that two participants share (32 bytes): the same at both ends.

    Args:
        private: mask scalar of `me`; the aggregator has it only of a participant who dropped out.
        their_mask: mask key of `other`.
    """
    keys = {me: public_key(private), other: their_mask}
    low, high = sorted(keys)
    info = domain_tag("secagg/mask", 1) + b"\0" + _directed(low, high) + keys[low] + keys[high]
    return derive(exchange(private, their_mask), ctx, info)


def seal_shares(
    ctx: bytes,
    keys: KeyPairs,
    sender: int,
    receiver: int,
    theirs: PublicKeys,
    keys_record: bytes,
    shares: tuple[bytes, bytes],
    nonce: bytes,
) -> bytes:
    """Encrypt the shares of (self seed, mask scalar) to a neighbour: nonce, ciphertext and tag, 94 bytes."""
    key = _share_key(ctx, exchange(keys.encryption_key, theirs.encryption), sender, receiver, keys.public, theirs)
    return nonce + AESGCM(key).encrypt(nonce, b"".join(shares), _associated(ctx, sender, receiver, keys_record))


def open_shares(
    ctx: bytes, keys: KeyPairs, sender: int, receiver: int, theirs: PublicKeys, keys_record: bytes, sealed: bytes, dealer: str
) -> tuple[bytes, bytes]:
    """Decrypt what `seal_shares` made: shares of 33 bytes of the sender's self seed and of its mask scalar.

    Raises:
        InvalidShareError: not for this receiver, context or set of keys, or damaged by its sender.
    """
    key = _share_key(ctx, exchange(keys.encryption_key, theirs.encryption), sender, receiver, theirs, keys.public)
    try:
        both = AESGCM(key).decrypt(sealed[:NONCE_SIZE], sealed[NONCE_SIZE:], _associated(ctx, sender, receiver, keys_record))
    except InvalidTag as error:
        raise InvalidShareError(
            dealer, "the ciphertext does not open: its sender damaged it, or was shown other keys or terms than this participant"
        ) from error
    if len(both) != 2 * SHARE_SIZE:
        raise InvalidShareError(dealer, f"expected two shares of {SHARE_SIZE} bytes, got {len(both)} bytes")
    return both[:SHARE_SIZE], both[SHARE_SIZE:]


def self_seed_commitment(ctx: bytes, position: int, seed: bytes) -> bytes:
    """H(b_i), published with the shares, so that a rebuilt self seed can be checked (32 bytes)."""
    return sha256(domain_tag("secagg/self-seed", 1) + b"\0" + ctx + position.to_bytes(8) + seed)


def derive(secret: bytes, ctx: bytes, info: bytes) -> bytes:
    """HKDF-SHA256 to 32 bytes, salted with the context."""
    return HKDF(algorithm=SHA256(), length=SEED_SIZE, salt=ctx, info=info).derive(secret)


def _share_key(ctx: bytes, secret: bytes, sender: int, receiver: int, sends: PublicKeys, receives: PublicKeys) -> bytes:
    info = domain_tag("secagg/share", 1) + b"\0" + _directed(sender, receiver) + sends.encryption + receives.encryption
    return derive(secret, ctx, info)


def _associated(ctx: bytes, sender: int, receiver: int, keys_record: bytes) -> bytes:
    return ctx + _directed(sender, receiver) + keys_record


def _directed(first: int, second: int) -> bytes:
    return first.to_bytes(8) + second.to_bytes(8)
