"""Signing in: one text, one nonce, one token, one service; and whatever a stranger may try with each of them."""

import base64
import hashlib
import hmac
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import Engine, func, select

from rexis.chain.calls import encode_call
from rexis.chain.connection import Chain, open_web3
from rexis.chain.contract_accounts import IS_VALID_SIGNATURE, MAGIC_VALUE, WALLET_TIMEOUT_S
from rexis.chain.delegations import SIGN_IN, Scope, delegate_arguments
from rexis.chain.deployer import deploy_contracts
from rexis.chain.deployments import load
from rexis.chain.signer import LocalSigner, development_signer
from rexis.encoding import abi_encode, keccak256, to_hex
from rexis.protocol.sign_in import SignInMessage
from services.foundation import problems, sign_in
from services.foundation.database import now, transaction
from services.foundation.sign_in import (
    Caller,
    CallerDep,
    SessionTokens,
    SignInNonce,
    delete_expired_nonces,
)
from tests.services.chain_process import ChainProcess, Proxy, rpc, running, transact
from tests.services.upload_application import UploadSettings, settings_for

URL = "http://127.0.0.1:8002"
OWNER, RIVAL = LocalSigner.generate(), LocalSigner.generate()
DEPLOYMENT = load(31337)


@dataclass
class Door:
    """One service with nothing but the sign-in and one operation behind it."""

    settings: UploadSettings
    engine: Engine
    app: FastAPI
    client: TestClient

    def message(self, signer: LocalSigner | str = OWNER, **changes: Any) -> SignInMessage:
        """A right text with a fresh nonce; `changes` make it wrong."""
        offer = self.client.post("/v1/sign-in/nonce").json()
        issued = now().replace(microsecond=0)
        fields = {
            "domain": offer["domain"],
            "address": signer if isinstance(signer, str) else signer.address,
            "statement": "Sign in to Rexis.",
            "uri": offer["uri"],
            "version": "1",
            "chain_id": offer["chain_id"],
            "nonce": offer["nonce"],
            "issued_at": issued,
            "expiration_time": issued + timedelta(minutes=5),
        }
        return SignInMessage(**{**fields, **changes})

    def post(self, text: str, signature: bytes | str) -> Response:
        given = signature if isinstance(signature, str) else to_hex(signature)
        return self.client.post("/v1/sign-in", json={"message": text, "signature": given})

    def sign_in(self, message: SignInMessage, signer: LocalSigner = OWNER) -> Response:
        return self.post(message.text(), signer.sign_in(message))

    def who(self, token: str, scheme: str = "Bearer") -> Response:
        return self.client.get("/who", headers={"Authorization": f"{scheme} {token}"})

    def nonces(self) -> int:
        with transaction(self.engine, read_only=True) as session:
            return session.scalars(select(func.count()).select_from(SignInNonce)).one()


def refused(answer: Response, status: int, kind: str, detail: str = "") -> None:
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:rexis:problem:{kind}"), answer.text
    assert detail in answer.json()["detail"]
    assert "token" not in answer.json()
    if status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.fixture
def door(engine: Engine, database_url: str) -> Iterator[Door]:
    app = FastAPI()
    settings = settings_for(database_url, "memory://", public_url=URL)
    app.state.settings, app.state.engine, app.state.chain = settings, engine, None
    problems.install(app)
    app.include_router(sign_in.router)

    @app.get("/who")
    def who(caller: CallerDep) -> str:
        return caller.address

    with TestClient(app, base_url=URL) as client:
        yield Door(settings, engine, app, client)


