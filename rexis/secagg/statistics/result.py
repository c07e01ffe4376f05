"""What every statistic's result has: one document, whose SHA-256 is the model that its round puts on chain."""

from abc import ABC, abstractmethod
from typing import Any

from rexis.encoding import canonical_json, sha256

VERSION = 1


class Result(ABC):
    """The opened sum of a statistic, decoded."""

    @abstractmethod
    def document(self) -> dict[str, Any]:
        """The result document, with the identifier of the statistic as `statistic`."""

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical document, 32 bytes."""
        return sha256(canonical_json(self.document()))
