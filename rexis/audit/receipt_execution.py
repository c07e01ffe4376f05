"""Re-execute the item of a receipt: encrypted model, encrypted input, encrypted output. No key is needed, and none helps."""

from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from rexis.audit.receipt_files import model_file_spec
from rexis.audit.reexecution import NumericProfile, reexecute_item
from rexis.commitments import Receipt
from rexis.errors import VerificationError
from rexis.models.builders import build
from rexis.models.spec import ModelSpec
from rexis.protocol.batch import read_file


def verify_computation(
    receipt: Receipt, model: Path, spec: ModelSpec, item: NDArray[Any], claimed: NDArray[Any], profile: NumericProfile
) -> None:
    """Check that the model gives this output for this input.

    Args:
        model: file, already checked against the receipt's model record.
        item, claimed: the receipt's input and output, f32 [d] and [k].

    Raises:
        DigestMismatchError: another input or output than the receipt's.
        VerificationError: the model gives another output, or takes no such input.
    """
    with model.open("rb") as file:
        weights = read_file(file, model_file_spec(spec), model.stat().st_size)
    module = build(spec, seed=0)
    module.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    given, output = torch.tensor(item), torch.tensor(claimed)
    # The provider chose what it signed: an input that no model of this spec takes is a false answer, and no defect of ours.
    width = spec.tabular.widths[0]
    if given.shape != (width,):
        raise VerificationError(f"the model takes inputs of {width} numbers, the receipt's input has shape {list(given.shape)}")
    reexecute_item(module, given, output, input_digest=receipt.input, output_digest=receipt.output, profile=profile)
