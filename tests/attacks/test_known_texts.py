"""Known texts under a permuted vocabulary: what few of them read, what one key for each text would leave, and what is no permutation."""

import numpy as np
import pytest
from numpy.typing import NDArray

from rexis.attacks.known_texts import dictionary_reading, read_dictionary

WORDS, LENGTH = 2000, 20
Ids = NDArray[np.int64]


def texts(count: int, seed: int) -> list[Ids]:
    """Words as frequent as by Zipf's law."""
    generator = np.random.default_rng(seed)
    shares = 1 / np.arange(1, WORDS + 1)
    return list(generator.choice(WORDS, size=(count, LENGTH), p=shares / shares.sum()))


def test_few_known_texts_read_most_of_the_others_under_one_key_and_no_name_is_wrong() -> None:
    plain, vocabulary = texts(300, 1), np.random.default_rng(2).permutation(WORDS)
    keyed = [vocabulary[text] for text in plain]
    curve = dictionary_reading(keyed, truth=plain, generator=np.random.default_rng(3), known=[3, 30, 150]).curve
    # 0.36 to 0.43, 0.66 to 0.69 and 0.83 to 0.85 over ten seeds.
    assert 0.3 < curve[3] < 0.5
    assert curve[30] > 0.6
    assert curve[150] > 0.8
    assert all(vocabulary[name] == hidden for hidden, name in read_dictionary(keyed[:30], plain[:30]).items())


def test_under_a_key_of_its_own_no_text_helps_with_another() -> None:
    plain, generator = texts(60, 1), np.random.default_rng(4)
    keyed = [generator.permutation(WORDS)[text] for text in plain]
    read = []
    for known, other in zip(range(0, 60, 2), range(1, 60, 2), strict=True):
        named = read_dictionary([keyed[known]], [plain[known]])
        read += [named.get(hidden) == word for hidden, word in zip(keyed[other].tolist(), plain[other].tolist(), strict=True)]
    assert np.mean(read) < 0.01
    with pytest.raises(ValueError, match="two names"):
        read_dictionary(keyed, plain)


@pytest.mark.parametrize("known", [[], [0], [5]])
def test_a_number_out_of_bounds_is_refused(known: list[int]) -> None:
    plain = texts(5, 1)
    with pytest.raises(ValueError, match="from 1 to 4"):
        dictionary_reading(plain, truth=plain, generator=np.random.default_rng(1), known=known)
