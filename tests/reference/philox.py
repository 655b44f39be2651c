"""The engine's random numbers in NumPy: Philox4x32-10 (Salmon, Moraes, Dror and Shaw 2011), by counters."""

import numpy as np
from numpy.typing import NDArray

from .arrays import Array, Mask

Words = NDArray[np.uint64]
LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)
DROPOUT, GRADIENT_NOISE = 11, 12  # what numbers are for


def words(seed: int, stream: int, place: int, step: int, index: Words) -> Words:
    """[n, 4] numbers of 32 bits, those of each index [n]."""
    first = np.uint64((stream << 24) | place)
    counter = [index & LOW, np.full_like(index, first)]
    counter += [np.full_like(index, np.uint64(part & 0xFFFFFFFF)) for part in (step, step >> 32)]
    keys = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        one, two = counter[0] * np.uint64(0xD2511F53), counter[2] * np.uint64(0xCD9E8D57)
        counter = [
            (two >> HALF) ^ counter[1] ^ np.uint64(keys[0]),
            two & LOW,
            (one >> HALF) ^ counter[3] ^ np.uint64(keys[1]),
            one & LOW,
        ]
        keys = [(keys[0] + 0x9E3779B9) & 0xFFFFFFFF, (keys[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.stack(counter, axis=1)


def uniform(bits: Words) -> Array:
    """Numbers in (0, 1) of 24 bits."""
    return np.asarray(((bits >> np.uint64(8)).astype(np.float64) + 0.5) / 2**24)


def in_groups(values: Array, count: int) -> Array:
    """[n, 4] values, n a multiple of 16, as [count] numbers: of an index 16 apart, in groups of 64."""
    return np.asarray(values.reshape(-1, 16, 4).transpose(0, 2, 1).reshape(-1)[:count])


def indices(count: int) -> Words:
    """Those of so many numbers, four to an index, in whole groups of 64."""
    return np.arange((count + 63) // 64 * 16, dtype=np.uint64)


def normals(seed: int, stream: int, place: int, step: int, count: int) -> Array:
    """[count] normal numbers (Box and Muller 1958), two of each two words."""
    u = uniform(words(seed, stream, place, step, indices(count)))
    radius = np.sqrt(-2 * np.log(u[:, ::2]))
    angle = 2 * np.pi * u[:, 1::2]
    both = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2)  # [n, 2, 2]
    return in_groups(both.reshape(-1, 4), count)


def kept(seed: int, place: int, step: int, batch: int, size: int, probability: float) -> Mask:
    """[batch, size]: what dropout with this probability keeps of the samples of a batch."""
    rows = [
        in_groups(uniform(words(seed, DROPOUT, place, (step << 24) + b, indices(size))), size)
        for b in range(batch)
    ]
    return np.asarray(np.stack(rows) >= np.float64(np.float32(probability)))
