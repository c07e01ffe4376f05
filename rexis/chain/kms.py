"""A key in a cloud's key management service, which signs digests and shows its public key, but never itself.

What those services have in common is `DigestKey`: a public key as SubjectPublicKeyInfo and signatures over a 32-byte digest as DER. They
promise neither low s, which Ethereum demands (EIP-2), nor which of the two points r stands for; both are put right here. AWS is
implemented. Google Cloud KMS (EC_SIGN_SECP256K1_SHA256, the digest in place of the SHA-256) answers in this form too; Azure Key Vault
(ES256K) answers r ‖ s, which `encode_dss_signature` of `cryptography` turns into it.
"""

from typing import Any, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from rexis.chain.signer import PreimageSigner
from rexis.encoding import keccak256
from rexis.errors import ConfigurationError, SignatureError, UnavailableError
from rexis.protocol.signatures import address_of_public_key, canonical_signature

# A secp256k1 key takes 88 bytes, a signature at most 72.
MAX_PUBLIC_KEY_BYTES = 512
MAX_SIGNATURE_BYTES = 72
TIMEOUT_S = 5.0
ATTEMPTS = 3
BUSY = ("ThrottlingException", "TooManyRequestsException", "LimitExceededException")


class DigestKey(Protocol):
    """A secp256k1 key that signs digests, wherever it is."""

    def public_key(self) -> bytes:
        """SubjectPublicKeyInfo, DER."""
        ...

    def sign_digest(self, digest: bytes) -> bytes:
        """ECDSA signature over exactly these 32 bytes: ECDSA-Sig-Value (RFC 3279), DER."""
        ...


class KmsSigner(PreimageSigner):
    """The account of a `DigestKey`.

    Raises:
        ConfigurationError: the key is no secp256k1 key, or not usable.
        UnavailableError: the service does not answer.
    """

    def __init__(self, key: DigestKey) -> None:
        self._key = key
        self.address = _address(key.public_key())

    def sign_preimage(self, preimage: bytes) -> bytes:
        """Sign; see `PreimageSigner`.

        Raises:
            SignatureError: the answer is no signature by this key over this digest.
            UnavailableError, ConfigurationError: as the key's service says.
        """
        digest = keccak256(preimage)
        r, s = _read(self._key.sign_digest(digest))
        return canonical_signature(digest, r, s, self.address)


class AwsKmsKey:
    """An asymmetric key in AWS KMS: key spec ECC_SECG_P256K1, usage SIGN_VERIFY.

    Region, credentials and endpoint are the AWS client's own: AWS_REGION, the pod's role or AWS_PROFILE, AWS_ENDPOINT_URL_KMS.
    The role needs kms:GetPublicKey and kms:Sign on this key, and nothing else.
    """

    def __init__(self, key_id: str) -> None:
        """Open a client; `key_id` is a key id, ARN or alias.

        Raises:
            ConfigurationError: boto3 is not installed, or there is no region.
        """
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError as error:
            raise ConfigurationError("a key in AWS KMS needs boto3: pip install 'rexis[kms]'") from error
        self._failures, self._refusal = (BotoCoreError, ClientError), ClientError
        self._key_id = key_id
        settings = Config(connect_timeout=TIMEOUT_S, read_timeout=TIMEOUT_S, retries={"total_max_attempts": ATTEMPTS, "mode": "standard"})
        try:
            self._client: Any = boto3.client("kms", config=settings)
        except (BotoCoreError, ValueError) as error:
            raise ConfigurationError(f"AWS KMS: {error}") from error

    def public_key(self) -> bytes:
        """See `DigestKey`.

        Raises:
            ConfigurationError: no such key, no right to it, or one that does not sign Ethereum's transactions.
            UnavailableError: KMS does not answer.
        """
        answer = self._call("get_public_key", KeyId=self._key_id)
        if answer.get("KeyUsage") != "SIGN_VERIFY" or "ECDSA_SHA_256" not in answer.get("SigningAlgorithms", ()):
            raise ConfigurationError("AWS KMS: expected a key for SIGN_VERIFY with ECDSA_SHA_256; make one with spec ECC_SECG_P256K1")
        return bytes(answer["PublicKey"])

    def sign_digest(self, digest: bytes) -> bytes:
        """See `DigestKey`; raises as `public_key`."""
        # The digest stands where KMS expects a SHA-256: with MessageType DIGEST it is signed as it is.
        answer = self._call("sign", KeyId=self._key_id, Message=digest, MessageType="DIGEST", SigningAlgorithm="ECDSA_SHA_256")
        return bytes(answer["Signature"])

    def _call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = getattr(self._client, operation)(**parameters)
        except self._failures as error:
            code = error.response["Error"]["Code"] if isinstance(error, self._refusal) else type(error).__name__
            status = error.response["ResponseMetadata"].get("HTTPStatusCode", 500) if isinstance(error, self._refusal) else 500
            if 400 <= status < 500 and code not in BUSY:
                raise ConfigurationError(f"AWS KMS does not let this role use the key: {code}; check its id, state and policy") from error
            raise UnavailableError(f"AWS KMS does not answer ({code})") from error
        return answer


def _address(data: bytes) -> str:
    if len(data) > MAX_PUBLIC_KEY_BYTES:
        raise ConfigurationError(f"expected a public key of at most {MAX_PUBLIC_KEY_BYTES} bytes, got {len(data)}")
    try:
        key = load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"expected a public key as SubjectPublicKeyInfo: {error}") from error
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256K1):
        found = key.curve.name if isinstance(key, EllipticCurvePublicKey) else type(key).__name__
        raise ConfigurationError(f"expected a key on secp256k1, got one of {found}: accounts on Ethereum have no other")
    point = key.public_numbers()
    return address_of_public_key(point.x.to_bytes(32, "big") + point.y.to_bytes(32, "big"))


def _read(signature: bytes) -> tuple[int, int]:
    if len(signature) > MAX_SIGNATURE_BYTES:
        raise SignatureError(f"expected a DER signature of at most {MAX_SIGNATURE_BYTES} bytes, got {len(signature)}")
    try:
        return decode_dss_signature(signature)
    except ValueError as error:
        raise SignatureError("expected an ECDSA signature in DER (two positive integers, nothing after them)") from error
