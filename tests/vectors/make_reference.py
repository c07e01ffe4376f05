"""Independent reference for the wire formats: makes the vectors that tests/vectors/README.md lists under its name.

    python tests/vectors/make_reference.py OUTPUT_DIRECTORY

Written from docs/specifications/wire-formats.md alone. It imports nothing of Rexis and shares no library with it where a formula is
at stake: hashes come from hashlib and pycryptodome, EIP-712, ECDSA (RFC 6979), JCS, safetensors and the tree are spelled out here.
"""

import base64
import hashlib
import hmac
import json
import struct
import sys
from pathlib import Path
from typing import Any

from Crypto.Cipher import AES
from Crypto.Hash import keccak
from eth_abi.abi import encode

ORIGIN = "tests/vectors/make_reference.py, independent reference for wire-formats.md section {}"
# Secret keys of nobody: anyone can compute them.
ALICE, BOB = (hashlib.sha256(f"rexis test vectors: {name}".encode()).digest() for name in ("alice", "bob"))
CHAIN_ID = 31337
CONTRACT = "0x00000000000000000000000000000000000000AA"

P = 2**256 - 2**32 - 977
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
G = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)
Point = tuple[int, int] | None


def keccak256(data: bytes) -> bytes:
    return keccak.new(digest_bits=256, data=data).digest()


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def hexadecimal(data: bytes) -> str:
    return "0x" + data.hex()


def jcs(value: Any) -> bytes:
    if isinstance(value, dict):
        members = sorted(value.items(), key=lambda item: item[0].encode("utf-16-be"))
        return b"{" + b",".join(jcs(key) + b":" + jcs(item) for key, item in members) + b"}"
    if isinstance(value, list | tuple):
        return b"[" + b",".join(map(jcs, value)) + b"]"
    return json.dumps(value, ensure_ascii=False).encode()


def add(a: Point, b: Point) -> Point:
    if a is None or b is None:
        return a or b
    if a[0] == b[0] and (a[1] + b[1]) % P == 0:
        return None
    slope = 3 * a[0] * a[0] * pow(2 * a[1], -1, P) if a == b else (b[1] - a[1]) * pow(b[0] - a[0], -1, P)
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def multiply(k: int, point: Point) -> tuple[int, int]:
    total: Point = None
    while k:
        if k & 1:
            total = add(total, point)
        point, k = add(point, point), k >> 1
    assert total is not None
    return total


def checksum(address: bytes) -> str:
    digits = address.hex()
    marks = keccak256(digits.encode()).hex()
    return "0x" + "".join(d.upper() if int(m, 16) > 7 else d for d, m in zip(digits, marks, strict=False))


def address_of(key: bytes) -> str:
    x, y = multiply(int.from_bytes(key, "big"), G)
    return checksum(keccak256(x.to_bytes(32, "big") + y.to_bytes(32, "big"))[12:])


def sign(digest: bytes, key: bytes) -> bytes:
    z, d = int.from_bytes(digest, "big"), int.from_bytes(key, "big")
    seed = key + (z % N).to_bytes(32, "big")
    v, k = b"\1" * 32, b"\0" * 32
    for byte in (b"\0", b"\1"):
        k = hmac.digest(k, v + byte + seed, "sha256")
        v = hmac.digest(k, v, "sha256")
    v = hmac.digest(k, v, "sha256")
    nonce = int.from_bytes(v, "big")
    assert 0 < nonce < N, "the first candidate of RFC 6979 fits with all but negligible probability"
    x, y = multiply(nonce, G)
    r, odd = x % N, y & 1
    s = pow(nonce, -1, N) * (z + r * d) % N
    if s > N // 2:
        s, odd = N - s, odd ^ 1
    return r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([27 + odd])


def eip712(domain: dict[str, Any], type_string: str, values: list[Any]) -> dict[str, str]:
    names = {"name": "string", "version": "string", "chainId": "uint256", "verifyingContract": "address"}
    domain_type = "EIP712Domain(" + ",".join(f"{names[name]} {name}" for name in domain) + ")"
    separator = struct_hash(domain_type, list(domain.values()))
    struct_digest = struct_hash(type_string, values)
    return {
        "type": type_string,
        "domainSeparator": hexadecimal(separator),
        "structHash": hexadecimal(struct_digest),
        "digest": hexadecimal(keccak256(b"\x19\x01" + separator + struct_digest)),
    }


def struct_hash(type_string: str, values: list[Any]) -> bytes:
    types = [member.split()[0] for member in type_string[type_string.index("(") + 1 : -1].split(",")]
    words = keccak256(type_string.encode())
    for name, value in zip(types, values, strict=True):
        if name in ("string", "bytes"):
            words += keccak256(value.encode() if isinstance(value, str) else value)
        else:
            words += encode([name], [value])
    return keccak256(words)


def tensor_digest(dtype: str, shape: list[int], data: bytes) -> bytes:
    header = jcs({"dtype": dtype, "shape": shape})
    return sha256(b"rexis/tensor/1\0" + struct.pack("<Q", len(header)) + header + struct.pack("<Q", len(data)) + data)


def tree(kind: str, context: bytes, leaves: list[tuple[bytes, bytes, int]]) -> dict[str, Any]:
    kind_hash = keccak256(f"rexis/leaf/{kind}/1".encode())
    types = ["bytes32", "bytes32", "uint64", "uint64", "bytes32", "bytes16"]
    level = [keccak256(b"\0" + encode(types, [kind_hash, context, i, sub, d, salt])) for i, (d, salt, sub) in enumerate(leaves)]
    hashes = list(level)
    while len(level) & (len(level) - 1):
        level.append(keccak256(b"rexis/empty/1"))
    levels = [level]
    while len(level) > 1:
        level = [keccak256(b"\1" + level[i] + level[i + 1]) for i in range(0, len(level), 2)]
        levels.append(level)
    return {
        "type": kind,
        "context": hexadecimal(context),
        "n": len(leaves),
        "digests": [hexadecimal(digest) for digest, _, _ in leaves],
        "salts": [hexadecimal(salt) for _, salt, _ in leaves],
        "subs": [sub for _, _, sub in leaves],
        "leaves": [hexadecimal(leaf) for leaf in hashes],
        "root": hexadecimal(level[0]),
        "record": hexadecimal(keccak256(encode(["bytes32", "uint64", "bytes32"], [kind_hash, len(leaves), level[0]]))),
        "proofs": [[hexadecimal(row[i >> depth ^ 1]) for depth, row in enumerate(levels[:-1])] for i in range(len(leaves))],
    }


def numbered(label: str, i: int, size: int = 32) -> bytes:
    return sha256(f"rexis test vectors: {label} {i}".encode())[:size]


