"""The one upload protocol (wire formats, section 4): create, put parts, complete; nothing is visible before complete."""

from services.foundation.uploads.body_limit import BodyLimit
from services.foundation.uploads.reader import StoredPart, StoredUpload
from services.foundation.uploads.records import Upload, UploadPart, claim_upload, open_upload, reap_uploads
from services.foundation.uploads.routes import UploadLimits, upload_router

__all__ = [
    "BodyLimit",
    "StoredPart",
    "StoredUpload",
    "Upload",
    "UploadLimits",
    "UploadPart",
    "claim_upload",
    "open_upload",
    "reap_uploads",
    "upload_router",
]
