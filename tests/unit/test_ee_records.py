"""The budget of records: counted before rows are keyed, whatever is killed when, and refused beyond it."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer

from rexis import ee
from rexis.attacks.exposure import expose
from rexis.attacks.known_pairs import recover_key
from rexis.attacks.readings import explained_variance
from rexis.errors import KeyFileError, PrivacyBudgetExceededError
from rexis.models.builders import build
from rexis.models.mlp import LogisticConfig
from rexis.models.spec import ModelSpec

SPEC = ModelSpec(LogisticConfig(40))
KEY = ee.keygen(SPEC, knowledge="private", seed=bytes(range(32)), records=20)
X = torch.randn(8, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def counter_at(folder: Path, rank: float = 1000.0) -> ee.RecordCounter:
    counter = KEY.counter(folder / "key", rank=rank)
    counter.create()
    return counter


def test_rows_are_counted_and_refused_beyond_the_budget(tmp_path: Path) -> None:
    counter = counter_at(tmp_path)
    assert counter.used == 0
    for used in (8, 16):
        assert torch.equal(ee.encrypt_inputs(X, KEY, counter=counter), KEY.site_keys["layer0/in"].encrypt(X))
        assert counter.used == used
    with pytest.raises(PrivacyBudgetExceededError, match="20 records at most, 16 are used, 8 more"):
        ee.encrypt_inputs(X, KEY, counter=counter)
    ee.encrypt_inputs(X[:4].unflatten(0, (2, 2)), KEY, counter=counter)
    assert KEY.counter(tmp_path / "key").used == 20


def test_what_is_refused_costs_nothing(tmp_path: Path) -> None:
    counter = counter_at(tmp_path)
    with pytest.raises(ValueError, match="expected floats"):
        ee.encrypt_inputs(X[:, :3], KEY, counter=counter)
    with pytest.raises(PrivacyBudgetExceededError):
        counter.reserve(21)
    with pytest.raises(PrivacyBudgetExceededError):
        counter.reserve(-1)
    assert counter.used == 0


def test_a_budget_needs_the_counter_of_its_own_key(tmp_path: Path) -> None:
    counter = counter_at(tmp_path)
    with pytest.raises(ValueError, match="budget of 20 records"):
        ee.encrypt_inputs(X, KEY)
    for other in (replace(KEY, epoch=1), replace(KEY, records=None)):
        with pytest.raises(ValueError, match="got the counter of"):
            ee.encrypt_inputs(X, other, counter=counter)
    with pytest.raises(ValueError, match="no budget"):
        KEY.uncounted.counter(tmp_path / "key")
    assert KEY.uncounted.id == KEY.id
    assert torch.equal(ee.encrypt_inputs(X, KEY.uncounted), KEY.site_keys["layer0/in"].encrypt(X))
    counter.reserve(3)
    with pytest.raises(KeyFileError, match="does not count the records"):
        _ = replace(KEY, epoch=1).counter(tmp_path / "key").used


@pytest.mark.parametrize("torn", range(24))
def test_an_entry_that_a_crash_cut_short_was_never_given_out(tmp_path: Path, torn: int) -> None:
    counter = counter_at(tmp_path)
    counter.reserve(5)
    whole = counter.path.read_bytes()
    counter.reserve(7)
    counter.path.write_bytes(whole + counter.path.read_bytes()[24 : 24 + torn])
    assert counter.used == 5
    counter.reserve(2)
    assert counter.used == 7
    assert len(counter.path.read_bytes()) == 48


def test_a_damaged_or_missing_count_is_refused_and_never_starts_again(tmp_path: Path) -> None:
    counter = counter_at(tmp_path)
    counter.reserve(5)
    counter.reserve(5)
    entries = counter.path.read_bytes()
    # A bit of the count, a bit of its code, and the first entry in the second's place.
    for damaged in (entries[:31] + b"\x01" + entries[32:], entries[:-1] + bytes([entries[-1] ^ 1]), entries[:24] * 2, bytes(48)):
        counter.path.write_bytes(damaged)
        with pytest.raises(KeyFileError, match="damaged"):
            counter.reserve(1)
        assert counter.path.read_bytes() == damaged
    counter.path.unlink()
    with pytest.raises(KeyFileError, match="missing"):
        counter.reserve(1)
    assert not counter.path.exists()


def test_callers_at_the_same_time_do_not_spend_a_record_twice(tmp_path: Path) -> None:
    counter = counter_at(tmp_path)

    def spend(_number: int) -> bool:
        try:
            counter.reserve(1)
        except PrivacyBudgetExceededError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(spend, range(60))) == 20
    assert counter.used == 20


def test_a_quarter_of_the_effective_rank_is_warned_of_once(tmp_path: Path) -> None:
    counter = counter_at(tmp_path, rank=40.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        counter.reserve(10)
    with pytest.warns(ee.RecordBudgetWarning, match="from 10.0 records"):
        counter.reserve(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        counter.reserve(1)
    assert KEY.counter(tmp_path / "key").rank == 40


def test_a_saved_key_has_its_count_beside_it(tmp_path: Path) -> None:
    KEY.save(tmp_path / "key", "p")
    assert ee.Key.load(tmp_path / "key", "p").counter(tmp_path / "key").used == 0
    assert (tmp_path / "key.records").stat().st_mode & 0o077 == 0
    with pytest.raises(FileExistsError, match="never overwritten"):
        KEY.save(tmp_path / "key", "p")
    (tmp_path / "key").unlink()
    with pytest.raises(FileExistsError, match="records"):
        KEY.save(tmp_path / "key", "p")
    assert not (tmp_path / "key").exists()


def test_a_key_that_is_not_written_leaves_no_count_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="passphrase"):
        KEY.save(tmp_path / "key", "")
    assert list(tmp_path.iterdir()) == []


def test_a_rehearsal_of_the_job_spends_nothing(tmp_path: Path) -> None:
    """The privacy report keys more rows than the budget has, and none of them leaves."""
    counter = counter_at(tmp_path)
    rows = torch.randn(60, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    exposure = expose(rows, build(SPEC, seed=1, dtype=torch.float64), KEY, generator=np.random.default_rng(1))
    assert exposure.keyed_rows is not None
    assert len(exposure.keyed_rows) > 20
    assert counter.used == 0


def test_the_limit_of_the_warning_comes_before_correlated_records_are_read() -> None:
    """Correction 5: on real, correlated columns d/2 pairs read nearly everything, fewer than a quarter of the effective rank little."""
    data = torch.from_numpy(load_breast_cancer().data)
    data = (data - data.mean(dim=0)) / data.std(dim=0)
    rank = ee.effective_rank(data)
    assert 6 < rank < 7
    key = ee.keygen(ModelSpec(LogisticConfig(30)), knowledge="private", seed=bytes(range(32)))
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(1))
    rows, keyed = data[order].numpy(), ee.encrypt_inputs(data[order], key).numpy()

    def reading(pairs: int) -> float:
        found = [recover_key(keyed[at : at + pairs], rows[at : at + pairs]) for at in range(0, 400, 40)]
        scores = [explained_variance(rows[450:], keyed[450:] @ each.matrix.T + each.shift) for each in found]
        return sorted(scores)[len(scores) // 2]

    assert reading(15) > 0.9
    assert reading(round(rank)) > 0.6
    assert reading(int(rank / 4)) < 0.2


def test_effective_rank_of_known_spectra() -> None:
    isotropic = torch.randn(4000, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert ee.effective_rank(isotropic) == pytest.approx(10, abs=0.1)
    assert ee.effective_rank(isotropic[:, :1] * torch.ones(10)) == pytest.approx(1)
    assert ee.effective_rank(torch.ones(5, 3)) == 1
    for rows in (isotropic[:1], isotropic[0], isotropic.long()):
        with pytest.raises(ValueError, match="expected"):
            ee.effective_rank(rows)