def test_a_signed_text_opens_a_session_of_a_quarter_of_an_hour(door: Door) -> None:
    asked = now()
    answer = door.sign_in(door.message())
    assert answer.status_code == 200, answer.text
    assert door.who(answer.json()["token"]).json() == OWNER.address
    claims = jwt.decode(answer.json()["token"], options={"verify_signature": False})
    assert {name: claims[name] for name in ("iss", "aud", "sub", "chain_id")} == {
        "iss": URL,
        "aud": URL,
        "sub": OWNER.address,
        "chain_id": 31337,
    }
    assert claims["exp"] - claims["iat"] == 15 * 60
    assert abs(claims["iat"] - asked.timestamp()) < 30
    assert jwt.get_unverified_header(answer.json()["token"]) == {"alg": "EdDSA", "typ": "JWT"}
    again = door.sign_in(door.message()).json()["token"]
    assert jwt.decode(again, options={"verify_signature": False})["jti"] != claims["jti"]


# What is wrong about the text although its owner signed it so.
WRONG_TEXTS: dict[str, tuple[Callable[[SignInMessage], dict[str, Any]], str, str]] = {
    "another service": (lambda m: {"domain": "aggregator.example"}, "domain", "aggregator.example"),
    "the same host, another port": (lambda m: {"domain": "127.0.0.1:8003"}, "domain", "8003"),
    "the host without its port": (lambda m: {"domain": "127.0.0.1"}, "domain", "8002"),
    "a URI elsewhere": (lambda m: {"uri": "http://evil.example"}, "uri", "evil.example"),
    "a URI that begins alike": (lambda m: {"uri": "http://127.0.0.1:80021/"}, "uri", "80021"),
    "a URI with our host as its user": (lambda m: {"uri": "http://127.0.0.1:8002@evil.example/"}, "uri", "evil"),
    "a URI of another scheme": (lambda m: {"uri": "https://127.0.0.1:8002"}, "uri", "https"),
    "another chain": (lambda m: {"chain_id": 1}, "chain", "31337"),
    "dated in the future": (
        lambda m: {"issued_at": m.issued_at + timedelta(minutes=3)}, "not-yet-valid", "dated"
    ),
    "expired": (
        lambda m: {"issued_at": m.issued_at - timedelta(hours=1), "expiration_time": m.issued_at - timedelta(seconds=1)},
        "expired",
        "ask for a nonce",
    ),
    "a nonce of its own": (lambda m: {"nonce": "abcdefgh12345678"}, "nonce", "given out"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG_TEXTS)
def test_a_text_for_something_else_is_refused(door: Door, wrong: str) -> None:
    changes, kind, detail = WRONG_TEXTS[wrong]
    message = door.message()
    refused(door.sign_in(replace(message, **changes(message))), 401, f"sign-in-{kind}", detail)
    assert door.nonces() == 1, "a refused text must not use the nonce up"
    assert door.sign_in(message).status_code == 200


def test_clocks_may_differ_by_less_than_a_minute(door: Door) -> None:
    message = door.message()
    assert door.sign_in(replace(message, issued_at=message.issued_at + timedelta(seconds=50))).status_code == 200


MALFORMED: dict[str, Callable[[str], str]] = {
    "nothing": lambda text: "",
    "something else": lambda text: "I owe you",
    "no expiration": lambda text: text.rpartition("\n")[0],
    "a line more": lambda text: f"{text}\nNot Before: 2026-01-01T00:00:00Z",
    "resources": lambda text: f"{text}\nResources:\n- http://evil.example",
    "a line break at the end": lambda text: f"{text}\n",
    "carriage returns": lambda text: text.replace("\n", "\r\n"),
    "a space more": lambda text: text.replace("Chain ID: ", "Chain ID:  "),
    "version 2": lambda text: text.replace("Version: 1", "Version: 2"),
    "a chain id with a zero": lambda text: text.replace("Chain ID: ", "Chain ID: 0"),
    "digits of another script": lambda text: text.replace("Chain ID: 31337", "Chain ID: ٣١٣٣٧"),
    "a lower-case address": lambda text: text.replace(OWNER.address, OWNER.address.lower()),
    "a local time": lambda text: text.replace("Z\nExpiration", "+02:00\nExpiration"),
    "two statements": lambda text: text.replace("Rexis.\n", "Rexis.\nNonce: abcdefgh1234\n"),
    "a domain that looks alike": lambda text: text.replace("127.0.0.1:8002 wants", "127.0.0.1:8002\u2060 wants"),
    "a long one": lambda text: text.replace("Rexis.", "Rexis." + "x" * 4000),
}


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize("how", MALFORMED)
def test_a_text_in_another_form_is_refused(door: Door, how: str) -> None:
    message = door.message()
    text = MALFORMED[how](message.text())
    assert text != message.text(), "the attack has to change something"
    answer = door.post(text, OWNER.sign_in(message))
    assert answer.status_code == 422, answer.text
    assert answer.json()["type"] in ("urn:rexis:problem:malformed-message", "urn:rexis:problem:validation")
    assert door.nonces() == 1


def test_a_text_that_was_changed_or_signed_by_another_is_refused(door: Door) -> None:
    message = door.message()
    signature = OWNER.sign_in(message)
    # Without a chain, nobody can tell a wrong signature from one by a contract account.
    refused(door.post(replace(message, address=RIVAL.address).text(), signature), 503, "unavailable")
    refused(door.sign_in(message, RIVAL), 503, "unavailable")
    refused(door.post(replace(message, statement="Give everything away.").text(), signature), 503, "unavailable")
    refused(door.post(message.text(), to_hex(signature)[:-1]), 422, "encoding")
    refused(door.post(message.text(), "0x" + "00" * 8193), 422, "validation")
    assert door.post(message.text(), signature).status_code == 200


def test_a_sign_in_can_not_be_replayed(door: Door) -> None:
    message = door.message()
    signature = OWNER.sign_in(message)
    assert door.post(message.text(), signature).status_code == 200
    refused(door.post(message.text(), signature), 401, "sign-in-nonce", "was used")
    refused(door.sign_in(replace(message, address=RIVAL.address), RIVAL), 401, "sign-in-nonce", "was used")


def test_an_expired_nonce_is_refused_and_swept(door: Door) -> None:
    old, live = door.message(), door.message()
    with transaction(door.engine) as session:
        session.get_one(SignInNonce, old.nonce).expires_at = now() - timedelta(seconds=1)
    refused(door.sign_in(old), 401, "sign-in-nonce", "expired")
    assert delete_expired_nonces(door.engine) == 1
    assert delete_expired_nonces(door.engine) == 0
    assert door.nonces() == 1
    assert door.sign_in(live).status_code == 200


def base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def key_of(settings: UploadSettings) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(settings.session_key.get_secret_value()))


