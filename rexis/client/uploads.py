"""Resumable uploads, the same for every service that takes files (wire formats, section 4).

A part of 8 MiB is in memory at a time. An interrupted upload goes on from the parts that the service already has; each of them must
have the digest that the file has there now, so that a file which changed in between is noticed.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from rexis.client.answers import Fields
from rexis.client.connection import Connection
from rexis.encoding import sha256, to_hex
from rexis.errors import DigestMismatchError, MalformedMessageError
from rexis.protocol.uploads import Part, UploadManifest, content_digest_header, plan_parts

_UPLOAD_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)

Progress = Callable[[int, int], None]


def create_upload(connection: Connection, total_bytes: int, *, idempotency_key: str | None = None) -> str:
    """Open an upload and return its id."""
    answer = Fields("upload", connection.post("/v1/uploads", {"total_bytes": total_bytes}, idempotency_key=idempotency_key))
    upload_id = answer.text("id")
    # It becomes part of a path.
    if not _UPLOAD_ID.fullmatch(upload_id):
        raise MalformedMessageError(f"expected an upload id of 32 hexadecimal digits, got {upload_id!r}")
    return upload_id


def upload_file(connection: Connection, path: Path, *, upload_id: str | None = None, progress: Progress | None = None) -> str:
    """Upload a file.

    Args:
        connection: an authorised connection to the service.
        path: a file of at least one byte.
        upload_id: an upload to resume, from `create_upload`; None opens one.
        progress: called with (bytes stored, bytes in all) after each part.

    Returns:
        The id of the complete upload.

    Raises:
        DigestMismatchError: a stored part is not what the file holds there now.
        ServiceError: the service refuses, e.g. for a quota.
    """
    with path.open("rb") as file:
        total = path.stat().st_size
        plan = plan_parts(total)
        upload_id = upload_id or create_upload(connection, total)
        stored = _stored_parts(connection, upload_id, total)
        digests = []
        for part in plan:
            content = _read_part(file, part)
            digest = sha256(content)
            digests.append(digest)
            if stored.get(part.number, digest) != digest:
                raise DigestMismatchError(f"{path.name} changed since part {part.number} was uploaded", stored[part.number], digest)
            if part.number not in stored:
                headers = {"Content-Type": "application/octet-stream", "Content-Digest": content_digest_header(digest)}
                connection.request("PUT", f"/v1/uploads/{upload_id}/parts/{part.number}", content=content, headers=headers)
            if progress is not None:
                progress(part.offset + part.size, total)
    manifest = UploadManifest(total, tuple(digests))
    answer = Fields("upload", connection.post(f"/v1/uploads/{upload_id}/complete", manifest.to_json(), repeatable=True))
    if answer.digest("digest") != manifest.digest:
        raise MalformedMessageError(f"upload {upload_id}: expected the service to confirm digest {to_hex(manifest.digest)}")
    return upload_id


def _stored_parts(connection: Connection, upload_id: str, total: int) -> dict[int, bytes]:
    answer = Fields("upload", connection.get(f"/v1/uploads/{upload_id}"))
    if answer.integer("total_bytes") != total:
        raise MalformedMessageError(f"upload {upload_id} was opened for {answer.integer('total_bytes')} bytes, the file has {total}")

    def stored(value: object) -> tuple[int, bytes]:
        part = Fields("part", value)
        return part.integer("number"), part.digest("digest")

    return dict(answer.items("parts", stored))


def _read_part(file: BinaryIO, part: Part) -> bytes:
    file.seek(part.offset)
    content = file.read(part.size)
    if len(content) != part.size:
        raise MalformedMessageError(
            f"the file became shorter while it was read: expected {part.size} bytes at {part.offset}, got {len(content)}"
        )
    return content
