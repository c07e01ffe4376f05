"""Errors on the wire: RFC 9457 `application/problem+json`, assigned in one place.

Domain code raises `rexis.errors`; routes raise `Problem` for what only HTTP knows (not found, conflict).
Every document has type, title, status, detail, instance and the request id; `errors` lists broken rules of a body.
No stack trace, no SQL and no secret ever leaves: an unexpected exception is logged with the request id and answered as 500.
"""

from collections.abc import Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import DataError, InterfaceError, OperationalError, TimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rexis import errors

MEDIA_TYPE = "application/problem+json"
log = structlog.get_logger(__name__)

# A hostile body can break as many rules as it has bytes.
MAX_BROKEN_RULES = 20
MAX_TEXT = 300

# First match wins, so that a subclass stands before its parent.
STATUS_OF: Sequence[tuple[type[errors.RexisError], int, str, str]] = (
    (errors.EncodingError, 422, "encoding", "The content has no canonical form"),
    (errors.SignatureError, 401, "signature", "The signature does not verify"),
    (errors.VerificationError, 422, "verification", "A check on the submitted content failed"),
    (errors.MalformedMessageError, 422, "malformed-message", "The message is malformed"),
    (errors.UnexpectedMessageError, 409, "unexpected-message", "The message does not fit the current state"),
    (errors.BelowThresholdError, 409, "below-threshold", "Too few parties remain"),
    (errors.ProtocolError, 422, "protocol", "The protocol does not admit this"),
    (errors.PrivacyError, 403, "privacy", "A privacy rule refuses this"),
    (errors.ContractRevertedError, 409, "contract-reverted", "The contract refused the call"),
    (errors.ChainError, 503, "chain", "The chain can not be used"),
    (errors.ServiceError, 502, "service", "Another service refused or failed"),
    (errors.ConfigurationError, 500, "configuration", "The service is not configured for this"),
    (errors.UnavailableError, 503, "unavailable", "Something this service needs does not answer"),
    (errors.RexisError, 422, "refused", "The request was refused"),
)


class ProblemDocument(BaseModel):
    """The body of every error answer, for OpenAPI."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str


class Problem(Exception):
    """An error that only HTTP knows.

    Args:
        status: HTTP status.
        kind: last segment of the problem type, stable for programs.
        title: the same for every occurrence of the kind.
        detail: what happened, which rule, what to do.
        extensions: further members of the document.
    """

    def __init__(
        self, status: int, kind: str, title: str, detail: str, *, headers: dict[str, str] | None = None, **extensions: Any
    ) -> None:
        super().__init__(detail)
        self.status, self.kind, self.title, self.detail = status, kind, title, detail
        self.headers, self.extensions = headers or {}, extensions


def not_found(what: str, identifier: object) -> Problem:
    """404 for a resource that does not exist, or that the caller may not know of."""
    return Problem(404, "not-found", "Not found", f"there is no {what} {identifier}")


def forbidden(detail: str) -> Problem:
    """403: the caller is known, the rule says no."""
    return Problem(403, "forbidden", "Not allowed", detail)


def conflict(kind: str, detail: str) -> Problem:
    """409: the request contradicts what is stored."""
    return Problem(409, kind, "Conflict with the stored state", detail)


def problem_response(request: Request, problem: Problem) -> JSONResponse:
    """The answer for `problem`; the request id comes from the observability middleware."""
    body = {
        "type": f"urn:rexis:problem:{problem.kind}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "instance": request.url.path,
        "request_id": request.scope.get("request_id", ""),
        **problem.extensions,
    }
    headers = {"WWW-Authenticate": "Bearer", **problem.headers} if problem.status == 401 else problem.headers
    return JSONResponse(_sendable(body), problem.status, headers, MEDIA_TYPE)


def _sendable(value: Any) -> Any:
    """`value` as JSON can carry it: bytes of a decoded revert in hex, text of a hostile body without lone surrogates."""
    match value:
        case dict():
            return {str(_sendable(key)): _sendable(item) for key, item in value.items()}
        case list() | tuple():
            return [_sendable(item) for item in value]
        case bytes():
            return "0x" + value.hex()
        case str():
            return value.encode("utf-8", "replace").decode()
        case bool() | int() | float() | None:
            return value
        case _:
            return str(value)


class _Defects:
    """Answers 500 for what no handler knows, inside the other middlewares, so that it is counted and carries the request id like any other.

    Starlette's own last resort stands outside of them, prints traces in debug mode, and raises again.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except Exception as error:
            if started:
                # The status is out: only a broken connection can tell the caller that the answer is not whole.
                raise
            log.error("unexpected error", path=scope["path"][:MAX_TEXT], exc_info=error)
            detail = "an unexpected error; report the request id to the operator"
            await problem_response(Request(scope), Problem(500, "defect", "Internal error", detail))(scope, receive, send)


