"""HTTP operations for contribution scores: the statement, and what anybody who gets it can compute it from."""

from fastapi import APIRouter, Response

from rexis.encoding import sha256
from rexis.protocol.uploads import content_digest_header
from services.aggregator import contributions
from services.aggregator.dependencies import OwnFederationDep
from services.aggregator.routes import DOCUMENT
from services.foundation.database import SessionDep

router = APIRouter(prefix="/v1")


@router.get("/federations/{federation_id}/scores", tags=["scores"], response_class=Response, responses=DOCUMENT)
def get_scores(federation: OwnFederationDep, session: SessionDep) -> Response:
    """Scores of the members, with their intervals and bands, once the federation is over; 409 if too few rounds were finished.

    Open to founder, members and aggregators; to others it does not exist.
    """
    return _document(contributions.content_of(contributions.statement_of(session, federation)))


@router.get("/federations/{federation_id}/scores/bundle", tags=["scores"], response_class=Response, responses=DOCUMENT)
def get_score_bundle(federation: OwnFederationDep, session: SessionDep) -> Response:
    """Groups of each final round and their values: what the scores are computed from, once the federation is over.

    Open to founder, members and aggregators; to others it does not exist.
    """
    return _document(contributions.content_of(contributions.bundle_of(session, federation)))


def _document(content: bytes) -> Response:
    headers = {"Content-Digest": content_digest_header(sha256(content)), "X-Content-Type-Options": "nosniff"}
    return Response(content, headers=headers, media_type="application/json")
