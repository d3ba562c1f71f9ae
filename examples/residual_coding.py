"""Residual coding before residual learning: VLAD, Fisher vectors and residual quantisation on handwritten digits.

    python examples/residual_coding.py

He et al. 2015, Sec. 2, name these as earlier cases in which encoding what is left over works better than encoding
the thing itself. An image is described by its patches. A dictionary of K words, found by k-means, assigns each patch
to its nearest word, and the image is encoded by

- how many patches each word has (a bag of visual words), or
- what is left of the patches once their words are subtracted, summed a word (VLAD), or
- the gradient of a mixture of Gaussians with respect to its means and deviations (Fisher vector), which is VLAD with
  soft assignment, scaling, and a second part; without these three it is VLAD.

Shapes: n images, t patches an image, d values a patch, k words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.mixture import GaussianMixture

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64

TRAIN_IMAGES = 1_437
PATCH_PX = 4
WORDS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """A mixture of k Gaussians whose dimensions are independent."""

    weights: Float64[np.ndarray, " k"]
    """Share of each, sum 1."""
    means: Float64[np.ndarray, "k d"]
    """Centres: the words."""
    deviations: Float64[np.ndarray, "k d"]
    """Standard deviations, above 0."""


def nearest(x: Float64[np.ndarray, "*t d"], words: Float64[np.ndarray, "k d"]) -> Int64[np.ndarray, "*t"]:
    """Return the index of the word nearest to each vector; of two equally near, the first."""
    # |x - w|^2 without |x|^2, which is the same for every word.
    return np.argmin((words**2).sum(1) - 2 * x @ words.T, axis=-1)


def one_hot(index: Int64[np.ndarray, "*t"], k: int) -> Float64[np.ndarray, "*t k"]:
    """Return assignments as weights: 1 for the word of each vector, 0 for the others."""
    return np.eye(k)[index]


def posteriors(x: Float64[np.ndarray, "*t d"], mixture: Mixture) -> Float64[np.ndarray, "*t k"]:
    """Return the probability that each vector came from each Gaussian, sum 1 over k."""
    z = (x[..., None, :] - mixture.means) / mixture.deviations
    logs = np.log(mixture.weights) - np.log(mixture.deviations).sum(1) - 0.5 * (z**2).sum(-1)
    weights = np.exp(logs - logs.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def bag_of_words(x: Float64[np.ndarray, "n t d"], words: Float64[np.ndarray, "k d"]) -> Float64[np.ndarray, "n k"]:
    """Return how many patches of each image have each word."""
    return one_hot(nearest(x, words), len(words)).sum(1)


def vlad(x: Float64[np.ndarray, "n t d"], words: Float64[np.ndarray, "k d"]) -> Float64[np.ndarray, "n k d"]:
    """Return v_k, the sum of x_t - c_k over the patches t whose nearest word is c_k."""
    assigned = one_hot(nearest(x, words), len(words))
    return np.einsum("ntk,ntd->nkd", assigned, x) - assigned.sum(1)[:, :, None] * words


def fisher_vector(
    x: Float64[np.ndarray, "n t d"], mixture: Mixture, assigned: Float64[np.ndarray, "n t k"] | None = None
) -> tuple[Float64[np.ndarray, "n k d"], Float64[np.ndarray, "n k d"]]:
    """Return the gradients for means and for deviations.

    G_mu_k = sum_t g_t(k) z_tk / (T sqrt(w_k)) and G_sigma_k = sum_t g_t(k) (z_tk^2 - 1) / (T sqrt(2 w_k)), where
    z_tk = (x_t - mu_k) / sigma_k and g_t(k) are the posteriors.

    Args:
        x: patches.
        mixture: k Gaussians.
        assigned: weights to use in the place of the posteriors, such as `one_hot(nearest(x, mixture.means), k)`.
    """
    g = posteriors(x, mixture) if assigned is None else assigned
    z = (x[:, :, None, :] - mixture.means) / mixture.deviations
    scale = 1 / (x.shape[1] * np.sqrt(mixture.weights))[:, None]
    means = np.einsum("ntk,ntkd->nkd", g, z) * scale
    deviations = np.einsum("ntk,ntkd->nkd", g, z**2 - 1) * scale / np.sqrt(2)
    return means, deviations


def normalised(code: Float64[np.ndarray, "n ..."], *, root: bool = True) -> Float64[np.ndarray, "n length"]:
    """Return each code as a vector of length 1, after the signed square root of its values if `root`."""
    flat = code.reshape(len(code), -1)
    if root:
        flat = np.sign(flat) * np.sqrt(np.abs(flat))
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)


@dataclass(frozen=True, kw_only=True, slots=True)
class Retrieval:
    """How well a code finds digits of the same kind."""

    nearest_neighbour_error: float
    """Test images whose nearest training image is another digit, in percent."""
    precision_at_10: float
    """Share of the same digit among the ten nearest, in percent."""
    mean_average_precision: float
    """Mean over the test images of the average precision of the whole ranking, in percent."""


def retrieval(codes: Float64[np.ndarray, "n length"], labels: Int64[np.ndarray, " n"]) -> Retrieval:
    """Rank the training images for every test image, by Euclidean distance between their codes."""
    train, test = codes[:TRAIN_IMAGES], codes[TRAIN_IMAGES:]
    distances = (train**2).sum(1) - 2 * test @ train.T
    ranked = labels[:TRAIN_IMAGES][np.argsort(distances, axis=1, kind="stable")]
    same = ranked == labels[TRAIN_IMAGES:, None]
    precision = np.cumsum(same, axis=1) / np.arange(1, TRAIN_IMAGES + 1)
    return Retrieval(
        nearest_neighbour_error=100 * float(np.mean(~same[:, 0])),
        precision_at_10=100 * float(same[:, :10].mean()),
        mean_average_precision=100 * float(((precision * same).sum(1) / same.sum(1)).mean()),
    )


def digits() -> tuple[Float64[np.ndarray, "n 8 8"], Int64[np.ndarray, " n"]]:
    """Return the 1,797 digits of scikit-learn, ink from 0 to 1, and what they show; the last 360 are for testing."""
    pixels, labels = load_digits(return_X_y=True)
    return pixels.reshape(-1, 8, 8) / 16, labels.astype(np.int64)


def patches(images: Float64[np.ndarray, "n h w"], side: int) -> Float64[np.ndarray, "n t d"]:
    """Return every square patch of each image."""
    windows = np.lib.stride_tricks.sliding_window_view(images, (side, side), axis=(1, 2))
    return windows.reshape(len(images), -1, side * side)


def dictionary(x: Float64[np.ndarray, "t d"], k: int) -> Float64[np.ndarray, "k d"]:
    """Return k words for some vectors, by k-means from a fixed start."""
    fitted = KMeans(k, n_init=1, max_iter=50, random_state=0).fit(x)  # pyright: ignore[reportArgumentType]
    return fitted.cluster_centers_


def mixture_of(x: Float64[np.ndarray, "t d"], k: int) -> Mixture:
    """Return k Gaussians for some vectors, by expectation maximisation from k-means."""
    # Border pixels hardly vary; without a floor their deviations would go to 0 and rule the code.
    fitted = GaussianMixture(k, covariance_type="diag", reg_covar=1e-3, tol=1e-2, max_iter=100, random_state=0).fit(x)
    weights, means, variances = map(np.asarray, (fitted.weights_, fitted.means_, fitted.covariances_))
    return Mixture(weights=weights, means=means, deviations=np.sqrt(variances))


def difference_to_vlad(x: Float64[np.ndarray, "n t d"], words: Float64[np.ndarray, "k d"], deviation: float) -> float:
    """Return the largest difference between VLAD and the Fisher vector that it is a case of, both of length 1.

    The case: each patch belongs to its nearest word alone, the part of the deviations is dropped, and all words have
    the same weight and the same deviation in every direction. The scale 1 / (T sqrt(w) sigma) is then one number.
    """
    k = len(words)
    mixture = Mixture(weights=np.full(k, 1 / k), means=words, deviations=np.full(words.shape, deviation))
    means, _ = fisher_vector(x, mixture, one_hot(nearest(x, words), k))
    return float(np.abs(normalised(means, root=False) - normalised(vlad(x, words), root=False)).max())


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantised:
    """A way to write a vector as a few words, and what it loses."""

    name: str
    bits: float
    """Length of the code."""
    words: int
    """Words that are stored and searched."""
    error: float
    """Mean squared error on test vectors, in percent of their variance."""


def remainder(
    train: Float64[np.ndarray, "t d"], test: Float64[np.ndarray, "m d"], k: int
) -> tuple[Float64[np.ndarray, "t d"], Float64[np.ndarray, "m d"]]:
    """Return what is left of both sets once the nearest of k words, learned from the first, is subtracted."""
    words = dictionary(train, k)
    return train - words[nearest(train, words)], test - words[nearest(test, words)]


def quantisers(train: Float64[np.ndarray, "t d"], test: Float64[np.ndarray, "m d"], k: int) -> list[Quantised]:
    """Return codes of two words out of k each, and of one word out of k for comparison.

    The second word is of the vector again (learned from another half of the vectors, and averaged with the first), of
    the second half of the vector's values (a product code), or of what the first word leaves over.
    """
    variance = ((test - train.mean(0)) ** 2).sum(1).mean()

    def row(name: str, words_a_code: int, words: int, left: Float64[np.ndarray, "m d"]) -> Quantised:
        error = 100 * float((left**2).sum(1).mean() / variance)
        return Quantised(name=name, bits=words_a_code * float(np.log2(k)), words=words, error=error)

    left_train, left = remainder(train, test, k)
    again = [remainder(train[start::2], test, k)[1] for start in (0, 1)]
    half = train.shape[1] // 2
    parts = [remainder(train[:, part], test[:, part], k)[1] for part in (slice(half), slice(half, None))]
    return [
        row("one word", 1, k, left),
        row("two words of the vector, averaged", 2, 2 * k, (again[0] + again[1]) / 2),
        row("a word for each half of the vector", 2, 2 * k, np.concatenate(parts, axis=1)),
        row("a word, and one of what it leaves", 2, 2 * k, remainder(left_train, left, k)[1]),
    ]


def encodings() -> dict[str, tuple[int, Retrieval]]:
    """Return for each way to encode the digits the length of its codes and how well they retrieve."""
    images, labels = digits()
    x = patches(images, PATCH_PX)
    train = x[:TRAIN_IMAGES].reshape(-1, x.shape[2])
    # Every third patch is enough for a dictionary.
    words, mixture = dictionary(train[::3], WORDS), mixture_of(train[::3], WORDS)
    many = dictionary(train[::3], WORDS * x.shape[2])
    means, deviations = fisher_vector(x, mixture)
    codes = {
        f"bag of {WORDS} words": normalised(bag_of_words(x, words)),
        f"bag of {len(many)} words": normalised(bag_of_words(x, many)),
        f"VLAD, {WORDS} words": normalised(vlad(x, words)),
        f"Fisher vector, {WORDS} Gaussians": normalised(np.concatenate([means, deviations], axis=1)),
        "  its part for the means": normalised(means),
        "the pixels themselves": images.reshape(len(images), -1),
    }
    return {name: (code.shape[1], retrieval(code, labels)) for name, code in codes.items()}


def quantisation() -> list[Quantised]:
    """Return what codes of 4, 8 and 16 bits lose of the patches of the digits."""
    images, _ = digits()
    x = patches(images, PATCH_PX)
    train, test = (part.reshape(-1, x.shape[2]) for part in (x[:TRAIN_IMAGES], x[TRAIN_IMAGES:]))
    return [*quantisers(train, test, 16), *quantisers(train, test, 256)]


def main() -> None:
    """Print the three results."""
    images, _ = digits()
    x = patches(images, PATCH_PX)
    difference = difference_to_vlad(x, dictionary(x[:TRAIN_IMAGES:5].reshape(-1, x.shape[2]), WORDS), deviation=0.3)
    print("Fisher vector with hard assignment, equal weights and deviations, means only, against VLAD:")
    print(f"  largest difference of the normalised codes {difference:.1e}\n")
    print(f"{'1,437 digits, searched by 360':<34}  values  1-NN error  precision@10     mAP")
    for name, (length, result) in encodings().items():
        print(
            f"{name:<34}  {length:>6}  {result.nearest_neighbour_error:>8.1f} %  {result.precision_at_10:>10.1f} %"
            f"  {result.mean_average_precision:>4.1f} %"
        )
    print(f"\n{'patches of 4 x 4 pixels':<34}    bits  words  squared error, % of variance")
    for code in quantisation():
        print(f"{code.name:<34}  {code.bits:>6.0f}  {code.words:>5}  {code.error:>28.1f}")


if __name__ == "__main__":
    main()