def install(app: FastAPI) -> None:
    """Register the handlers and the error schema of every operation."""

    @app.exception_handler(Problem)
    def on_problem(request: Request, error: Problem) -> JSONResponse:
        return problem_response(request, error)

    @app.exception_handler(errors.RexisError)
    def on_rexis_error(request: Request, error: errors.RexisError) -> JSONResponse:
        status, kind, title = next((s, k, t) for cls, s, k, t in STATUS_OF if isinstance(error, cls))
        if status >= 500:
            # Our side failed: its text may name internal addresses and keys, and is of no use to the caller.
            log.error("a dependency failed", kind=kind, exc_info=error)
            detail = "this is not the caller's fault; try again, or report the request id to the operator"
            headers = {"Retry-After": "2"} if status == 503 else None
            return problem_response(request, Problem(status, kind, title, detail, headers=headers))
        extensions: dict[str, Any] = {}
        if isinstance(error, errors.ContractRevertedError):
            extensions = {
                "contract": error.contract,
                "error": error.error,
                "arguments": error.arguments,
                "explanation": error.explanation,
            }
        return problem_response(request, Problem(status, kind, title, str(error), **extensions))

    @app.exception_handler(RequestValidationError)
    def on_validation(request: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()
        broken = [
            {"where": "/".join(str(part) for part in item["loc"])[:MAX_TEXT], "rule": item["msg"][:MAX_TEXT]}
            for item in found[:MAX_BROKEN_RULES]
        ]
        detail = f"{len(found)} rule(s) broken; see errors"
        return problem_response(request, Problem(422, "validation", "The request is malformed", detail, errors=broken))

    @app.exception_handler(HTTPException)
    def on_http(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers or {})
        return problem_response(request, Problem(error.status_code, "http", "HTTP error", str(error.detail), headers=headers))

    @app.exception_handler(ClientDisconnect)
    def on_disconnect(request: Request, error: ClientDisconnect) -> JSONResponse:
        # Nobody reads this; the status makes the metrics tell it from our own failures.
        return problem_response(request, Problem(499, "disconnected", "The client went away", "the body ended early"))

    def on_database(request: Request, error: Exception) -> JSONResponse:
        log.error("database unavailable", error=type(getattr(error, "orig", error)).__name__)
        detail = "the database does not answer; nothing was changed; try again"
        return problem_response(request, Problem(503, "unavailable", "Unavailable", detail, headers={"Retry-After": "2"}))

    # TimeoutError here: every connection of the pool stayed in use for too long.
    for unavailable in (OperationalError, InterfaceError, TimeoutError):
        app.add_exception_handler(unavailable, on_database)

    @app.exception_handler(DataError)
    def on_data(request: Request, error: DataError) -> JSONResponse:
        log.warning("the database refused a value", error=type(error.orig).__name__)
        detail = "a value can not be stored, such as a number out of range or a zero byte in a text; nothing was changed"
        return problem_response(request, Problem(422, "validation", "The request is malformed", detail))

    app.add_middleware(_Defects)
    app.router.responses = {**app.router.responses, "default": {"model": ProblemDocument, "description": "A problem (RFC 9457)"}}
