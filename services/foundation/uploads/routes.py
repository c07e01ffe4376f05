"""The upload protocol over HTTP, the same router in every service that takes files."""

import hashlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Engine
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from rexis.encoding import to_hex
from rexis.errors import DigestMismatchError
from rexis.protocol.uploads import MAX_PARTS, MAX_UPLOAD_BYTES, PART_SIZE, UploadManifest, parse_content_digest, plan_parts
from services.foundation.database import SessionDep, transaction
from services.foundation.idempotency import IdempotencyDep
from services.foundation.objects import ObjectStore
from services.foundation.problems import Problem, conflict
from services.foundation.sign_in import CallerDep
from services.foundation.uploads import records
from services.foundation.uploads.records import State, Upload, UploadPart

# The server hands over 64 KiB at a time; one hop to a thread for each of them would cost more than the hashing.
GATHERED_BYTES = 1 << 20

UploadId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
PartNumber = Annotated[int, Path(ge=1, le=MAX_PARTS)]
Digest = Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$")]


@dataclass(frozen=True)
class UploadLimits:
    """What one owner may hold.

    Attributes:
        upload_bytes: size of one upload.
        unclaimed: number of uploads that are open, or complete and unused.
        unclaimed_bytes: their total size.
    """

    upload_bytes: int = MAX_UPLOAD_BYTES
    unclaimed: int = 32
    unclaimed_bytes: int = 256 << 30


class UploadRequest(BaseModel):
    """What is going to be uploaded."""

    model_config = ConfigDict(extra="forbid")

    total_bytes: int = Field(ge=1, le=MAX_UPLOAD_BYTES)


class CompleteRequest(BaseModel):
    """The upload manifest of the wire formats: the size, and the SHA-256 of each part in order."""

    model_config = ConfigDict(extra="forbid")

    total_bytes: int = Field(alias="totalBytes", ge=1, le=MAX_UPLOAD_BYTES)
    parts: list[Digest] = Field(min_length=1, max_length=MAX_PARTS)


class PartAnswer(BaseModel):
    """A part that is stored."""

    number: int
    size: int
    digest: str = Field(description="SHA-256")


class UploadAnswer(BaseModel):
    """An upload and the parts that are stored so far."""

    id: str
    state: State
    mode: Literal["direct", "presigned"] = Field(description="direct: PUT the parts here; presigned: at the store, by each part's own URL")
    part_url: str = Field(description="where part {number} goes in direct mode")
    total_bytes: int
    part_size: int = Field(description="size of every part but the last")
    part_count: int
    parts: list[PartAnswer]
    digest: str | None = Field(description="digest of the manifest, once complete")
    expires_at: datetime = Field(description="when the upload is deleted unless a part, its completion or its use comes first")


