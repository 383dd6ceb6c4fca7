"""Slow versions of subspaces: a least-squares problem an image, and the full eigendecomposition of a second moment."""

import numpy as np


def reconstruction_errors(real, weights, synthetic, ridge):
    """A number a class; real ``(num_classes, batch, d)``, synthetic ``(num_classes, ipc, d)``."""
    found = []
    for images, shares, base in zip(real, weights, synthetic, strict=True):
        lengths = [share * (image**2).sum() for image, share in zip(images, shares, strict=True)]
        scale = sum(lengths) / sum(shares) + sum((image**2).sum() for image in base) / len(base)
        # Ridge regression is least squares with a row more a coefficient.
        matrix = np.concatenate([base.T, np.sqrt(ridge * scale) * np.eye(len(base))])
        total = 0.0
        for image, share in zip(images, shares, strict=True):
            coefficients = np.linalg.lstsq(matrix, np.concatenate([image, np.zeros(len(base))]), rcond=None)[0]
            total += share * ((image - coefficients @ base) ** 2).mean()
        found.append(total / sum(shares))
    return np.array(found)


def smallest_error(images, weights, count):
    """What is left of the images' mean square a number outside the best span of so many images."""
    moment = np.zeros((images.shape[1], images.shape[1]))
    for image, share in zip(images, weights, strict=True):
        moment += share * np.outer(image, image) / sum(weights)
    return np.sort(np.linalg.eigvalsh(moment))[::-1][count:].sum() / images.shape[1]


def best_approximation(images, weights, count):
    """The second moment's nearest matrix of so low a rank."""
    moment = sum(share * np.outer(image, image) for image, share in zip(images, weights, strict=True)) / sum(weights)
    left, values, right = np.linalg.svd(moment)
    return left[:, :count] * values[:count] @ right[:count]
