"""The example of residual coding: its formulas against loops, its identity, its figures against its page."""

import importlib.util
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def coding():
    """The module examples/residual_coding.py."""
    spec = importlib.util.spec_from_file_location("residual_coding", ROOT / "examples" / "residual_coding.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their annotations
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def case(seed, n=3, t=7, d=4, k=5):
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.2, 1.0, k)
    return rng.normal(size=(n, t, d)), weights / weights.sum(), rng.normal(size=(k, d)), rng.uniform(0.3, 2.0, (k, d))


def vlad_by_loops(x, words):
    n, t, d = x.shape
    result = np.zeros((n, len(words), d))
    for image in range(n):
        for patch in range(t):
            distances = [math.dist(x[image, patch], word) for word in words]
            k = distances.index(min(distances))
            for axis in range(d):
                result[image, k, axis] += x[image, patch, axis] - words[k, axis]
    return result


def fisher_by_loops(x, weights, means, deviations, hard=False):
    n, t, d = x.shape
    k = len(weights)
    g_mu, g_sigma = np.zeros((n, k, d)), np.zeros((n, k, d))
    for image in range(n):
        for patch in range(t):
            densities = [
                weights[j] * math.prod(scipy.stats.norm.pdf(x[image, patch], means[j], deviations[j])) for j in range(k)
            ]
            g = [density / sum(densities) for density in densities]
            if hard:
                distances = [math.dist(x[image, patch], mean) for mean in means]
                g = [float(j == distances.index(min(distances))) for j in range(k)]
            for j in range(k):
                for axis in range(d):
                    z = (x[image, patch, axis] - means[j, axis]) / deviations[j, axis]
                    g_mu[image, j, axis] += g[j] * z / (t * math.sqrt(weights[j]))
                    g_sigma[image, j, axis] += g[j] * (z * z - 1) / (t * math.sqrt(2 * weights[j]))
    return g_mu, g_sigma


def unit(code):
    flat = code.reshape(len(code), -1)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


@given(st.integers(0, 10_000))
def test_a_fisher_vector_with_hard_assignment_and_no_sigma_terms_is_vlad_up_to_scale(coding, seed):
    x, _, words, _ = case(seed)
    deviation = float(np.random.default_rng(seed).uniform(0.1, 3.0))
    equal, spherical = np.full(len(words), 1 / len(words)), np.full(words.shape, deviation)
    loops = fisher_by_loops(x, equal, words, spherical, hard=True)[0]
    assert np.abs(unit(loops) - unit(vlad_by_loops(x, words))).max() <= 1e-5
    assert coding.difference_to_vlad(x, words, deviation) <= 1e-5
    # The scale itself: 1 / (T sqrt(w) sigma).
    mixture = coding.Mixture(weights=equal, means=words, deviations=spherical)
    ours, _ = coding.fisher_vector(x, mixture, coding.one_hot(coding.nearest(x, words), len(words)))
    scale = 1 / (x.shape[1] * math.sqrt(1 / len(words)) * deviation)
    assert np.abs(ours - scale * coding.vlad(x, words)).max() <= 1e-9 * max(1.0, scale)


def test_with_unequal_weights_it_is_vlad_up_to_a_scale_a_word(coding):
    x, weights, words, _ = case(0)
    mixture = coding.Mixture(weights=weights, means=words, deviations=np.full(words.shape, 0.5))
    ours, _ = coding.fisher_vector(x, mixture, coding.one_hot(coding.nearest(x, words), len(words)))
    expected = coding.vlad(x, words) / (x.shape[1] * np.sqrt(weights) * 0.5)[:, None]
    assert np.abs(ours - expected).max() <= 1e-12
    assert np.abs(unit(ours) - unit(coding.vlad(x, words))).max() > 1e-3


def test_soft_assignment_becomes_hard_as_the_deviations_shrink(coding):
    x, weights, words, _ = case(1)
    hard = coding.one_hot(coding.nearest(x, words), len(words))
    gaps = [
        np.abs(coding.posteriors(x, coding.Mixture(weights=weights, means=words, deviations=np.full(words.shape, sigma))) - hard).max()
        for sigma in (1.0, 0.3, 0.1, 0.001)
    ]  # fmt: skip
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] <= 1e-12


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("hard", [False, True])
def test_vlad_and_fisher_vectors_are_those_of_plain_loops(coding, seed, hard):
    x, weights, means, deviations = case(seed)
    assert np.abs(coding.vlad(x, means) - vlad_by_loops(x, means)).max() <= 1e-12
    mixture = coding.Mixture(weights=weights, means=means, deviations=deviations)
    assigned = coding.one_hot(coding.nearest(x, means), len(means)) if hard else None
    ours = coding.fisher_vector(x, mixture, assigned)
    for part, expected in zip(ours, fisher_by_loops(x, weights, means, deviations, hard), strict=True):
        assert np.abs(part - expected).max() <= 1e-12


