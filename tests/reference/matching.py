"""Slow versions of gradient matching: loops over layers, outputs and classes."""

import math

import torch
import torch.nn.functional as F


def gradient_distance(real, synthetic, epsilon=1e-6):
    total = 0.0
    for one, other in zip(real, synthetic, strict=True):
        if one.ndim < 2:
            continue
        for row, other_row in zip(one, other, strict=True):
            a, b = row.reshape(-1), other_row.reshape(-1)
            total = total + 1 - (a * b).sum() / (a.pow(2).sum().sqrt() * b.pow(2).sum().sqrt() + epsilon)
    return total


def class_gradients(network, x, weights):
    """A list of gradients a class."""
    found = []
    for label, (images, weight) in enumerate(zip(x, weights, strict=True)):
        network.zero_grad()
        loss = 0.0
        for image, share in zip(images, weight, strict=True):
            loss = loss + share * F.cross_entropy(network(image[None]), torch.tensor([label]))
        (loss / weight.sum()).backward()
        found.append([parameter.grad.clone() for parameter in network.parameters()])
    return found


def nearest_pixel_shift(image, across, down):
    """An image ``(channels, height, width)`` moved so that pixel (y, x) shows what was at (y + down, x + across)."""
    moved = torch.zeros_like(image)
    for y in range(image.shape[1]):
        for x in range(image.shape[2]):
            if 0 <= y + down < image.shape[1] and 0 <= x + across < image.shape[2]:
                moved[:, y, x] = image[:, y + down, x + across]
    return moved


def color(image, brightness, saturation, contrast):
    """Draws in [0, 1); an image ``(channels, height, width)``."""
    image = image + (brightness - 0.5)
    gray = image.mean(0)
    image = torch.stack([gray + (channel - gray) * saturation * 2 for channel in image])
    level = image.sum() / image.numel()
    return level + (image - level) * (contrast + 0.5)


def rotated_point(y, x, size, degrees):
    """Where the pixel (y, x) of a turned square image is looked up in the image before, in pixels."""
    middle = (size - 1) / 2
    angle = math.radians(degrees)
    across, down = x - middle, y - middle
    return (
        middle + across * math.sin(angle) + down * math.cos(angle),
        middle + across * math.cos(angle) - down * math.sin(angle),
    )