def encoding() -> dict[str, Any]:
    values: list[Any] = [
        None,
        True,
        0,
        -(2**53) + 1,
        2**53 - 1,
        "",
        'quote " backslash \\ slash / tab \t newline \n bell \x07 delete \x7f',
        "€ 𝄞 é e\u0301",
        [],
        {},
        [1, "0.1", [None, {"b": [], "a": {}}]],
        # RFC 8785 sorts by UTF-16 units: the surrogates of 𝄞 (U+1D11E) come before U+FB33.
        {"\ufb33": 1, "𝄞": 2, "é": 3, "€": 4, "\r": 5, "1": 6, "": 7, "A": 8, "a": 9},
        {"shape": [3, 4], "dtype": "f32"},
    ]
    refused = {
        "white space": '{"a": 1}',
        "trailing newline": "1\n",
        "key order": '{"b":1,"a":2}',
        "UTF-16 key order": '{"\ufb33":1,"𝄞":2}',
        "duplicate key": '{"a":1,"a":1}',
        "duplicate key by escape": '{"a":1,"\\u0061":2}',
        "float": "1.0",
        "exponent": "1e2",
        "minus zero": "-0",
        "leading zero": "01",
        "NaN": "NaN",
        "infinity": "Infinity",
        "integer beyond 2^53 - 1": "9007199254740992",
        "long integer": "9" * 400,
        "escaped letter": '"\\u0061"',
        "escaped slash": '"\\/"',
        "upper-case escape": '"\\u000A"',
        "lone surrogate": '"\\ud834"',
        "byte order mark": "\ufeff1",
        "two values": "1 2",
        "nothing": "",
        "nesting": "[" * 100 + "]" * 100,
        "deep nesting": "[" * 3_000,
    }
    abi = [
        (["uint256", "address", "bytes32"], [CHAIN_ID, CONTRACT, numbered("abi", 0)]),
        (["bytes32", "address[]"], [numbered("abi", 1), [address_of(ALICE), address_of(BOB)]]),
        (["uint64", "bytes16", "bool", "string", "bytes"], [2**64 - 1, numbered("abi", 2, 16), True, "é", b"\0\1"]),
        (["bytes32[]", "uint8[2]"], [[], [1, 255]]),
    ]
    return {
        "origin": ORIGIN.format(0),
        "canonical": [{"value": value, "bytes_hex": jcs(value).hex(), "sha256": hexadecimal(sha256(jcs(value)))} for value in values],
        "refused": [{"name": name, "bytes_hex": text.encode("utf-8").hex()} for name, text in refused.items()]
        + [{"name": "not UTF-8", "bytes_hex": "22ff22"}],
        "tags": [
            {"thing": thing, "version": 1, "tag": f"rexis/{thing}/1", "keccak256": hexadecimal(keccak256(f"rexis/{thing}/1".encode()))}
            for thing in ("tensor", "empty", "leaf/receipt", "leaf/audit-log", "secagg/keys")
        ],
        "abi": [
            {
                "types": types,
                "values": [value if not isinstance(value, bytes) else hexadecimal(value) for value in values],
                "encoded": hexadecimal(encode(types, values)),
            }
            for types, values in abi
        ],
        "addresses": [address_of(ALICE), address_of(BOB), CONTRACT],
    }


def tensors() -> dict[str, Any]:
    given = [
        ("bf16_values", "bf16", [2, 2], "803f00c0000041c1", None),
        ("bf16_negative_zero", "bf16", [3], "0080803f0080", "0000803f0000"),
        ("f16_negative_zero", "f16", [2], "0080003c", "0000003c"),
        ("f64_negative_zero", "f64", [1, 2], "0000000000000080000000000000f03f", "0000000000000000000000000000f03f"),
        ("f32_subnormals", "f32", [2], "0100000001000080", None),
        ("f32_largest", "f32", [2], "ffff7f7fffff7fff", None),
        ("i8", "i8", [3], "807fff", None),
        ("i16_not_a_float", "i16", [2], "00800080", None),
        ("i32", "i32", [1], "00000080", None),
        ("bool", "bool", [4], "00010001", None),
        ("scalar_bool", "bool", [], "01", None),
        ("shape_is_bound", "u8", [3, 2], "010203040506", None),
        ("shape_is_bound_transposed", "u8", [2, 3], "010203040506", None),
    ]
    refused = [
        ("f32_nan", "f32", [1], "0000c07f"),
        ("f32_signalling_nan", "f32", [2], "000000000100a07f"),
        ("f32_negative_nan", "f32", [1], "0000c0ff"),
        ("f32_infinity", "f32", [1], "0000807f"),
        ("f32_negative_infinity", "f32", [1], "000080ff"),
        ("f64_nan", "f64", [1], "010000000000f07f"),
        ("f64_infinity", "f64", [1], "000000000000f0ff"),
        ("bf16_nan", "bf16", [1], "c07f"),
        ("bf16_infinity", "bf16", [1], "80ff"),
        ("f16_nan", "f16", [1], "017c"),
        ("f16_infinity", "f16", [1], "00fc"),
        ("bool_of_two", "bool", [1], "02"),
        ("too_short", "f32", [2], "0000803f"),
        ("half_an_element", "f32", [1], "0000"),
        ("too_long", "f32", [1], "0000803f00"),
        ("unknown_dtype", "f8", [1], "00"),
        ("capital_dtype", "F32", [1], "0000803f"),
        ("negative_length", "u8", [-1], ""),
        ("too_large", "u8", [2**40, 2**40], ""),
    ]
    model = {
        "version": 1,
        "family": "mlp",
        "config": {"inputs": 3, "hidden": [2], "outputs": 1, "activation": "relu"},
        "tensors": [
            {"name": "0.weight", "shape": [2, 3]},
            {"name": "0.bias", "shape": [2]},
            {"name": "2.weight", "shape": [1, 2]},
            {"name": "2.bias", "shape": [1]},
        ],
    }
    spec = sha256(b"rexis/model-spec/1\0" + jcs(model))
    weights = {
        "0.weight": ([2, 3], [0.5, -1.0, 0.0, 2.0, 0.25, -0.125]),
        "0.bias": ([2], [0.0, 1.5]),
        "2.weight": ([1, 2], [-3.0, 4.0]),
        "2.bias": ([1], [0.0625]),
    }
    packed = {name: struct.pack(f"<{len(numbers)}f", *numbers) for name, (_, numbers) in weights.items()}
    digests = {name: tensor_digest("f32", shape, packed[name]) for name, (shape, _) in weights.items()}
    leaves = [(spec, bytes(16), 0)] + [(digests[name], bytes(16), 0) for name in sorted(digests, key=str.encode)]
    return {
        "origin": ORIGIN.format(1),
        "vectors": [
            {
                "name": name,
                "dtype": dtype,
                "shape": shape,
                "bytes_hex_as_given": data,
                "digest": hexadecimal(tensor_digest(dtype, shape, bytes.fromhex(canonical or data))),
            }
            for name, dtype, shape, data, canonical in given
        ],
        "refused": [{"name": name, "dtype": dtype, "shape": shape, "bytes_hex": data} for name, dtype, shape, data in refused],
        "model": {
            "spec": {"version": 1, "family": model["family"], "config": model["config"]},
            "specDigest": hexadecimal(spec),
            "dtype": "f32",
            "tensors": [
                {"name": name, "shape": shape, "values": numbers, "digest": hexadecimal(digests[name])}
                for name, (shape, numbers) in weights.items()
            ],
            "order": sorted(digests, key=str.encode),
            "record": tree("weight", bytes(32), leaves)["record"],
        },
    }


