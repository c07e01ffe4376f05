"""Signers whose key is in a vault: the signatures of a local key, and nothing that another key or a broken answer could pass as one."""

import base64
import json
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID
from eth_account import Account
from eth_keys.datatypes import PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from rexis.chain.connection import Chain
from rexis.chain.kms import AwsKmsKey, KmsSigner
from rexis.chain.signer import LocalSigner, Signer, development_signer
from rexis.chain.transactions import signed_bytes
from rexis.chain.web3signer import MAX_KEYS_ANSWER_BYTES, ClientTls, Web3Signer
from rexis.encoding import keccak256
from rexis.errors import ConfigurationError, EncodingError, SignatureError, UnavailableError
from rexis.protocol.sign_in import SignInMessage
from rexis.protocol.signatures import canonical_signature, recover_address, sign_digest
from rexis.protocol.typed_data import Domain, TypedMessage, verify_signer
from tests.contracts.vault_servers import ORDER, Answer, VaultServer, aws_kms, web3signer

KEY = b"\x42" * 32
LOCAL = LocalSigner(KEY)
KEY_ID = "arn:aws:kms:eu-west-1:111122223333:key/5b0f6a0a-4a0f-4e0d-8a3a-8f6f0b1c2d3e"
EC_KEY = ec.derive_private_key(int.from_bytes(KEY, "big"), ec.SECP256K1())

DYNAMIC = {
    "chainId": 8453,
    "nonce": 7,
    "to": "0x" + "11" * 20,
    "value": 3,
    "gas": 21_000,
    "maxFeePerGas": 9,
    "maxPriorityFeePerGas": 2,
    "data": b"",
}
LEGACY = {"chainId": 1337, "nonce": 0, "to": "0x" + "11" * 20, "value": 0, "gas": 90_000, "gasPrice": 0, "data": b"\x01\x02"}
CREATION = {"chainId": 10, "nonce": 1, "value": 0, "gas": 2_000_000, "maxFeePerGas": 9, "maxPriorityFeePerGas": 0, "data": "0x60806040"}


def note(chain_id: int = 8453) -> TypedMessage:
    return TypedMessage(Domain(chain_id), "Note(uint256 number)", {"number": 7})


