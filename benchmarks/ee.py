"""Equivariant Encryption beside the plain model, for every family: error, runtime, expansion, key times (`DESIGN.md` 6).

Real weights come with `make setup-bench`; a part whose weights are not installed is named under `left_out`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from benchmarks import bert_models, ckks, llama_models, mlp_models

PARTS: Mapping[str, Callable[..., Mapping[str, object]]] = MappingProxyType(
    {
        **{name: partial(mlp_models.run, name) for name in mlp_models.MODELS},
        "minilm_permutation": bert_models.run_minilm,
        "bert_dense_nonaffine": bert_models.run_nonaffine,
        "smollm2": llama_models.run,
        "ckks_30_64_2": ckks.run,
    }
)
