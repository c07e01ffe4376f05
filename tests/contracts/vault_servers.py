"""Two HTTP servers with a real key each, which speak the APIs that vaults document; neither vault can be run where the tests run.

Both answer as the documents say unless a test gives them an `answer` of its own.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from eth_keys.datatypes import PrivateKey

from rexis.encoding import keccak256
from rexis.protocol.signatures import sign_digest

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

# Status and body.
Answer = tuple[int, bytes]


class VaultServer:
    """A server on loopback. `requests` are (method, path, body) in order; `answer` replaces the API where it returns something."""

    def __init__(self, api: Callable[[str, str, dict[str, str], bytes], Answer]) -> None:
        self.requests: list[tuple[str, str, bytes]] = []
        self.answer: Callable[[str, str], Answer | None] = lambda method, path: None
        vault = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def reply(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                vault.requests.append((self.command, self.path, body))
                status, content = vault.answer(self.command, self.path) or api(self.command, self.path, dict(self.headers.items()), body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = reply

            def log_message(self, *_: object) -> None:
                """Keep the tests' output clean."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        scheme = "https" if hasattr(self.server.socket, "context") else "http"
        return f"{scheme}://127.0.0.1:{self.server.server_port}"

    @contextmanager
    def running(self) -> Iterator["VaultServer"]:
        with self.server:
            Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
            yield self
            self.server.shutdown()


def web3signer(*private_keys: bytes) -> VaultServer:
    """The eth1 part of web3signer's HTTP API: it hashes the data with Keccak-256 and signs that."""
    points = {"0x" + PrivateKey(key).public_key.to_bytes().hex(): key for key in private_keys}

    def api(method: str, path: str, _headers: dict[str, str], body: bytes) -> Answer:
        if (method, path) == ("GET", "/upcheck"):
            return 200, b"OK"
        if (method, path) == ("GET", "/api/v1/eth1/publicKeys"):
            return 200, json.dumps(list(points)).encode()
        identifier = path.removeprefix("/api/v1/eth1/sign/")
        if method != "POST" or identifier == path:
            return 404, b"Resource not found"
        if identifier not in points:
            return 404, b"Signer not found"
        try:
            data = bytes.fromhex(json.loads(body)["data"].removeprefix("0x"))
        except (ValueError, KeyError, TypeError):
            return 400, b"Bad request format"
        return 200, b"0x" + sign_digest(keccak256(data), points[identifier]).hex().encode()

    return VaultServer(api)


def aws_kms(private_key: ec.EllipticCurvePrivateKey, key_id: str, *, high_s: bool | None = None) -> VaultServer:
    """`TrentService.GetPublicKey` and `.Sign` of AWS KMS (JSON 1.1), for one key.

    Args:
        high_s: which half s is to be in; None as it comes, which is what KMS promises.
    """

    def api(_method: str, _path: str, headers: dict[str, str], body: bytes) -> Answer:
        operation, given = headers["X-Amz-Target"].removeprefix("TrentService."), json.loads(body)
        if given["KeyId"] != key_id:
            return 400, json.dumps({"__type": "NotFoundException", "message": f"Key {given['KeyId']} does not exist"}).encode()
        if operation == "GetPublicKey":
            der = private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            return 200, _json(PublicKey=der, KeyId=key_id, KeyUsage="SIGN_VERIFY", SigningAlgorithms=["ECDSA_SHA_256"])
        assert (operation, given["SigningAlgorithm"]) == ("Sign", "ECDSA_SHA_256")
        message = base64.b64decode(given["Message"])
        digest = message if given.get("MessageType") == "DIGEST" else hashlib.sha256(message).digest()
        r, s = decode_dss_signature(private_key.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256()))))
        if high_s is not None and (s > ORDER // 2) != high_s:
            s = ORDER - s
        return 200, _json(Signature=encode_dss_signature(r, s), KeyId=key_id, SigningAlgorithm="ECDSA_SHA_256")

    return VaultServer(api)


def _json(**members: Any) -> bytes:
    return json.dumps(
        {name: base64.b64encode(value).decode() if isinstance(value, bytes) else value for name, value in members.items()}
    ).encode()
