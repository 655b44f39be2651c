"""Forward and backward of every layer of the engine, for one run.

A layer remembers what its backward pass needs. `backward` takes dL/dy, stores the gradients of its weights in
`gradients` and returns dL/dx. Constructors take the same arguments as the engine's layers.
"""

from typing import Any

import numpy as np

from .arrays import Array, Integers


class Layer:
    """A function y = f(x) with optional parameters `weights["weight"]`, `weights["bias"]`."""

    parametric = False  # whether it has units
    x: Array  # what a linear layer saw last
    grad_y: Array  # and the gradient of its sums

    def __init__(self) -> None:
        self.weights: dict[str, Array] = {}
        self.buffers: dict[str, Array] = {}  # state that is not learned
        self.gradients: dict[str, Array] = {}
        self.training = True

    def forward(self, x: Array) -> Array:
        raise NotImplementedError

    def backward(self, grad_y: Array) -> Array:
        raise NotImplementedError

    def follow(self) -> None:
        """What an update changes besides weights."""

    def begin(self, units: Integers, size: int) -> list[tuple[str, Integers]]:
        """Begins anew what belongs to some of `size` units before it: (name, indices) of weights."""
        return []


class Linear(Layer):
    """y = x W^T + b: [B, I] to [B, O], weight [O, I], bias [O]."""

    parametric = True

    def __init__(
        self, outputs: int, fan_in: int = 0, living: int | None = None, wires: int | None = None
    ) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Array) -> Array:
        self.x = x
        y: Array = x @ self.weights["weight"].T + self.weights["bias"]
        return y

    def backward(self, grad_y: Array) -> Array:
        self.grad_y = grad_y
        wires = self.buffers.get("wires", 1.0)  # [O, I], zero where there is none
        self.gradients = {"weight": grad_y.T @ self.x * wires, "bias": grad_y.sum(axis=0)}
        return grad_y @ self.weights["weight"]


class Conv2d(Layer):
    """Cross-correlation of [B, C, H, W] with weight [O, C, K, K], bias [O]; zeros padded on four sides."""

    parametric = True

    def __init__(
        self, filters: int, kernel: int, stride: int = 1, padding: int = 0, living: int | None = None
    ) -> None:
        super().__init__()
        self.filters, self.kernel, self.stride, self.padding = filters, kernel, stride, padding

    def forward(self, x: Array) -> Array:
        pad = self.padding
        self.padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        height, width = (window_count(n + 2 * pad, self.kernel, self.stride) for n in x.shape[2:])
        y = np.zeros((len(x), self.filters, height, width))
        for row, column in offsets(self.kernel):
            seen = self.padded[window_slices(row, column, self.stride, height, width)]
            y += channel_product(seen, self.weights["weight"][:, :, row, column])
        return y + self.weights["bias"][:, None, None]

    def backward(self, grad_y: Array) -> Array:
        weight = self.weights["weight"]
        grad_weight, grad_padded = np.zeros_like(weight), np.zeros_like(self.padded)
        for row, column in offsets(self.kernel):
            where = window_slices(row, column, self.stride, *grad_y.shape[2:])
            grad_weight[:, :, row, column] = np.tensordot(
                grad_y, self.padded[where], axes=([0, 2, 3], [0, 2, 3])
            )
            grad_padded[where] += channel_product(grad_y, weight[:, :, row, column].T)
        self.gradients = {"weight": grad_weight, "bias": grad_y.sum(axis=(0, 2, 3))}
        height, width = (n - 2 * self.padding for n in self.padded.shape[2:])
        pad = self.padding
        return grad_padded[:, :, pad : pad + height, pad : pad + width]


