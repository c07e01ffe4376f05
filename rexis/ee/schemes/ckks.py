"""Scheme "ckks": homomorphic encryption of the rows (Cheon, Kim, Kim and Song, ASIACRYPT 2017) by TenSEAL, beside EE behind the same calls.

    key = ee.keygen(model, scheme="ckks", knowledge="public")
    enc = ee.encrypt_model(model, key)                         # plain weights, evaluation keys without the secret key: to the provider
    y = ee.decrypt_outputs(enc(ee.encrypt_inputs(x, key)), key)

Rows and outputs are semantically secure against the provider at 128 bits (ring learning with errors, SEAL's parameters), whatever the
provider knows; the weights are plain at the provider. Not covered: that the provider computed what it should (its answer decrypts to
something in any case), and a provider that is shown decrypted outputs, from whose errors the secret key follows (Li and Micciancio,
EUROCRYPT 2021): outputs stay with the owner. Cost: a second and 400 kB for a row of a 30-64-2 network (`benchmarks/ckks.py`).

Levels: one for each linear layer, one for a square (a polynomial of degree 2 becomes a square by completing it), 1 + floor(log2 n) for
degree n above. A bias rides on a constant coordinate through the matrix product: TenSEAL's sum with a plain vector leaves the periodic
copies of a ciphertext's slots alone, which the next product reads (measured: error 6e-4 instead of 4e-6).
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rexis.ee.schemes.polynomials import check_polynomial, fit, with_polynomial
from rexis.ee.schemes.scheme import Inputs, Scheme, as_tensor
from rexis.errors import ConfigurationError, KeyFileError, UnsupportedLayerError
from rexis.models.mlp import LogisticConfig, MLPConfig
from rexis.models.spec import ModelSpec

# Ring degree → bits of all primes together at 128 bits of security (homomorphicencryption.org standard, as in SEAL).
_RINGS = {8192: 218, 16384: 438}
# Values up to 2^9 in magnitude fit between the scale and the first prime.
_HEADROOM_BITS = 10
MAX_MAGNITUDE = 2.0 ** (_HEADROOM_BITS - 1)
_MIN_SCALE_BITS, _MAX_SCALE_BITS = 33, 40
_CONTEXT_ID_SIZE, _LENGTH_SIZE = 16, 8


@dataclass(frozen=True)
class Parameters:
    """A CKKS parameter set.

    Attributes:
        depth: levels, products one after another.
        ring: degree N; N/2 slots.
        primes: bits of the coefficient primes.
    """

    depth: int
    ring: int
    primes: tuple[int, ...]

    @property
    def scale_bits(self) -> int:
        """log2 of the scale."""
        return self.primes[1]

    @classmethod
    def for_depth(cls, depth: int) -> "Parameters":
        """The smallest ring that carries the depth at a scale of 33 bits or more.

        Raises:
            UnsupportedLayerError: too deep for TenSEAL without bootstrapping.
        """
        for ring, bits in _RINGS.items():
            scale = min(_MAX_SCALE_BITS, (bits - 2 * _HEADROOM_BITS) // (depth + 2))
            if scale >= _MIN_SCALE_BITS:
                return cls(depth, ring, (scale + _HEADROOM_BITS, *[scale] * depth, scale + _HEADROOM_BITS))
        raise UnsupportedLayerError(f"scheme='ckks' carries a depth of at most 10 levels, got {depth}: take fewer layers or a lower degree")


@dataclass(frozen=True)
class Ckks(Scheme):
    """Rows are CKKS ciphertexts instead of being keyed. The secret key lives as long as this object.

    Attributes:
        widths: of the model, from input to output.
        polynomial: coefficients from the constant up, in the place of the activation; None for a linear model.
    """

    widths: tuple[int, ...]
    polynomial: tuple[float, ...] | None
    name: ClassVar[str] = "ckks"
    _context_id: bytes = field(default_factory=lambda: secrets.token_bytes(_CONTEXT_ID_SIZE), repr=False)

    @classmethod
    def for_spec(cls, spec: ModelSpec, polynomial: Sequence[float] | None = None) -> "Ckks":
        """The scheme of a model; the polynomial is fitted to its activation if none is given.

        Raises:
            ConfigurationError: TenSEAL is not installed.
            UnsupportedLayerError: not linear layers with activations between, or too deep or wide.
        """
        _tenseal()
        config = spec.config
        if isinstance(config, LogisticConfig) and polynomial is None:
            scheme = cls(config.widths, None)
        elif isinstance(config, MLPConfig) and config.normalisation == "none" and not config.residual:
            scheme = cls(config.widths, fit(config.activation) if polynomial is None else check_polynomial(polynomial))
        else:
            raise UnsupportedLayerError(
                f"scheme='ckks' takes linear layers with one elementwise activation between them, got {spec.document()}"
                + ("" if polynomial is None else " with a polynomial")
            )
        slots = scheme.parameters.ring // 2
        if max(scheme.widths) >= slots:
            raise UnsupportedLayerError(f"scheme='ckks' takes widths below {slots}, got {max(scheme.widths)}")
        return scheme

    @property
    def parameters(self) -> Parameters:
        """The parameter set that the model's depth needs."""
        layers = len(self.widths) - 1
        return Parameters.for_depth(layers + (layers - 1) * _levels(self.polynomial))

    def prepare(self, x: Inputs, *, encoder: nn.Module | None, generator: torch.Generator | None) -> Tensor:
        if encoder is not None or generator is not None:
            raise ValueError("expected no encoder and no generator with a key of scheme 'ckks': TenSEAL draws its own randomness")
        return as_tensor(x)

    def plain_model(self, model: nn.Module) -> nn.Module:
        """What is computed, in f64 and in the clear: the model with the polynomial for its activations."""
        return with_polynomial(model, self.polynomial or ())

    def encrypt_model(self, model: nn.Module) -> "CkksModel":
        """The provider's part: the plain weights and the evaluation keys."""
        layers = [layer for layer in model.children() if isinstance(layer, nn.Linear)]
        public: bytes = self._context.serialize(save_secret_key=False)
        return CkksModel(_matrices(layers, self.polynomial), self.polynomial, public)

    def encrypt_rows(self, x: Tensor) -> Tensor:
        """Ciphertexts uint8 [n, bytes] of rows [n, inputs], one for each row.

        Raises:
            ValueError: another shape, no finite floats, or values beyond 512.
        """
        if x.ndim != 2 or x.shape[1] != self.widths[0] or not x.is_floating_point() or not bool((x.abs() <= MAX_MAGNITUDE).all()):
            raise ValueError(
                f"expected floats within ±{MAX_MAGNITUDE:g} of shape [n, {self.widths[0]}], got {x.dtype} of shape {list(x.shape)}"
            )
        tenseal = _tenseal()
        rows = np.hstack([x.detach().cpu().double().numpy(), np.ones((len(x), 1))])
        return _framed(self._context_id, [tenseal.ckks_vector(self._context, row.tolist()).serialize() for row in rows])

    def decrypt_rows(self, y: Tensor) -> Tensor:
        """Outputs f64 [n, outputs].

        Raises:
            KeyFileError: ciphertexts under another secret key.
            ValueError: not ciphertexts.
        """
        tenseal = _tenseal()
        context_id, ciphertexts = _parsed(y)
        if context_id != self._context_id:
            raise KeyFileError("these ciphertexts are under another secret key, under which they would decrypt to noise")
        rows = [tenseal.ckks_vector_from(self._context, ciphertext).decrypt() for ciphertext in ciphertexts]
        return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), self.widths[-1])

    @cached_property
    def _context(self) -> Any:
        tenseal, chosen = _tenseal(), self.parameters
        context = tenseal.context(
            tenseal.SCHEME_TYPE.CKKS, chosen.ring, coeff_mod_bit_sizes=list(chosen.primes), n_threads=torch.get_num_threads()
        )
        context.global_scale = 2.0**chosen.scale_bits
        context.generate_galois_keys()
        return context


