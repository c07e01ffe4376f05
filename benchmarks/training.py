"""Training on ciphertext beside training on plaintext, for every admitted pair of suite and optimiser, and the ICD-10 chapter task.

Both runs start from the same weights and take the same batches; the keyed one is decrypted at the end (`training_runs`). A part whose
weights are not installed (`make setup-bench`) is named under `left_out`.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from benchmarks import bert_models, llama_trials, training_runs

PARTS: Mapping[str, Callable[..., Mapping[str, object]]] = MappingProxyType(
    {
        "mlp": training_runs.run_mlp,
        "minilm": bert_models.train_minilm,
        "bert": bert_models.train_nonaffine,
        "llama": llama_trials.run,
        "smollm2_lora": llama_trials.run_lora,
        "icd10": bert_models.run_chapters,
    }
)
