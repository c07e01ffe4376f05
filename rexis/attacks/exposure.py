"""What one job gives away, and what its owner knows beside it: the ground that every attack of a privacy report stands on.

The owner plays the attacker against himself. He has both sides, so each attack is told what its attacker would know and no more, and its
reading is judged against the truth.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rexis import ee
from rexis.ee.schemes import Ckks, ClientEncoder, Keyed, Noise

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Attacks gain little from more rows, and their time would outgrow any budget.
MAX_RECORDS = 4_000
# Of the records, the part that somebody else may hold in plain where the owner does not say: the first point of the spec's curve.
KNOWN_SHARE = 0.01


@dataclass(frozen=True, eq=False)
class Exposure:
    """One job: its key, its model, the data that go out, and what others may have.

    Attributes:
        key: of the job, without its scheme and its budget of records: what goes out here goes nowhere, and the noise is in `noise`.
        model: plain, on the CPU.
        keyed: the model as it goes out.
        rows: f64 [n, d], plain feature rows or embeddings; None for token ids.
        keyed_rows: the same rows as they go out, noise included.
        ids: i64 [n, length], plain token ids, negative where padding stands; None for rows.
        keyed_ids: the same ids as they go out.
        labels: i64 [n], classes; None where there are none or none were given.
        cohort: rows of the same distribution that an attacker holds: those given as reference, else a half of the owner's own data, which
            then is not among `rows`.
        cohort_ids: the same for token ids.
        unseen: rows f64 [k, d] or ids i64 [k, length], and classes i64 [k], that the model was not trained on, where it was on `labels`.
        base: the public or shared model that the owner's one came from, or the plain model itself where others hold it; None if private.
        earlier: a keyed model that went out before.
        records: how many there are in all; `rows` are a sample of at most `MAX_RECORDS`.
        known: how many of them may be known in plain: public, guessable, or put there by an attacker.
        noise: standard deviation of the Gaussian noise added to the rows before the key, in units of the rows.
    """

    key: ee.Key
    model: nn.Module
    keyed: nn.Module
    rows: Floats | None
    keyed_rows: Floats | None
    ids: Integers | None
    keyed_ids: Integers | None
    labels: Integers | None
    cohort: Floats | None
    cohort_ids: Integers | None
    unseen: tuple[Floats | Integers, Integers] | None
    base: nn.Module | None
    earlier: nn.Module | None
    records: int
    known: int
    noise: float

    @property
    def width(self) -> int:
        """d of the rows, or the length of the token sequences."""
        return int(self.sample().shape[-1])

    def sample(self) -> Tensor:
        """The inputs as the plain model takes them: f64 rows, or i64 ids."""
        plain = self.rows if self.rows is not None else self.ids
        assert plain is not None
        return torch.from_numpy(plain)


def expose(
    data: Tensor,
    model: nn.Module,
    key: ee.Key,
    *,
    generator: np.random.Generator,
    reference: Tensor | None = None,
    labels: Tensor | None = None,
    unseen: tuple[Tensor, Tensor] | None = None,
    base: nn.Module | None = None,
    earlier: nn.Module | None = None,
    known: int | None = None,
    noise: float | None = None,
) -> Exposure:
    """Key a sample of the data and the model as the job would.

    Args:
        data: what the key acts on; under scheme "client_encoder" the embeddings that the encoder gave.
        known: None for `KNOWN_SHARE` of the records.
        noise: None for that of the key's scheme.

    Raises:
        ValueError: shapes that do not fit each other, too few records, noise on token ids, or a key of scheme "ckks".
        KeyFileError: the key is for another architecture.
    """
    if isinstance(key.scheme, Ckks):
        raise ValueError("under scheme 'ckks' rows go out as ciphertexts, on which these attacks have no hold; the weights are plain")
    if noise is None:
        noise = key.scheme.sigma or 0.0 if isinstance(key.scheme, Noise | ClientEncoder) else 0.0
    # A report is no job: it uses nothing of the key's budget.
    budget, key = key.records, replace(key, records=None, scheme=Keyed())
    tokens = not data.is_floating_point()
    # Nothing of this goes out: it spends none of the key's budget.
    key = key.uncounted
    records = _records(data)
    if len(records) < 8:
        raise ValueError(f"expected at least 8 records to attack, got {len(records)}")
    if labels is not None and (labels.shape != records.shape[:1] or labels.is_floating_point()):
        raise ValueError(f"expected one class for each of {len(records)} records, got {labels.dtype} of shape {list(labels.shape)}")
    others = records[:0] if reference is None else _records(reference)
    # Texts of other lengths are as good for counting; rows of another width are other data.
    if others.is_floating_point() == tokens or (not tokens and others.shape[1:] != records.shape[1:]):
        raise ValueError(f"expected a reference like the data, {list(records.shape[1:])} wide, got {list(others.shape)}")
    if unseen is not None and not _alike(unseen[0], unseen[1], records):
        raise ValueError("expected records like the data and one class for each, of records that the model was not trained on")
    if noise < 0 or (tokens and noise > 0):
        raise ValueError(f"expected noise of 0 or more, and 0 for token ids, got {noise}")
    sent = len(records) if budget is None else min(len(records), budget)
    order = generator.permutation(len(records))
    if reference is None:
        order, rest = order[: len(order) // 2], order[len(order) // 2 :]
        others = records[np.sort(rest[:MAX_RECORDS])]
    own = np.sort(order[:MAX_RECORDS])
    sample, cohort = records[own], others[:MAX_RECORDS].numpy()
    if tokens:
        out, cohort_rows, cohort_ids = None, None, cohort.astype(np.int64)
    else:
        out, cohort_rows, cohort_ids = keyed(sample.double().numpy(), key, noise, generator), cohort.astype(np.float64), None
    return Exposure(
        key=key,
        model=model,
        # Keying refuses a public base that is called private; the report is to find it.
        keyed=ee.encrypt_model(model, replace(key, knowledge="public")),
        rows=None if tokens else sample.double().numpy(),
        keyed_rows=out,
        ids=sample.numpy().astype(np.int64) if tokens else None,
        keyed_ids=ee.encrypt_inputs(sample, key).numpy().astype(np.int64) if tokens else None,
        labels=None if labels is None else labels[own].numpy().astype(np.int64),
        cohort=cohort_rows,
        cohort_ids=cohort_ids,
        unseen=None if unseen is None else (_array(unseen[0]), unseen[1].cpu().numpy().astype(np.int64)),
        base=model if base is None and key.knowledge != "private" else base,
        earlier=earlier,
        records=sent,
        known=max(1, round(KNOWN_SHARE * sent)) if known is None else min(known, sent),
        noise=noise,
    )


def keyed(rows: Floats, key: ee.Key, noise: float, generator: np.random.Generator) -> Floats:
    """Rows as they go out: noise of standard deviation `noise` first, then the key."""
    noisy = rows + noise * generator.standard_normal(rows.shape)
    return np.asarray(ee.encrypt_inputs(torch.from_numpy(noisy), key).numpy(), dtype=np.float64)


def _alike(others: Tensor, classes: Tensor, records: Tensor) -> bool:
    """Whether others are records of the same kind, texts of any length, with one class for each."""
    tokens = not records.is_floating_point()
    same = others.ndim == 2 if tokens else others.shape[1:] == records.shape[1:]
    return same and others.is_floating_point() != tokens and classes.shape == others.shape[:1]


def _array(data: Tensor) -> Floats | Integers:
    found: Floats | Integers = data.detach().cpu().to(torch.float64 if data.is_floating_point() else torch.int64).numpy()
    return found


def _records(data: Tensor) -> Tensor:
    """Rows [n, d] as they are; embeddings [n, length, d] as rows; token ids [n, length] as they are."""
    if data.ndim == 3 and data.is_floating_point():
        return data.detach().cpu().flatten(0, 1)
    if data.ndim != 2 or 0 in data.shape:
        raise ValueError(f"expected rows [n, d], embeddings [n, length, d] or token ids [n, length], got shape {list(data.shape)}")
    return data.detach().cpu()
