"""How a key is made for a model: what is asked before there is one, and what of the model goes into it."""

import secrets
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from rexis.ee import derivation
from rexis.ee.families import canonical_spec
from rexis.ee.keys import Key, Labels
from rexis.ee.placements import Read
from rexis.ee.schemes import SchemeName, choose
from rexis.ee.shift_scales import ShiftScales
from rexis.ee.sites import Mode, Suite
from rexis.errors import PrivacyError
from rexis.models.builders import describe
from rexis.models.knowledge import Knowledge
from rexis.models.modules.batch_norm import without_batch_norm
from rexis.models.public_bases import refuse_public_base
from rexis.models.spec import ModelSpec


def keygen(
    model: nn.Module | ModelSpec,
    *,
    mode: Mode = "infer",
    suite: Suite = "dense",
    knowledge: Knowledge,
    accept_known_base_risk: bool = False,
    seed: bytes | None = None,
    condition: float = 1.0,
    labels: Labels = "permuted",
    records: int | None = None,
    scheme: SchemeName = "keyed",
    sigma: float | None = None,
    encoder: nn.Module | None = None,
    polynomial: Sequence[float] | None = None,
) -> Key:
    """Make a key for a model.

    Args:
        model: a torch module of a supported family, whose weights say how large shifts are (`rexis.ee.shift_scales`), or its spec, which
            leaves them at their full size; the head on the embeddings with an encoder before it.
        knowledge: who holds the plaintext model: only its owner ("private"), the members of a federation and its aggregator ("members"),
            or anyone ("public"). There is no default, because the protection hangs on it.
        accept_known_base_risk: needed with "public": whoever has the base weights recovers the key from the keyed ones in seconds.
        seed: 32 bytes; None (the right choice outside of tests) takes them from the operating system.
        condition: above 1, dense keys for inference are drawn from all invertible matrices whose condition number it bounds; the float
            error grows with it (keep it under 3 in bf16, 10 in f32).
        labels: "split" if the owner computes the loss in training.
        records: how many rows (or token ids) may be keyed in all; None for no budget. Records known in plain begin to give others away at
            a quarter of the effective rank of the owner's data (`rexis.ee.effective_rank`), and give away all at d + 1.
        scheme: what is done to inputs before they are keyed (`rexis.ee.schemes`); "ckks" encrypts them instead.
        sigma: of schemes "noise" and "client_encoder", the standard deviation of the noise on rows or embeddings.
        encoder: of scheme "client_encoder", the public module that runs at the owner.
        polynomial: of scheme "ckks", coefficients from the constant up in the place of the activation; None fits them.

    Raises:
        ConfigurationError: scheme "ckks" without TenSEAL.
        PrivacyError: a public model without `accept_known_base_risk`, or one that comes from a known public model and is called private.
        UnsupportedLayerError: the model has no equivariant transform, or scheme "ckks" does not carry it.
        ValueError: scheme "masked", which is not built yet; an unknown scheme, or a parameter of another one.
    """
    if knowledge == "public" and not accept_known_base_risk and scheme != "ckks":
        raise PrivacyError(
            "knowledge='public': the key is recovered from public weights in seconds, so this is no protection; "
            "keep the base private, or pass accept_known_base_risk=True and have the job labelled 'obfuscation only'"
        )
    read: Read | None = None
    if isinstance(model, nn.Module):
        if knowledge == "private":
            refuse_public_base(model.state_dict())
        model = without_batch_norm(model) if mode == "infer" else model
        read, model = model.state_dict().__getitem__, describe(model)
    spec = canonical_spec(model)
    seed = secrets.token_bytes(derivation.SEED_SIZE) if seed is None else seed
    chosen = choose(scheme, spec, sigma=sigma, encoder=encoder, polynomial=polynomial)
    key = Key(seed, spec, mode, suite, knowledge, condition=condition, labels=labels, records=records, scheme=chosen)
    key.check_suite()
    return key if read is None else with_shift_scales(key, model, read)


def with_shift_scales(key: Key, plain: ModelSpec, read: Read) -> Key:
    """A key whose shifts are as large as the weights of the plain model ask for.

    Args:
        plain: spec of the model as it is, before its heads are untied.
        read: gives a tensor of it.
    """
    return replace(key, shifts=ShiftScales.of_weights(plain, [site for site in key.sites if site.shifted(key.suite, key.mode)], read))
