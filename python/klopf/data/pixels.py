"""Mean and deviation of pixels, exact: sums are kept in integers, so that their order cannot matter."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray


class PixelSums:
    """Sums of uint8 pixels and of their squares, per channel, over any number of images."""

    def __init__(self) -> None:
        self._count = 0
        self._sums = [0, 0, 0]
        self._squares = [0, 0, 0]

    def add(self, images: NDArray[np.uint8]) -> None:
        """Take in images [N, 3, H, W]."""
        values = np.arange(256, dtype=object)  # Python's integers do not overflow
        for channel in range(3):
            histogram = np.bincount(images[:, channel].ravel(), minlength=256)
            self._sums[channel] += int((values * histogram).sum())
            self._squares[channel] += int((values * values * histogram).sum())
        self._count += images[:, 0].size

    def mean(self) -> NDArray[np.float64]:
        """Mean of each channel [3], in units of [0, 1]."""
        return np.array([float(Fraction(total, 255 * self._count)) for total in self._sums])

    def deviation(self) -> NDArray[np.float64]:
        """Standard deviation of each channel [3] (divided by the number of pixels), in units of [0, 1]."""
        variances = (
            Fraction(self._count * square - total * total, (255 * self._count) ** 2)
            for total, square in zip(self._sums, self._squares, strict=True)
        )
        return np.array([math.sqrt(variance) for variance in variances])