class MaxPool2d(Layer):
    """The maximum of every kernel x kernel window that fits; equal values: the first, row by row."""

    def __init__(self, kernel: int, stride: int | None = None) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, kernel if stride is None else stride

    def forward(self, x: Array) -> Array:
        self.x_shape = x.shape
        height, width = (window_count(n, self.kernel, self.stride) for n in x.shape[2:])
        windows = np.stack(
            [
                x[window_slices(row, column, self.stride, height, width)]
                for row, column in offsets(self.kernel)
            ]
        )
        self.position: Integers = windows.argmax(axis=0)  # [B, C, H, W], index of the offset
        y: Array = windows.max(axis=0)
        return y

    def backward(self, grad_y: Array) -> Array:
        grad_x = np.zeros(self.x_shape)
        for index, (row, column) in enumerate(offsets(self.kernel)):
            where = window_slices(row, column, self.stride, *grad_y.shape[2:])
            grad_x[where] += np.where(self.position == index, grad_y, 0.0)
        return grad_x


class Flatten(Layer):
    """[B, C, H, W] to [B, C * H * W], channel-major."""

    def forward(self, x: Array) -> Array:
        self.x_shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, grad_y: Array) -> Array:
        return grad_y.reshape(self.x_shape)


class LeakyReLU(Layer):
    """x above zero, slope * x elsewhere; the derivative at zero is the slope."""

    def __init__(self, slope: float = 0.01) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Array) -> Array:
        self.positive = x > 0.0
        return np.where(self.positive, x, self.slope * x)

    def backward(self, grad_y: Array) -> Array:
        return np.where(self.positive, grad_y, self.slope * grad_y)


class ReLU(LeakyReLU):
    """max(x, 0); the derivative at zero is zero."""

    def __init__(self) -> None:
        super().__init__(slope=0.0)


