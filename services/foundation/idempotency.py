"""`Idempotency-Key`: a request sent twice has its effect once and gets the same answer twice.

The stored answer is part of the transaction that has the effect, so that neither exists without the other. A handler that fails stores
nothing: the caller may send the request again with the same key. Keys belong to a caller and to one operation (method and path).
"""

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel
from sqlalchemy import JSON, Engine, LargeBinary, String, delete, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from services.foundation.database import FoundationBase, Instant, SessionDep, now, transaction
from services.foundation.problems import Problem, conflict
from services.foundation.sign_in import CallerDep

LIFETIME = timedelta(hours=24)

Answer = TypeVar("Answer", bound=BaseModel)


class IdempotencyKey(FoundationBase):
    """The answer to one request."""

    __tablename__ = "idempotency_key"

    caller: Mapped[str] = mapped_column(String(42), primary_key=True)
    operation: Mapped[str] = mapped_column(String(300), primary_key=True)
    key: Mapped[str] = mapped_column(String(128), primary_key=True)
    request_digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    answer: Mapped[dict[str, Any]] = mapped_column(JSON)
    expires_at: Mapped[datetime] = mapped_column(Instant, index=True)


class Idempotency:
    """One request's key, or the absence of one."""

    def __init__(self, session: Session, response: Response, caller: str, operation: str, key: str | None, request_digest: bytes) -> None:
        self._session, self._response = session, response
        self._identity = {"caller": caller, "operation": operation, "key": key}
        self._request_digest = request_digest

    def once(self, model: type[Answer], operation: Callable[[], Answer]) -> Answer:
        """Run `operation` in the request's transaction, or return the answer that it gave the first time.

        Args:
            model: type of the answer, the response model of the route.
            operation: everything that has an effect; works in the same session.

        Raises:
            Problem: 422 if the key came with another body before, 409 while the first request is still running
                (PostgreSQL; on SQLite the second one waits for the first).
        """
        if self._identity["key"] is None:
            return operation()
        self._claim()
        stored = self._session.get(IdempotencyKey, self._identity)
        if stored is not None and stored.expires_at > now():
            if stored.request_digest != self._request_digest:
                detail = "this Idempotency-Key came with another body before; use a new key for a new request"
                raise Problem(422, "idempotency-key-reused", "The key belongs to another request", detail)
            self._response.headers["Idempotency-Replayed"] = "true"
            return model.model_validate(stored.answer)
        answer = operation()
        self._session.merge(
            IdempotencyKey(
                **self._identity,
                request_digest=self._request_digest,
                answer=answer.model_dump(mode="json"),
                expires_at=now() + LIFETIME,
            )
        )
        return answer

    def _claim(self) -> None:
        """Exclude a second request with this key until the transaction ends; a SQLite transaction that may write excludes all others."""
        if self._session.get_bind().dialect.name != "postgresql":
            return
        name = "idempotency:{caller}:{operation}:{key}".format(**self._identity)
        if not self._session.scalar(select(func.pg_try_advisory_xact_lock(func.hashtextextended(name, 0)))):
            raise conflict("request-in-flight", "the first request with this Idempotency-Key is still running; try again in a moment")


async def _idempotency(
    request: Request,
    response: Response,
    session: SessionDep,
    caller: CallerDep,
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            pattern=r"^[!-~]{1,128}$",
            description="a random text per intended effect; the same request with the same key has its effect once",
        ),
    ] = None,
) -> Idempotency:
    # The target is hashed whole, because the column holds only the beginning of a long path.
    digest = hashlib.sha256(f"{request.method} {request.url.path}?{request.url.query}\n".encode() + await request.body()).digest()
    return Idempotency(session, response, caller.address, f"{request.method} {request.url.path}"[:300], key, digest)


IdempotencyDep = Annotated[Idempotency, Depends(_idempotency, scope="function")]


def delete_expired_keys(engine: Engine) -> int:
    """Forget answers whose time is over; a job of the background process. Returns their number."""
    with transaction(engine) as session:
        expired = session.scalars(delete(IdempotencyKey).where(IdempotencyKey.expires_at <= now()).returning(IdempotencyKey.key)).all()
    return len(expired)
