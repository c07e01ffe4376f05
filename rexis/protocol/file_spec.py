"""What a tensor file must contain: names, dtypes and shapes, known before a byte of data is read (wire formats, section 4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from rexis.commitments.digests import DTYPES
from rexis.commitments.positional_tree import LeafKind
from rexis.encoding import canonical_json, domain_tag, sha256
from rexis.errors import MalformedMessageError

VERSION = 1
MAX_DIMENSIONS = 8
MAX_LENGTH = 1 << 40
MAX_NAME_CHARACTERS = 256
FileKind = Literal["batch", "model", "gradient", "output"]
# Which tree a file's record is taken from: the kinds of section 2.
RECORD_KINDS: Mapping[str, LeafKind] = {
    "batch": LeafKind.DATA,
    "model": LeafKind.WEIGHT,
    "gradient": LeafKind.UPDATE,
    "output": LeafKind.OUT,
}
# Lengths that the file chooses: items of a batch, and tokens of an item.
SYMBOLS = ("n", "s")
_FLOATS = ("f32", "bf16")


@dataclass(frozen=True)
class TensorSpec:
    """Name, wire dtype and shape of one tensor; `"n"` and `"s"` in the shape are chosen by the file, alike in all tensors.

    Raises:
        ValueError: an unknown dtype or symbol, or a name or length out of bounds.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.dtype not in DTYPES:
            raise ValueError(f"{self.name}: expected a dtype among {', '.join(DTYPES)}, got {self.dtype[:40]!r}")
        if len(self.shape) > MAX_DIMENSIONS:
            raise ValueError(f"{self.name}: expected at most {MAX_DIMENSIONS} dimensions, got {len(self.shape)}")
        for length in self.shape:
            if length not in SYMBOLS and (type(length) is not int or not 0 < length <= MAX_LENGTH):
                raise ValueError(f"{self.name}: expected lengths of 1 to 2^40, or n or s, got {str(length)[:40]!r}")