def trees() -> dict[str, Any]:
    context = keccak256(encode(["uint256", "address", "bytes32"], [CHAIN_ID, CONTRACT, numbered("context", 0)]))
    kinds = ("weight", "data", "label", "act", "out", "score", "receipt", "update", "audit-log", "reward")
    made = []
    for n, kind in zip((1, 2, 3, 4, 5, 6, 7, 8, 9, 10), kinds, strict=True):
        leaves = [
            (numbered(kind, i), bytes(16) if kind == "weight" else numbered(f"{kind} salt", i, 16), i % 3 if kind == "act" else 0)
            for i in range(n)
        ]
        made.append(tree(kind, bytes(32) if kind == "weight" else context, leaves))
    honest = made[4]
    i, proof = 2, made[4]["proofs"][2]
    base = {
        "type": "out",
        "context": honest["context"],
        "index": i,
        "digest": honest["digests"][i],
        "salt": honest["salts"][i],
        "sub": 0,
        "nLeaves": 5,
        "proof": proof,
        "record": honest["record"],
    }
    flipped = hexadecimal(bytes([bytes.fromhex(proof[0][2:])[0] ^ 1]) + bytes.fromhex(proof[0][4:]))
    wrong = {
        "wrong-index": {"index": 3},
        "index-not-below-n": {"index": 5},
        "padding-index": {"index": 6},
        "index-plus-two-to-h": {"index": 10},
        "negative-index": {"index": -1},
        "wrong-digest": {"digest": honest["digests"][3]},
        "wrong-salt": {"salt": honest["salts"][3]},
        "wrong-sub": {"sub": 1},
        "wrong-type": {"type": "score"},
        "unknown-type": {"type": "outs"},
        "wrong-context": {"context": hexadecimal(bytes(32))},
        "short-context": {"context": honest["context"][:-2]},
        "n-leaves-plus-one": {"nLeaves": 6},
        "n-leaves-minus-one": {"nLeaves": 4},
        "n-leaves-of-same-height": {"nLeaves": 8},
        "no-leaves": {"nLeaves": 0},
        "n-leaves-beyond-64-bits": {"nLeaves": 2**64},
        "proof-bit": {"proof": [flipped, *proof[1:]]},
        "proof-swapped": {"proof": [proof[1], proof[0], proof[2]]},
        "proof-reversed": {"proof": proof[::-1]},
        "proof-shortened": {"proof": proof[:-1]},
        "proof-without-first": {"proof": proof[1:]},
        "proof-lengthened": {"proof": [*proof, hexadecimal(keccak256(b"rexis/empty/1"))]},
        "proof-duplicated": {"proof": [*proof, proof[-1]]},
        "proof-empty": {"proof": []},
        "sibling-truncated": {"proof": [proof[0][:-2], *proof[1:]]},
        "root-instead-of-record": {"record": honest["root"]},
        "record-of-another-tree": {"record": made[5]["record"]},
        # An inner node can not pass for a leaf of a tree of half the size: its digest is hashed again, with its position.
        "inner-node-as-leaf": {
            "index": 1,
            "digest": honest["proofs"][0][1],
            "salt": hexadecimal(bytes(16)),
            "nLeaves": 3,
            "proof": proof[1:],
        },
    }
    return {
        "origin": ORIGIN.format(2),
        "trees": made,
        "accepted": base,
        "refused": [{"name": name, **base, **change} for name, change in wrong.items()],
    }


def receipts() -> dict[str, Any]:
    issuer = address_of(ALICE)
    plain = {
        "model": hexadecimal(numbered("model", 0)),
        "input": hexadecimal(numbered("input", 0)),
        "output": hexadecimal(numbered("output", 0)),
        "issued": "2026-11-21T03:34:00Z",
    }
    salt = numbered("receipt salt", 0, 16)
    seconds = 1795232040
    values = [numbered("model", 0), numbered("input", 0), numbered("output", 0), salt, seconds, issuer]
    typed = eip712(
        {"name": "Rexis", "version": "1", "chainId": CHAIN_ID},
        "InferenceReceipt(bytes32 model,bytes32 input,bytes32 output,bytes16 salt,uint64 issued,address issuer)",
        values,
    )
    receipt = {
        "version": 1,
        **plain,
        "batch": None,
        "index": None,
        "salt": hexadecimal(salt),
        "issuer": issuer,
        "signature": hexadecimal(sign(bytes.fromhex(typed["digest"][2:]), ALICE)),
    }
    digest = sha256(jcs(plain))
    types = ["uint256", "address", "address", "address", "bytes32", "uint64"]
    batch_id = keccak256(encode(types, [CHAIN_ID, CONTRACT, issuer, address_of(BOB), numbered("model", 0), 7]))
    context = keccak256(encode(["uint256", "address", "bytes32"], [CHAIN_ID, CONTRACT, batch_id]))
    batch = tree("receipt", context, [(digest, salt, 0), (numbered("other receipt", 0), numbered("other salt", 0, 16), 0)])
    changes: dict[str, Any] = {
        "another version": {"version": 2},
        "version as text": {"version": "1"},
        "version true": {"version": True},
        "unknown field": {"note": ""},
        "short model": {"model": plain["model"][:-2]},
        "upper-case digits": {"input": "0x" + plain["input"][2:].upper()},
        "no prefix": {"output": plain["output"][2:]},
        "salt of 15 bytes": {"salt": hexadecimal(salt[:15])},
        "seconds": {"issued": "2026-11-21T03:34:05Z"},
        "time without seconds": {"issued": "2026-11-21T03:34Z"},
        "offset": {"issued": "2026-11-21T03:34:00+00:00"},
        "time not padded": {"issued": "2026-11-21T3:34:00Z"},
        "no such day": {"issued": "2026-02-30T03:34:00Z"},
        "time as number": {"issued": seconds},
        "issuer in lower case": {"issuer": issuer.lower()},
        "batch without index": {"batch": hexadecimal(numbered("batch", 0))},
        "index without batch": {"index": 0},
        "negative index": {"batch": hexadecimal(numbered("batch", 0)), "index": -1},
        "index as text": {"batch": hexadecimal(numbered("batch", 0)), "index": "0"},
        "no signature": {"signature": None},
        "short signature": {"signature": receipt["signature"][:-2]},
    }
    return {
        "origin": ORIGIN.format(3),
        "privateKey": hexadecimal(ALICE),
        "chainId": CHAIN_ID,
        "receipt": receipt,
        "digest": hexadecimal(digest),
        "eip712": typed,
        "batch": {
            "id": hexadecimal(batch_id),
            "contract": CONTRACT,
            "operator": issuer,
            "owner": address_of(BOB),
            "model": plain["model"],
            "sequence": 7,
            **batch,
        },
        "refused": [{"name": name, "receipt": {**receipt, **change}} for name, change in changes.items()]
        + [{"name": "missing field", "receipt": {key: value for key, value in receipt.items() if key != "salt"}}],
    }


