"""A small secret document sealed under a passphrase: scrypt and AES-256-GCM, at most 1 KB.

"rexis/ee-key/1" 0x00 | salt (16) | nonce (12) | AES-256-GCM(scrypt(passphrase, salt), nonce, canonical JSON; AAD = all before)
"""

import os
import secrets
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from rexis.encoding import canonical_json, domain_tag, parse_canonical_json
from rexis.errors import EncodingError, KeyFileError

MAX_FILE_SIZE = 1024

_MAGIC = domain_tag("ee-key", 1) + b"\0"
_SALT_SIZE = 16
_NONCE_SIZE = 12
_HEADER_SIZE = len(_MAGIC) + _SALT_SIZE + _NONCE_SIZE


def write(path: Path, document: dict[str, Any], passphrase: str) -> None:
    """Seal a document into a new file with mode 0600.

    Raises:
        ValueError: an empty passphrase, or a document too large for a key file.
        FileExistsError: the path is taken.
    """
    header = _MAGIC + secrets.token_bytes(_SALT_SIZE) + secrets.token_bytes(_NONCE_SIZE)
    sealed = header + _cipher(header, passphrase).encrypt(header[-_NONCE_SIZE:], canonical_json(document), header)
    if len(sealed) > MAX_FILE_SIZE:
        raise ValueError(f"a key file holds at most {MAX_FILE_SIZE} bytes, got {len(sealed)}")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(sealed)
        file.flush()
        os.fsync(descriptor)


def read(path: Path, passphrase: str) -> Any:
    """Open what `write` wrote.

    Raises:
        KeyFileError: not a key file of this version, altered, or a wrong passphrase.
    """
    with path.open("rb") as file:
        sealed = file.read(MAX_FILE_SIZE + 1)
    header, body = sealed[:_HEADER_SIZE], sealed[_HEADER_SIZE:]
    if not header.startswith(_MAGIC) or len(sealed) > MAX_FILE_SIZE or not body:
        raise KeyFileError(f"{path}: expected a key file of at most {MAX_FILE_SIZE} bytes that begins with {_MAGIC!r}")
    try:
        plain = _cipher(header, passphrase).decrypt(header[-_NONCE_SIZE:], body, header)
        return parse_canonical_json(plain, max_bytes=MAX_FILE_SIZE)
    except InvalidTag:
        raise KeyFileError(f"{path}: wrong passphrase, or the file was altered") from None
    except EncodingError as error:
        raise KeyFileError(f"{path}: {error}") from error


def _cipher(header: bytes, passphrase: str) -> AESGCM:
    if not passphrase:
        raise ValueError("expected a passphrase, got an empty text")
    salt = header[len(_MAGIC) : len(_MAGIC) + _SALT_SIZE]
    # OWASP's minimum for scrypt: 128 MiB and about half a second for each guess.
    return AESGCM(Scrypt(salt=salt, length=32, n=1 << 17, r=8, p=1).derive(passphrase.encode()))