def test_a_fisher_vector_is_the_scaled_gradient_of_the_likelihood(coding):
    x, weights, means, deviations = case(2, n=1)

    def mean_log_likelihood(mu, sigma):
        densities = [weights[j] * scipy.stats.norm.pdf(x[0], mu[j], sigma[j]).prod(1) for j in range(len(weights))]
        return np.log(np.sum(densities, axis=0)).mean()

    ours = coding.fisher_vector(x, coding.Mixture(weights=weights, means=means, deviations=deviations))
    step = 1e-5
    for j in range(len(weights)):
        for axis in range(x.shape[2]):
            bump = np.zeros_like(means)
            bump[j, axis] = step
            for part, at, information in (
                (ours[0], (bump, 0), weights[j]),
                (ours[1], (0, bump), 2 * weights[j]),
            ):
                up = mean_log_likelihood(means + at[0], deviations + at[1])
                down = mean_log_likelihood(means - at[0], deviations - at[1])
                # The Fisher information of a mean is w / sigma^2, of a deviation 2 w / sigma^2.
                expected = (up - down) / (2 * step) * deviations[j, axis] / math.sqrt(information)
                assert part[0, j, axis] == pytest.approx(expected, abs=1e-6)


def test_posteriors_are_those_of_scikit_learn(coding):
    x, _, _, _ = case(3, n=40)
    flat = x.reshape(-1, x.shape[2])
    fitted = GaussianMixture(3, covariance_type="diag", random_state=0).fit(flat)
    mixture = coding.Mixture(weights=fitted.weights_, means=fitted.means_, deviations=np.sqrt(fitted.covariances_))
    ours = coding.posteriors(flat, mixture)
    assert np.abs(ours - fitted.predict_proba(flat)).max() <= 1e-9
    assert np.abs(ours.sum(-1) - 1).max() <= 1e-12


def test_a_bag_of_words_counts_every_patch_once(coding):
    x, _, words, _ = case(4)
    bags = coding.bag_of_words(x, words)
    assert (bags.sum(1) == x.shape[1]).all()
    for image, bag in zip(x, bags, strict=True):
        nearest = [min(range(len(words)), key=lambda k: math.dist(patch, words[k])) for patch in image]
        assert bag.tolist() == [nearest.count(k) for k in range(len(words))]


def test_retrieval_of_perfect_and_of_useless_codes(coding):
    _, labels = coding.digits()
    perfect = coding.retrieval(np.eye(10)[labels], labels)
    assert (perfect.nearest_neighbour_error, perfect.precision_at_10, perfect.mean_average_precision) == (0, 100, 100)
    useless = coding.retrieval(np.random.default_rng(0).normal(size=(len(labels), 5)), labels)
    assert useless.nearest_neighbour_error == pytest.approx(90, abs=6)
    assert useless.mean_average_precision == pytest.approx(10, abs=2)


def test_average_precision_is_that_of_scikit_learn(coding):
    from sklearn.metrics import average_precision_score

    images, labels = coding.digits()
    codes = images.reshape(len(images), -1)[:, ::3]
    ours = coding.retrieval(codes, labels).mean_average_precision
    train, test = codes[: coding.TRAIN_IMAGES], codes[coding.TRAIN_IMAGES :]
    scores = [
        average_precision_score(labels[: coding.TRAIN_IMAGES] == label, -((train - code) ** 2).sum(1))
        for code, label in zip(test, labels[coding.TRAIN_IMAGES :], strict=True)
    ]
    # Ties are broken in another way.
    assert ours == pytest.approx(100 * np.mean(scores), abs=0.1)


def test_the_remainder_and_the_nearest_words_give_the_vectors_back(coding):
    rng = np.random.default_rng(5)
    train, test = rng.normal(size=(300, 6)), rng.normal(size=(50, 6))
    words = coding.dictionary(train, 8)
    left = coding.remainder(train, test, 8)[1]
    for vector, rest in zip(test, left, strict=True):
        distances = [math.dist(vector, word) for word in words]
        assert np.abs(vector - words[distances.index(min(distances))] - rest).max() <= 1e-12
        assert np.linalg.norm(rest) == pytest.approx(min(distances))


@pytest.fixture(scope="module")
def printed(coding):
    """What the example prints."""
    import contextlib
    import io

    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        coding.main()
    return output.getvalue()


def test_the_page_shows_what_the_example_prints(printed):
    """Figures of another version of scikit-learn differ a little; what the page concludes from them must hold."""
    page = (ROOT / "docs" / "residual-coding.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```\n(Fisher vector with.*?)```", page, re.DOTALL)
    number = r"\d+(?:\.\d+)?(?:e-\d+)?"
    assert re.sub(number, "#", shown).split() == re.sub(number, "#", printed).split()
    for line, ours in zip(shown.splitlines()[3:], printed.splitlines()[3:], strict=True):
        for figure, measured in zip(re.findall(number, line), re.findall(number, ours), strict=True):
            assert float(measured) == pytest.approx(float(figure), abs=2.0), line


def test_the_printed_table_fits_80_columns(printed):
    assert max(map(len, printed.splitlines())) <= 92
    assert max(map(len, printed.splitlines()[3:])) <= 80


def test_what_the_page_concludes_holds(printed):
    rows = re.findall(r"^(\S.*?\S) +(\d+) +(\d+) +(\d+\.\d)$", printed, re.MULTILINE)
    assert len(rows) == 8
    for few in (rows[:4], rows[4:]):
        bits, words, errors = ({row[0]: float(row[at]) for row in few} for at in (1, 2, 3))
        again, residual = "two words of the vector, averaged", "a word, and one of what it leaves"
        assert (bits[again], words[again]) == (bits[residual], words[residual])
        assert errors[residual] < 0.8 * errors[again]
    (_, bits, words, error), (*_, two_stages) = rows[4], rows[3]
    assert (bits, words) == ("8", "256")
    assert float(error) < float(two_stages)