def receipt_bundle() -> dict[str, Any]:
    """The second of three receipts of a batch, and the file that shows it to be there."""
    issuer, owner, operator = address_of(ALICE), address_of(BOB), checksum(numbered("operator", 0, 20))
    identity = {
        "chain_id": CHAIN_ID,
        "registry": CONTRACT,
        "operator": operator,
        "owner": owner,
        "model": hexadecimal(numbered("model", 0)),
        "sequence": 7,
    }
    types = ["uint256", "address", "address", "address", "bytes32", "uint64"]
    batch_id = keccak256(encode(types, [CHAIN_ID, CONTRACT, operator, owner, numbered("model", 0), 7]))
    context = keccak256(encode(["uint256", "address", "bytes32"], [CHAIN_ID, CONTRACT, batch_id]))
    made = []
    for i in range(3):
        salt = numbered("receipt salt", i, 16)
        signed = eip712(
            {"name": "Rexis", "version": "1", "chainId": CHAIN_ID},
            "InferenceReceipt(bytes32 model,bytes32 input,bytes32 output,bytes16 salt,uint64 issued,address issuer)",
            [numbered("model", 0), numbered("input", i), numbered("output", i), salt, 1795232040, issuer],
        )
        plain = {
            "model": hexadecimal(numbered("model", 0)),
            "input": hexadecimal(numbered("input", i)),
            "output": hexadecimal(numbered("output", i)),
            "issued": "2026-11-21T03:34:00Z",
        }
        signature = hexadecimal(sign(bytes.fromhex(signed["digest"][2:]), ALICE))
        receipt = {"version": 1, **plain, "batch": hexadecimal(batch_id), "index": i, "salt": hexadecimal(salt)}
        made.append((sha256(jcs(plain)), salt, {**receipt, "issuer": issuer, "signature": signature}))
    batch = tree("receipt", context, [(digest, salt, 0) for digest, salt, _ in made])
    content = {
        "version": 1,
        "receipt": made[1][2],
        "batch": identity,
        "count": 3,
        "record": batch["record"],
        "proof": batch["proofs"][1],
        "transaction": {
            "hash": hexadecimal(numbered("transaction", 0)),
            "block_number": 42,
            "block_hash": hexadecimal(numbered("block", 0)),
        },
    }
    bundle = {**content, "checksum": hexadecimal(sha256(b"rexis/receipt-bundle/1\0" + jcs(content)))}
    changes: dict[str, Any] = {
        "another version": {"version": 2},
        "version true": {"version": True},
        "unknown field": {"note": ""},
        "receipt without batch": {"receipt": {**made[1][2], "batch": None, "index": None}},
        "no receipts": {"count": 0},
        "more receipts than 32 bits": {"count": 2**32},
        "count as text": {"count": "3"},
        "short record": {"record": batch["record"][:-2]},
        "proof as text": {"proof": "".join(batch["proofs"][1])},
        "short sibling": {"proof": [batch["proofs"][1][0], "0x00"]},
        "chain 0": {"batch": {**identity, "chain_id": 0}},
        "negative number": {"batch": {**identity, "sequence": -1}},
        "owner in lower case": {"batch": {**identity, "owner": owner.lower()}},
        "batch without operator": {"batch": {key: value for key, value in identity.items() if key != "operator"}},
        "block as text": {"transaction": {**content["transaction"], "block_number": "42"}},
        "no transaction": {"transaction": None},
        "no checksum": {"checksum": None},
    }
    return {
        "origin": ORIGIN.format(3),
        "file": jcs(bundle).decode(),
        "bundle": bundle,
        "digest": hexadecimal(made[1][0]),
        "batch": {"id": hexadecimal(batch_id), **batch},
        "refused": [{"name": name, "file": jcs({**bundle, **change}).decode()} for name, change in changes.items()]
        + [{"name": "missing field", "file": jcs({key: value for key, value in bundle.items() if key != "count"}).decode()}]
        + [{"name": "line feed at the end", "file": jcs(bundle).decode() + "\n"}]
        + [{"name": "white space", "file": json.dumps(bundle, sort_keys=True)}]
        + [{"name": "another order", "file": json.dumps(bundle, separators=(",", ":"))}]
        + [{"name": "a name twice", "file": '{"version":1,' + jcs(bundle).decode()[1:]}],
    }


def safetensors(header: dict[str, Any], data: bytes) -> bytes:
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def files() -> dict[str, Any]:
    spec = {
        "version": 1,
        "kind": "batch",
        "tensors": [
            {"name": "labels", "dtype": "i64", "shape": ["n"]},
            {"name": "x", "dtype": "f32", "shape": ["n", 2]},
        ],
    }
    digest = sha256(b"rexis/file-spec/1\0" + jcs(spec))
    labels, x = struct.pack("<3q", 0, 1, 1), struct.pack("<6f", 1.0, 0.0, -2.5, 3.0, 0.5, 0.25)
    meta = {"rexis.format": "1", "rexis.kind": "batch", "rexis.spec": hexadecimal(digest)}
    header = {
        "__metadata__": meta,
        "labels": {"dtype": "I64", "shape": [3], "data_offsets": [0, 24]},
        "x": {"dtype": "F32", "shape": [3, 2], "data_offsets": [24, 48]},
    }
    whole = safetensors(header, labels + x)
    digests = {"labels": tensor_digest("i64", [3], labels), "x": tensor_digest("f32", [3, 2], x)}
    record = tree("data", bytes(32), [(digest, bytes(16), 0), (digests["labels"], bytes(16), 0), (digests["x"], bytes(16), 0)])["record"]

    def entry(name: str, **change: Any) -> dict[str, Any]:
        return {**header, name: {**header[name], **change}}

    def metadata(**change: Any) -> dict[str, Any]:
        return {**header, "__metadata__": {**meta, **{f"rexis.{key}": value for key, value in change.items()}}}

    compact = json.dumps(header, separators=(",", ":"))
    data = labels + x
    wrong: dict[str, bytes] = {
        "empty": b"",
        "seven bytes": whole[:7],
        "length only": struct.pack("<Q", 2),
        "header longer than the file": struct.pack("<Q", len(whole)) + whole[8:],
        "header length of 2^64 - 1": b"\xff" * 8 + whole[8:],
        "header of more than 1 MiB": safetensors({**header, "__metadata__": {**meta, "pad": "p" * (1 << 20)}}, data),
        "truncated data": whole[:-1],
        "trailing byte": whole + b"\0",
        "trailing eight bytes": whole + bytes(8),
        "overlap": safetensors(entry("x", data_offsets=[16, 40]), data[:40]),
        "both tensors over the same bytes": safetensors(entry("x", data_offsets=[0, 24]), data[:24]),
        "hole": safetensors(entry("x", data_offsets=[32, 56]), labels + bytes(8) + x),
        "hole at the start": safetensors(
            {**entry("x", data_offsets=[32, 56]), "labels": {"dtype": "I64", "shape": [3], "data_offsets": [8, 32]}}, bytes(8) + data
        ),
        "offsets reversed": safetensors(entry("x", data_offsets=[48, 24]), data),
        "negative offset": safetensors(entry("labels", data_offsets=[-24, 0]), data),
        "three offsets": safetensors(entry("x", data_offsets=[24, 48, 48]), data),
        "offsets as text": safetensors(entry("x", data_offsets=["24", "48"]), data),
        "offset as boolean": safetensors(entry("labels", data_offsets=[False, 24]), data),
        "length as boolean": safetensors(
            {**entry("x", shape=[True, 2], data_offsets=[8, 16]), "labels": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}},
            data[:16],
        ),
        "shape times dtype below the bytes": safetensors(entry("x", shape=[2, 2]), data),
        "shape times dtype above the bytes": safetensors(entry("x", shape=[4, 2]), data),
        "negative lengths that multiply to the right size": safetensors(entry("x", shape=[-3, -2]), data),
        "product that wraps 64 bits": safetensors(entry("x", shape=[2**52, 2**52, 6]), data),
        "float length": safetensors(entry("x", shape=[3.0, 2]), data),
        "unknown dtype": safetensors(entry("x", dtype="F8_E4M3"), data),
        "small dtype": safetensors(entry("x", dtype="f32"), data),
        "dtype of same size": safetensors(entry("x", dtype="I32"), data),
        "unknown field": safetensors(entry("x", stride=[2, 1]), data),
        "missing field": safetensors({**header, "x": {"dtype": "F32", "shape": [3, 2]}}, data),
        "duplicate tensor": pad(compact[:-1] + ',"x":' + json.dumps(header["x"]) + "}", data),
        "duplicate metadata": pad(compact[:-1] + ',"__metadata__":' + json.dumps(meta) + "}", data),
        "duplicate field": pad(compact.replace('"dtype":"F32"', '"dtype":"F32","dtype":"F32"'), data),
        "leading space": pad(" " + compact, data),
        "trailing tab": pad(compact + "\t", data),
        "not an object": pad("[]", data),
        "not JSON": pad("{", data),
        "not UTF-8": struct.pack("<Q", 8) + b'{"\xff":1}' + data,
        "deep nesting": pad("{" + '"a":{' * 1200, data),
        "no metadata": safetensors({name: item for name, item in header.items() if name != "__metadata__"}, data),
        "metadata of pickles": safetensors({**header, "__metadata__": {**meta, "format": "pt"}}, data),
        "another format": safetensors(metadata(format="2"), data),
        "another kind": safetensors(metadata(kind="model"), data),
        "unknown kind": safetensors(metadata(kind="pickle"), data),
        "another spec": safetensors(metadata(spec=hexadecimal(numbered("spec", 0))), data),
        "short spec": safetensors(metadata(spec="0x00"), data),
        "missing tensor": safetensors({name: item for name, item in header.items() if name != "x"}, labels),
        "extra tensor": safetensors({**header, "y": {"dtype": "U8", "shape": [1], "data_offsets": [48, 49]}}, data + b"\0"),
        "control character in a name": safetensors({**header, "x\n": header["x"]}, data),
        "rows differ": safetensors(entry("x", shape=[2, 2], data_offsets=[24, 40]), data[:40]),
        "width differs": safetensors(entry("x", shape=[2, 3]), data),
        "dimensions differ": safetensors(entry("x", shape=[3, 2, 1]), data),
        "no rows": safetensors(
            {
                "__metadata__": meta,
                "labels": {"dtype": "I64", "shape": [0], "data_offsets": [0, 0]},
                "x": {"dtype": "F32", "shape": [0, 2], "data_offsets": [0, 0]},
            },
            b"",
        ),
        "no tensors": safetensors({"__metadata__": meta}, b""),
    }
    parts = [numbered("part", i) for i in range(3)]
    total = 2 * 8 * 1024 * 1024 + 5
    content = b"rexis"
    return {
        "origin": ORIGIN.format(4),
        "file": {
            "spec": spec,
            "specDigest": hexadecimal(digest),
            "bytes_hex": whole.hex(),
            "lengths": {"n": 3},
            "digests": {name: hexadecimal(value) for name, value in digests.items()},
            "record": record,
        },
        "refused": [{"name": name, **compressed(value)} for name, value in wrong.items()],
        "upload": {
            "partSize": 8 * 1024 * 1024,
            "manifest": {"totalBytes": total, "parts": [hexadecimal(part) for part in parts]},
            "digest": hexadecimal(sha256(b"rexis/upload/1\0" + struct.pack("<QQ", total, 8 * 1024 * 1024) + b"".join(parts))),
        },
        "contentDigest": {
            "content_hex": content.hex(),
            "header": "sha-256=:" + base64.b64encode(sha256(content)).decode() + ":",
            "refused": [
                "",
                "sha-256=" + base64.b64encode(sha256(content)).decode(),
                "SHA-256=:" + base64.b64encode(sha256(content)).decode() + ":",
                "sha-512=:" + base64.b64encode(hashlib.sha512(content).digest()).decode() + ":",
                "sha-256=:" + base64.b64encode(sha256(content)).decode() + ":, sha-512=:AAAA:",
                "sha-256=:" + base64.b64encode(sha256(content)[:31]).decode() + ":",
                "sha-256=:" + "A" * 42 + "B=:",
                "sha-256=:" + base64.b64encode(sha256(content)).decode() + ":\n",
                "sha-256=:" + sha256(content).hex() + ":",
            ],
        },
    }


