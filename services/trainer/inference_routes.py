"""HTTP operations of the trainer on questions to keyed models, and their answers."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session

from rexis.protocol.uploads import content_digest_header
from services.foundation.database import SessionDep
from services.foundation.idempotency import IdempotencyDep
from services.foundation.sign_in import CallerDep
from services.trainer import inferences, publications, receipts
from services.trainer.dependencies import ObjectsDep, OwnInferenceDep
from services.trainer.models import Inference
from services.trainer.schemas import InferenceBody, InferencePage, InferenceView, ItemReceipt, ReceiptPage

MAX_PAGE, MAX_RECEIPT_PAGE = 100, 500

router = APIRouter(prefix="/v1/inferences", tags=["inferences"])


@router.post("", status_code=202)
def ask_model(body: InferenceBody, caller: CallerDep, session: SessionDep, idempotency: IdempotencyDep) -> InferenceView:
    """Ask a model about a complete upload of encrypted rows (kind batch, x of shape [n, inputs] in f32); a worker answers.

    Open to the model's owner and those whom he lets use it, for their own uploads; for others the model does not exist.
    """
    return idempotency.once(InferenceView, lambda: InferenceView.of(_asked(session, caller.address, body)))


@router.get("")
def list_inferences(
    caller: CallerDep,
    session: SessionDep,
    cursor: Annotated[uuid.UUID | None, Query(description="next_cursor of the previous page")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
) -> InferencePage:
    """The caller's questions, newest first. Open to any account that signed in."""
    found = inferences.page(session, caller.address, after=cursor, limit=limit + 1)
    items = [InferenceView.of(inference) for inference in found[:limit]]
    return InferencePage(items=items, next_cursor=str(items[-1].id) if len(found) > limit else None)


@router.get("/{inference_id}")
def get_inference(inference: OwnInferenceDep) -> InferenceView:
    """How far a question got. Open to whoever asked it; to others it does not exist."""
    return InferenceView.of(inference)


@router.get(
    "/{inference_id}/output",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "The encrypted answers: safetensors of kind output, y of shape [n, outputs] in f32, in the order of the rows",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
def get_output(inference: OwnInferenceDep, objects: ObjectsDep) -> StreamingResponse:
    """The encrypted answers. Open to whoever asked; to others it does not exist."""
    inferences.require_answered(inference)
    headers = {"Content-Digest": content_digest_header(inference.output_digest or b""), "Content-Length": str(inference.output_bytes)}
    content = objects.open_stream(inference.output_key or "")
    return StreamingResponse(content, headers=headers, media_type="application/octet-stream")


@router.get("/{inference_id}/receipts")
def list_receipts(
    inference: OwnInferenceDep,
    session: SessionDep,
    cursor: Annotated[int | None, Query(ge=0, description="next_cursor of the previous page")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_RECEIPT_PAGE)] = 100,
) -> ReceiptPage:
    """The receipt of each row, in the order of the rows. Open to whoever asked; to others they do not exist."""
    inferences.require_answered(inference)
    found = receipts.page(session, inference, after=cursor, limit=limit + 1)
    items = [ItemReceipt.of(item, receipt) for item, receipt in found[:limit]]
    return ReceiptPage(items=items, next_cursor=str(items[-1].item) if len(found) > limit else None)


def _asked(session: Session, requester: str, body: InferenceBody) -> Inference:
    model = publications.readable(session, body.model, requester)
    return inferences.hand_in(session, requester, model, body.upload_id)
