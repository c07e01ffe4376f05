"""Logs decoded, whatever bytes their writers put into them."""

import pytest
from eth_abi.abi import encode

from rexis.chain.artifacts import artifact
from rexis.chain.events import decode_event
from rexis.encoding import keccak256

REGISTERED = "DatasetRegistered(uint256,address,bytes32,bytes32,bytes32,string)"
OWNER = "0x" + "ab" * 20


def log(uri: bytes) -> tuple[list[bytes], bytes]:
    topics = [keccak256(REGISTERED.encode()), encode(["uint256"], [7]), encode(["address"], [OWNER])]
    hashes = [bytes([number]) * 32 for number in (1, 2, 3)]
    return topics, encode(["bytes32", "bytes32", "bytes32", "bytes"], [*hashes, uri])


def test_names_and_arguments_are_those_of_the_abi() -> None:
    decoded = decode_event("DatasetRegistry", *log("ipfs://Ä".encode()))
    assert decoded is not None
    name, arguments = decoded
    assert name == "DatasetRegistered"
    assert arguments == {
        "id": 7,
        "owner": OWNER,
        "contentRoot": b"\x01" * 32,
        "policyHash": b"\x02" * 32,
        "metadataHash": b"\x03" * 32,
        "uri": "ipfs://Ä",
    }


@pytest.mark.parametrize(("uri", "shown"), [(b"a\xffb", "a\ufffdb"), (b"a\x00b", "a\ufffdb"), (b"", "")])
def test_bytes_that_are_no_text_are_replaced(uri: bytes, shown: str) -> None:
    decoded = decode_event("DatasetRegistry", *log(uri))
    assert decoded is not None
    assert decoded[1]["uri"] == shown


def test_an_event_of_another_contract_is_none_of_ours() -> None:
    assert decode_event("DatasetRegistry", [keccak256(b"Other()")], b"") is None
    assert decode_event("DatasetRegistry", [], b"") is None


def test_every_event_in_the_abis_has_a_topic_of_its_own() -> None:
    for name in ("Forwarder", "DatasetRegistry"):
        events = [entry for entry in artifact(name).abi if entry["type"] == "event"]
        signatures = {f"{event['name']}({','.join(item['type'] for item in event['inputs'])})" for event in events}
        assert len(signatures) == len(events)
