"""The chain's state file: checked before the chain starts, with copies to fall back on.

anvil rewrites the file in place every second, so a kill can leave half of it. The copies are whole by construction; what happened
after the last one comes back from the services, which send what they had signed again.
"""

import json
import threading
from pathlib import Path

from rexis.errors import ConfigurationError

COPIES = 2
COPY_INTERVAL_S = 10.0


def _is_whole(path: Path) -> bool:
    try:
        return path.is_file() and "block" in json.loads(path.read_bytes())
    except (ValueError, TypeError):
        return False


def _copies(state: Path) -> list[Path]:
    return [state.with_name(f"{state.stem}.{number}{state.suffix}") for number in range(1, COPIES + 1)]


def restore(state: Path) -> None:
    """Make `state` whole, or absent for a new chain: a damaged file is put aside and the newest whole copy takes its place.

    Raises:
        ConfigurationError: the file and all its copies are damaged.
    """
    state.parent.mkdir(parents=True, exist_ok=True)
    known = [path for path in (state, *_copies(state)) if path.exists()]
    if not known:
        return
    whole = next((path for path in known if _is_whole(path)), None)
    if whole is None:
        raise ConfigurationError(f"the chain's state {state} and its copies are damaged; move {state.parent} away to begin a new chain")
    if whole != state and state.exists():
        state.replace(state.with_name("damaged.json"))
    draft = state.with_suffix(".draft")
    draft.write_bytes(_with_one_genesis(whole.read_bytes()))
    draft.replace(state)


def _with_one_genesis(content: bytes) -> bytes:
    """Leave the first of several blocks 0.

    Anvil makes a new block 0 at every start, keeps those of the loaded state beside it, and answers with any of them, so that from
    the second start on the chain would seem to be another one.
    """
    loaded = json.loads(content)
    blocks = loaded.get("blocks", [])
    genesis = [block for block in blocks if int(block["header"]["number"], 16) == 0]
    if len(genesis) > 1:
        first = min(genesis, key=lambda block: int(block["header"]["timestamp"], 16))
        loaded["blocks"] = [first, *(block for block in blocks if int(block["header"]["number"], 16) != 0)]
    return json.dumps(loaded).encode()


def rotate(state: Path) -> None:
    """Copy the state if it is whole and newer than the newest copy; the oldest copy goes."""
    newest, *older = _copies(state)
    if not state.exists() or (newest.exists() and newest.stat().st_mtime_ns >= state.stat().st_mtime_ns):
        return
    content = state.read_bytes()
    try:
        json.loads(content)
    except ValueError:
        return  # caught in the middle of a write: the next round sees it whole
    draft = state.with_suffix(".copying")
    draft.write_bytes(content)
    for source, target in reversed(list(zip([newest, *older], older, strict=False))):
        if source.exists():
            source.replace(target)
    draft.replace(newest)


class Copying:
    """Rotates the copies every `COPY_INTERVAL_S` until `stop`."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chain-state-copies", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(COPY_INTERVAL_S):
            rotate(self._state)

    def stop(self) -> None:
        """End the thread; a copy that is under way is finished."""
        self._stopped.set()
        self._thread.join()