def pad(text: str, data: bytes) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw + data


def compressed(data: bytes) -> dict[str, Any]:
    # Long files are runs of one byte; the vectors stay readable by storing the run as a count.
    run = b"p" * (1 << 20)
    if run in data:
        before, after = data.split(run)
        return {"before_hex": before.hex(), "fill_hex": "70", "fill_count": len(run), "after_hex": after.hex()}
    return {"bytes_hex": data.hex()}


def secure_aggregation() -> dict[str, Any]:
    alice, bob = address_of(ALICE), address_of(BOB)
    federation, manifest = numbered("federation", 0), numbered("manifest", 0)
    types = ["uint256", "address", "bytes32", "uint64", "uint64", "bytes32"]
    ctx = keccak256(encode(types, [CHAIN_ID, CONTRACT, federation, 3, 1, manifest]))
    both = sorted((alice, bob), key=str.lower)
    survivors = keccak256(encode(["bytes32", "address[]"], [ctx, both]))
    payloads = {
        "keys": {"position": 1, "mask": hexadecimal(numbered("mask", 0)), "encryption": hexadecimal(numbered("encryption", 0))},
        "shares": {
            "commitment": hexadecimal(numbered("commitment", 0)),
            "ciphertexts": [{"to": bob, "ciphertext": hexadecimal(b"".join(numbered("ciphertext", i) for i in range(3))[:94])}],
        },
        "masked": {"upload": "0b9fd0d9", "digest": hexadecimal(numbered("upload", 0)), "bits": 32, "length": 1000},
        "survivors": {"survivors": both, "masked": hexadecimal(numbered("masked", 0))},
        "unmask": {
            "survivors": hexadecimal(survivors),
            "self": [{"of": both[0], "share": hexadecimal(bytes(1) + numbered("share", 0))}],
            "pairwise": [{"of": both[1], "share": hexadecimal(bytes(1) + numbered("share", 1))}],
        },
    }
    messages = []
    for stage, payload in payloads.items():
        digest = sha256(f"rexis/secagg/{stage}/1\0".encode() + jcs(payload))
        typed = eip712(
            {"name": "Rexis", "version": "1", "chainId": CHAIN_ID, "verifyingContract": CONTRACT},
            "SecureAggregationMessage(bytes32 ctx,string stage,address sender,bytes32 payload)",
            [ctx, stage, alice, digest],
        )
        body = {
            "version": 1,
            "stage": stage,
            "ctx": hexadecimal(ctx),
            "sender": alice,
            "payload": payload,
            "signature": hexadecimal(sign(bytes.fromhex(typed["digest"][2:]), ALICE)),
        }
        messages.append({"payloadDigest": hexadecimal(digest), "eip712": typed, "bytes_hex": jcs(body).hex()})
    changes: dict[str, tuple[str, dict[str, Any]]] = {
        "position zero": ("keys", {"position": 0}),
        "position as text": ("keys", {"position": "1"}),
        "short key": ("keys", {"mask": "0x00"}),
        "sample count beside the vector": ("masked", {"samples": 303}),
        "ciphertext of 93 bytes": ("shares", {"ciphertexts": [{"to": bob, "ciphertext": "0x" + "00" * 93}]}),
        "two ciphertexts to one address": ("shares", {"ciphertexts": payloads["shares"]["ciphertexts"] * 2}),
        "ring of 8 bits": ("masked", {"bits": 8}),
        "no entries": ("masked", {"length": 0}),
        "path as upload": ("masked", {"upload": "../0b9fd0d9"}),
        "survivors in descending order": ("survivors", {"survivors": both[::-1]}),
        "survivor twice": ("survivors", {"survivors": [both[0], both[0]]}),
        "survivor in lower case": ("survivors", {"survivors": [both[0].lower()]}),
        "both shares of one participant": ("unmask", {"pairwise": payloads["unmask"]["self"]}),
        "share of 32 bytes": ("unmask", {"self": [{"of": both[0], "share": "0x" + "00" * 32}]}),
    }
    return {
        "origin": ORIGIN.format(5),
        "privateKey": hexadecimal(ALICE),
        "sender": alice,
        "chainId": CHAIN_ID,
        "registry": CONTRACT,
        "federation": hexadecimal(federation),
        "round": 3,
        "attempt": 1,
        "manifestHash": hexadecimal(manifest),
        "ctx": hexadecimal(ctx),
        "survivors": {"addresses": both, "hash": hexadecimal(survivors)},
        "messages": messages,
        "refused": [{"name": name, "stage": stage, "payload": {**payloads[stage], **change}} for name, (stage, change) in changes.items()],
    }