def sign_in_message(address: str) -> SignInMessage:
    issued = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
    return SignInMessage(
        "verifier.test", address, "Sign in.", "https://verifier.test", "1", 8453, "abcdefgh", issued, issued + timedelta(hours=1)
    )


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def point_to(url: str) -> None:
        for name, value in {
            "AWS_ENDPOINT_URL_KMS": url,
            "AWS_REGION": "eu-west-1",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            monkeypatch.setenv(name, value)

    return point_to


# --- What is signed -------------------------------------------------------------------------------------------------------------

natural = st.integers(0, 2**256 - 1)


@given(
    st.integers(1, 2**64),
    st.fixed_dictionaries({"nonce": st.integers(0, 2**64 - 1), "gas": natural, "value": natural, "data": st.binary(max_size=200)}),
    st.one_of(
        st.fixed_dictionaries({"gasPrice": natural}), st.fixed_dictionaries({"maxFeePerGas": natural, "maxPriorityFeePerGas": natural})
    ),
    st.one_of(st.none(), st.binary(min_size=20, max_size=20)),
)
def test_transactions_are_byte_for_byte_those_of_eth_account(
    chain_id: int, fields: dict[str, object], fees: dict[str, int], to: bytes | None
) -> None:
    # eth-account wants a creation's destination as empty bytes; ours leaves it out.
    transaction = {"chainId": chain_id, **fields, **fees}
    ours = transaction if to is None else {**transaction, "to": "0x" + to.hex()}
    theirs = Account.sign_transaction({**transaction, "to": b"" if to is None else to}, KEY)
    assert LOCAL.sign_transaction(ours) == bytes(theirs.raw_transaction)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"accessList": []}, ValueError),
        ({"type": 1}, ValueError),
        ({"gasPrice": 1}, ValueError),
        ({"chainId": 0}, ValueError),
        ({"nonce": -1}, ValueError),
        ({"value": 2**256}, ValueError),
        ({"gas": "21000"}, ValueError),
        ({"to": "0x5FbDB2315678afecb367f032d93F642f64180aA3"}, EncodingError),
        ({"data": "60"}, EncodingError),
        ({"from": "0x" + "22" * 20}, ValueError),
    ],
)
def test_transactions_with_something_else_in_them_are_not_signed(change: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        LOCAL.sign_transaction(DYNAMIC | change)


def test_a_signature_of_another_length_makes_no_transaction() -> None:
    with pytest.raises(ValueError, match="65 bytes"):
        signed_bytes(DYNAMIC, bytes(64))


# --- All kinds of signers -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["web3signer", "kms as it comes", "kms low s", "kms high s"])
def signer(request: pytest.FixtureRequest, aws: Callable[[str], None]) -> Iterator[Signer]:
    if request.param == "web3signer":
        with web3signer(b"\x01" * 32, KEY).running() as vault:
            yield Web3Signer(vault.url, LOCAL.address)
        return
    high_s = {"kms as it comes": None, "kms low s": False, "kms high s": True}[request.param]
    with aws_kms(EC_KEY, KEY_ID, high_s=high_s).running() as vault:
        aws(vault.url)
        yield KmsSigner(AwsKmsKey(KEY_ID))


def test_a_vault_signs_what_a_local_key_signs(signer: Signer) -> None:
    assert signer.address == LOCAL.address
    for transaction in (DYNAMIC, LEGACY, CREATION):
        raw = signer.sign_transaction(transaction)
        assert Account.recover_transaction(raw) == LOCAL.address
        # Where the signature is deterministic, so are all bytes.
        assert isinstance(signer, KmsSigner) or raw == LOCAL.sign_transaction(transaction)
    for number in range(8):
        message = TypedMessage(Domain(8453), "Note(uint256 number)", {"number": number})
        verify_signer(message, signer.sign_typed_data(message), LOCAL.address)
    text = sign_in_message(LOCAL.address)
    assert text.recover_signer(signer.sign_in(text)) == LOCAL.address
    assert repr(signer) == f"{type(signer).__name__}({LOCAL.address})"


def test_the_chain_takes_a_vaults_transaction(signer: Signer, chain: Chain) -> None:
    eth, funder = chain.web3.eth, development_signer(1)
    fees = {"maxFeePerGas": 10**10, "maxPriorityFeePerGas": 1}
    gift = {"chainId": 31337, "to": signer.address, "value": 10**18, "gas": 21_000, "data": b"", **fees}
    eth.wait_for_transaction_receipt(
        eth.send_raw_transaction(funder.sign_transaction(gift | {"nonce": eth.get_transaction_count(funder.address)})), poll_latency=0.01
    )
    for nonce, paid in enumerate(({"gasPrice": 10**10}, fees)):
        call = {"chainId": 31337, "nonce": nonce, "to": funder.address, "value": 1, "gas": 21_000, "data": b"", **paid}
        receipt = eth.wait_for_transaction_receipt(eth.send_raw_transaction(signer.sign_transaction(call)), poll_latency=0.01)
        assert (receipt["status"], receipt["from"]) == (1, signer.address)


def test_a_vault_with_a_key_that_everybody_knows_signs_on_the_local_chain_only() -> None:
    known = development_signer(0)
    with web3signer(bytes.fromhex("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")).running() as vault:
        signer = Web3Signer(vault.url, known.address)
        assert signer.sign_typed_data(note(31337)) == known.sign_typed_data(note(31337))
        asked = len(vault.requests)
        for act in (lambda: signer.sign_typed_data(note()), lambda: signer.sign_transaction(DYNAMIC)):
            with pytest.raises(ConfigurationError, match="well-known development key"):
                act()
        assert len(vault.requests) == asked


# --- web3signer -----------------------------------------------------------------------------------------------------------------


def test_web3signer_gets_the_bytes_to_hash_under_the_public_key() -> None:
    with web3signer(KEY).running() as vault:
        Web3Signer(vault.url + "/", LOCAL.address).sign_typed_data(note())
        (_, _, _), (method, path, body) = vault.requests
    assert (method, path) == ("POST", "/api/v1/eth1/sign/0x" + PrivateKey(KEY).public_key.to_bytes().hex())
    assert json.loads(body) == {"data": "0x" + note().preimage().hex()}
    assert keccak256(note().preimage()) == note().hash()


@contextmanager
def broken_after_start(answer: Answer, *, timeout_s: float = 5.0) -> Iterator[tuple[VaultServer, Web3Signer]]:
    with web3signer(KEY).running() as vault:
        signer = Web3Signer(vault.url, LOCAL.address, timeout_s=timeout_s)
        vault.answer = lambda method, path: answer
        yield vault, signer


GOOD = sign_digest(note().hash(), KEY)


def malleated(signature: bytes) -> bytes:
    high = ORDER - int.from_bytes(signature[32:64], "big")
    return signature[:32] + high.to_bytes(32, "big") + bytes([55 - signature[64]])


@pytest.mark.parametrize(
    "body",
    [
        b"0x" + GOOD.hex().encode(),
        b'"0x' + GOOD.hex().encode() + b'"\n',
        b"0x" + GOOD.hex().upper().encode(),
        b"0x" + malleated(GOOD).hex().encode(),
        b"0x" + GOOD[:64].hex().encode() + b"00",
    ],
)
def test_whatever_form_the_signature_has_it_leaves_in_one(body: bytes) -> None:
    with broken_after_start((200, body)) as (_, signer):
        assert signer.sign_typed_data(note()) == GOOD


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        ((200, b"0x" + sign_digest(note().hash(), b"\x43" * 32).hex().encode()), SignatureError, "by another key or over other bytes"),
        ((200, b"0x" + sign_digest(note(1).hash(), KEY).hex().encode()), SignatureError, "by another key or over other bytes"),
        ((200, b"0x" + bytes(65).hex().encode()), SignatureError, "0 < r < n"),
        ((200, b"0x" + b"ff" * 65), SignatureError, "0 < r < n"),
        ((200, b"0x" + GOOD[:64].hex().encode()), SignatureError, "65 bytes"),
        ((200, b""), SignatureError, "hexadecimal"),
        ((200, b"\xff\xfe"), SignatureError, "hexadecimal"),
        ((200, b"<html>sign in</html>"), SignatureError, "hexadecimal"),
        ((200, b"0x" + b"00" * 100_000), UnavailableError, "at most 1024 bytes"),
        ((302, b""), UnavailableError, "status 302"),
        ((400, b"Bad request format"), UnavailableError, "status 400"),
        ((404, b"Signer not found"), ConfigurationError, "any more"),
        ((500, b""), UnavailableError, "status 500"),
    ],
)
def test_answers_that_are_no_signature_of_this_account_are_refused(answer: Answer, error: type[Exception], message: str) -> None:
    with broken_after_start(answer) as (_, signer), pytest.raises(error, match=message):
        signer.sign_typed_data(note())


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        ((200, b"[]"), ConfigurationError, f"no key of {LOCAL.address} among its 0"),
        ((200, b'["0x12", 7, null, "0x' + b"11" * 64 + b'"]'), ConfigurationError, "among its 4"),
        ((200, b'{"keys": []}'), UnavailableError, "no list"),
        ((200, b"<html>"), UnavailableError, "not JSON"),
        ((200, b"[" * 100_000), UnavailableError, "not JSON"),
        ((200, b" " * (MAX_KEYS_ANSWER_BYTES + 1)), UnavailableError, "at most"),
        ((404, b""), UnavailableError, "status 404"),
    ],
)
def test_a_web3signer_without_the_key_does_not_start(answer: Answer, error: type[Exception], message: str) -> None:
    vault = web3signer(KEY)
    vault.answer = lambda method, path: answer
    with vault.running(), pytest.raises(error, match=message):
        Web3Signer(vault.url, LOCAL.address)


