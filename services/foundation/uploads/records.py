"""What the database knows about uploads. It decides: an object without a row here is waste, and is swept.

Each attempt to put a part writes an object under a fresh random name and then a row that points to it, so that two attempts never write
to the same place, and an attempt that is interrupted anywhere leaves no trace but an object that nothing points to.
"""

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import BigInteger, Boolean, Engine, ForeignKey, Integer, LargeBinary, String, delete, func, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from rexis.errors import DigestMismatchError
from rexis.protocol.uploads import Part, UploadManifest, plan_parts
from services.foundation.database import FoundationBase, Instant, lock, now, transaction
from services.foundation.objects import ObjectStore
from services.foundation.problems import Problem, conflict, not_found
from services.foundation.uploads.reader import StoredPart, StoredUpload

State = Literal["open", "complete", "claimed", "abandoned"]

# So long an upload waits for its next part, and once complete for its use.
LIFETIME = timedelta(days=7)
# Longer than one PUT can last (see `body_limit`): after this time no attempt that began before is still running.
LONGEST_PUT = timedelta(hours=1)
REAPED_AT_ONCE = 100


class Upload(FoundationBase):
    """One upload. States: open → complete → claimed by a domain object; open and complete ones end as abandoned."""

    __tablename__ = "upload"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    owner: Mapped[str] = mapped_column(String(42), index=True)
    total_bytes: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[State] = mapped_column(String(16))
    digest: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    expires_at: Mapped[datetime] = mapped_column(Instant, index=True)
    completed_at: Mapped[datetime | None] = mapped_column(Instant)
    swept: Mapped[bool] = mapped_column(Boolean, default=False)  # what interrupted attempts left was deleted

    @property
    def folder(self) -> str:
        """Prefix of the object keys of all attempts to put parts of this upload."""
        return f"uploads/{self.id}"