def claims_for(settings: UploadSettings, **changes: Any) -> dict[str, Any]:
    """Claims of a right token; a change to None leaves a claim out."""
    issued = int(now().timestamp())
    right = {
        "iss": settings.public_url,
        "aud": settings.public_url,
        "sub": OWNER.address,
        "iat": issued,
        "exp": issued + 900,
        "jti": secrets.token_hex(16),
        "chain_id": 31337,
    }
    return {name: value for name, value in {**right, **changes}.items() if value is not None}


def forged(settings: UploadSettings, algorithm: str, mac_key: bytes | None, **header: Any) -> str:
    """A token that no library would make: unsigned, or with a MAC whose key is public."""
    parts = [base64url(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": algorithm, **header}, claims_for(settings))]
    signed = ".".join(parts).encode()
    return f"{signed.decode()}.{base64url(hmac.digest(mac_key, signed, hashlib.sha256) if mac_key else b'')}"


def with_claims(settings: UploadSettings, **changes: Any) -> str:
    """Signed by the service's own key: as if it had issued it."""
    return jwt.encode(claims_for(settings, **changes), key_of(settings), algorithm="EdDSA")


def public_key(settings: UploadSettings, encoding: Encoding, form: PublicFormat) -> bytes:
    return key_of(settings).public_key().public_bytes(encoding, form)


def tampered(settings: UploadSettings) -> str:
    header, _, signature = with_claims(settings).split(".")
    return ".".join((header, base64url(json.dumps(claims_for(settings, sub=RIVAL.address)).encode()), signature))


def under_own_key(settings: UploadSettings) -> str:
    """Brings the key along that it is to be verified with."""
    key = Ed25519PrivateKey.generate()
    public = base64url(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
    return jwt.encode(claims_for(settings), key, algorithm="EdDSA", headers={"jwk": {"kty": "OKP", "crv": "Ed25519", "x": public}})


Forge = Callable[[UploadSettings], str]
SPKI, RAW = PublicFormat.SubjectPublicKeyInfo, PublicFormat.Raw
WRONG_TOKENS: dict[str, tuple[Forge, str]] = {
    "none": (lambda s: forged(s, "none", None), "token-invalid"),
    "None": (lambda s: forged(s, "None", None), "token-invalid"),
    "HS256 with the public key in PEM": (lambda s: forged(s, "HS256", public_key(s, Encoding.PEM, SPKI)), "token-invalid"),
    "HS256 with the raw public key": (lambda s: forged(s, "HS256", public_key(s, Encoding.Raw, RAW)), "token-invalid"),
    "EdDSA in the header over a MAC": (lambda s: forged(s, "EdDSA", public_key(s, Encoding.Raw, RAW)), "token-invalid"),
    "a critical extension": (lambda s: forged(s, "EdDSA", None, crit=["b64"], b64=False), "token-invalid"),
    "another key": (lambda s: jwt.encode(claims_for(s), Ed25519PrivateKey.generate(), algorithm="EdDSA"), "token-invalid"),
    "a key of its own": (under_own_key, "token-invalid"),
    "other claims under the same signature": (tampered, "token-invalid"),
    "expired": (lambda s: with_claims(s, iat=1, exp=int(now().timestamp()) - 1), "token-expired"),
    "issued in the future": (lambda s: with_claims(s, iat=int(now().timestamp()) + 600), "token-invalid"),
    "not valid yet": (lambda s: with_claims(s, nbf=int(now().timestamp()) + 600), "token-invalid"),
    "another service's under the same key": (lambda s: with_claims(s, iss="http://other", aud="http://other"), "token-audience"),
    "another audience": (lambda s: with_claims(s, aud="http://other"), "token-audience"),
    "another issuer": (lambda s: with_claims(s, iss="http://other"), "token-audience"),
    "another chain": (lambda s: with_claims(s, chain_id=1), "token-chain"),
    "no address": (lambda s: with_claims(s, sub="admin"), "token-invalid"),
    "a number as its subject": (lambda s: with_claims(s, sub=7), "token-invalid"),
    **{
        f"without {claim}": (lambda s, claim=claim: with_claims(s, **{claim: None}), "token-invalid")
        for claim in ("iss", "aud", "sub", "iat", "exp", "jti", "chain_id")
    },
    "no token": (lambda s: "x", "token-invalid"),
    "two dots": (lambda s: "..", "token-invalid"),
    "much": (lambda s: "A" * 60_000, "token-invalid"),
    "a list as its header": (lambda s: f"{base64url(b'[]')}.{base64url(b'{}')}.", "token-invalid"),
    "deep": (lambda s: f"{base64url(b'[' * 30_000)}.{base64url(b'{}')}.", "token-invalid"),
}  # fmt: skip


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_token_that_this_service_did_not_issue_for_now_is_refused(door: Door) -> None:
    assert door.who(with_claims(door.settings)).json() == OWNER.address, "the forger's tool has to work"
    for forge, kind in WRONG_TOKENS.values():
        refused(door.who(forge(door.settings)), 401, kind)
    refused(door.client.get("/who"), 401, "token-missing", "POST /v1/sign-in")
    refused(door.who(with_claims(door.settings), scheme="Basic"), 401, "token-missing")


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_token_of_one_service_opens_no_other(door: Door) -> None:
    other = settings_for("sqlite:///x", "memory://", public_url="http://127.0.0.1:8003", session_key="43" * 32)
    token = SessionTokens(other).issue(OWNER.address).token
    assert SessionTokens(other).read(token) == Caller(OWNER.address)
    refused(door.who(token), 401, "token-invalid")


# Contract accounts.


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChainProcess]:
    with running(tmp_path_factory.mktemp("anvil")) as chain:
        deploy_contracts(chain.url, development_signer(0), DEPLOYMENT)
        yield chain


@pytest.fixture
def proxy(node: ChainProcess) -> Iterator[Proxy]:
    opened = Proxy(node.url)
    yield opened
    opened.close()


@pytest.fixture
def chained(door: Door, proxy: Proxy) -> Door:
    door.app.state.chain = Chain(open_web3(proxy.url), DEPLOYMENT)
    return door


def wallet(node: ChainProcess, code: bytes) -> str:
    """An account without a known key that runs `code`."""
    address = LocalSigner.generate().address
    rpc(node.url, "anvil_setCode", address, to_hex(code))
    return address


def returning(word: bytes) -> bytes:
    """Code that answers anything with 32 bytes."""
    return b"\x7f" + word + bytes.fromhex("5f5260205ff3")


def accepting_only(call: bytes) -> bytes:
    """Code that answers with the magic value if it is called with exactly these bytes, else with zero."""
    load = bytes.fromhex("365f5f37365f20")  # keccak256 of what it is called with
    return load + b"\x7f" + keccak256(call) + b"\x14\x7f" + MAGIC_VALUE + bytes.fromhex("025f5260205ff3")


def test_a_contract_account_is_asked_about_this_text_and_this_signature(chained: Door, node: ChainProcess) -> None:
    account = wallet(node, b"\x00")
    message, signature = chained.message(account), secrets.token_bytes(97)
    rpc(node.url, "anvil_setCode", account, to_hex(accepting_only(
        IS_VALID_SIGNATURE + abi_encode(["bytes32", "bytes"], [message.digest(), signature])
    )))  # fmt: skip
    refused(chained.post(message.text(), signature[:-1]), 401, "signature", "does not accept")
    refused(chained.post(chained.message(account).text(), signature), 401, "signature", "does not accept")
    answer = chained.post(message.text(), signature)
    assert answer.status_code == 200, answer.text
    assert chained.who(answer.json()["token"]).json() == account
    refused(chained.post(message.text(), signature), 401, "sign-in-nonce")


REFUSING = {
    "zero": returning(bytes(32)),
    "the selector without its padding": bytes.fromhex("631626ba7e60e01b5f5260045ff3"),
    "the magic value on the wrong side": returning(bytes(28) + IS_VALID_SIGNATURE),
    "the magic value and rubbish": returning(IS_VALID_SIGNATURE + b"\x01" * 28),
    "true": returning(bytes(31) + b"\x01"),
    "the magic value twice": b"\x7f" + MAGIC_VALUE + bytes.fromhex("805f5260205260405ff3"),
    "nothing": b"\x00",
    "a megabyte": bytes.fromhex("620f42405ff3"),
    "a revert": bytes.fromhex("5f5ffd"),
    "a revert with the magic value": b"\x7f" + MAGIC_VALUE + bytes.fromhex("5f5260205ffd"),
    "an invalid opcode": b"\xfe",
    "an endless loop": bytes.fromhex("5b5f56"),
    "more memory than there is": bytes.fromhex("5f64ffffffffff52"),
}  # fmt: skip


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_contract_account_that_does_not_say_yes_says_no(chained: Door, node: ChainProcess) -> None:
    for code in REFUSING.values():
        message = chained.message(wallet(node, code))
        refused(chained.sign_in(message), 401, "signature", message.address)
    assert chained.sign_in(chained.message()).status_code == 200


def test_with_a_chain_a_wrong_signature_is_told_from_a_contract_account(chained: Door) -> None:
    message = chained.message()
    signature = OWNER.sign_in(message)
    refused(chained.sign_in(message, RIVAL), 401, "signature", RIVAL.address)
    refused(chained.post(replace(message, address=RIVAL.address).text(), signature), 401, "signature", "wrong account, or a changed text")
    refused(chained.post(replace(message, statement="Give everything away.").text(), signature), 401, "signature", "changed text")
    flipped = bytes([signature[0] ^ 1]) + signature[1:]
    refused(chained.post(message.text(), flipped), 401, "signature")
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    high = signature[:32] + (order - int.from_bytes(signature[32:64], "big")).to_bytes(32, "big") + bytes([55 - signature[64]])
    refused(chained.post(message.text(), high), 401, "signature")
    refused(chained.post(message.text(), b""), 401, "signature")
    assert chained.post(message.text(), signature).status_code == 200


def test_a_key_goes_before_the_code_of_its_account(chained: Door, node: ChainProcess, proxy: Proxy) -> None:
    owner = LocalSigner.generate()
    rpc(node.url, "anvil_setCode", owner.address, to_hex(returning(bytes(32))))

    def asked() -> None:
        pytest.fail("the chain was asked")

    proxy.before["eth_call"] = proxy.before["eth_getCode"] = asked
    assert chained.sign_in(chained.message(owner), owner).status_code == 200


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_node_that_is_silent_or_gone_does_not_hold_the_caller(chained: Door, node: ChainProcess, proxy: Proxy, tmp_path: Path) -> None:
    message = chained.message(wallet(node, returning(MAGIC_VALUE)))
    silent = threading.Event()
    proxy.before["eth_call"] = lambda: (silent.wait(60), None)[1]
    try:
        started = now()
        refused(chained.sign_in(message), 503, "unavailable")
        assert now() - started < timedelta(seconds=2 * WALLET_TIMEOUT_S)
    finally:
        silent.set()
        proxy.before.clear()
    assert chained.nonces() == 1
    assert chained.sign_in(message).status_code == 200, "the nonce is still good once the chain is back"
    another = chained.message(wallet(node, returning(MAGIC_VALUE)))
    proxy.close()
    refused(chained.sign_in(another), 503, "unavailable")


def test_of_simultaneous_sign_ins_with_one_nonce_one_succeeds(chained: Door, node: ChainProcess, proxy: Proxy) -> None:
    message = chained.message(wallet(node, returning(MAGIC_VALUE)))
    # All are held at the point where the nonce was good and the signature is not checked yet.
    together = threading.Barrier(4)
    proxy.before["eth_call"] = lambda: (together.wait(30), None)[1]
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: chained.post(message.text(), b"\x01"), range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401]
    for answer in answers:
        if answer.status_code != 200:
            refused(answer, 401, "sign-in-nonce", "was used")
    assert chained.nonces() == 0


# Delegated keys.

OTHER_POWER = Scope.of_power("something-else")


def as_institution(node: ChainProcess, institution: LocalSigner, function: str, *arguments: Any) -> None:
    """The institution calls KeyDelegation by itself; relayed calls are tested elsewhere."""
    contract = DEPLOYMENT.contracts["KeyDelegation"].address
    rpc(node.url, "anvil_setBalance", institution.address, hex(10**18))
    rpc(node.url, "anvil_impersonateAccount", institution.address)
    transact(node.url, **{"from": institution.address, "to": contract, "data": to_hex(encode_call("KeyDelegation", function, *arguments))})


def delegate(
    node: ChainProcess, institution: LocalSigner, agent: LocalSigner, *scopes: Scope, version: int = 0, seconds: int = 3600
) -> None:
    latest = int(rpc(node.url, "eth_getBlockByNumber", "latest", False)["timestamp"], 16)
    until = datetime.fromtimestamp(latest + seconds, UTC)
    as_institution(node, institution, "delegate", *delegate_arguments(agent.address, scopes, until, version))


def test_an_agent_signs_in_as_its_institution_until_that_is_revoked(chained: Door, node: ChainProcess) -> None:
    institution, agent = LocalSigner.generate(), LocalSigner.generate()
    refused(chained.sign_in(chained.message(institution), agent), 401, "signature", "expected a signature by")
    delegate(node, institution, agent, Scope.of_power(SIGN_IN))
    message = chained.message(institution)
    answer = chained.sign_in(message, agent)
    assert answer.status_code == 200, answer.text
    assert chained.who(answer.json()["token"]).json() == institution.address
    # The agent's key is not a second name of the institution, and its text is good for one sign-in like any.
    assert chained.who(chained.sign_in(chained.message(agent), agent).json()["token"]).json() == agent.address
    refused(chained.sign_in(message, agent), 401, "sign-in-nonce", "was used")
    as_institution(node, institution, "revoke", agent.address)
    refused(chained.sign_in(chained.message(institution), agent), 401, "signature", "was revoked")
    assert chained.sign_in(chained.message(institution), institution).status_code == 200


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_delegation_opens_what_it_names_for_whom_it_names_and_no_longer(chained: Door, node: ChainProcess) -> None:
    institution, other, agent, below = (LocalSigner.generate() for _ in range(4))
    delegate(node, institution, agent, OTHER_POWER)
    refused(chained.sign_in(chained.message(institution), agent), 401, "signature", "does not cover sign-in")
    delegate(node, institution, agent, *sorted([OTHER_POWER, Scope.of_power(SIGN_IN)]), version=1)
    assert chained.sign_in(chained.message(institution), agent).status_code == 200
    # Neither for another institution, nor the other way round, nor one step further.
    refused(chained.sign_in(chained.message(other), agent), 401, "signature", "expected a signature by")
    refused(chained.sign_in(chained.message(agent), institution), 401, "signature", "expected a signature by")
    delegate(node, agent, below, Scope.of_power(SIGN_IN))
    refused(chained.sign_in(chained.message(institution), below), 401, "signature", "expected a signature by")
    # A text for another service, signed by the right agent.
    refused(chained.sign_in(chained.message(institution, uri="http://evil.example"), agent), 401, "sign-in-uri")

    rpc(node.url, "evm_increaseTime", 3601)
    rpc(node.url, "evm_mine")
    refused(chained.sign_in(chained.message(institution), agent), 401, "signature", "has expired")


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_contract_account_has_agents_too(chained: Door, node: ChainProcess) -> None:
    institution, agent = LocalSigner.generate(), LocalSigner.generate()
    delegate(node, institution, agent, Scope.of_power(SIGN_IN))
    rpc(node.url, "anvil_setCode", institution.address, to_hex(returning(bytes(32))))
    assert chained.sign_in(chained.message(institution), agent).status_code == 200
    refused(chained.sign_in(chained.message(institution), RIVAL), 401, "signature", "does not accept")
    # A key outside of its delegation may still be one of the contract's own.
    delegate(node, institution, agent, OTHER_POWER, version=1)
    refused(chained.sign_in(chained.message(institution), agent), 401, "signature", "does not cover sign-in")
    rpc(node.url, "anvil_setCode", institution.address, to_hex(returning(MAGIC_VALUE)))
    assert chained.sign_in(chained.message(institution), agent).status_code == 200


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_what_the_chain_said_about_a_key_is_asked_again_each_time(chained: Door, node: ChainProcess, proxy: Proxy) -> None:
    institution, agent = LocalSigner.generate(), LocalSigner.generate()
    delegate(node, institution, agent, Scope.of_power(SIGN_IN))
    assert chained.sign_in(chained.message(institution), agent).status_code == 200
    message = chained.message(institution)
    proxy.close()
    refused(chained.sign_in(message, agent), 503, "unavailable")
    chained.app.state.chain = None
    refused(chained.sign_in(message, agent), 503, "unavailable")
    chained.app.state.chain = Chain(open_web3(node.url), DEPLOYMENT)
    assert chained.sign_in(message, agent).status_code == 200, "the nonce is still good once the chain is back"
