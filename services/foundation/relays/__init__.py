"""Signed calls that a service sends for institutions, so that they pay no gas (wire formats, section 6)."""

from services.foundation.relays.admission import admit, check_call, check_signature
from services.foundation.relays.records import RelayedCallRow, intent_of, of_sender, promise
from services.foundation.relays.routes import RelayedCallBody, RelayView, Signature, relay_progress_router, relay_router

__all__ = [
    "RelayView",
    "RelayedCallBody",
    "RelayedCallRow",
    "Signature",
    "admit",
    "check_call",
    "check_signature",
    "intent_of",
    "of_sender",
    "promise",
    "relay_progress_router",
    "relay_router",
]
