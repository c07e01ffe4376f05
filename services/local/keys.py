"""The platform's own secrets: random, made once, readable by this user only."""

import os
import secrets
from pathlib import Path


def ensure_secret(path: Path) -> Path:
    """Make `path` hold 32 random bytes in hex (64 digits) unless it exists; returns `path`.

    The file appears whole or not at all; its folder is closed to other users.
    """
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    return path