def federation_rounds() -> dict[str, Any]:
    alice, bob = address_of(ALICE), address_of(BOB)
    both = sorted((alice, bob), key=str.lower)
    federation = keccak256(encode(["uint256", "address", "address", "bytes32"], [CHAIN_ID, CONTRACT, alice, numbered("config", 0)]))
    types = ["uint256", "address", "bytes32", "uint64", "uint64", "bytes32"]
    ctx = keccak256(encode(types, [CHAIN_ID, CONTRACT, federation, 3, 2, numbered("manifest", 0)]))
    survivors = keccak256(encode(["bytes32", "address[]"], [ctx, both]))
    accumulator, commitments = ctx, []
    for i, participant in enumerate(both):
        digest, salt = numbered("update", i), numbered("update salt", i, 16)
        commitment = keccak256(encode(["bytes32", "address", "bytes32", "bytes16"], [ctx, participant, digest, salt]))
        accumulator = keccak256(encode(["bytes32", "address", "bytes32"], [accumulator, participant, commitment]))
        commitments.append({"participant": participant, "digest": digest, "salt": salt, "commitment": commitment})
    shared = {"federation": federation, "round": 3, "attempt": 2, "survivorsHash": survivors}
    result = {**shared, "accumulator": accumulator, "updates": 2} | {
        name: numbered(name, 0) for name in ("baseModel", "aggregate", "model", "metrics")
    }
    structs = {
        "Survivors(bytes32 federation,uint64 round,uint64 attempt,bytes32 survivorsHash,bytes32 maskedRecord)": shared
        | {"maskedRecord": numbered("masked", 0)},
        "Result(bytes32 federation,uint64 round,uint64 attempt,bytes32 survivorsHash,bytes32 accumulator,uint32 updates,"
        "bytes32 baseModel,bytes32 aggregate,bytes32 model,bytes32 metrics,uint64 epsilonMicro)": result | {"epsilonMicro": 2_500_000},
    }
    domain = {"name": "Rexis", "version": "1", "chainId": CHAIN_ID, "verifyingContract": CONTRACT}
    signed = []
    for type_string, message in structs.items():
        typed = eip712(domain, type_string, list(message.values()))
        digest = bytes.fromhex(typed["digest"][2:])
        signatures = {signer: sign(digest, ALICE if signer == alice else BOB) for signer in both}
        signed.append({"message": message, "eip712": typed, "signatures": signatures})
    return {
        "origin": ORIGIN.format(5),
        "chainId": CHAIN_ID,
        "registry": CONTRACT,
        "founder": alice,
        "configHash": numbered("config", 0),
        "federation": federation,
        "round": 3,
        "attempt": 2,
        "manifestHash": numbered("manifest", 0),
        "ctx": ctx,
        "commitments": commitments,
        "accumulator": accumulator,
        "survivors": both,
        "signed": signed,
    }


def federation_config() -> dict[str, Any]:
    members = [{"address": checksum(bytes(19) + bytes([16 + i])), "dataset": 10 + i} for i in range(4)]
    features = {
        "version": 1,
        "inputs": [{"column": "age", "kind": "number"}, {"column": "cp", "kind": "levels", "levels": ["typical", "none"]}],
        "target": {"column": "num", "above": "0"},
    }
    config = {
        "version": 1,
        "name": "Vier Häuser",
        "kind": "statistics",
        "founder": address_of(ALICE),
        "members": members,
        "aggregators": [address_of(BOB)],
        "quorum": 1,
        "collusion_bound": 1,
        "threshold": 3,
        "min_survivors": 3,
        "purpose": 6,
        "features": features,
        "stage_s": 10,
        "training": None,
        "statistics": {"identifier": "moments", "scale_bits": 16},
    }
    statistic = sha256(b"rexis/statistic/1\0" + jcs({"statistic": config["statistics"], "features": features, "members": members}))
    plan = {
        "model": {"version": 1, "family": "logistic", "config": {"inputs": 3, "outputs": 1}},
        "rounds": 10,
        "steps": 5,
        "learning_rate": "0.5",
        "batch_size": None,
        "proximal": "0",
        "clipping_norm": "10",
        "weight_cap": 200,
        "weight_band": 25,
        "standardisation": hexadecimal(numbered("federation", 0)),
    }
    training = {**config, "kind": "training", "statistics": None, "training": plan}
    manifest = {
        "version": 1,
        "federation": hexadecimal(numbered("federation", 1)),
        "round": 2,
        "attempt": 1,
        "config": hexadecimal(sha256(jcs(training))),
        "base_model": hexadecimal(numbered("model", 1)),
        "roster": [member["address"] for member in members],
        "collusion_bound": 1,
        "threshold": 3,
        "min_survivors": 3,
        "ring_bits": 32,
        "length": 6,
        "clipping_norm": "10",
        "weight_cap": 200,
        "weight_band": 25,
        "deadlines": {"keys": 1010, "shares": 1020, "masked": 1030, "unmask": 1040},
    }
    # Four members: B = floor((2^31 - 1) / 4), s = floor(B / 10). 30 examples weigh 50 of 200.
    scale, weight = (2**31 - 1) // 4 // 10, 50
    delta = [0.5, -1.25, 0.0, 3.0]
    entries = [round(value * scale * weight / 200) for value in delta] + [weight, round(1000 * 0.75) * weight]
    inputs = [[63.0, 1.0, 0.0], [40.5, 0.0, 0.0]]
    sums = [sum(row[i] for row in inputs) for i in range(3)] + [sum(row[i] ** 2 for row in inputs) for i in range(3)]
    result = {"version": 1, "statistic": "moments", "count": 2, "mean": ["51.75", "0.5", "0"], "sd": ["11.25", "0.5", "1"]}
    # Rows with how many there are of each, and one of what the plan does not name, which a site leaves out of an exact sum.
    table_plan = {
        "identifier": "table",
        "dimensions": [{"column": "cp", "levels": ["typical", "none"]}, {"column": "age", "bands": ["50.5"]}],
        "minimum_cell": 5,
    }
    table_rows = [[6, ["typical", "50.5"]], [5, ["none", "31"]], [5, ["", "80"]], [1, ["typical", "old"]]]
    cells = [0, 6, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0]
    survival_plan = {
        "identifier": "survival",
        "time": "months",
        "event": {"column": "num", "events": ["1"], "censored": ["0"]},
        "edges": ["6", "12.5"],
        "group": {"column": "cp", "levels": ["typical", "none"]},
        "minimum_cell": 5,
    }
    survival_rows = [[5, ["typical", "6", "1"]], [6, ["typical", "6.1", "0"]], [7, ["none", "0", "0"]], [5, ["none", "13", "1"]]]
    survival_rows += [[5, ["none", "", "1"]], [1, ["other", "6", "1"]]]
    # Of each group events and censorings at each edge, then who was followed longer; at last who is in no curve.
    survival_cells = [5, 0, 0, 6, 0, 0, 0, 7, 0, 5, 6]
    survival_groups = [{"events": [5, 0], "censored": [0, 6], "after": 0}, {"events": [0, 0], "censored": [7, 0], "after": 5}]
    counted = {}
    for kind, counts_plan, columns, rows, counts, counts_result in (
        ("table", table_plan, ["cp", "age"], table_rows, cells, {"version": 1, "statistic": "table", "cells": cells}),
        (
            "survival",
            survival_plan,
            ["cp", "months", "num"],
            survival_rows,
            survival_cells,
            {"version": 1, "statistic": "survival", "groups": survival_groups, "left_out": 6},
        ),
    ):
        counts_config = {**config, "statistics": counts_plan}
        counted[kind] = {
            "config": counts_config,
            "configHash": sha256(jcs(counts_config)),
            "statistic": sha256(b"rexis/statistic/1\0" + jcs({"statistic": counts_plan, "features": features, "members": members})),
            "columns": columns,
            "rows": rows,
            "vector": struct.pack(f"<{len(counts)}Q", *counts),
            "result": counts_result,
            "resultHash": sha256(jcs(counts_result)),
        }
    return {
        "origin": ORIGIN.format(5),
        **counted,
        "statistics": {"config": config, "configHash": sha256(jcs(config)), "statistic": statistic},
        "training": {"config": training, "configHash": sha256(jcs(training))},
        "features": {
            "columns": ["num", "cp", "age"],
            "rows": [["0", "typical", "63"], ["3", "other", "40.5"]],
            "inputs": inputs,
            "labels": [0, 1],
        },
        "manifest": {"document": manifest, "manifestHash": sha256(jcs(manifest))},
        "update": {"delta": delta, "examples": 30, "loss": 0.75, "vector": struct.pack("<6I", *(value % 2**32 for value in entries))},
        "moments": {
            "vector": struct.pack("<7Q", 2, *(round(value * 2**16) for value in sums)),
            "result": result,
            "resultHash": sha256(jcs(result)),
        },
    }


