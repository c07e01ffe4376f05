"""Contribution scores as an aggregator shows them. A participant computes them from what stands on chain: `agent.federation.scores`."""

from typing import Any

from rexis.client.connection import Connection
from rexis.encoding import parse_canonical_json, to_hex
from rexis.errors import EncodingError, MalformedMessageError
from rexis.protocol.contributions import ContributionBundle, ContributionStatement

# A thousand rounds of 128 members.
MAX_BUNDLE_BYTES = 1 << 24
MAX_STATEMENT_BYTES = 1 << 17


class ScoreClient:
    """Calls to an aggregator of a federation, for its founder, members and aggregators."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def statement(self, federation: bytes) -> ContributionStatement:
        """Scores of a federation (id, 32 bytes) that is over.

        Raises:
            MalformedMessageError: no statement.
            ServiceError: 404 while it runs, 409 `scores-refused` if too few rounds were finished.
        """
        return ContributionStatement.parse(self._document(federation, "scores", MAX_STATEMENT_BYTES))

    def bundle(self, federation: bytes) -> ContributionBundle:
        """What they are computed from.

        Raises:
            MalformedMessageError: no bundle.
            ServiceError: 404 while the federation runs.
        """
        return ContributionBundle.parse(self._document(federation, "scores/bundle", MAX_BUNDLE_BYTES))

    def _document(self, federation: bytes, what: str, most: int) -> Any:
        answer = self.connection.request("GET", f"/v1/federations/{to_hex(federation)}/{what}", max_bytes=most)
        try:
            return parse_canonical_json(answer.raw, max_bytes=most)
        except EncodingError as error:
            raise MalformedMessageError(f"{what} of federation {to_hex(federation)}: {error}") from error