def upload_router(limits: UploadLimits | None = None) -> APIRouter:
    """The routes under `/v1/uploads`; the application needs `BodyLimit` and runs `reap_uploads` in its background process."""
    bounds = limits or UploadLimits()
    router = APIRouter(prefix="/v1/uploads", tags=["uploads"])

    @router.post("", status_code=201, operation_id="create_upload")
    def create(body: UploadRequest, caller: CallerDep, session: SessionDep, idempotency: IdempotencyDep) -> UploadAnswer:
        """Open an upload and learn how to cut it into parts."""
        if body.total_bytes > bounds.upload_bytes:
            detail = f"one upload has at most {bounds.upload_bytes} bytes, {body.total_bytes} were announced"
            raise Problem(413, "upload-too-large", "The upload is too large", detail)

        def opened() -> UploadAnswer:
            upload = records.create_upload(
                session,
                caller.address,
                body.total_bytes,
                max_unclaimed=bounds.unclaimed,
                max_unclaimed_bytes=bounds.unclaimed_bytes,
            )
            return _answer(session, upload)

        return idempotency.once(UploadAnswer, opened)

    @router.get("/{upload_id}", operation_id="get_upload")
    def show(upload_id: UploadId, caller: CallerDep, session: SessionDep) -> UploadAnswer:
        """The parts that are stored, to resume after an interruption."""
        return _answer(session, records.find_upload(session, upload_id, caller.address))

    @router.put(
        "/{upload_id}/parts/{number}",
        operation_id="put_upload_part",
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
        },
    )
    async def put_part(
        request: Request,
        upload_id: UploadId,
        number: PartNumber,
        caller: CallerDep,
        content_digest: Annotated[str, Header(description="sha-256=:base64: of the part (RFC 9530)")],
    ) -> PartAnswer:
        """Store one part; the same part twice is one part. Needs `Content-Length`."""
        engine: Engine = request.app.state.engine
        objects: ObjectStore = request.app.state.objects
        digest = parse_content_digest(content_digest)
        length = request.headers.get("content-length")
        if length is None:
            raise Problem(411, "length-required", "Content-Length is required", "a part is announced with its exact Content-Length")

        def admit() -> tuple[int, bool]:
            with transaction(engine, read_only=True) as session:
                upload = records.find_upload(session, upload_id, caller.address)
                size = records.expected_part(upload, number).size
                return size, records.stored_part(session, upload, number, digest) is not None

        size, already_stored = await run_in_threadpool(admit)
        if int(length) != size:
            raise Problem(422, "part-size", "The part has another size", f"part {number} has {size} bytes, Content-Length says {length}")
        content = _checked(request.stream(), number, size, digest)
        if already_stored:
            async for _ in content:
                continue
        else:
            key = f"uploads/{upload_id}/{number:05}-{secrets.token_hex(8)}"
            await objects.put_stream(key, content)
            part = UploadPart(upload_id=upload_id, number=number, size=size, digest=digest, object_key=key)
            await run_in_threadpool(records.record_part, engine, objects, upload_id, caller.address, part)
        return PartAnswer(number=number, size=size, digest=to_hex(digest))

    @router.post("/{upload_id}/complete", operation_id="complete_upload")
    def complete(upload_id: UploadId, body: CompleteRequest, caller: CallerDep, session: SessionDep) -> UploadAnswer:
        """Check the list of part digests and make the upload usable, all at once; the same list twice is one completion."""
        upload = records.find_upload(session, upload_id, caller.address, for_update=True)
        records.complete_upload(session, upload, UploadManifest.parse(body.model_dump(by_alias=True)))
        return _answer(session, upload)

    @router.delete("/{upload_id}", status_code=204, operation_id="delete_upload")
    def delete(upload_id: UploadId, caller: CallerDep, session: SessionDep) -> None:
        """Give up an upload that nothing uses."""
        upload = records.find_upload(session, upload_id, caller.address, for_update=True)
        if upload.state == "claimed":
            raise conflict("upload-claimed", f"upload {upload_id} is in use")
        records.abandon_upload(upload)

    return router


async def _checked(chunks: AsyncIterator[bytes], number: int, size: int, digest: bytes) -> AsyncIterator[bytes]:
    """Pass a part on in larger blocks. The last one comes only after size and digest were found right, so that nothing wrong is stored.

    Raises:
        Problem: 422 if the body has another size than announced.
        DigestMismatchError: it has another SHA-256.
    """
    hashed, gathered, gathered_bytes, received = hashlib.sha256(), list[bytes](), 0, 0
    block = b""
    async for chunk in chunks:
        gathered.append(chunk)
        gathered_bytes += len(chunk)
        if gathered_bytes >= GATHERED_BYTES:
            if block:
                yield block
            block, gathered, gathered_bytes = b"".join(gathered), [], 0
            received += len(block)
            await run_in_threadpool(hashed.update, block)
    rest = b"".join(gathered)
    hashed.update(rest)
    received += len(rest)
    if received != size:
        raise Problem(422, "part-size", "The part has another size", f"part {number} has {size} bytes, {received} came")
    if hashed.digest() != digest:
        raise DigestMismatchError(f"part {number}", digest, hashed.digest())
    for remaining in (block, rest):
        if remaining:
            yield remaining


def _answer(session: Session, upload: Upload) -> UploadAnswer:
    return UploadAnswer(
        id=upload.id,
        state=upload.state,
        mode="direct",
        part_url=f"/v1/uploads/{upload.id}/parts/{{number}}",
        total_bytes=upload.total_bytes,
        part_size=PART_SIZE,
        part_count=len(plan_parts(upload.total_bytes)),
        parts=[PartAnswer(number=part.number, size=part.size, digest=to_hex(part.digest)) for part in records.parts_of(session, upload)],
        digest=to_hex(upload.digest) if upload.digest is not None else None,
        expires_at=upload.expires_at,
    )
