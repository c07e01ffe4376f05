"""Section 0 of the wire formats against its vectors."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rexis.encoding import (
    abi_encode,
    canonical_json,
    checksum_address,
    domain_tag,
    from_hex,
    keccak256,
    parse_canonical_json,
    parse_json,
    sha256,
    to_hex,
)
from rexis.errors import EncodingError

ROOT = Path(__file__).parents[2]
VECTORS = json.loads((ROOT / "tests/vectors/encoding.json").read_text(encoding="ascii"))
MAX_BYTES = 1 << 20


@pytest.mark.parametrize("vector", VECTORS["canonical"])
def test_canonical_json_equals_the_reference_and_parses_back(vector):
    data = canonical_json(vector["value"])
    assert data.hex() == vector["bytes_hex"]
    assert to_hex(sha256(data)) == vector["sha256"]
    assert parse_canonical_json(data, max_bytes=MAX_BYTES) == vector["value"]


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["name"])
def test_bytes_that_are_not_canonical_are_refused(vector):
    with pytest.raises(EncodingError):
        parse_canonical_json(bytes.fromhex(vector["bytes_hex"]), max_bytes=MAX_BYTES)


def test_json_in_another_layout_is_read_only_where_layout_does_not_matter():
    assert parse_json(b'{"b": 1,\n "a": [1, "2.5"]}', max_bytes=MAX_BYTES) == {"b": 1, "a": [1, "2.5"]}
    with pytest.raises(EncodingError, match="duplicate key 'a'"):
        parse_json(b'{"a": 1, "a": 1}', max_bytes=MAX_BYTES)


def test_json_longer_than_its_bound_is_refused():
    assert parse_canonical_json(b"[1]", max_bytes=3) == [1]
    with pytest.raises(EncodingError, match="at most 2 bytes"):
        parse_canonical_json(b"[1]", max_bytes=2)


@pytest.mark.parametrize(
    "value", [1.5, 0.0, float("nan"), {"a": [0.1]}, 2**53, -(2**53), {1: "a"}, {"a": b""}, {1, 2}, object(), "\ud800", {"\ud800": 1}]
)
def test_values_without_canonical_form_are_refused(value):
    with pytest.raises(EncodingError):
        canonical_json(value)


@pytest.mark.parametrize("vector", VECTORS["tags"], ids=lambda vector: vector["tag"])
def test_domain_tags(vector):
    tag = domain_tag(vector["thing"], vector["version"])
    assert tag.decode("ascii") == vector["tag"]
    assert to_hex(keccak256(tag)) == vector["keccak256"]


@pytest.mark.parametrize(("thing", "version"), [("Tensor", 1), ("tensor", 0), ("", 1), ("a/", 1), ("a b", 1), ("tensor\n", 1)])
def test_domain_tags_out_of_form_are_refused(thing, version):
    with pytest.raises(ValueError, match="domain tag"):
        domain_tag(thing, version)


@pytest.mark.parametrize("vector", VECTORS["abi"], ids=lambda vector: ",".join(vector["types"]))
def test_abi_encode_equals_the_reference(vector):
    pairs = zip(vector["types"], vector["values"], strict=True)
    values = [from_hex(value) if name.startswith("bytes") and isinstance(value, str) else value for name, value in pairs]
    assert to_hex(abi_encode(vector["types"], values)) == vector["encoded"]


@pytest.mark.parametrize(
    ("types", "values"),
    [
        (["bytes32"], [b"short"]),
        (["bytes32[]"], [[bytes(32), bytes(31)]]),
        (["bytes32[1][]"], [[[bytes(33)]]]),
        (["uint64"], [2**64]),
        (["uint64"], [-1]),
        (["uint64"], [True]),
        (["bool"], [1]),
        (["address"], ["0x00"]),
        (["bytes16"], ["0x00000000000000000000000000000000"]),
        (["string"], ["\ud800"]),
        (["(uint8,uint8)"], [(1, 2)]),
        (["uint7"], [1]),
        (["nothing"], [1]),
        (["uint8", "uint8"], [1]),
    ],
)
def test_values_that_do_not_fit_their_abi_type_are_refused(types, values):
    with pytest.raises(EncodingError):
        abi_encode(types, values)


def test_hexadecimal_has_one_form():
    assert from_hex("0x00ff") == b"\x00\xff"
    assert from_hex("0x") == b""
    for text in ("00ff", "0x00FF", "0X00ff", "0x0", "0xzz", "0x00ff\n", " 0x00ff", "", None, b"0x00"):
        with pytest.raises(EncodingError):
            from_hex(text)
    with pytest.raises(EncodingError, match="expected 3 bytes in hexadecimal, got 2"):
        from_hex("0x00ff", 3)


@pytest.mark.parametrize("address", VECTORS["addresses"])
def test_addresses_carry_their_checksum(address):
    assert checksum_address(address) == address
    assert checksum_address(address.lower()) == address
    assert checksum_address("0x" + address[2:].upper()) == address
    for text in (address[:-1], address + "0", address[2:], address + "\n", None, 1):
        with pytest.raises(EncodingError):
            checksum_address(text)


def test_a_mistyped_address_is_refused():
    address = VECTORS["addresses"][0]
    with pytest.raises(EncodingError, match="checksum"):
        checksum_address("0x" + address[2:].swapcase())
    # The contract of positional_tree.json, as its author wrote it: abi.encode takes any case, a person's input must not.
    with pytest.raises(EncodingError, match="checksum"):
        checksum_address("0x00000000000000000000000000000000000000aA")


def test_the_reference_makes_the_committed_vectors_again(tmp_path):
    script = ROOT / "tests/vectors/make_reference.py"
    assert "rexis" not in {
        line.split()[1].split(".")[0] for line in script.read_text("utf-8").splitlines() if line.startswith(("import ", "from "))
    }
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, timeout=60)
    made = sorted(tmp_path.iterdir())
    assert len(made) == 14
    for path in made:
        assert path.read_bytes() == (ROOT / "tests/vectors" / path.name).read_bytes(), f"{path.name} differs: run {script.name}"


def test_encoding_and_protocol_load_without_torch():
    code = "import sys, rexis.commitments, rexis.protocol.batch, rexis.protocol.secagg_messages, rexis.protocol.receipt_signature\n"
    code += "import rexis.protocol.relayed_call, rexis.protocol.sign_in, rexis.protocol.uploads\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)
