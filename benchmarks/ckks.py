"""CKKS beside EE and the plain model on 30-64-2, one row at a time on one thread: `specs/equivariant-encryption.md` 1f.

CKKS knows no ReLU, so it computes the model with a square in its place, and its error is against that model in f64; times of plain and
EE are of the same shapes with ReLU. Caveat that belongs to every figure here: one record a ciphertext and TenSEAL's general matrix
product; diagonal packing by hand or thousands of records a ciphertext are one to two orders better per record, so the ratio is this
setting's and no general price of homomorphic encryption.
"""

import statistics
import time
from collections.abc import Callable

import torch

from rexis import ee
from rexis.ee.schemes.ckks import Ckks
from rexis.models.builders import build
from rexis.models.mlp import MLPConfig
from rexis.models.spec import ModelSpec

SPEC = ModelSpec(MLPConfig(30, (64,), 2))
SQUARE = (0.0, 0.0, 1.0)


@torch.no_grad()
def run(*, quick: bool) -> dict[str, float]:
    """Figures of `ckks_30_64_2`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = build(SPEC, seed=0)
    row = torch.randn(1, SPEC.config.inputs, generator=torch.Generator().manual_seed(0))
    keyed = ee.keygen(model, knowledge="private", seed=bytes(32))
    encrypted, keyed_row = ee.encrypt_model(model, keyed), ee.encrypt_inputs(row, keyed)
    plain_s = _median_seconds(lambda: model(row), 2000)
    ee_s = _median_seconds(lambda: encrypted(keyed_row), 2000)
    figures = {"plain_s": plain_s, "ee_s": ee_s, "ee_input_expansion": keyed_row.nbytes / row.nbytes} | _ckks(model, row, 1 if quick else 5)
    torch.set_num_threads(threads)
    return figures | {"ckks_over_plain": figures["ckks_s"] / plain_s, "ckks_over_ee": figures["ckks_s"] / ee_s}


def _ckks(model: torch.nn.Module, row: torch.Tensor, repeats: int) -> dict[str, float]:
    start = time.perf_counter()
    key = ee.keygen(model, knowledge="public", scheme="ckks", polynomial=SQUARE)
    provider = ee.encrypt_model(model, key)
    keygen_s = time.perf_counter() - start
    scheme = key.scheme
    assert isinstance(scheme, Ckks)
    sent = ee.encrypt_inputs(row, key)
    # The first answer loads the evaluation keys.
    answer = provider(sent)
    cpu = time.process_time()
    ckks_s = _median_seconds(lambda: provider(sent), repeats)
    ckks_cpu_s = (time.process_time() - cpu) / repeats
    exact = scheme.plain_model(model)(row.double())
    error = ((ee.decrypt_outputs(answer, key) - exact).abs().max() / exact.abs().max()).item()
    return {
        "ckks_s": ckks_s,
        "ckks_cpu_s": ckks_cpu_s,
        "ckks_relative_error": error,
        "ckks_depth": scheme.parameters.depth,
        "ckks_ring": scheme.parameters.ring,
        "ckks_scale_bits": scheme.parameters.scale_bits,
        "ckks_keygen_s": keygen_s,
        "ckks_encrypt_row_s": _median_seconds(lambda: ee.encrypt_inputs(row, key), repeats),
        "ckks_decrypt_row_s": _median_seconds(lambda: ee.decrypt_outputs(answer, key), repeats),
        "ckks_input_bytes": sent.nbytes,
        "ckks_input_expansion": sent.nbytes / row.nbytes,
        "ckks_answer_bytes": answer.nbytes,
        "ckks_evaluation_key_bytes": provider.get_buffer("context").nbytes,
    }


def _median_seconds(run_once: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run_once()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
