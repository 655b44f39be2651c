"""PyTorch on one device: one run of a case, or many side by side in one formulation.

Many runs: the runs' images are channels of one image, convolutions have a group for each run, linear layers
are batched products, and one SGD updates all weights. Eager, or compiled and captured as a CUDA graph where
there is a GPU, with channels first or last.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from peers.cases import Case, Data, weights_of


class Runs(nn.Module):
    """R networks of one case: x [B, R x C, H, W] -> [R, B, O]."""

    def __init__(self, case: Case, data: Data, runs: int) -> None:
        super().__init__()
        self.runs = runs
        self.layers = next(iter(case.networks.values()))
        self.weights = nn.ParameterDict()
        for name, value in weights_of(data, next(iter(case.networks))).items():
            tensor = torch.from_numpy(np.repeat(value[None], runs, axis=0))
            # Of convolutions [R x O, C, K, K], as grouped ones have them.
            kind = self.layers[int(name.split(".")[0])][0]
            self.weights[name.replace(".", "_")] = nn.Parameter(
                tensor.flatten(0, 1) if kind == "conv" else tensor
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for index, (kind, *numbers) in enumerate(self.layers):
            if kind == "conv":
                x = functional.conv2d(
                    x, self.weights[f"{index}_weight"], self.weights[f"{index}_bias"], groups=self.runs
                )
            elif kind == "linear":
                weight, bias = self.weights[f"{index}_weight"], self.weights[f"{index}_bias"]
                x = torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))
            elif kind == "relu":
                x = functional.relu(x)
            elif kind == "pool":
                x = functional.max_pool2d(x, numbers[0])
            else:  # flatten: [B, R x C, H, W] -> [R, B, I]
                x = x.reshape(x.shape[0], self.runs, -1).transpose(0, 1)
        return x


How = tuple[str, ...]  # of "compiled", "graph", "channels last"; none: eager


def formulations(many: int) -> list[tuple[int, How]]:
    """Numbers of runs and how, the most telling first."""
    graph: How = ("compiled", "graph")
    return [(1, ()), (many, graph), (many, ()), (many, (*graph, "channels last")), (1, graph)]


def step_of(case: Case, data: Data, runs: int, device: str, how: How) -> Callable[[int], None]:
    """A function that does so many training steps and waits for the last.

    "graph" is for GPUs, and without effect elsewhere.
    """
    layout = torch.channels_last if "channels last" in how else torch.contiguous_format
    net = Runs(case, data, runs).to(device, memory_format=layout)
    optimizer = torch.optim.SGD(net.parameters(), lr=case.step_size, momentum=case.momentum, foreach=True)
    batches = torch.from_numpy(np.tile(data["x"], (1, 1, runs, 1, 1))).to(device)
    x = [batch.contiguous(memory_format=layout) for batch in batches]
    y = torch.from_numpy(next(value for key, value in data.items() if key.endswith(".y"))).to(device)

    def forward_backward(x: torch.Tensor, y: torch.Tensor) -> None:
        out = net(x)
        loss = functional.cross_entropy(out.flatten(0, 1), y.repeat(runs), reduction="sum") / case.batch
        loss.backward()

    if "compiled" in how:
        torch.compiler.reset()  # else it gives up after a number of versions of one function
    run: Any = torch.compile(forward_backward) if "compiled" in how else forward_backward

    def one(x: torch.Tensor, y: torch.Tensor) -> None:
        run(x, y)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    if "graph" in how and device.startswith("cuda"):
        one = _captured(one, x[0], y[0])

    def steps(count: int) -> None:
        for i in range(count):
            one(x[i % len(x)], y[i % len(y)])
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    return steps


def _captured(one: Callable[..., None], x: torch.Tensor, y: torch.Tensor) -> Callable[..., None]:
    """The step as replays of a CUDA graph, from fixed inputs."""
    x, y = x.clone(), y.clone()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(5):
            one(x, y)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        one(x, y)

    def replay(new_x: torch.Tensor, new_y: torch.Tensor) -> None:
        x.copy_(new_x)
        y.copy_(new_y)
        graph.replay()

    return replay


@contextlib.contextmanager
def precision(tf32: bool) -> Any:
    """Matrix units in TF32, or plain float32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def ceilings(device: str) -> dict[str, float]:
    """Bytes a second of a copy on the device, read and written, and FLOP a second of large products."""
    found = {}
    a = torch.rand(1 << 28, device=device)
    b = torch.empty_like(a)
    found["copy"] = 2 * a.numel() * 4 / _median(lambda: b.copy_(a))
    a, b = (torch.randn(8192, 8192, device=device) for _ in range(2))
    for name, tf32 in (("float32", False), ("tf32", True)):
        with precision(tf32):
            found[name] = 2 * 8192**3 / _median(lambda: a @ b)
    return found


def _median(work: Callable[[], Any]) -> float:
    times = []
    for _ in range(12):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return float(np.median(times[2:]))