def test_a_web3signer_that_is_away_or_silent_is_unavailable_and_its_url_is_not_shown() -> None:
    with pytest.raises(UnavailableError) as caught:
        Web3Signer("http://user:s3cret@127.0.0.1:1", LOCAL.address)
    assert "s3cret" not in str(caught.value)
    for url in ("ftp://127.0.0.1", "127.0.0.1:9000", "", "http://"):
        with pytest.raises(ConfigurationError, match="expected a URL"):
            Web3Signer(url, LOCAL.address)

    def slowly(_method: str, _path: str) -> Answer | None:
        time.sleep(1)
        return None

    with web3signer(KEY).running() as vault:
        signer = Web3Signer(vault.url, LOCAL.address, timeout_s=0.2)
        vault.answer = slowly
        with pytest.raises(UnavailableError, match="ReadTimeout"):
            signer.sign_typed_data(note())
        vault.answer = lambda method, path: None
        assert signer.sign_typed_data(note()) == GOOD
        signer.close()


def test_one_signer_serves_many_threads() -> None:
    messages = [TypedMessage(Domain(8453), "Note(uint256 number)", {"number": number}) for number in range(32)]
    made: dict[int, bytes] = {}
    with web3signer(KEY).running() as vault:
        signer = Web3Signer(vault.url, LOCAL.address)

        def sign(number: int) -> None:
            made[number] = signer.sign_typed_data(messages[number])

        threads = [Thread(target=sign, args=(number,)) for number in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert made == {number: LOCAL.sign_typed_data(message) for number, message in enumerate(messages)}


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for loopback that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(
            subject, subject, key.public_key(), x509.random_serial_number(), now - timedelta(days=1), now + timedelta(days=1)
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / f"{name}.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder / f"{name}.pem", folder / f"{name}.key"


def test_both_sides_prove_themselves_over_tls(tmp_path: Path) -> None:
    (server, server_key), (client, client_key), (stranger, stranger_key) = (
        certificate(tmp_path, name) for name in ("server", "client", "other")
    )
    vault = web3signer(KEY)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(server, server_key)
    vault.server.socket = context.wrap_socket(vault.server.socket, server_side=True)
    with vault.running():
        url = f"https://localhost:{vault.server.server_port}"
        signer = Web3Signer(url, LOCAL.address, tls=ClientTls(server, client, client_key))
        assert signer.sign_typed_data(note()) == GOOD
        for refused in (ClientTls(), ClientTls(client, client, client_key), ClientTls(server), ClientTls(server, stranger, stranger_key)):
            with pytest.raises(UnavailableError):
                Web3Signer(url, LOCAL.address, tls=refused, timeout_s=2)
    for files in (ClientTls(tmp_path / "nothing"), ClientTls(server_key), ClientTls(server, client), ClientTls(server, client, server_key)):
        with pytest.raises(ConfigurationError, match="web3signer"):
            Web3Signer(url, LOCAL.address, tls=files)


# --- Cloud KMS ------------------------------------------------------------------------------------------------------------------


class Vault:
    """A `DigestKey` that answers as a test says."""

    def __init__(self, der: bytes, sign: Callable[[bytes], bytes]) -> None:
        self.der, self.sign = der, sign

    def public_key(self) -> bytes:
        return self.der

    def sign_digest(self, digest: bytes) -> bytes:
        return self.sign(digest)


def der_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


DER = der_of(EC_KEY)
R, S = int.from_bytes(GOOD[:32], "big"), int.from_bytes(GOOD[32:64], "big")


@given(st.binary(min_size=32, max_size=32), st.integers(1, ORDER - 1), st.booleans())
def test_either_half_of_s_becomes_the_signature_of_the_local_key(digest: bytes, number: int, high: bool) -> None:
    key = number.to_bytes(32, "big")
    signature = sign_digest(digest, key)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
    made = canonical_signature(digest, r, ORDER - s if high else s, LocalSigner(key).address)
    assert made == signature
    assert recover_address(digest, made) == LocalSigner(key).address


def der_integer(value: bytes) -> bytes:
    return b"\x02" + bytes([len(value)]) + value


def der_sequence(*parts: bytes) -> bytes:
    body = b"".join(parts)
    return b"\x30" + bytes([len(body)]) + body


PADDED_R = (b"\x00" if GOOD[0] >= 0x80 else b"") + GOOD[:32]
LOW_S = GOOD[32:64]


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        b"\x30",
        GOOD,
        encode_dss_signature(R, S) + b"\x00",
        encode_dss_signature(R, S)[:-1],
        encode_dss_signature(0, S),
        encode_dss_signature(R, 0),
        encode_dss_signature(R, ORDER),
        encode_dss_signature(ORDER + R, S),
        encode_dss_signature(R, 2**256 + S),
        der_sequence(der_integer(b"\x80" + GOOD[1:32]), der_integer(LOW_S)),
        der_sequence(der_integer(PADDED_R), der_integer(b"\x00" + LOW_S)),
        der_sequence(der_integer(PADDED_R), der_integer(LOW_S), der_integer(b"\x01")),
        b"\x30\x80" + der_integer(PADDED_R) + der_integer(LOW_S) + b"\x00\x00",
        b"\x30\x81\x44" + der_integer(PADDED_R) + der_integer(LOW_S),
        encode_dss_signature(R, S) + bytes(1 << 20),
    ],
)
def test_hostile_der_is_no_signature(signature: bytes) -> None:
    # What all of them resemble is one.
    honest = encode_dss_signature(R, S)
    assert der_sequence(der_integer(PADDED_R), der_integer(LOW_S)) == honest
    assert KmsSigner(Vault(DER, lambda digest: honest)).sign_typed_data(note()) == GOOD
    with pytest.raises(SignatureError):
        KmsSigner(Vault(DER, lambda digest: signature)).sign_typed_data(note())