def relayed_call() -> dict[str, Any]:
    sender = address_of(ALICE)
    forwarder = checksum(numbered("forwarder", 0, 20))
    calls = []
    for nonce, deadline, data in ((0, 1795232040, b""), (2**256 - 1, 2**48 - 1, bytes.fromhex("a9059cbb") + numbered("calldata", 0) * 2)):
        typed = eip712(
            {"name": "RexisForwarder", "version": "1", "chainId": CHAIN_ID, "verifyingContract": forwarder},
            "Request(address from,address to,uint256 gas,uint256 nonce,uint48 deadline,bytes data)",
            [sender, CONTRACT, 500_000, nonce, deadline, data],
        )
        request = {
            "from": sender,
            "to": CONTRACT,
            "gas": "500000",
            "nonce": str(nonce),
            "deadline": str(deadline),
            "data": hexadecimal(data),
        }
        signature = sign(bytes.fromhex(typed["digest"][2:]), ALICE)
        calls.append({"request": request, "eip712": typed, "signature": hexadecimal(signature)})
    signature = bytes.fromhex(calls[0]["signature"][2:])
    r, s, v = signature[:32], signature[32:64], signature[64]
    refused = {
        "short": signature[:64],
        "long": signature + b"\0",
        "empty": b"",
        "compact (EIP-2098)": r + ((v - 27 << 255) | int.from_bytes(s, "big")).to_bytes(32, "big"),
        "high s": r + (N - int.from_bytes(s, "big")).to_bytes(32, "big") + bytes([55 - v]),
        "v of 0 or 1": r + s + bytes([v - 27]),
        "v of 29": r + s + bytes([29]),
        "r of zero": bytes(32) + s + bytes([v]),
        "s of zero": r + bytes(32) + bytes([v]),
        "r of the order": N.to_bytes(32, "big") + s + bytes([v]),
    }
    text = (
        f"market.example:8001 wants you to sign in with your Ethereum account:\n{sender}\n\nSign in to Rexis.\n\n"
        "URI: https://market.example:8001\nVersion: 1\nChain ID: 31337\nNonce: 0123456789abcdef\n"
        "Issued At: 2026-11-21T03:34:05Z\nExpiration Time: 2026-11-21T03:39:05Z"
    )
    digest = keccak256(f"\x19Ethereum Signed Message:\n{len(text)}{text}".encode())
    changes = {
        "another first line": ("wants you to sign in", "wants you to sign up"),
        "scheme in front of the domain": ("market.example:8001 wants", "https://market.example:8001 wants"),
        "user information in the domain": ("market.example:8001 wants", "market.example@evil.example wants"),
        "address in lower case": (sender, sender.lower()),
        "no statement": ("Sign in to Rexis.\n\n", "\n"),
        "statement of two lines": ("Sign in to Rexis.", "Sign in\nto Rexis."),
        "statement beyond ASCII": ("Sign in to Rexis.", "Sign in to Réxis."),
        "version 2": ("Version: 1", "Version: 2"),
        "chain id zero": ("Chain ID: 31337", "Chain ID: 0"),
        "chain id with leading zero": ("Chain ID: 31337", "Chain ID: 031337"),
        "short nonce": ("0123456789abcdef", "0123456"),
        "nonce with a hyphen": ("0123456789abcdef", "01234567-89abcdef"),
        "fraction of a second": ("03:34:05Z", "03:34:05.000Z"),
        "offset": ("03:34:05Z", "03:34:05+00:00"),
        "no such time": ("03:34:05Z", "25:34:05Z"),
        "expiration before the issue": ("03:39:05Z", "03:34:04Z"),
        "expiration at the issue": ("03:39:05Z", "03:34:05Z"),
        "no expiration": ("\nExpiration Time: 2026-11-21T03:39:05Z", ""),
        "trailing newline": ("03:39:05Z", "03:39:05Z\n"),
        "carriage returns": ("\n", "\r\n"),
        "not before": ("03:39:05Z", "03:39:05Z\nNot Before: 2026-11-21T03:34:05Z"),
        "request id": ("03:39:05Z", "03:39:05Z\nRequest ID: 1"),
        "resources": ("03:39:05Z", "03:39:05Z\nResources:\n- https://market.example"),
        "URI with a space": ("URI: https://market.example:8001", "URI: https://market.example: 8001"),
        "URI without scheme": ("URI: https://market.example:8001", "URI: market.example:8001"),
        "long statement": ("Sign in to Rexis.", "a" * 513),
    }
    return {
        "origin": ORIGIN.format(6),
        "privateKey": hexadecimal(ALICE),
        "sender": sender,
        "chainId": CHAIN_ID,
        "forwarder": forwarder,
        "calls": calls,
        "refusedSignatures": [{"name": name, "signature": hexadecimal(value)} for name, value in refused.items()],
        "signIn": {
            "text": text,
            "digest": hexadecimal(digest),
            "signature": hexadecimal(sign(digest, ALICE)),
            "refused": [{"name": name, "text": text.replace(*change)} for name, change in changes.items()],
        },
    }


def rewards() -> dict[str, Any]:
    """An epoch of rewards with its tree of shares, and the permit (ERC-2612) by which its funder may pay it in."""
    alice, bob = address_of(ALICE), address_of(BOB)
    epoch = keccak256(
        encode(
            ["uint256", "address", "address", "bytes32", "uint64", "uint64", "bytes32"],
            [CHAIN_ID, CONTRACT, alice, numbered("federation", 0), 3, 5, numbered("label", 0)],
        )
    )
    context = keccak256(encode(["uint256", "address", "bytes32"], [CHAIN_ID, CONTRACT, epoch]))
    shares = [
        {"account": account, "amount": amount} for account, amount in ((alice, 10**18), (bob, 7), (checksum(bytes([9] * 20)), 2**200))
    ]
    digests = [keccak256(encode(["address", "uint256"], [share["account"], share["amount"]])) for share in shares]
    token = checksum(bytes([0xBB] * 20))
    domain = {"name": "Rexis local credit", "version": "1", "chainId": CHAIN_ID, "verifyingContract": token}
    permit = {"owner": alice, "spender": CONTRACT, "value": 10**18, "nonce": 0, "deadline": 4_102_444_800}
    typed = eip712(domain, "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)", list(permit.values()))
    signature = sign(bytes.fromhex(typed["digest"][2:]), ALICE)
    return {
        "origin": ORIGIN.format(2),
        "chainId": CHAIN_ID,
        "distributor": CONTRACT,
        "funder": alice,
        "federation": numbered("federation", 0),
        "firstRound": 3,
        "lastRound": 5,
        "label": numbered("label", 0),
        "epoch": epoch,
        # Beyond 2^53: as decimal strings, which every reader of JSON keeps.
        "shares": [{**share, "amount": str(share["amount"])} for share in shares],
        "tree": tree("reward", context, [(digest, numbered("reward salt", i, 16), 0) for i, digest in enumerate(digests)]),
        "permit": {
            "token": token,
            "message": {**permit, "value": str(permit["value"])},
            "eip712": typed,
            "r": signature[:32],
            "s": signature[32:64],
            "v": signature[64],
        },
    }