class CkksModel(nn.Module):
    """What the provider runs: uint8 ciphertexts [n, bytes] in, uint8 ciphertexts out. It holds no secret key.

    Attributes:
        context: uint8, the public context with its evaluation keys.
    """

    context: Tensor

    def __init__(self, matrices: Sequence[NDArray[np.float64]], polynomial: tuple[float, ...] | None, public: bytes) -> None:
        """
        Args:
            matrices: f64 [out + 1, in + 1] of each layer, the last one [out, in + 1], on inputs with a constant coordinate.
        """
        super().__init__()
        self._polynomial = polynomial
        self._count = len(matrices)
        for layer, matrix in enumerate(matrices):
            self.register_buffer(f"weight{layer}", torch.from_numpy(matrix))
        self.register_buffer("context", torch.frombuffer(bytearray(public), dtype=torch.uint8))

    def forward(self, ciphertexts: Tensor) -> Tensor:
        tenseal = _tenseal()
        context_id, rows = _parsed(ciphertexts)
        # mm takes the matrix [in, out].
        weights = [self.get_buffer(f"weight{layer}").T.tolist() for layer in range(self._count)]
        results = []
        for row in rows:
            value = tenseal.ckks_vector_from(self._loaded, row)
            for weight in weights[:-1]:
                value = value.mm(weight)
                value = value.polyval(list(self._polynomial or ())) if _levels(self._polynomial) > 1 else value.square()
            results.append(value.mm(weights[-1]).serialize())
        return _framed(context_id, results)

    @cached_property
    def _loaded(self) -> Any:
        return _tenseal().context_from(self.context.numpy().tobytes(), torch.get_num_threads())