@pytest.mark.parametrize(
    ("der", "message"),
    [
        (der_of(ec.generate_private_key(ec.SECP256R1())), "one of secp256r1"),
        (der_of(ec.generate_private_key(ec.SECP384R1())), "one of secp384r1"),
        (der_of(rsa.generate_private_key(65537, 2048)), "one of RSAPublicKey"),
        (DER + b"\x00", "SubjectPublicKeyInfo"),
        (DER[:-1], "SubjectPublicKeyInfo"),
        (DER[:-1] + bytes([DER[-1] ^ 1]), "SubjectPublicKeyInfo"),
        (b"", "SubjectPublicKeyInfo"),
        (bytes(1 << 20), "at most 512 bytes"),
    ],
    # Named, since some of these keys are new in every process.
    ids=("another curve", "a larger curve", "RSA", "trailing byte", "cut short", "no point", "nothing", "too long"),
)
def test_keys_that_are_no_accounts_are_refused(der: bytes, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        KmsSigner(Vault(der, lambda digest: b""))


def test_aws_signs_the_digest_as_it_is(aws: Callable[[str], None]) -> None:
    with aws_kms(EC_KEY, KEY_ID).running() as vault:
        aws(vault.url)
        KmsSigner(AwsKmsKey(KEY_ID)).sign_typed_data(note())
        asked = json.loads(vault.requests[-1][2])
    assert base64.b64decode(asked.pop("Message")) == note().hash()
    assert asked == {"KeyId": KEY_ID, "MessageType": "DIGEST", "SigningAlgorithm": "ECDSA_SHA_256"}


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        ((400, b'{"__type": "AccessDeniedException"}'), ConfigurationError, "AccessDeniedException"),
        ((400, b'{"__type": "DisabledException"}'), ConfigurationError, "DisabledException"),
        ((400, b'{"__type": "ThrottlingException"}'), UnavailableError, "ThrottlingException"),
        ((500, b'{"__type": "KMSInternalException"}'), UnavailableError, "KMSInternalException"),
        ((200, b'{"PublicKey": "", "KeyUsage": "ENCRYPT_DECRYPT"}'), ConfigurationError, "SIGN_VERIFY"),
    ],
)
def test_an_aws_key_that_can_not_be_used_does_not_start(
    answer: Answer, error: type[Exception], message: str, aws: Callable[[str], None]
) -> None:
    vault = aws_kms(EC_KEY, KEY_ID)
    vault.answer = lambda method, path: answer
    with vault.running():
        aws(vault.url)
        with pytest.raises(error, match=message):
            KmsSigner(AwsKmsKey(KEY_ID))


