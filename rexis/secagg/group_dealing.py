"""What a dealing of the group key holds: the key, encrypted to each recipient, under a commitment that is the same for all of them.

X25519 between the dealer's and a recipient's published key, HKDF-SHA256 salted with the federation's id, AES-256-GCM. The plaintext is the
key and the salt of its commitment; federation, dealer, recipient and commitment are authenticated with it, so that a ciphertext opens in
its own dealing only, and everybody who opens one knows that the others got the same key or an error.

A dealer knows the key in any case: one that gives it away, or draws it badly, is a member who colludes with the aggregator.
"""

import hmac
import os
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from rexis.encoding import domain_tag, sha256
from rexis.errors import DigestMismatchError, InvalidShareError, UnexpectedMessageError
from rexis.protocol.group_keys import GroupKeyDealing, GroupKeyShare
from rexis.secagg.group_pad import GROUP_KEY_SIZE
from rexis.secagg.key_agreement import NONCE_SIZE, RandomBytes, derive, exchange, public_key

SALT_SIZE = 32


def deal_group_key(
    federation: bytes,
    dealer: str,
    private: X25519PrivateKey,
    recipients: Mapping[str, bytes],
    group_key: bytes,
    *,
    random_bytes: RandomBytes = os.urandom,
) -> GroupKeyDealing:
    """A dealing of this key, not signed yet.

    Args:
        federation: id, 32 bytes.
        dealer: checksum address, one of the recipients.
        private: the scalar behind the dealer's published key.
        recipients: published X25519 key of 32 bytes by checksum address.
        group_key: 32 bytes.
        random_bytes: the operating system's; another only for test vectors.

    Raises:
        ValueError: a group key of another size, or a dealer whose published key is another one.
        MalformedMessageError: a published key of small order.
    """
    if len(group_key) != GROUP_KEY_SIZE or recipients.get(dealer) != public_key(private):
        raise ValueError(f"expected a group key of {GROUP_KEY_SIZE} bytes, and the dealer's own public key among the recipients'")
    salt = random_bytes(SALT_SIZE)
    commitment = commit(federation, group_key, salt)
    shares = []
    for recipient in sorted(recipients, key=str.lower):
        key = _pair_key(federation, exchange(private, recipients[recipient]), dealer, recipient, recipients[dealer], recipients[recipient])
        nonce = random_bytes(NONCE_SIZE)
        sealed = nonce + AESGCM(key).encrypt(nonce, group_key + salt, _associated(federation, dealer, recipient, commitment))
        shares.append(GroupKeyShare(recipient, recipients[recipient], sealed))
    return GroupKeyDealing(federation, dealer, commitment, tuple(shares))


def open_group_key(dealing: GroupKeyDealing, recipient: str, private: X25519PrivateKey) -> bytes:
    """The group key of a dealing that was verified, 32 bytes.

    Args:
        recipient: checksum address of who opens it.
        private: the scalar behind the key that it published.

    Raises:
        UnexpectedMessageError: nothing for this recipient in it, or encrypted to another key than it published.
        InvalidShareError: the ciphertext does not open; the dealer is named.
        DigestMismatchError: it opens to another key than the dealer committed to.
        MalformedMessageError: the dealer's key has small order.
    """
    share, dealers = dealing.share(recipient), dealing.share(dealing.dealer).public_key
    if not hmac.compare_digest(share.public_key, public_key(private)):
        raise UnexpectedMessageError(f"the dealing of {dealing.dealer} is for another public key than {recipient} published")
    key = _pair_key(dealing.federation, exchange(private, dealers), dealing.dealer, recipient, dealers, share.public_key)
    associated = _associated(dealing.federation, dealing.dealer, recipient, dealing.commitment)
    try:
        both = AESGCM(key).decrypt(share.sealed[:NONCE_SIZE], share.sealed[NONCE_SIZE:], associated)
    except InvalidTag as error:
        raise InvalidShareError(dealing.dealer, "the group key that it dealt does not open") from error
    if len(both) != GROUP_KEY_SIZE + SALT_SIZE:
        raise InvalidShareError(dealing.dealer, f"expected a group key and a salt of {GROUP_KEY_SIZE + SALT_SIZE} bytes, got {len(both)}")
    group_key, salt = both[:GROUP_KEY_SIZE], both[GROUP_KEY_SIZE:]
    found = commit(dealing.federation, group_key, salt)
    if not hmac.compare_digest(found, dealing.commitment):
        raise DigestMismatchError(f"group key dealt by {dealing.dealer}", dealing.commitment, found)
    return group_key


def commit(federation: bytes, group_key: bytes, salt: bytes) -> bytes:
    """What a dealer commits to (32 bytes): SHA-256 of the tag `rexis/group-key/1`, a zero byte, federation, salt and key."""
    return sha256(domain_tag("group-key", 1) + b"\0" + federation + salt + group_key)


def _pair_key(federation: bytes, secret: bytes, dealer: str, recipient: str, dealers: bytes, theirs: bytes) -> bytes:
    info = domain_tag("group-key-share", 1) + b"\0" + _raw(dealer) + _raw(recipient) + dealers + theirs
    return derive(secret, federation, info)


def _associated(federation: bytes, dealer: str, recipient: str, commitment: bytes) -> bytes:
    return federation + _raw(dealer) + _raw(recipient) + commitment


def _raw(address: str) -> bytes:
    return bytes.fromhex(address[2:])
