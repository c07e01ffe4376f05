"""A key in web3signer (ConsenSys), spoken to over its execution-layer HTTP API.

`GET /api/v1/eth1/publicKeys` lists public keys (x ‖ y); `POST /api/v1/eth1/sign/{public key}` with `{"data": "0x…"}` answers with r ‖ s ‖ v
over keccak256 of the data, which web3signer hashes itself. So it gets what is to be hashed, and its own record shows what was signed.
"""

import json
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from rexis.chain.signer import PreimageSigner
from rexis.encoding import checksum_address, from_hex, keccak256, to_hex
from rexis.errors import ConfigurationError, EncodingError, SignatureError, UnavailableError
from rexis.protocol.signatures import SIGNATURE_BYTES, address_of_public_key, canonical_signature

DEFAULT_TIMEOUT_S = 5.0
PUBLIC_KEY_BYTES = 64
# Some thousands of keys in 0x-hexadecimal.
MAX_KEYS_ANSWER_BYTES = 1 << 20
MAX_SIGN_ANSWER_BYTES = 1024


@dataclass(frozen=True)
class ClientTls:
    """How to prove each side to the other over https; web3signer knows its clients by their certificates.

    Attributes:
        authority: PEM file of whoever signed web3signer's certificate; None for the system's authorities.
        certificate, key: PEM files of this client; None where the server asks for none.
    """

    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """For the connection.

        Raises:
            ConfigurationError: a file that can not be read, or a certificate without its key.
        """
        if (self.certificate is None) != (self.key is None):
            raise ConfigurationError("web3signer: a client certificate and its key belong together: give both or neither")
        try:
            context = ssl.create_default_context(cafile=self.authority)
            if self.certificate is not None and self.key is not None:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigurationError(f"web3signer: the files for TLS can not be used: {error}") from error
        return context


class Web3Signer(PreimageSigner):
    """The key of one account in web3signer; safe to use from several threads.

    Raises:
        ConfigurationError: no key of this account there, or the URL is no origin.
        UnavailableError: it does not answer, or not as web3signer does.
    """

    def __init__(self, url: str, address: str, *, tls: ClientTls | None = None, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Connect and find the key.

        Args:
            url: http or https; credentials in it go to a proxy before web3signer, which has none of its own.
            address: of the account that is to sign.
            timeout_s: longest silence of the server, and longest time for the body of one answer, in seconds.
        """
        self.address = checksum_address(address)
        self._timeout_s = timeout_s
        try:
            # No proxy and no netrc of the environment: the way to a key is what the settings say and no other.
            self._http = httpx.Client(
                base_url=url,
                verify=(tls or ClientTls()).context(),
                timeout=timeout_s,
                trust_env=False,
                headers={"Accept-Encoding": "identity"},
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise ConfigurationError("web3signer: expected a URL such as https://signer.internal:9000") from error
        if self._http.base_url.scheme not in ("http", "https") or not self._http.base_url.host:
            raise ConfigurationError("web3signer: expected a URL such as https://signer.internal:9000")
        self._identifier = to_hex(self._public_key())

    def sign_preimage(self, preimage: bytes) -> bytes:
        """Sign; see `PreimageSigner`.

        Raises:
            UnavailableError: no answer in time, or none of web3signer's.
            ConfigurationError: the key is no longer there.
            SignatureError: the answer is no signature by this account over these bytes.
        """
        answer = self._ask("POST", f"/api/v1/eth1/sign/{self._identifier}", MAX_SIGN_ANSWER_BYTES, {"data": to_hex(preimage)})
        try:
            # Plain text, or the same text as JSON where a proxy or another implementation quotes it.
            signature = from_hex(answer.decode("ascii").strip().strip('"').lower(), SIGNATURE_BYTES)
        except (UnicodeDecodeError, EncodingError) as error:
            raise SignatureError(f"web3signer: expected a signature of {SIGNATURE_BYTES} bytes in hexadecimal: {error}") from error
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
        return canonical_signature(keccak256(preimage), r, s, self.address)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _public_key(self) -> bytes:
        answer = self._ask("GET", "/api/v1/eth1/publicKeys", MAX_KEYS_ANSWER_BYTES)
        try:
            listed = json.loads(answer)
        except (ValueError, RecursionError) as error:
            raise UnavailableError("web3signer: its list of public keys is not JSON; is REXIS_RELAYER_WEB3SIGNER_URL right?") from error
        if not isinstance(listed, list):
            raise UnavailableError("web3signer: its list of public keys is no list; does it run in eth1 mode?")
        for entry in listed:
            try:
                point = from_hex(entry, PUBLIC_KEY_BYTES)
            except EncodingError:
                continue
            if address_of_public_key(point) == self.address:
                return point
        raise ConfigurationError(f"web3signer has no key of {self.address} among its {len(listed)}: load it there, or correct the address")

    def _ask(self, method: str, path: str, limit: int, body: dict[str, Any] | None = None) -> bytes:
        # Errors never show the URL: it may carry a credential.
        deadline = time.monotonic() + self._timeout_s
        try:
            with self._http.stream(method, path, json=body) as response:
                if method == "POST" and response.status_code == httpx.codes.NOT_FOUND:
                    raise ConfigurationError(f"web3signer has no key of {self.address} any more: load it there")
                if response.status_code != httpx.codes.OK:
                    raise UnavailableError(f"web3signer answers with status {response.status_code}; its own log says why")
                answer = b""
                for piece in response.iter_raw():
                    answer += piece
                    if len(answer) > limit:
                        raise UnavailableError(f"web3signer: expected an answer of at most {limit} bytes")
                    if time.monotonic() > deadline:
                        raise UnavailableError(f"web3signer: no whole answer within {self._timeout_s} s")
                return answer
        except httpx.HTTPError as error:
            raise UnavailableError(f"web3signer does not answer ({type(error).__name__})") from error
