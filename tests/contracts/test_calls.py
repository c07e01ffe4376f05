"""Call data and revert data, from and to Python values, without a node."""

import subprocess
import sys
from typing import Any

import pytest
from eth_abi.abi import encode
from hypothesis import given
from hypothesis import strategies as st

from rexis.chain.artifacts import artifact
from rexis.chain.calls import decode_call, encode_call, selector
from rexis.chain.reverts import MAX_RAW_BYTES, decode_revert
from rexis.encoding import keccak256
from rexis.errors import EncodingError, MalformedMessageError

REGISTRATION = {
    "contentRoot": b"\x01" * 32,
    "policyHash": b"\x02" * 32,
    "metadataHash": b"\x03" * 32,
    "uri": "https://marketplace.example/d",
    "parents": [1, 2],
    "royaltyBps": 250,
}
ADDRESS = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"


def error_data(contract: str, name: str, *values: Any) -> bytes:
    entry = next(entry for entry in artifact(contract).abi if entry["type"] == "error" and entry["name"] == name)
    return selector(entry) + encode([component["type"] for component in entry["inputs"]], values)


def _zero(component: dict[str, Any]) -> Any:
    if component["type"] == "address":
        return "0x" + "00" * 20
    return bytes(int(component["type"][5:])) if component["type"].startswith("bytes") else 0


def test_a_struct_is_encoded_by_member_name_whatever_the_order() -> None:
    members = ["bytes32", "bytes32", "bytes32", "string", "uint256[]", "uint16"]
    signature = f"register(({','.join(members)}))"
    expected = keccak256(signature.encode())[:4] + encode([f"({','.join(members)})"], [tuple(REGISTRATION.values())])
    assert encode_call("DatasetRegistry", "register", REGISTRATION) == expected
    assert encode_call("DatasetRegistry", "register", dict(reversed(REGISTRATION.items()))) == expected
    assert encode_call("DatasetRegistry", "register", tuple(REGISTRATION.values())) == expected


def test_what_was_encoded_is_decoded() -> None:
    name, arguments = decode_call("DatasetRegistry", encode_call("DatasetRegistry", "register", REGISTRATION))
    assert (name, arguments) == ("register", {"registration": REGISTRATION})
    transfer = "safeTransferFrom(address,address,uint256,bytes)"
    name, arguments = decode_call("DatasetRegistry", encode_call("DatasetRegistry", transfer, ADDRESS, ADDRESS.lower(), 7, b"x"))
    assert (name, arguments) == ("safeTransferFrom", {"from": ADDRESS, "to": ADDRESS, "tokenId": 7, "data": b"x"})


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"contentRoot": b"\x01" * 31}, EncodingError),
        ({"contentRoot": b"\x01" * 33}, EncodingError),
        ({"contentRoot": "01" * 32}, EncodingError),
        ({"royaltyBps": 65536}, EncodingError),
        ({"royaltyBps": -1}, EncodingError),
        ({"parents": [2**256]}, EncodingError),
        ({"uri": 7}, EncodingError),
        ({"surplus": 1}, ValueError),
    ],
)
def test_values_that_do_not_fit_are_refused(change: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        encode_call("DatasetRegistry", "register", REGISTRATION | change)


def test_wrong_names_and_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="one function nothing, got 0"):
        encode_call("DatasetRegistry", "nothing")
    with pytest.raises(ValueError, match="got 2"):
        encode_call("DatasetRegistry", "safeTransferFrom", ADDRESS, ADDRESS, 1)
    with pytest.raises(ValueError, match="expected 2 arguments, got 1"):
        encode_call("DatasetRegistry", "setState", 1)
    with pytest.raises(ValueError, match="no contract 'Registry'"):
        encode_call("Registry", "setState", 1, 2)
    without = {name: value for name, value in REGISTRATION.items() if name != "uri"}
    with pytest.raises(ValueError, match="expected the members"):
        encode_call("DatasetRegistry", "register", without)


CALL = encode_call("DatasetRegistry", "register", REGISTRATION)


@pytest.mark.parametrize(
    "data",
    [b"", CALL[:3], CALL[:-1], CALL[:-32], CALL + b"\x00", CALL + bytes(32), b"\xff\xff\xff\xff" + CALL[4:], CALL[:4] + b"\xff" * 64],
)
def test_call_data_in_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        decode_call("DatasetRegistry", data)


@given(place=st.integers(4, len(CALL) - 1), bit=st.integers(0, 7))
def test_a_changed_bit_decodes_to_other_arguments_or_not_at_all(place: int, bit: int) -> None:
    changed = bytearray(CALL)
    changed[place] ^= 1 << bit
    try:
        name, arguments = decode_call("DatasetRegistry", bytes(changed))
    except MalformedMessageError:
        return
    assert (name, arguments) != ("register", {"registration": REGISTRATION})


@given(data=st.binary(max_size=400))
def test_any_bytes_decode_to_an_error_or_to_a_refusal(data: bytes) -> None:
    error = decode_revert(data)
    assert error.error
    with pytest.raises(MalformedMessageError):
        decode_call("Forwarder", b"\x00\x00\x00\x00" + data)


@pytest.mark.parametrize(
    ("data", "contract", "name", "arguments"),
    [
        (error_data("Forwarder", "RequestExpired", 5, 9), "Forwarder", "RequestExpired", {"deadline": 5, "blockTimestamp": 9}),
        (error_data("Forwarder", "NonceAlreadyUsed", ADDRESS, 2**255), "Forwarder", "NonceAlreadyUsed", {"from": ADDRESS, "nonce": 2**255}),
        (error_data("DatasetRegistry", "ZeroHash"), "DatasetRegistry", "ZeroHash", {}),
        # Both contracts declare it: which one reverted is not in the data.
        (error_data("Forwarder", "OwnableInvalidOwner", ADDRESS), "", "OwnableInvalidOwner", {"owner": ADDRESS}),
        (bytes.fromhex("08c379a0") + encode(["string"], ["no"]), "", "Error", {"message": "no"}),
        (bytes.fromhex("4e487b71") + encode(["uint256"], [0x11]), "", "Panic", {"code": 0x11}),
        (b"", "", "0x", {"data": "0x"}),
        (b"\x12\x34", "", "0x1234", {"data": "0x1234"}),
        (b"\xde\xad\xbe\xef" + bytes(1000), "", "0xdeadbeef", {"data": "0xdeadbeef" + "00" * (MAX_RAW_BYTES - 4)}),
        # A known selector with arguments that are not its own, and text that is not UTF-8.
        (error_data("Forwarder", "RequestExpired", 5, 9)[:-1], "", None, None),
        (bytes.fromhex("08c379a0") + encode(["bytes"], [b"\xff\xfe"]), "", "0x08c379a0", None),
    ],
)
def test_reverts_are_named(data: bytes, contract: str, name: str | None, arguments: dict[str, Any] | None) -> None:
    error = decode_revert(data)
    assert error.contract == contract
    assert error.error == (name if name is not None else "0x" + data[:4].hex())
    if arguments is not None:
        assert error.arguments == arguments


def test_artifacts_and_records_load_without_web3() -> None:
    script = (
        "import sys, rexis.chain.artifacts, rexis.chain.calls, rexis.chain.deployments, rexis.chain.reverts\n"
        "rexis.chain.deployments.load(31337); rexis.chain.reverts.decode_revert(b'')\n"
        "print(sorted({'web3', 'torch', 'eth_account', 'requests'} & sys.modules.keys()))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
