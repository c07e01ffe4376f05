"""The one place that speaks HTTP: timeouts always set, answers bounded, problems (RFC 9457) as `ServiceError`, retries only where safe.

A call is retried when repeating it changes nothing: GET, HEAD, PUT, DELETE, POST with an `Idempotency-Key`, and
the POSTs that a caller marks as repeatable. What a service sends is hostile until parsed: bodies are cut off at a limit, redirects are not
followed, compressed answers are refused (a few bytes may hold gigabytes), and text for people loses its control characters.
"""

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import stamina

from rexis.client.json_text import parse_json
from rexis.errors import ConfigurationError, MalformedMessageError, ServiceError, UnavailableError

MAX_ANSWER_BYTES = 16 << 20
MAX_TEXT = 2_000
IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE"})
TRANSIENT_STATUSES = frozenset({425, 429, 502, 503, 504})
# A service says so while the first delivery of the same request is still being worked on.
IN_FLIGHT_PROBLEM = "urn:rexis:problem:request-in-flight"
MAX_RETRY_AFTER_S = 10.0


@dataclass(frozen=True)
class Timeouts:
    """Seconds: to connect, between bytes of an answer, between bytes of a request, for a whole answer, and until the last new attempt."""

    connect_s: float = 5.0
    read_s: float = 30.0
    write_s: float = 30.0
    answer_s: float = 60.0
    attempts_s: float = 45.0


@dataclass(frozen=True)
class Answer:
    """A 2xx or 3xx answer: `body` is the parsed JSON, or None if there was none."""

    status: int
    headers: Mapping[str, str]
    body: Any
    raw: bytes


