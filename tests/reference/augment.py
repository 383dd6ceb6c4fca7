"""Images looked up a pixel at a time."""

import math
from collections.abc import Callable

Image = list[list[float]]


def looked_up(image: Image, source: Callable[[float, float], tuple[float, float]], fill: float) -> Image:
    """Each pixel is what lies, linearly between pixels, where ``source`` sends it: rows and columns from the middle."""
    height, width = len(image), len(image[0])

    def pixel(row: int, column: int) -> float:
        return image[row][column] if 0 <= row < height and 0 <= column < width else fill

    found = []
    for row in range(height):
        found.append([])
        for column in range(width):
            down, right = source(row - (height - 1) / 2, column - (width - 1) / 2)
            down, right = down + (height - 1) / 2, right + (width - 1) / 2
            top, left = math.floor(down), math.floor(right)
            below, beside = down - top, right - left
            upper = (1 - beside) * pixel(top, left) + beside * pixel(top, left + 1)
            lower = (1 - beside) * pixel(top + 1, left) + beside * pixel(top + 1, left + 1)
            found[-1].append((1 - below) * upper + below * lower)
    return found


def shifted(down: float, right: float) -> Callable[[float, float], tuple[float, float]]:
    """Takes what lies so many pixels below and to the right."""
    return lambda row, column: (row + down, column + right)


def scaled(height: float, width: float) -> Callable[[float, float], tuple[float, float]]:
    """Makes the image so many times as high and wide."""
    return lambda row, column: (row / height, column / width)


def turned(angle: float) -> Callable[[float, float], tuple[float, float]]:
    """Turns the image by an angle in radians, as the hands of a clock would turn back where positive."""
    cos, sin = math.cos(angle), math.sin(angle)
    return lambda row, column: (cos * row + sin * column, cos * column - sin * row)