def test_other_aws_keys_no_server_and_no_region(aws: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    with aws_kms(EC_KEY, KEY_ID).running() as vault:
        aws(vault.url)
        with pytest.raises(ConfigurationError, match="NotFoundException"):
            KmsSigner(AwsKmsKey("alias/nothing"))
    with pytest.raises(UnavailableError, match="EndpointConnectionError"):
        KmsSigner(AwsKmsKey(KEY_ID))
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nothing")
    with pytest.raises(ConfigurationError, match="region"):
        AwsKmsKey(KEY_ID)


def test_an_emulator_that_hashes_the_digest_again_is_found_out(aws: Callable[[str], None]) -> None:
    """moto has KMS's API and real keys, and leaves `MessageType` aside: key and address are right, its signature is over other bytes."""
    import boto3
    from moto import mock_aws

    aws("")
    with mock_aws():
        client = boto3.client("kms", region_name="eu-west-1")
        made = {
            spec: client.create_key(KeySpec=spec, KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
            for spec in ("ECC_SECG_P256K1", "ECC_NIST_P256")
        }
        signer = KmsSigner(AwsKmsKey(made["ECC_SECG_P256K1"]))
        with pytest.raises(SignatureError, match="over other bytes"):
            signer.sign_typed_data(note())
        with pytest.raises(ConfigurationError, match="one of secp256r1"):
            KmsSigner(AwsKmsKey(made["ECC_NIST_P256"]))