class Connection:
    """One service at one origin. Thread-safe; close it, or use it as a context manager.

    Args:
        base_url: the service's origin, `https://…`; `http://` only to this machine, unless `allow_plaintext` (inside a cluster).
        service: what messages call the service.
        timeouts: see `Timeouts`.
        attempts: how often a retryable call is tried in all.
        authorise: gives the bearer token, called with True after a 401 so that it signs in again; None calls without one.
        allow_plaintext: admit `http://` to another machine.

    Raises:
        ConfigurationError: the URL is no origin, or tokens would travel in the clear.
    """

    def __init__(
        self,
        base_url: str,
        *,
        service: str = "the service",
        timeouts: Timeouts | None = None,
        attempts: int = 5,
        authorise: Callable[[bool], str] | None = None,
        allow_plaintext: bool = False,
    ) -> None:
        self.base_url = origin(base_url, allow_plaintext=allow_plaintext)
        self.service = service
        self.authorise = authorise
        self._timeouts = timeouts or Timeouts()
        self._attempts = attempts
        limits = httpx.Timeout(self._timeouts.read_s, connect=self._timeouts.connect_s, write=self._timeouts.write_s)
        self._http = httpx.Client(
            base_url=self.base_url, timeout=limits, follow_redirects=False, trust_env=not is_loopback_url(self.base_url)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the pooled sockets."""
        self._http.close()

    def get(self, path: str, *, query: Mapping[str, str | int] | None = None, authorised: bool = True) -> Any:
        """The JSON that `path` answers with; see `request`."""
        return self.request("GET", path, query=query, authorised=authorised).body

    def post(
        self,
        path: str,
        body: Any,
        *,
        query: Mapping[str, str | int] | None = None,
        idempotency_key: str | None = None,
        repeatable: bool = False,
        authorised: bool = True,
    ) -> Any:
        """Post JSON and return the JSON that comes back; see `request`."""
        headers = {"Content-Type": "application/json"}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        content = json.dumps(body).encode()
        sent = self.request("POST", path, query=query, content=content, headers=headers, repeatable=repeatable, authorised=authorised)
        return sent.body

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = False,
        authorised: bool = True,
        max_bytes: int = MAX_ANSWER_BYTES,
    ) -> Answer:
        """Make one call.

        Args:
            method: HTTP method.
            path: path below the origin, starting with "/".
            query: query parameters.
            content: the body.
            headers: further request headers.
            repeatable: the operation is idempotent although its method is POST and it has no key.
            authorised: send the bearer token if there is one.
            max_bytes: a longer answer is refused.

        Raises:
            ServiceError: the service answered with a problem (status 400 and above).
            UnavailableError: no connection, or no answer in time.
            MalformedMessageError: an answer that is too long, compressed, or not the JSON it claims to be.
        """
        sent = {"Accept": "application/json, application/problem+json", "Accept-Encoding": "identity", **(headers or {})}
        sent["X-Request-ID"] = secrets.token_hex(16)
        retryable = repeatable or method in IDEMPOTENT_METHODS or "Idempotency-Key" in sent
        attempts = self._attempts if retryable else 1

        def attempt(renew: bool) -> Answer:
            if authorised and self.authorise is not None:
                sent["Authorization"] = f"Bearer {self.authorise(renew)}"
            return self._send(method, path, query, content, sent, max_bytes)

        try:
            for trial in stamina.retry_context(
                on=_wait, attempts=attempts, timeout=self._timeouts.attempts_s, wait_initial=0.1, wait_max=3.0
            ):
                with trial:
                    try:
                        return attempt(False)
                    except ServiceError as error:
                        # The service restarted with other keys, or its clock is ahead: one fresh sign-in, before anything was done.
                        if error.status != 401 or not authorised or self.authorise is None:
                            raise
                        return attempt(True)
        except httpx.TimeoutException as error:
            raise UnavailableError(f"{self.service} at {self.base_url} did not answer in time; is it overloaded? try again") from error
        except httpx.TransportError as error:
            raise UnavailableError(
                f"{self.service} at {self.base_url} does not answer ({_reason(error)}); is the platform up (`make up`), and the URL right?"
            ) from error
        raise UnavailableError(f"{self.service} at {self.base_url} did not answer")

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int] | None,
        content: bytes | None,
        headers: Mapping[str, str],
        max_bytes: int,
    ) -> Answer:
        with self._http.stream(method, path, params=query, content=content, headers=headers) as response:
            raw = self._read(response, max_bytes)
        if response.is_error:
            raise ServiceError(response.status_code, _problem(response, raw))
        if response.is_redirect:
            raise MalformedMessageError(f"{self.service} redirects {path} elsewhere; give its final URL instead of {self.base_url}")
        is_json = response.headers.get("content-type", "").partition(";")[0].strip().endswith("json")
        body = parse_json(raw, f"{self.service}, {path}") if is_json and raw else None
        return Answer(response.status_code, response.headers, body, raw)

    def _read(self, response: httpx.Response, max_bytes: int) -> bytes:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise MalformedMessageError(f"{self.service} sent a compressed answer that was not asked for")
        body, deadline = bytearray(), time.monotonic() + self._timeouts.answer_s
        for chunk in response.iter_raw():
            body += chunk
            if time.monotonic() > deadline:
                raise UnavailableError(f"{self.service} at {self.base_url} did not finish its answer in {self._timeouts.answer_s:.0f} s")
            if len(body) > max_bytes:
                raise MalformedMessageError(f"{self.service}: expected an answer of at most {max_bytes} bytes, got more")
        return bytes(body)


def origin(url: str, *, allow_plaintext: bool = False) -> str:
    """Scheme, host and port of a service's URL, lower case, without a slash at the end.

    Raises:
        ConfigurationError: not `http(s)://host[:port]`, or `http://` to another machine.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(f"{url!r} is not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not host or parts.path not in ("", "/") or parts.query or parts.fragment or parts.username:
        raise ConfigurationError(f"expected a service URL of the form https://host or https://host:port, got {printable(url)!r}")
    if parts.scheme == "http" and not allow_plaintext and not _is_loopback(host):
        raise ConfigurationError(f"{parts.netloc}: tokens must not travel without TLS to another machine; use https://")
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{port}" if port is not None else "")


def printable(text: str, limit: int = MAX_TEXT) -> str:
    """Text from elsewhere as a terminal may show it: no control characters, at most `limit` characters."""
    return "".join(character if character.isprintable() else " " for character in text[:limit])


def is_loopback_url(url: str) -> bool:
    """Whether a URL leads to this machine."""
    try:
        return _is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False


def _wait(error: Exception) -> bool | float:
    """Whether, and how long, to wait for another attempt: what stamina asks for each failure."""
    if isinstance(error, httpx.TransportError):
        return not isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError)
    if not isinstance(error, ServiceError):
        return False
    if error.status in TRANSIENT_STATUSES or (error.status == 409 and error.problem.get("type") == IN_FLIGHT_PROBLEM):
        seconds = error.problem.get("retry_after")
        return min(float(seconds), MAX_RETRY_AFTER_S) if isinstance(seconds, int) else True
    return False


def _problem(response: httpx.Response, raw: bytes) -> dict[str, Any]:
    """The problem document of an error answer, or one made from the status if a proxy or a defect answered."""
    document: Any = None
    if response.headers.get("content-type", "").partition(";")[0].strip() in ("application/problem+json", "application/json"):
        try:
            document = parse_json(raw, "problem")
        except MalformedMessageError:
            document = None
    members: dict[str, Any] = document if isinstance(document, dict) else {}
    problem = {**members, "status": response.status_code}
    for member, missing in (
        ("type", "about:blank"),
        ("title", response.reason_phrase or "Error"),
        ("detail", "no problem document was sent"),
    ):
        value = members.get(member)
        problem[member] = printable(value if isinstance(value, str) and value else missing)
    retry_after = response.headers.get("retry-after", "")
    if retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 6:
        problem["retry_after"] = int(retry_after)
    return problem


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reason(error: Exception) -> str:
    return printable(str(error), 120) or type(error).__name__
