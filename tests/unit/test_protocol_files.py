"""Tensor files and uploads (section 4) against their vectors, and against the safetensors library."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from rexis.commitments import model_root, tensor_digest
from rexis.encoding import from_hex, sha256, to_hex
from rexis.errors import EncodingError, MalformedMessageError
from rexis.protocol.batch import TensorFileDigest, digest_file, read_file, read_header, write_file
from rexis.protocol.file_spec import FileSpec, TensorSpec
from rexis.protocol.uploads import (
    MAX_PARTS,
    MAX_UPLOAD_BYTES,
    PART_SIZE,
    Part,
    UploadManifest,
    content_digest_header,
    parse_content_digest,
    plan_parts,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/tensor_file.json").read_text(encoding="ascii"))
FILE = VECTORS["file"]
BYTES = bytes.fromhex(FILE["bytes_hex"])
SPEC = FileSpec.parse(FILE["spec"])
ARRAYS = {
    "x": np.array([[1.0, 0.0], [-2.5, 3.0], [0.5, 0.25]], np.float32),
    "labels": np.array([0, 1, 1], np.int64),
}


def named(items):
    return {"argvalues": items, "ids": [item["name"] for item in items]}


def refused_bytes(vector):
    if "bytes_hex" in vector:
        return bytes.fromhex(vector["bytes_hex"])
    return (
        bytes.fromhex(vector["before_hex"]) + bytes.fromhex(vector["fill_hex"]) * vector["fill_count"] + bytes.fromhex(vector["after_hex"])
    )


def written(spec, tensors):
    stream = io.BytesIO()
    record = write_file(stream, spec, tensors)
    return stream.getvalue(), record


def check_record(record):
    assert dict(record.lengths) == FILE["lengths"]
    assert {name: to_hex(digest) for name, digest in record.digests.items()} == FILE["digests"]
    assert to_hex(record.record) == FILE["record"]


def test_the_spec_and_the_written_file_equal_the_reference():
    assert SPEC.document() == FILE["spec"]
    assert to_hex(SPEC.digest) == FILE["specDigest"]
    data, record = written(SPEC, ARRAYS)
    assert data == BYTES
    check_record(record)


@pytest.mark.parametrize("size", [1, 7, 8, 9, 1000])
def test_a_file_that_arrives_in_pieces_has_the_record_of_the_reference(size):
    digest = TensorFileDigest(SPEC, len(BYTES))
    for start in range(0, len(BYTES), size):
        digest.update(BYTES[start : start + size])
    check_record(digest.finish())
    check_record(digest_file(io.BytesIO(BYTES), SPEC, len(BYTES)))


def test_files_are_what_the_safetensors_library_reads_and_writes():
    loaded = safetensors.numpy.load(BYTES)
    for arrays in (loaded, read_file(io.BytesIO(BYTES), SPEC, len(BYTES))):
        assert set(arrays) == set(ARRAYS)
        for name, array in arrays.items():
            assert array.dtype == ARRAYS[name].dtype
            np.testing.assert_array_equal(array, ARRAYS[name])
    metadata = {"rexis.format": "1", "rexis.kind": "batch", "rexis.spec": FILE["specDigest"]}
    theirs = safetensors.numpy.save(ARRAYS, metadata=metadata)
    check_record(digest_file(io.BytesIO(theirs), SPEC, len(theirs)))


@pytest.mark.parametrize("vector", **named(VECTORS["refused"]))
def test_forged_files_are_refused(vector):
    data = refused_bytes(vector)
    with pytest.raises(MalformedMessageError):
        digest_file(io.BytesIO(data), SPEC, len(data))
    with pytest.raises(MalformedMessageError):
        read_file(io.BytesIO(data), SPEC, len(data))


@pytest.mark.parametrize("vector", **named([item for item in VECTORS["refused"] if item["name"] not in ("empty", "seven bytes")]))
def test_a_wrong_header_is_refused_before_a_byte_of_data(vector):
    data = refused_bytes(vector)
    head = data[: 8 + int.from_bytes(data[:8], "little")]
    digest = TensorFileDigest(SPEC, len(data))
    with pytest.raises(MalformedMessageError):
        digest.update(head)


def test_a_claimed_header_of_exabytes_is_refused_at_the_eighth_byte():
    digest = TensorFileDigest(SPEC, 1 << 40)
    digest.update(b"\xff" * 7)
    with pytest.raises(MalformedMessageError, match="at most 1048576 bytes"):
        digest.update(b"\xff")


def test_sizes_that_lie_are_refused():
    for size in (len(BYTES) - 1, len(BYTES) + 1):
        with pytest.raises(MalformedMessageError):
            digest_file(io.BytesIO(BYTES), SPEC, size)
    for data in (BYTES[:-1], BYTES + b"\x00"):
        with pytest.raises(MalformedMessageError):
            digest_file(io.BytesIO(data), SPEC, len(BYTES))
        with pytest.raises(MalformedMessageError):
            read_file(io.BytesIO(data), SPEC, len(BYTES))


def test_values_without_canonical_form_are_refused_by_name():
    data = bytearray(BYTES)
    data[-4:] = bytes.fromhex("0000c07f")
    with pytest.raises(EncodingError, match="tensor x: expected finite f32"):
        digest_file(io.BytesIO(data), SPEC, len(data))
    with pytest.raises(EncodingError, match="finite"):
        written(SPEC, {**ARRAYS, "x": np.full((3, 2), np.inf, np.float32)})


def test_files_carry_canonical_values():
    positive, negative = ({**ARRAYS, "x": np.full((3, 2), zero, np.float32)} for zero in (0.0, -0.0))
    assert written(SPEC, positive) == written(SPEC, negative)


@pytest.mark.parametrize(
    "tensors",
    [
        {"x": ARRAYS["x"]},
        {**ARRAYS, "mask": np.ones((3, 2), np.uint8)},
        {**ARRAYS, "x": ARRAYS["x"].astype(np.float64)},
        {**ARRAYS, "x": ARRAYS["x"][:2]},
        {**ARRAYS, "x": ARRAYS["x"].T},
        {"x": np.zeros((0, 2), np.float32), "labels": np.zeros(0, np.int64)},
    ],
)
def test_tensors_that_do_not_fit_the_spec_are_not_written(tensors):
    stream = io.BytesIO()
    with pytest.raises(MalformedMessageError):
        write_file(stream, SPEC, tensors)
    assert stream.getvalue() == b""


def test_token_batches_carry_ids_and_mask():
    spec = FileSpec.parse(
        {
            "version": 1,
            "kind": "batch",
            "tensors": [{"name": "ids", "dtype": "i64", "shape": ["n", "s"]}, {"name": "mask", "dtype": "u8", "shape": ["n", "s"]}],
        }
    )
    data, record = written(spec, {"ids": np.arange(6).reshape(2, 3), "mask": np.ones((2, 3), np.uint8)})
    assert dict(record.lengths) == {"n": 2, "s": 3}
    assert digest_file(io.BytesIO(data), spec, len(data)) == record
    with pytest.raises(MalformedMessageError):
        written(spec, {"ids": np.arange(6).reshape(2, 3), "mask": np.ones((2, 2), np.uint8)})


def test_bf16_embeddings_of_torch():
    import torch

    spec = FileSpec("batch", (TensorSpec("mask", "u8", ("n", "s")), TensorSpec("x", "bf16", ("n", "s", 4))))
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1)).bfloat16()
    data, record = written(spec, {"x": x.transpose(0, 1).contiguous().transpose(0, 1), "mask": torch.ones(2, 3, dtype=torch.uint8)})
    assert record.digests["x"] == tensor_digest(x)
    bits = read_file(io.BytesIO(data), spec, len(data))["x"]
    assert torch.equal(torch.from_numpy(bits.view(np.int16).copy()).view(torch.bfloat16), x)


def test_the_record_of_a_model_file_is_the_model_record():
    shapes = {"0.weight": (2, 3), "0.bias": (2,)}
    tensors = {name: np.arange(np.prod(shape), dtype=np.float32).reshape(shape) for name, shape in shapes.items()}
    spec = FileSpec.of_model("model", sha256(b"spec"), shapes, "f32")
    data, record = written(spec, tensors)
    assert record.record == model_root(spec.digest, tensors)
    gradient = FileSpec.of_model("gradient", sha256(b"spec"), shapes, "f32")
    assert written(gradient, tensors)[1].record != record.record
    with pytest.raises(MalformedMessageError):
        digest_file(io.BytesIO(data), gradient, len(data))


@pytest.mark.parametrize(
    "tensors",
    [
        [],
        [("x", "f64", ["n", 2])],
        [("x", "f32", ["n"])],
        [("x", "f32", ["n", "s"])],
        [("x", "f32", [3, 2])],
        [("x", "f32", ["n", 0])],
        [("x", "f32", ["n", True])],
        [("x", "f32", ["n", "m"])],
        [("x", "f32", ["n", "s", 2])],
        [("mask", "u8", ["n", "s"]), ("x", "f32", ["n", 2])],
        [("ids", "i64", ["n", "s"])],
        [("ids", "i32", ["n", "s"]), ("mask", "u8", ["n", "s"])],
        [("ids", "i64", ["n", "s"]), ("mask", "bool", ["n", "s"])],
        [("ids", "i64", ["n", "s"]), ("mask", "u8", ["n", "s"]), ("x", "f32", ["n", "s", 2])],
        [("x", "f32", ["n", 2]), ("labels", "i64", ["n"])],
        [("labels", "f32", ["n"]), ("x", "f32", ["n", 2])],
        [("labels", "i64", ["n"])],
        [("x", "f32", ["n", 2]), ("x", "f32", ["n", 2])],
        [("x", "f32", ["n", 2]), ("y", "f32", ["n", 2])],
        [("x\n", "f32", ["n", 2])],
    ],
)
def test_batch_specs_that_section_4_does_not_know_are_refused(tensors):
    document = {"version": 1, "kind": "batch", "tensors": [{"name": n, "dtype": d, "shape": s} for n, d, s in tensors]}
    with pytest.raises(MalformedMessageError):
        FileSpec.parse(document)


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"version": True}, {"kind": "model"}, {"kind": ["batch"]}, {"tensors": {}}, {"more": 1}]
)
def test_specs_out_of_form_are_refused(change):
    with pytest.raises(MalformedMessageError):
        FileSpec.parse({**FILE["spec"], **change})


def test_output_specs():
    document = {"version": 1, "kind": "output", "tensors": [{"name": "y", "dtype": "f32", "shape": ["n", 2]}]}
    assert FileSpec.parse(document).document() == document
    for name, dtype, shape in (("x", "f32", ["n", 2]), ("y", "i64", ["n", 2]), ("y", "f32", ["n"]), ("y", "f32", [])):
        with pytest.raises(MalformedMessageError):
            FileSpec.parse({**document, "tensors": [{"name": name, "dtype": dtype, "shape": shape}]})


def test_headers_are_read_without_their_data():
    stream = io.BytesIO(BYTES)
    header = read_header(stream, len(BYTES))
    assert stream.tell() == header.data_start
    assert [(entry.name, entry.begin, entry.end) for entry in header.tensors] == [("labels", 0, 24), ("x", 24, 48)]


def test_upload_digest_equals_the_reference():
    upload = VECTORS["upload"]
    manifest = UploadManifest.parse(upload["manifest"])
    assert upload["partSize"] == PART_SIZE
    assert manifest.to_json() == upload["manifest"]
    assert to_hex(manifest.digest) == upload["digest"]
    swapped = UploadManifest(manifest.total_bytes, (manifest.parts[1], manifest.parts[0], manifest.parts[2]))
    assert len({manifest.digest, swapped.digest, UploadManifest(manifest.total_bytes - 1, manifest.parts).digest}) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"totalBytes": 0},
        {"totalBytes": -1},
        {"totalBytes": "5"},
        {"totalBytes": True},
        {"totalBytes": MAX_UPLOAD_BYTES + 1},
        {"totalBytes": 2 * PART_SIZE},
        {"parts": []},
        {"parts": VECTORS["upload"]["manifest"]["parts"][:2]},
        {"parts": VECTORS["upload"]["manifest"]["parts"] * 2},
        {"parts": [*VECTORS["upload"]["manifest"]["parts"][:2], "0x00"]},
        {"parts": ["0x" + "00" * 32] * (MAX_PARTS + 1)},
        {"parts": None},
        {"digest": "0x"},
    ],
)
def test_manifests_out_of_form_are_refused(change):
    with pytest.raises(MalformedMessageError):
        UploadManifest.parse({**VECTORS["upload"]["manifest"], **change})


def test_parts_tile_the_upload():
    assert plan_parts(1) == [Part(1, 0, 1)]
    assert plan_parts(PART_SIZE) == [Part(1, 0, PART_SIZE)]
    assert plan_parts(PART_SIZE + 1) == [Part(1, 0, PART_SIZE), Part(2, PART_SIZE, 1)]
    assert len(plan_parts(MAX_UPLOAD_BYTES)) == MAX_PARTS
    for size in (0, -1, MAX_UPLOAD_BYTES + 1):
        with pytest.raises(ValueError, match="expected an upload"):
            plan_parts(size)


def test_content_digest_equals_the_reference():
    digest = sha256(bytes.fromhex(VECTORS["contentDigest"]["content_hex"]))
    assert content_digest_header(digest) == VECTORS["contentDigest"]["header"]
    assert parse_content_digest(VECTORS["contentDigest"]["header"]) == digest


@pytest.mark.parametrize("header", VECTORS["contentDigest"]["refused"])
def test_content_digests_in_another_form_are_refused(header):
    with pytest.raises(MalformedMessageError):
        parse_content_digest(header)


def test_spec_digests_are_32_bytes():
    assert from_hex(FILE["specDigest"], 32) == SPEC.digest
    with pytest.raises(ValueError, match="32 bytes"):
        FileSpec.of_model("model", b"short", {"w": (1,)}, "f32")
    with pytest.raises(ValueError, match="fixed lengths"):
        FileSpec("model", (TensorSpec("w", "f32", ("n",)),), bytes(32))
    with pytest.raises(ValueError, match="no other"):
        FileSpec("batch", SPEC.tensors, bytes(32))
