"""Encryption of single fields of the journal: AES-256-GCM under a key that scrypt derives from the institution's passphrase.

The passphrase key opens one random journal key, from which HKDF derives the key that seals fields and the key that recognises
tables; changing the passphrase therefore touches one row. The place of a field (table, column, row) is authenticated with it, so that a
sealed value moved to another row does not open. Sources: RFC 7914 (scrypt), NIST SP 800-38D (GCM), RFC 5869 (HKDF).
"""

import os
from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from rexis.encoding import domain_tag
from rexis.errors import KeyFileError

KEY_BYTES = 32
NONCE_BYTES = 12
SALT_BYTES = 16
# 128 MiB and about half a second: OWASP's recommendation for scrypt (r = 8, p = 1).
WORK_FACTOR = 1 << 17
MAX_WORK_FACTOR = 1 << 20
BLOCK_SIZE = 8


@dataclass(frozen=True)
class Lock:
    """What the journal stores so that the passphrase opens it: scrypt's salt and work factor (N), and the sealed journal key."""

    salt: bytes
    work_factor: int
    sealed_key: bytes


@dataclass(frozen=True)
class Sealer:
    """Seals and opens fields; holds the keys in memory only."""

    fields: AESGCM
    fingerprint_key: bytes

    @classmethod
    def create(cls, passphrase: str, *, work_factor: int = WORK_FACTOR) -> tuple[Self, Lock]:
        """A new journal key under `passphrase`, with the lock to store."""
        journal_key, salt = os.urandom(KEY_BYTES), os.urandom(SALT_BYTES)
        sealed = _seal(AESGCM(_passphrase_key(passphrase, salt, work_factor)), journal_key, b"journal key")
        return cls._derive(journal_key), Lock(salt, work_factor, sealed)

    @classmethod
    def open(cls, passphrase: str, lock: Lock) -> Self:
        """The sealer of an existing journal.

        Raises:
            KeyFileError: another passphrase, or a lock that was changed.
        """
        if not 2 <= lock.work_factor <= MAX_WORK_FACTOR:
            raise KeyFileError(
                f"the journal's scrypt work factor is {lock.work_factor}, expected at most {MAX_WORK_FACTOR}; restore a backup"
            )
        try:
            journal_key = _open(AESGCM(_passphrase_key(passphrase, lock.salt, lock.work_factor)), lock.sealed_key, b"journal key")
        except InvalidTag as error:
            raise KeyFileError("the journal does not open with this passphrase; use the one it was created with") from error
        return cls._derive(journal_key)

    @classmethod
    def _derive(cls, journal_key: bytes) -> Self:
        def key(purpose: str) -> bytes:
            return HKDF(SHA256(), KEY_BYTES, None, domain_tag(f"journal-{purpose}", 1)).derive(journal_key)

        return cls(AESGCM(key("fields")), key("fingerprint"))

    def seal(self, plaintext: bytes, place: str) -> bytes:
        """Nonce, ciphertext and tag of `plaintext`, bound to `place`."""
        return _seal(self.fields, plaintext, place.encode())

    def open_field(self, sealed: bytes, place: str) -> bytes:
        """What `seal` sealed at this place.

        Raises:
            KeyFileError: the field was changed, or belongs elsewhere.
        """
        try:
            return _open(self.fields, sealed, place.encode())
        except InvalidTag as error:
            raise KeyFileError(f"the sealed field {place} was changed; restore the journal from a backup") from error


def _passphrase_key(passphrase: str, salt: bytes, work_factor: int) -> bytes:
    return Scrypt(salt=salt, length=KEY_BYTES, n=work_factor, r=BLOCK_SIZE, p=1).derive(passphrase.encode())


def _seal(cipher: AESGCM, plaintext: bytes, place: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, plaintext, place)


def _open(cipher: AESGCM, sealed: bytes, place: bytes) -> bytes:
    if len(sealed) < NONCE_BYTES:
        raise InvalidTag
    return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place)
