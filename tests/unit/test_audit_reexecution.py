"""Honest executions pass, every tampering of `specs/verification.md` 2.2 that fits a small model is refused, in the keyed domain."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rexis import ee
from rexis.audit.reexecution import PROFILES, reexecute_item, residual
from rexis.commitments import tensor_digest
from rexis.errors import DigestMismatchError, VerificationError
from rexis.models.builders import build
from rexis.models.mlp import MLPConfig
from rexis.models.spec import ModelSpec

SPEC = ModelSpec(MLPConfig(30, (64, 64), 2, "gelu"))
PLAIN = build(SPEC, seed=1)
KEY = ee.keygen(PLAIN, knowledge="private", seed=bytes(range(32)))
MODEL = ee.encrypt_model(PLAIN, KEY)
ITEM = ee.encrypt_inputs(torch.randn(30, generator=torch.Generator().manual_seed(2)), KEY)
STRICT = PROFILES["fp32-cpu-strict"]


@torch.no_grad()
def run(model: nn.Module, item: Tensor) -> Tensor:
    return model(item)


def audit(claimed: Tensor, *, item: Tensor = ITEM, profile: str = "fp32-cpu-strict") -> float:
    return reexecute_item(
        MODEL, item, claimed, input_digest=tensor_digest(ITEM), output_digest=tensor_digest(claimed), profile=PROFILES[profile]
    )


def changed(change: Callable[[Tensor], Tensor]) -> nn.Module:
    model = build(SPEC, seed=0)
    model.load_state_dict({name: change(value) if name.endswith("weight") else value for name, value in MODEL.state_dict().items()})
    return model


def int8(weight: Tensor) -> Tensor:
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    return (weight / scale).round() * scale


def half_rank(weight: Tensor) -> Tensor:
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    s[len(s) // 2 :] = 0
    return (u * s) @ v


def noise(weight: Tensor) -> Tensor:
    return weight + 1e-3 * weight.std() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))


def test_the_same_execution_has_no_residual() -> None:
    assert audit(run(MODEL, ITEM)) == 0.0


def test_honest_deviations_pass_with_room_to_spare() -> None:
    batched = run(MODEL, ITEM.expand(32, 30))[7].clone()
    doubled = run(changed(lambda weight: weight).double(), ITEM.double()).float()
    assert audit(batched) < STRICT.end_to_end / 10
    assert 0 < audit(doubled) < STRICT.end_to_end / 10


@pytest.mark.parametrize(
    "cheat",
    [
        pytest.param(lambda: run(build(SPEC, seed=2), ITEM), id="other weights"),
        pytest.param(lambda: run(changed(int8), ITEM), id="int8 weights per row"),
        pytest.param(lambda: run(changed(half_rank), ITEM), id="half-rank weights"),
        pytest.param(lambda: run(changed(noise), ITEM), id="weight noise 1e-3"),
        pytest.param(lambda: run(changed(lambda weight: weight).bfloat16(), ITEM.bfloat16()).float(), id="whole model in bf16"),
        pytest.param(lambda: run(MODEL, ITEM.roll(1)), id="another input"),
        pytest.param(lambda: run(MODEL, ITEM) * torch.tensor([1.0, 1.001]), id="output edited by 0.1 %"),
        pytest.param(lambda: run(MODEL, ITEM).flip(0), id="classes swapped"),
        pytest.param(lambda: torch.zeros(2), id="zeros"),
    ],
)
def test_tampering_is_refused(cheat: Callable[[], Tensor]) -> None:
    for profile in PROFILES:
        with pytest.raises(VerificationError, match="re-execution"):
            audit(cheat(), profile=profile)


def test_fp16_weights_are_refused_by_the_strict_profile_and_lie_at_the_limit_of_the_other() -> None:
    claimed = run(changed(lambda weight: weight.half().float()), ITEM)
    with pytest.raises(VerificationError, match="re-execution"):
        audit(claimed)
    # Relative to outputs with their shift, which hides the more the larger it is: with one of full size this was admitted.
    limit = PROFILES["fp32-cpu"].end_to_end
    assert limit / 2 < residual(claimed[None], run(MODEL, ITEM)[None]) < 2 * limit


@pytest.mark.parametrize("claimed", [torch.zeros(3), torch.zeros(1, 2), torch.zeros(2, dtype=torch.float64)])
def test_an_output_of_another_shape_or_type_is_refused(claimed: Tensor) -> None:
    with pytest.raises(VerificationError, match="expected an output"):
        audit(claimed)


def test_openings_must_be_the_committed_tensors() -> None:
    output = run(MODEL, ITEM)
    committed = {"input_digest": tensor_digest(ITEM), "output_digest": tensor_digest(output), "profile": STRICT}
    with pytest.raises(DigestMismatchError, match="input"):
        reexecute_item(MODEL, ITEM + 1e-6, output, **committed)
    with pytest.raises(DigestMismatchError, match="output"):
        reexecute_item(MODEL, ITEM, output + 1e-6, **committed)


def test_the_worst_row_counts_and_infinities_are_infinite() -> None:
    exact = torch.ones(4, 9)
    claimed = exact.clone()
    claimed[2, 0] += 3.0
    assert residual(claimed, exact) == pytest.approx(1.0)
    assert residual(exact, exact) == 0.0
    for bad in (float("nan"), float("inf")):
        claimed[0, 0] = bad
        assert residual(claimed, exact) == float("inf")
        assert residual(exact, claimed) == float("inf")
