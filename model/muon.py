"""Muon in float32: momentum whose matrices are made orthogonal before each step.

PyTorch has a Muon of its own, which computes in bfloat16; on a processor without bfloat16 instructions its step takes
three times as long as the rest of the training. Matrices of one shape are treated as one stack here.
Source: https://kellerjordan.github.io/posts/muon/, with the scale of https://arxiv.org/abs/2502.16982.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """For matrices inside the network; embeddings, norms and biases want Adam."""

    def __init__(self, matrices: Iterable[nn.Parameter], *, lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(list(matrices), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One step; every matrix must have a gradient."""
        for group in self.param_groups:
            stacks = defaultdict(list)
            for matrix in group["params"]:
                stacks[matrix.shape].append(matrix)
            for matrices in stacks.values():
                self._step(matrices, group)

    def _step(self, matrices: list[nn.Parameter], group: dict) -> None:
        moments = []
        for matrix in matrices:
            moment = self.state[matrix].setdefault("moment", torch.zeros_like(matrix))
            moment.lerp_(matrix.grad, 1 - group["momentum"])
            moments.append(torch.lerp(matrix.grad, moment, group["momentum"]))
        directions = orthogonal(torch.stack(moments))
        rows, columns = matrices[0].shape
        for matrix, direction in zip(matrices, directions, strict=True):
            matrix.mul_(1 - group["lr"] * group["weight_decay"])
            matrix.add_(direction, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)


def orthogonal(stack: Tensor) -> Tensor:
    """Each matrix with its singular values near 1, by a Newton-Schulz iteration."""
    is_tall = stack.shape[1] > stack.shape[2]
    x = stack.mT if is_tall else stack
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if is_tall else x
