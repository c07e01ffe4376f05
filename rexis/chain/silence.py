"""How long a chain has been away, as one party's own node tells: what somebody else says about it counts for nothing."""

import time
from collections.abc import Callable
from typing import Any

from web3.types import RPCEndpoint

from rexis.chain.connection import NODE_FAILURES, Chain
from rexis.errors import UnavailableError, WrongChainError

# A node that missed one question is not away: it has to fail for this part of a stage, and at most for so long.
PARTS_OF_A_STAGE, LONGEST_DOUBT_S = 10, 60.0


class ChainSilence:
    """Looks at a chain again and again; after a restart it begins anew, which only makes it slower to call the chain away.

    Args:
        connect: the connection, opened when it is first needed; it may raise like `Chain.connect`.
    """

    def __init__(self, connect: Callable[[], Chain]) -> None:
        self._connect = connect
        self._chain: Chain | None = None
        self._failing_since: float | None = None
        self._latest: float | None = None

    def look(self) -> None:
        """Ask for the latest block, once."""
        try:
            if self._chain is None:
                self._chain = self._connect()
            answer = self._chain.web3.provider.make_request(RPCEndpoint("eth_getBlockByNumber"), ["latest", False])
            block: Any = answer.get("result")
            latest = int(block["timestamp"], 16)
        except (*NODE_FAILURES, UnavailableError, WrongChainError, TypeError, KeyError):
            if self._failing_since is None:
                self._failing_since = time.monotonic()
            return
        self._failing_since, self._latest = None, float(latest)

    def reason(self, stage_s: int, stages: int) -> str | None:
        """Why the chain counts as away, by the looks so far; None while it does not.

        Args:
            stage_s: seconds of a stage of the round that waits for it.
            stages: how many of them a node may show no new block; 0 for a chain that never counts as away.
        """
        if stages < 1:
            return None
        if self._failing_since is not None:
            silent = time.monotonic() - self._failing_since
            return f"no node has answered for {silent:.0f} s" if silent >= min(stage_s / PARTS_OF_A_STAGE, LONGEST_DOUBT_S) else None
        if self._latest is None:
            return None
        age = time.time() - self._latest
        return f"the latest block is {age:.0f} s old" if age > stages * stage_s else None
