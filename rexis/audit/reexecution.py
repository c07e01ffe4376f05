"""Re-execute one committed item, in the keyed domain, and compare with the committed output (`specs/verification.md` 2.2, 5).

Weights of another model, int8 or bf16 arithmetic and skipped layers lie 10 to 10^6 times above the tolerance; honest kernels, thread counts
and attention variants at least ten times below it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from rexis.commitments import tensor_digest
from rexis.errors import DigestMismatchError, VerificationError


@dataclass(frozen=True)
class NumericProfile:
    """How exactly an execution must be repeated.

    Attributes:
        name: stands in the certificate.
        end_to_end: largest residual of an output recomputed from its input.
    """

    name: str
    end_to_end: float


PROFILES: Mapping[str, NumericProfile] = MappingProxyType(
    {profile.name: profile for profile in (NumericProfile("fp32-cpu", 1e-4), NumericProfile("fp32-cpu-strict", 2e-5))}
)


def residual(claimed: Tensor, recomputed: Tensor) -> float:
    """The worst row's ‖claimed - recomputed‖ / ‖recomputed‖ over the last axis, in f64; infinite if anything is not finite."""
    difference = torch.linalg.vector_norm(claimed.double() - recomputed.double(), dim=-1)
    worst = (difference / (torch.linalg.vector_norm(recomputed.double(), dim=-1) + 1e-12)).max().item()
    return worst if math.isfinite(worst) else math.inf


def reexecute_item(
    model: nn.Module, item: Tensor, claimed: Tensor, *, input_digest: bytes, output_digest: bytes, profile: NumericProfile
) -> float:
    """Check one item of a committed run.

    Args:
        model: the committed model, already checked against its record.
        item, claimed: the opened input and output, f32.
        input_digest, output_digest: what the prover committed to (`rexis.commitments.tensor_digest`).

    Returns:
        The residual, for the certificate.

    Raises:
        DigestMismatchError: an opened tensor is not the committed one.
        VerificationError: the committed output is not what the model computes from the committed input.
    """
    for what, tensor, committed in (("input", item, input_digest), ("output", claimed, output_digest)):
        opened = tensor_digest(tensor)
        if opened != committed:
            raise DigestMismatchError(f"opened {what}", committed, opened)
    training = model.training
    model.eval()
    with torch.no_grad():
        recomputed = model(item)
    model.train(training)
    if recomputed.shape != claimed.shape or recomputed.dtype != claimed.dtype:
        raise VerificationError(
            f"expected an output {recomputed.dtype} of shape {list(recomputed.shape)}, "
            f"the committed one is {claimed.dtype} of shape {list(claimed.shape)}"
        )
    found = residual(claimed, recomputed)
    if found > profile.end_to_end:
        raise VerificationError(
            f"the committed output differs by {found:.3g} from its re-execution; {profile.name} admits {profile.end_to_end:.3g}"
        )
    return found