class Normalisation(Layer):
    """(x - mean) / sqrt(variance + epsilon), and perhaps weight times that plus bias."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon

    def normalise(self, x: Array, axes: tuple[int, ...]) -> Array:
        """x with mean 0 and variance 1 over some axes."""
        self.axes = axes
        self.mean = x.mean(axis=axes, keepdims=True)
        self.variance = ((x - self.mean) ** 2).mean(axis=axes, keepdims=True)
        self.deviation = np.sqrt(self.variance + self.epsilon)
        self.y = (x - self.mean) / self.deviation
        return np.asarray(self.y)

    def along(self, name: str) -> Array:
        """Parameters as they meet activities: of numbers as they are, of channels [C, 1, 1] for images."""
        weight = self.weights[name]
        return weight if weight.ndim == self.y.ndim - 1 else weight.reshape(-1, *[1] * (self.y.ndim - 2))

    def scale(self, y: Array) -> Array:
        self.y = y
        return np.asarray(y * self.along("weight") + self.along("bias")) if self.weights else y

    def begin(self, units: Integers, size: int) -> list[tuple[str, Integers]]:
        for name, value in self.weights.items():
            value.reshape(size, -1)[units] = float(name == "weight")
            numbers = np.arange(value.size).reshape(size, -1)[units].ravel()
        return [(name, numbers) for name in self.weights]

    def backward(self, grad_y: Array) -> Array:
        if self.weights:
            shape = self.weights["weight"].shape
            over = (0,) if len(shape) == grad_y.ndim - 1 else (0, *range(2, grad_y.ndim))
            self.gradients = {
                "weight": (grad_y * self.y).sum(axis=over),
                "bias": grad_y.sum(axis=over),
            }
            grad_y = grad_y * self.along("weight")
        along = (grad_y * self.y).mean(axis=self.axes, keepdims=True)
        centred = grad_y - grad_y.mean(axis=self.axes, keepdims=True)
        return np.asarray((centred - self.y * along) / self.deviation)


class LayerNorm(Normalisation):
    """Over the numbers of a sample."""

    def __init__(self, epsilon: float = 1e-5, affine: bool = True) -> None:
        super().__init__(epsilon)

    def forward(self, x: Array) -> Array:
        return self.scale(self.normalise(x, tuple(range(1, x.ndim))))


class BatchNorm1d(Normalisation):
    """Over a batch and all positions, for each unit; at inference by means that run."""

    def __init__(self, epsilon: float = 1e-5, momentum: float = 0.1, affine: bool = True) -> None:
        super().__init__(epsilon)
        self.momentum = momentum

    def forward(self, x: Array) -> Array:
        over = (0, *range(2, x.ndim))
        if self.training:
            return self.scale(self.normalise(x, over))
        mean, variance = (
            self.buffers[name].reshape(-1, *[1] * (x.ndim - 2)) for name in ("running_mean", "running_var")
        )
        return self.scale((x - mean) / np.sqrt(variance + self.epsilon))

    def follow(self) -> None:
        count = self.y.size / self.mean.size
        for name, now in (
            ("running_mean", self.mean.ravel()),
            ("running_var", self.variance.ravel() * count / (count - 1)),
        ):
            self.buffers[name] = (1 - self.momentum) * self.buffers[name] + self.momentum * now

    def begin(self, units: Integers, size: int) -> list[tuple[str, Integers]]:
        self.buffers["running_mean"][units] = 0.0
        self.buffers["running_var"][units] = 1.0
        return super().begin(units, size)


class BatchNorm2d(BatchNorm1d):
    """The same of channels."""


class Dropout(Layer):
    """What is not kept is zero, the rest larger by as much. `keep` [B, ...] must be set before."""

    keep: Array | None = None

    def __init__(self, probability: float = 0.5) -> None:
        super().__init__()
        self.probability = probability

    def factor(self, x: Array) -> Array | float:
        if not self.training or self.keep is None:
            return 1.0
        return np.asarray(self.keep.reshape(x.shape) / (1 - self.probability))

    def forward(self, x: Array) -> Array:
        return np.asarray(x * self.factor(x))

    def backward(self, grad_y: Array) -> Array:
        return np.asarray(grad_y * self.factor(grad_y))


class Tanh(Layer):
    """The hyperbolic tangent."""

    def forward(self, x: Array) -> Array:
        self.y = np.tanh(x)
        return self.y

    def backward(self, grad_y: Array) -> Array:
        return grad_y * (1.0 - self.y**2)


class Sigmoid(Layer):
    """1 / (1 + exp(-x)), written so that nothing overflows."""

    def forward(self, x: Array) -> Array:
        self.y = 0.5 * (1.0 + np.tanh(0.5 * x))
        return self.y

    def backward(self, grad_y: Array) -> Array:
        return grad_y * self.y * (1.0 - self.y)


def window_count(length: int, kernel: int, stride: int) -> int:
    """How many windows of `kernel` elements fit into `length` at distance `stride`."""
    return (length - kernel) // stride + 1


def offsets(kernel: int) -> list[tuple[int, int]]:
    """(row, column) of every element of a window, row by row."""
    return [(row, column) for row in range(kernel) for column in range(kernel)]


def window_slices(row: int, column: int, stride: int, height: int, width: int) -> tuple[slice, ...]:
    """Indices of the element (row, column) of all height x width windows in an array [B, C, H, W]."""
    rows = slice(row, row + stride * (height - 1) + 1, stride)
    columns = slice(column, column + stride * (width - 1) + 1, stride)
    return slice(None), slice(None), rows, columns


def channel_product(x: Array, weight: Array) -> Array:
    """sum_c x[b, c, h, w] weight[o, c]: [B, C, H, W] to [B, O, H, W]."""
    return np.moveaxis(np.tensordot(weight, x, axes=([1], [1])), 0, 1)


LAYERS: dict[str, type[Layer]] = {
    cls.__name__: cls
    for cls in (
        *(Linear, Conv2d, MaxPool2d, Flatten, ReLU, LeakyReLU, Tanh, Sigmoid),
        *(LayerNorm, BatchNorm1d, BatchNorm2d, Dropout),
    )
}


def build(specs: list[tuple[str, tuple[Any, ...]]]) -> list[Layer]:
    """Layers from (class name, arguments)."""
    return [LAYERS[name](*arguments) for name, arguments in specs]
