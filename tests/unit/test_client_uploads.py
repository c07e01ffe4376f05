"""Uploads and sign-in against a server that forgets, lies and changes its mind."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Header, Request
from fastapi.responses import JSONResponse

from rexis.chain.signer import LocalSigner
from rexis.client.connection import Connection
from rexis.client.sign_in import SignInSession
from rexis.client.uploads import create_upload, upload_file
from rexis.encoding import from_hex, sha256, to_hex
from rexis.errors import DigestMismatchError, MalformedMessageError, ServiceError
from rexis.protocol.sign_in import SignInMessage
from rexis.protocol.uploads import PART_SIZE, UploadManifest, parse_content_digest

UPLOAD = "0d6c6f9bb4a44f5c8f7e2b1a3c5d7e9f"


@dataclass
class Server:
    """What it holds, and how it behaves."""

    upload_id: str = UPLOAD
    parts: dict[int, bytes] = field(default_factory=dict)
    puts: list[int] = field(default_factory=list)
    fail_once_on: int = 0
    total_bytes: int = 0
    confirm: str | None = None
    nonce: str = "0123456789abcdef"
    token: str = "a.b.c"
    lifetime: timedelta = timedelta(minutes=15)
    sign_ins: list[SignInMessage] = field(default_factory=list)


def application(server: Server) -> FastAPI:
    app = FastAPI()

    def view(digest: str | None = None) -> dict[str, Any]:
        parts = [{"number": number, "size": 0, "digest": to_hex(digest)} for number, digest in server.parts.items()]
        return {"id": server.upload_id, "total_bytes": server.total_bytes, "parts": parts, "digest": digest}

    @app.post("/v1/uploads", status_code=201)
    def create(body: dict[str, int]) -> dict[str, Any]:
        server.total_bytes = body["total_bytes"]
        return view()

    @app.get("/v1/uploads/{upload_id}")
    def show(upload_id: str) -> dict[str, Any]:
        return view()

    @app.put("/v1/uploads/{upload_id}/parts/{number}", response_model=None)
    async def put(upload_id: str, number: int, request: Request, content_digest: str = Header()) -> JSONResponse | dict[str, int]:
        content = await request.body()
        server.puts.append(number)
        if server.fail_once_on == number:
            server.fail_once_on = 0
            return JSONResponse({"detail": "stored nothing"}, 503)
        assert parse_content_digest(content_digest) == sha256(content)
        server.parts[number] = sha256(content)
        return {"number": number}

    @app.post("/v1/uploads/{upload_id}/complete", response_model=None)
    def complete(upload_id: str, body: dict[str, Any]) -> JSONResponse | dict[str, Any]:
        manifest = UploadManifest.parse(body)
        if [server.parts.get(i) for i in range(1, len(manifest.parts) + 1)] != list(manifest.parts):
            return JSONResponse({"type": "urn:rexis:problem:parts-missing", "title": "Conflict", "detail": "parts are missing"}, 409)
        return view(server.confirm or to_hex(manifest.digest))

    @app.post("/v1/sign-in/nonce")
    def nonce() -> dict[str, str]:
        return {"nonce": server.nonce, "domain": "evil.example", "uri": "https://evil.example"}

    @app.post("/v1/sign-in")
    def sign_in(body: dict[str, str]) -> dict[str, str]:
        message = SignInMessage.parse(body["message"])
        assert message.recover_signer(from_hex(body["signature"], 65)) == message.address
        server.sign_ins.append(message)
        return {"token": server.token, "expires_at": (datetime.now(UTC) + server.lifetime).isoformat()}

    return app


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def connection(server: Server) -> Iterator[Connection]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    running = uvicorn.Server(uvicorn.Config(application(server), log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    with Connection(f"http://127.0.0.1:{listener.getsockname()[1]}") as opened:
        yield opened
    running.should_exit = True
    thread.join(20)
    listener.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Three parts, the last one short."""
    path = tmp_path / "batch.safetensors"
    path.write_bytes(bytes(PART_SIZE) + b"\x01" * PART_SIZE + b"end")
    return path