def journal() -> dict[str, Any]:
    def expand(secret: bytes, info: bytes) -> bytes:
        return hmac.digest(hmac.digest(bytes(32), secret, "sha256"), info + b"\1", "sha256")

    def seal(key: bytes, nonce: bytes, plaintext: bytes, place: bytes) -> bytes:
        cipher = AES.new(key, AES.MODE_GCM, nonce=nonce).update(place)
        return nonce + b"".join(cipher.encrypt_and_digest(plaintext))

    passphrase, salt, factor = "correct horse battery staple", numbered("journal salt", 0, 16), 1 << 10
    journal_key, record = numbered("journal key", 0), numbered("journal record", 0)
    opened = hashlib.scrypt(passphrase.encode(), salt=salt, n=factor, r=8, p=1, dklen=32)
    fields = expand(journal_key, b"rexis/journal-fields/1")
    salts = b"".join(numbered("item salt", i, 16) for i in range(3))
    place = f"salts.sealed:{hexadecimal(record)}"
    return {
        "origin": ORIGIN.format(7),
        "passphrase": passphrase,
        "lock": {
            "salt": hexadecimal(salt),
            "workFactor": factor,
            "sealedKey": hexadecimal(seal(opened, numbered("nonce", 0, 12), journal_key, b"journal key")),
        },
        "fingerprintKey": hexadecimal(expand(journal_key, b"rexis/journal-fingerprint/1")),
        "field": {
            "place": place,
            "plaintext": hexadecimal(salts),
            "sealed": hexadecimal(seal(fields, numbered("nonce", 1, 12), salts, place.encode())),
        },
    }


def questions() -> dict[str, Any]:
    purpose = {
        "use": "HMB",
        "until": "2027-06-30",
        "diseases": ["MONDO:0005267"],
        "country": "CH",
        "user": None,
        "institution": None,
        "project": None,
        "research_type": None,
        "publish_from": "2027-01-01",
        "commercial": False,
        "for_profit": True,
        "methods_development": True,
        "genetic_study": False,
        "clinical_care": False,
        "ethics_approval": True,
        "collaboration": False,
        "returns_results": False,
    }
    conditions = {
        "version": 1,
        "request": numbered("request", 0, 16).hex(),
        "dataset": 7,
        "consumer": address_of(BOB),
        "policy_hash": hexadecimal(numbered("policy", 0)),
        "purpose": purpose,
        "days": 90,
        "text": "für die Herzstudie",
    }
    question = {
        "version": 1,
        "kind": "table",
        "dimensions": [{"column": "age", "bands": ["40", "50.5"]}, {"column": "num", "above": "0"}],
        "filters": [{"column": "chol", "below": "300", "from": "100"}, {"column": "sex", "in": ["Female", "Male"]}],
    }
    return {
        "origin": ORIGIN.format(8),
        "conditions": {"document": conditions, "digest": sha256(jcs(conditions))},
        "question": {"document": question, "digest": sha256(jcs(question))},
    }


def evaluation() -> dict[str, Any]:
    provider, model_owner = (checksum(bytes(19) + bytes([n])) for n in (0x51, 0x52))
    alice, bob = address_of(ALICE), address_of(BOB)
    # A data owner before, between and after the auditors takes another place in the seed.
    auditors = sorted((alice, bob), key=str.lower)
    between = checksum(bytes.fromhex(auditors[0][2:])[:19] + bytes([(bytes.fromhex(auditors[0][2:])[19] + 1) % 256]))
    data_owners = [checksum(bytes(19) + b"\x01"), between, checksum(b"\xff" * 19 + b"\x01")]
    times = [1_800_000_000, 1_800_003_600, 1_800_007_200, 1_800_604_800]
    words = {name: numbered(name, 1) for name in ("spec", "model", "data", "key", "trace", "outputs", "scores", "claim")}
    beacon = numbered("beacon", 1)
    cases = []
    for sequence, data_owner in enumerate(data_owners):
        terms = keccak256(encode(["uint16", "uint48", "uint48", "uint48", "uint48", "address[]"], [2, *times, auditors]))
        types = ["uint256", "address", "address", "bytes32", "address", "bytes32", "address", "bytes32", "bytes32", "uint64", "bytes32"]
        owners = [model_owner, words["model"], data_owner, words["data"]]
        identifier = keccak256(encode(types, [CHAIN_ID, CONTRACT, provider, words["spec"], *owners, words["key"], sequence, terms]))
        parties = []
        for i, party in enumerate(sorted((*auditors, data_owner), key=str.lower)):
            nonce = numbered(f"evaluation nonce {sequence}", i)
            commitment = keccak256(encode(["bytes32", "address", "bytes32"], [identifier, party, nonce]))
            parties.append({"party": party, "nonce": nonce, "commitment": commitment})
        digest = sha256(b"rexis/transcript/1" + encode(["uint256", "address", "bytes32"], [CHAIN_ID, CONTRACT, identifier]))
        tags = ("specHash", "modelRecord", "dataRecord", "keyCommit", "traceRecord", "outputsRecord", "scoresRecord", "claimHash")
        for tag, value in zip(tags, words.values(), strict=True):
            digest = sha256(digest + tag.encode() + struct.pack("<Q", len(value)) + value)
        seed = sha256(digest + beacon + b"".join(party["nonce"] for party in parties))
        cases.append(
            {
                "sequence": sequence,
                "dataOwner": data_owner,
                "evaluation": identifier,
                "parties": parties,
                "transcript": digest,
                "seed": seed,
                "context": keccak256(encode(["uint256", "address", "bytes32"], [CHAIN_ID, CONTRACT, identifier])),
            }
        )
    one, certificate = cases[0], numbered("certificate", 1)
    structs: dict[str, dict[str, Any]] = {
        "Attestation(bytes32 evaluation,bytes32 seed,bytes32 certificate,uint8 level,uint48 validUntil)": {
            "evaluation": one["evaluation"],
            "seed": one["seed"],
            "certificate": certificate,
            "level": 2,
            "validUntil": 1_830_000_000,
        },
        "Revocation(bytes32 evaluation,bytes32 certificate,uint8 reason)": {
            "evaluation": one["evaluation"],
            "certificate": certificate,
            "reason": 4,
        },
        "Resolution(bytes32 evaluation,bytes32 certificate,address disputer,bool upheld)": {
            "evaluation": one["evaluation"],
            "certificate": certificate,
            "disputer": alice,
            "upheld": True,
        },
    }
    domain = {"name": "Rexis", "version": "1", "chainId": CHAIN_ID, "verifyingContract": CONTRACT}
    signed = []
    for type_string, message in structs.items():
        typed = eip712(domain, type_string, list(message.values()))
        made = bytes.fromhex(typed["digest"][2:])
        signatures = {signer: sign(made, ALICE if signer == alice else BOB) for signer in auditors}
        signed.append({"message": message, "eip712": typed, "signatures": signatures})
    return {
        "origin": ORIGIN.format(9),
        "chainId": CHAIN_ID,
        "registry": CONTRACT,
        "provider": provider,
        "modelOwner": model_owner,
        "auditors": auditors,
        "quorum": 2,
        "times": times,
        "committed": words,
        "beacon": beacon,
        "evaluations": cases,
        "signed": signed,
    }


VECTORS = {
    "encoding.json": encoding,
    "tensors.json": tensors,
    "tree_kinds.json": trees,
    "receipt.json": receipts,
    "receipt_bundle.json": receipt_bundle,
    "tensor_file.json": files,
    "secagg_messages.json": secure_aggregation,
    "federation_rounds.json": federation_rounds,
    "federation_config.json": federation_config,
    "relayed_call.json": relayed_call,
    "journal.json": journal,
    "questions.json": questions,
    "rewards.json": rewards,
    "evaluation.json": evaluation,
}


def main(directory: Path) -> None:
    for name, make in VECTORS.items():
        (directory / name).write_text(json.dumps(make(), indent=1, ensure_ascii=True, default=hexadecimal) + "\n", encoding="ascii")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