class UploadPart(FoundationBase):
    """A part that is stored and checked."""

    __tablename__ = "upload_part"

    upload_id: Mapped[str] = mapped_column(ForeignKey("upload.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    size: Mapped[int] = mapped_column(Integer)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    object_key: Mapped[str] = mapped_column(String(100), unique=True)


def create_upload(session: Session, owner: str, total_bytes: int, *, max_unclaimed: int, max_unclaimed_bytes: int) -> Upload:
    """Open an upload.

    Raises:
        Problem: 429 if the owner would hold more than the given number of uploads, or of bytes, that no job or record uses.
    """
    lock(session, f"uploads of {owner}")
    unclaimed = select(func.count(), func.coalesce(func.sum(Upload.total_bytes), 0)).where(
        Upload.owner == owner, Upload.state.in_(("open", "complete"))
    )
    count, size = session.execute(unclaimed).one()
    if count + 1 > max_unclaimed or size + total_bytes > max_unclaimed_bytes:
        detail = (
            f"at most {max_unclaimed} uploads and {max_unclaimed_bytes} bytes may be open or unused; "
            f"there are {count} with {size} bytes, and {total_bytes} more were asked for: complete and use, or delete, some of them"
        )
        raise Problem(429, "upload-quota", "The upload quota is used up", detail)
    upload = Upload(id=secrets.token_hex(16), owner=owner, total_bytes=total_bytes, state="open", expires_at=now() + LIFETIME)
    session.add(upload)
    session.flush()
    return upload


def find_upload(session: Session, upload_id: str, owner: str, *, for_update: bool = False) -> Upload:
    """The owner's upload; 404 for anyone else's, so that ids can not be probed, and for an abandoned one."""
    upload = session.get(Upload, upload_id, with_for_update=for_update)
    if upload is None or upload.owner != owner or upload.state == "abandoned":
        raise not_found("upload", upload_id)
    return upload


def parts_of(session: Session, upload: Upload) -> Sequence[UploadPart]:
    """The stored parts in order."""
    return session.scalars(select(UploadPart).where(UploadPart.upload_id == upload.id).order_by(UploadPart.number)).all()


def expected_part(upload: Upload, number: int) -> Part:
    """What part `number` of this upload has to be; 404 outside the plan."""
    plan = plan_parts(upload.total_bytes)
    if not 1 <= number <= len(plan):
        raise not_found(f"part of upload {upload.id}, which has parts 1 to {len(plan)}, with number", number)
    return plan[number - 1]


def stored_part(session: Session, upload: Upload, number: int, digest: bytes) -> UploadPart | None:
    """The part, if it is stored already; 409 if it is with other content, or if the upload takes no more parts."""
    part = session.get(UploadPart, (upload.id, number))
    if part is not None and part.digest != digest:
        raise conflict("part-exists", f"part {number} is stored with SHA-256 0x{part.digest.hex()}; a stored part can not be replaced")
    if part is None and upload.state != "open":
        raise conflict("upload-complete", f"upload {upload.id} is {upload.state} and takes no more parts")
    return part


def record_part(engine: Engine, objects: ObjectStore, upload_id: str, owner: str, received: UploadPart) -> None:
    """Make the object that `received` points to the content of its part, unless the same content came first.

    The object is deleted when it is certain that no row points to it; after an error of the database, which may have committed all
    the same, it is left to the sweep.
    """
    try:
        with transaction(engine) as session:
            upload = find_upload(session, upload_id, owner, for_update=True)
            surplus = stored_part(session, upload, received.number, received.digest) is not None
            if not surplus:
                session.add(received)
                upload.expires_at = now() + LIFETIME
    except Problem:
        objects.delete(received.object_key)
        raise
    if surplus:
        objects.delete(received.object_key)


def complete_upload(session: Session, upload: Upload, manifest: UploadManifest) -> None:
    """Check the list of part digests against what is stored, and make the upload visible; the same list a second time changes nothing.

    Raises:
        Problem: 422 if the size differs from the announced one, 409 if parts are missing or the upload was completed with another list.
        DigestMismatchError: a part is stored with another digest.
    """
    if manifest.total_bytes != upload.total_bytes:
        detail = f"the upload was created with {upload.total_bytes} bytes, the manifest says {manifest.total_bytes}"
        raise Problem(422, "upload-size", "The manifest is of another size", detail)
    if upload.state != "open":
        if upload.digest != manifest.digest:
            raise conflict("upload-complete", f"upload {upload.id} was completed with other part digests")
        return
    stored = {part.number: part.digest for part in parts_of(session, upload)}
    missing = [number for number in range(1, len(manifest.parts) + 1) if number not in stored]
    if missing:
        shown = ", ".join(map(str, missing[:10])) + (", …" if len(missing) > 10 else "")
        raise conflict("parts-missing", f"{len(missing)} of {len(manifest.parts)} parts are missing: {shown}")
    for number, digest in enumerate(manifest.parts, start=1):
        if stored[number] != digest:
            raise DigestMismatchError(f"part {number}", digest, stored[number])
    upload.state, upload.digest = "complete", manifest.digest
    upload.completed_at, upload.expires_at = now(), now() + LIFETIME


def open_upload(session: Session, upload_id: str, owner: str) -> StoredUpload:
    """A complete upload for domain code to read; 404 as in `find_upload`, 409 while parts may still come."""
    upload = find_upload(session, upload_id, owner)
    if upload.digest is None:
        raise conflict("upload-open", f"upload {upload_id} is not complete yet")
    parts = tuple(StoredPart(part.object_key, part.size, part.digest) for part in parts_of(session, upload))
    return StoredUpload(upload.id, upload.owner, upload.total_bytes, upload.digest, parts)


def claim_upload(session: Session, upload_id: str, owner: str) -> StoredUpload:
    """`open_upload`, and from now on the upload belongs to what is made of it in this transaction: the reaper leaves it alone."""
    stored = open_upload(session, upload_id, owner)
    find_upload(session, upload_id, owner, for_update=True).state = "claimed"
    return stored


def abandon_upload(upload: Upload) -> None:
    """Hide an upload; the reaper deletes its objects at once, and again with its row when no attempt can be running any more."""
    upload.state, upload.swept, upload.expires_at = "abandoned", False, now() + LONGEST_PUT


def reap_uploads(engine: Engine, objects: ObjectStore) -> None:
    """Abandon what expired, delete what was abandoned, sweep what interrupted attempts left; a job of the background process.

    Interrupted at any point, it does the rest the next time.
    """
    instant = now()
    with transaction(engine) as session:
        expired = select(Upload).where(Upload.state.in_(("open", "complete")), Upload.expires_at <= instant).limit(REAPED_AT_ONCE)
        for upload in session.scalars(expired.with_for_update(skip_locked=True)):
            abandon_upload(upload)

    abandoned, over = Upload.state == "abandoned", Upload.expires_at <= instant
    unswept = Upload.swept.is_(False), Upload.completed_at <= instant - LONGEST_PUT
    with transaction(engine, read_only=True) as session:
        deleted = session.scalars(select(Upload).where(abandoned, over | Upload.swept.is_(False)).limit(REAPED_AT_ONCE)).all()
        swept = session.scalars(select(Upload).where(~abandoned, *unswept).limit(REAPED_AT_ONCE)).all()
        kept = {part.object_key for upload in swept for part in parts_of(session, upload)}
    for upload in deleted:
        objects.delete_folder(upload.folder)
    for upload in swept:
        for found in list(objects.list(upload.folder)):
            if found.key not in kept:
                objects.delete(found.key)
    done = [upload.id for upload in (*deleted, *swept)]
    with transaction(engine) as session:
        session.execute(update(Upload).where(Upload.id.in_(done)).values(swept=True))
        session.execute(delete(Upload).where(Upload.id.in_(done), abandoned, over))
