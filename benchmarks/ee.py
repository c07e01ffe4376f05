"""Equivariant Encryption beside the plain model: `specs/equivariant-encryption.md`, correction 9.

Errors are max|Δ| / max|y| against f64, the worst of several seeds, for dense keys with shifts in fp32. A runtime ratio is the
median over interleaved pairs on one thread; `plain_plain_ratio` is the same statistic of the plain model against its own copy, so
that noise can be subtracted.
"""

import copy
import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.pairs import interleaved, median_ratio, seconds
from rexis import ee
from rexis.models.builders import build
from rexis.models.mlp import MLPConfig
from rexis.models.spec import ModelSpec

MODELS = {"mlp_30_64_2": MLPConfig(30, (64,), 2), "mlp_768_256_2": MLPConfig(768, (256,), 2)}
ROWS = 256


def run(*, quick: bool) -> dict[str, dict[str, float]]:
    """All models; figures by name."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    figures = {name: _measure(ModelSpec(config), quick=quick) for name, config in MODELS.items()}
    torch.set_num_threads(threads)
    return figures


@torch.no_grad()
def _measure(spec: ModelSpec, *, quick: bool) -> dict[str, float]:
    errors = [_errors(spec, seed) for seed in range(3 if quick else 20)]
    model, rows = build(spec, seed=0), _rows(spec, 0)
    key = ee.keygen(model, knowledge="private", seed=bytes(32))
    encrypted, keyed = ee.encrypt_model(model, key), ee.encrypt_inputs(rows, key)
    runs = [_forward(model, rows), _forward(copy.deepcopy(model), rows.clone()), _forward(encrypted, keyed)]
    plain, copied, masked = interleaved(runs, pairs=101 if quick else 1001)
    return {
        "relative_error": max(error for error, _ in errors),
        "plain_fp32_error": max(error for _, error in errors),
        "runtime_ratio": median_ratio(plain, masked),
        "plain_plain_ratio": median_ratio(plain, copied),
        "expansion": keyed.nbytes / rows.nbytes,
        "keygen_s": _median_seconds(lambda: ee.keygen(model, knowledge="private").site_keys),
        "encrypt_model_s": _median_seconds(lambda: ee.encrypt_model(model, key)),
    }


def _errors(spec: ModelSpec, seed: int) -> tuple[float, float]:
    """Relative errors of the encrypted and of the plain model in fp32, against the plain model in f64."""
    model, rows = build(spec, seed=seed), _rows(spec, seed)
    key = ee.keygen(model, knowledge="private", seed=seed.to_bytes(32))
    decrypted = ee.decrypt_outputs(ee.encrypt_model(model, key)(ee.encrypt_inputs(rows, key)), key)
    plain = model(rows)
    exact = model.double()(rows.double())
    scale = exact.abs().max()
    return ((decrypted - exact).abs().max() / scale).item(), ((plain - exact).abs().max() / scale).item()


def _rows(spec: ModelSpec, seed: int) -> Tensor:
    return torch.randn(ROWS, spec.config.inputs, generator=torch.Generator().manual_seed(seed))


def _forward(model: nn.Module, rows: Tensor) -> Callable[[], object]:
    return lambda: model(rows)


def _median_seconds(run_once: Callable[[], object]) -> float:
    return statistics.median(seconds(run_once) for _ in range(3))