def test_a_file_arrives_in_parts_with_progress_and_a_transient_error_is_overcome(
    connection: Connection, server: Server, file: Path
) -> None:
    server.fail_once_on = 2
    seen: list[tuple[int, int]] = []
    assert upload_file(connection, file, progress=lambda done, total: seen.append((done, total))) == UPLOAD
    assert server.puts == [1, 2, 2, 3]
    total = 2 * PART_SIZE + 3
    assert seen == [(PART_SIZE, total), (2 * PART_SIZE, total), (total, total)]


def test_an_interrupted_upload_goes_on_where_it_was(connection: Connection, server: Server, file: Path) -> None:
    upload_id = create_upload(connection, file.stat().st_size)
    server.parts = {1: sha256(bytes(PART_SIZE)), 3: sha256(b"end")}
    upload_file(connection, file, upload_id=upload_id)
    assert server.puts == [2]


def test_a_file_that_changed_since_is_not_mixed_with_its_old_parts(connection: Connection, server: Server, file: Path) -> None:
    upload_id = create_upload(connection, file.stat().st_size)
    server.parts = {1: sha256(b"another first part")}
    with pytest.raises(DigestMismatchError, match="changed since part 1"):
        upload_file(connection, file, upload_id=upload_id)
    server.total_bytes = 5
    with pytest.raises(MalformedMessageError, match="opened for 5 bytes"):
        upload_file(connection, file, upload_id=upload_id)


def test_a_service_that_confirms_another_content_is_not_believed(connection: Connection, server: Server, file: Path) -> None:
    server.confirm = "0x" + 64 * "0"
    with pytest.raises(MalformedMessageError, match="to confirm digest"):
        upload_file(connection, file)


def test_an_upload_id_that_would_change_the_path_is_refused(connection: Connection, server: Server, file: Path) -> None:
    server.upload_id = "../../admin"
    with pytest.raises(MalformedMessageError, match="upload id"):
        upload_file(connection, file)
    assert server.puts == []


def test_the_text_names_the_origin_that_is_really_called(connection: Connection, server: Server) -> None:
    session = SignInSession(connection, LocalSigner(b"\x01" * 32), 31337)
    assert session.token() == "a.b.c"
    (message,) = server.sign_ins
    assert message.uri == connection.base_url
    assert message.domain == connection.base_url.removeprefix("http://")
    assert message.chain_id == 31337


def test_a_token_is_used_until_shortly_before_it_expires(connection: Connection, server: Server) -> None:
    session = SignInSession(connection, LocalSigner(b"\x01" * 32), 31337)
    session.token()
    session.token()
    assert len(server.sign_ins) == 1
    session.token(renew=True)
    assert len(server.sign_ins) == 2
    server.lifetime = timedelta(seconds=20)
    session.token(renew=True)
    session.token()
    assert len(server.sign_ins) == 4


@pytest.mark.parametrize("nonce", ["short", "has space 12", "x" * 100, "1234567\nURI: x"])
def test_a_nonce_that_could_rewrite_the_text_is_not_signed(connection: Connection, server: Server, nonce: str) -> None:
    server.nonce = nonce
    with pytest.raises(MalformedMessageError, match="nonce"):
        SignInSession(connection, LocalSigner(b"\x01" * 32), 31337).token()
    assert server.sign_ins == []


@pytest.mark.parametrize("token", ["with space", "ümlaut", "line\nbreak"])
def test_a_token_that_could_change_the_header_is_refused(connection: Connection, server: Server, token: str) -> None:
    server.token = token
    with pytest.raises(MalformedMessageError, match="bearer token"):
        SignInSession(connection, LocalSigner(b"\x01" * 32), 31337).token()


def test_missing_parts_are_told_as_the_service_tells_them(connection: Connection, server: Server, file: Path) -> None:
    upload_id = create_upload(connection, file.stat().st_size)
    manifest = UploadManifest(3, (sha256(b"end"),))
    with pytest.raises(ServiceError, match="parts are missing"):
        connection.post(f"/v1/uploads/{upload_id}/complete", manifest.to_json(), repeatable=True)