@dataclass(frozen=True)
class FileSpec:
    """Kind and tensors of a file.

    Attributes:
        kind: batch, model, gradient or output.
        tensors: at least one, in UTF-8 order of their names, no name twice.
        model: digest of the model spec, for the kinds model and gradient; None for the others.

    Raises:
        ValueError: tensors out of order, or not what the kind asks for.
    """

    kind: FileKind
    tensors: tuple[TensorSpec, ...]
    model: bytes | None = None

    def __post_init__(self) -> None:
        names = [tensor.name for tensor in self.tensors]
        if not names or names != sorted(set(names)):
            raise ValueError(f"expected at least one tensor, in order of name and none twice, got {names[:8]}")
        if self.kind not in get_args(FileKind):
            raise ValueError(f"expected a kind among {', '.join(get_args(FileKind))}, got {str(self.kind)[:40]!r}")
        if (self.model is not None) != (self.kind in ("model", "gradient")):
            raise ValueError("expected a model spec's digest for the kinds model and gradient, and for no other")
        if self.model is not None:
            if len(self.model) != 32:
                raise ValueError(f"expected a model spec's digest of 32 bytes, got {len(self.model)}")
            if any(isinstance(length, str) for tensor in self.tensors for length in tensor.shape):
                raise ValueError("expected fixed lengths in the tensors of a model")
        if self.kind == "batch":
            _check_batch({tensor.name: tensor for tensor in self.tensors})
        if self.kind == "output":
            _check_output(self.tensors)

    @classmethod
    def of_model(
        cls, kind: Literal["model", "gradient"], spec_digest: bytes, shapes: Mapping[str, Sequence[int]], dtype: str
    ) -> "FileSpec":
        """Spec of a file with all tensors of a model.

        Args:
            kind: model, or gradient for updates of the same shapes.
            spec_digest: digest of the model spec.
            shapes: shape of each tensor by name.
            dtype: wire dtype of them all.
        """
        return cls(kind, tuple(TensorSpec(name, dtype, tuple(shapes[name])) for name in sorted(shapes)), spec_digest)

    @property
    def digest(self) -> bytes:
        """What `rexis.spec` of the file says: the model spec's digest, or SHA-256 of `rexis/file-spec/1`, a zero byte and the JCS."""
        return self.model or sha256(domain_tag("file-spec", 1) + b"\0" + canonical_json(self.document()))

    def document(self) -> dict[str, Any]:
        """JSON value of a batch or output spec: what `parse` reads."""
        tensors = [{"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)} for tensor in self.tensors]
        return {"version": VERSION, "kind": self.kind, "tensors": tensors}

    @classmethod
    def parse(cls, document: Any) -> "FileSpec":
        """Read the spec of a batch or an output that came from someone else.

        Raises:
            MalformedMessageError: missing, unknown or ill-formed fields, or tensors that the kind does not admit.
        """
        if (
            not isinstance(document, dict)
            or set(document) != {"version", "kind", "tensors"}
            or type(document["version"]) is not int
            or document["version"] != VERSION
        ):
            raise MalformedMessageError(f"file spec: expected an object with exactly version ({VERSION}), kind and tensors")
        kind, tensors = document["kind"], document["tensors"]
        if kind not in ("batch", "output"):
            raise MalformedMessageError("file spec: expected the kind batch or output; a model's files follow the model spec")
        if not isinstance(tensors, list) or len(tensors) > 3 or not all(_is_tensor(tensor) for tensor in tensors):
            raise MalformedMessageError("file spec: expected one to three tensors of exactly name, dtype and shape")
        try:
            return cls(kind, tuple(TensorSpec(tensor["name"], tensor["dtype"], tuple(tensor["shape"])) for tensor in tensors))
        except ValueError as error:
            raise MalformedMessageError(f"file spec: {error}") from error


def check_name(name: str) -> None:
    """Tensor names are visible ASCII: what two readers could show or sort differently is refused.

    Raises:
        ValueError: empty, too long, or with other characters.
    """
    if not 0 < len(name) <= MAX_NAME_CHARACTERS or not all("!" <= character <= "~" for character in name):
        raise ValueError(f"expected a tensor name of 1 to {MAX_NAME_CHARACTERS} visible ASCII characters, got {name[:40]!r}")


def _is_tensor(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"name", "dtype", "shape"}
        and isinstance(value["name"], str)
        and isinstance(value["dtype"], str)
        and isinstance(value["shape"], list)
        and all(isinstance(length, str | int) for length in value["shape"])
    )


def _check_batch(tensors: Mapping[str, TensorSpec]) -> None:
    unknown = set(tensors) - {"x", "ids", "mask", "labels"}
    if unknown or ("x" in tensors) == ("ids" in tensors):
        raise ValueError(f"a batch has x or ids, and mask and labels where they apply, got {sorted(tensors)}")
    tokens = True
    if x := tensors.get("x"):
        tokens = len(x.shape) == 3
        lead = ("n", "s") if tokens else ("n",)
        if x.dtype not in _FLOATS or x.shape[:-1] != lead or isinstance(x.shape[-1], str):
            raise ValueError(f"x: expected f32 or bf16 of shape [n, d] or [n, s, d], got {x.dtype} {list(x.shape)}")
    expected = {"ids": ("i64", ("n", "s")), "mask": ("u8", ("n", "s")), "labels": ("i64", ("n",))}
    for name, (dtype, shape) in expected.items():
        if (found := tensors.get(name)) and (found.dtype, found.shape) != (dtype, shape):
            raise ValueError(f"{name}: expected {dtype} of shape {list(shape)}, got {found.dtype} {list(found.shape)}")
    if tokens != ("mask" in tensors):
        raise ValueError("expected a mask with token batches ([n, s, …]) and none with rows ([n, d])")


def _check_output(tensors: Sequence[TensorSpec]) -> None:
    y = tensors[0]
    if (
        len(tensors) > 1
        or y.name != "y"
        or y.dtype not in _FLOATS
        or y.shape[:-1] not in (("n",), ("n", "s"))
        or isinstance(y.shape[-1], str)
    ):
        raise ValueError("an output has one tensor y, f32 or bf16, of shape [n, k] or [n, s, k]")