def _levels(polynomial: tuple[float, ...] | None) -> int:
    degree = len(polynomial) - 1 if polynomial else 2
    return 1 if degree == 2 else degree.bit_length()


def _matrices(layers: Sequence[nn.Linear], polynomial: tuple[float, ...] | None) -> list[NDArray[np.float64]]:
    """The layers on inputs (x, 1), with what an activation does to the constant and what completing the square needs folded in."""
    # p(z) = gain (z + move)² + offset
    constant, linear, square = polynomial[:3] if polynomial else (0.0, 0.0, 1.0)
    completed = _levels(polynomial) == 1
    move = linear / (2 * square) if completed else 0.0
    gain = square if completed else 1.0
    offset = constant - square * move**2 if completed else 0.0
    carried = 1.0 if completed else sum(polynomial or ())
    if abs(carried) < 1e-3:
        raise UnsupportedLayerError(f"a polynomial that is nearly 0 at 1 carries no bias, got {polynomial}: scale it")
    matrices = []
    for number, layer in enumerate(layers):
        weight = layer.weight.detach().cpu().double().numpy()
        bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().cpu().double().numpy()
        if number:
            bias, weight = (bias + offset * weight.sum(axis=1)) / carried, gain * weight
        last = number == len(layers) - 1
        matrix = np.hstack([weight, (bias if last else bias + move / (carried if number else 1.0))[:, None]])
        if not last:
            unit = np.zeros(matrix.shape[1])
            unit[-1] = 1 / carried if number else 1.0
            matrix = np.vstack([matrix, unit])
        matrices.append(matrix)
    return matrices


def _framed(context_id: bytes, ciphertexts: Sequence[bytes]) -> Tensor:
    """uint8 [n, width]: context id, length as little-endian u64, bytes, zeros up to the longest."""
    frames = [context_id + len(each).to_bytes(_LENGTH_SIZE, "little") + each for each in ciphertexts]
    width = max((len(frame) for frame in frames), default=0)
    return torch.frombuffer(bytearray(b"".join(frame.ljust(width, b"\0") for frame in frames)), dtype=torch.uint8).reshape(-1, width)


def _parsed(frames: Tensor) -> tuple[bytes, list[bytes]]:
    head = _CONTEXT_ID_SIZE + _LENGTH_SIZE
    if frames.dtype != torch.uint8 or frames.ndim != 2 or frames.shape[0] == 0 or frames.shape[1] <= head:
        raise ValueError(f"expected CKKS ciphertexts, uint8 [n, bytes], got {frames.dtype} of shape {list(frames.shape)}")
    rows = [row.cpu().numpy().tobytes() for row in frames]
    ids = {row[:_CONTEXT_ID_SIZE] for row in rows}
    lengths = [int.from_bytes(row[_CONTEXT_ID_SIZE:head], "little") for row in rows]
    if len(ids) > 1 or max(lengths) > frames.shape[1] - head:
        raise ValueError(f"expected CKKS ciphertexts of one key and at most {frames.shape[1] - head} bytes, got {len(ids)} keys")
    return ids.pop(), [row[head : head + length] for row, length in zip(rows, lengths, strict=True)]


def _tenseal() -> Any:
    try:
        return import_module("tenseal")
    except ImportError as error:
        raise ConfigurationError("scheme='ckks' needs TenSEAL: pip install 'rexis[ckks]'") from error
