"""The network: a small decoder of the Qwen 2 kind, which llama.cpp runs as it is.

Two things are not as usual, and both are gone after export.

**Embeddings.** The vector of a token is `meaning @ lens + code + trained`: the frozen meaning of its word through a
learnt matrix, a fixed random code that tells words of like meaning apart, and a free part that only tokens without a
meaning have (pieces, digits, punctuation, function words). So nothing is learnt about a single content word, and an
unseen one is read through the same lens. The table is also the output layer, so copying an unseen word is as easy.

**Start.** Three heads of the first layer begin by looking one, two and three tokens back, and a head of the second
begins as an induction head over the first of them: what stood behind the last place where this token stood. Training
would find both, but copying is most of what the model does: on random tokens to be repeated, 120 small steps bring
the loss to 2.7 nats a token with this start and to 3.7 without it.

Sequences come as trees: one prefix (system prompt and instruction) shared by several branches (text and answer),
which attend to the prefix and to themselves. It is the same function as reading each branch behind its own prefix.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  As everybody writes it.
from torch import Tensor, nn


class Shape(NamedTuple):
    """The size of a network. `width` = `heads` * `head_width`."""

    layers: int = 6
    width: int = 192
    heads: int = 6
    kv_heads: int = 3
    head_width: int = 32
    hidden: int = 384
    rope_base: float = 10_000.0
    epsilon: float = 1e-6


class Tree(NamedTuple):
    """A batch. All int64; padding is 0 and stands at the right."""

    prefix: Tensor  # [rows, prefix tokens]
    prefix_length: Tensor  # [rows]
    branches: Tensor  # [rows, branches, branch tokens]


class Embedding(nn.Module):
    """See the module. `meaning` [tokens, meanings] has zero rows for tokens without one."""

    def __init__(self, meaning: Tensor, code: Tensor, free: Tensor, width: int) -> None:
        super().__init__()
        self.register_buffer("meaning", meaning)
        self.register_buffer("code", code)
        place = torch.full((len(meaning),), int(free.sum()), dtype=torch.long)
        place[free] = torch.arange(int(free.sum()))
        self.register_buffer("place", place)  # Among the free tokens; the last row is padding, zero.
        self.lens = nn.Parameter(torch.eye(meaning.shape[1], width))
        self.trained = nn.Parameter(torch.zeros(int(free.sum()) + 1, width))

    def forward(self, tokens: Tensor) -> Tensor:
        trained = F.embedding(self.place[tokens], self.trained, padding_idx=len(self.trained) - 1)
        return self.meaning[tokens] @ self.lens + self.code[tokens] + trained


class Attention(nn.Module):
    """Grouped-query attention with rotary positions and biases on q, k and v."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.q = nn.Linear(shape.width, shape.heads * shape.head_width)
        self.k = nn.Linear(shape.width, shape.kv_heads * shape.head_width)
        self.v = nn.Linear(shape.width, shape.kv_heads * shape.head_width)
        self.o = nn.Linear(shape.heads * shape.head_width, shape.width, bias=False)

    def forward(self, x: Tensor, layout: "Layout") -> Tensor:
        shape = self.shape
        q = self.q(x).view(-1, shape.heads, shape.head_width)
        k = self.k(x).view(-1, shape.kv_heads, shape.head_width)
        v = self.v(x).view(-1, shape.kv_heads, shape.head_width)
        q, k = layout.rotate(q), layout.rotate(k)
        return self.o(layout.attend(q, k, v).flatten(1))


class Block(nn.Module):
    """Attention, then a gated feed-forward, each behind a norm and added to the stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(shape.width, eps=shape.epsilon)
        self.attention = Attention(shape)
        self.hidden_norm = nn.RMSNorm(shape.width, eps=shape.epsilon)
        self.gate = nn.Linear(shape.width, shape.hidden, bias=False)
        self.up = nn.Linear(shape.width, shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x: Tensor, layout: "Layout", keep: Tensor | None = None) -> Tensor:
        """`keep`: the only tokens that are needed further on."""
        x = x + self.attention(self.attention_norm(x), layout)
        x = x if keep is None else x[keep]
        h = self.hidden_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Network(nn.Module):
    """Hidden states of the wanted tokens of a tree; `logits` turns them into scores of the next token."""

    def __init__(self, shape: Shape, embedding: Embedding) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = embedding
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=shape.epsilon)

    def forward(self, tree: Tree, wanted: Tensor) -> Tensor:
        """Float32 [wanted tokens, width], normalised; `wanted` is a mask over the branches."""
        layout = Layout(tree, self.shape)
        x = self.embedding(torch.cat([tree.prefix.flatten(), tree.branches.flatten()]))
        for block in self.blocks[:-1]:
            x = block(x, layout)
        return self.norm(self.blocks[-1](x, layout, wanted.flatten().nonzero()[:, 0] + tree.prefix.numel()))

    def logits(self, hidden: Tensor, candidates: Tensor) -> Tensor:
        """Scores [..., candidates] of the tokens `candidates`."""
        return hidden @ self.embedding(candidates).T


class Layout:
    """Where each token of a flattened tree stands, and what it may look at."""

    def __init__(self, tree: Tree, shape: Shape) -> None:
        rows, prefix = tree.prefix.shape
        _, self._branches, branch = tree.branches.shape
        self._rows, self._prefix, self._branch, self._shape = rows, prefix, branch, shape
        behind = tree.prefix_length[:, None, None] + torch.arange(branch).expand(rows, self._branches, branch)
        position = torch.cat([torch.arange(prefix).repeat(rows), behind.flatten()]).float()
        pace = shape.rope_base ** (-torch.arange(0, shape.head_width, 2) / shape.head_width)
        angle = position[:, None] * pace
        self._cos, self._sin = angle.cos()[:, None], angle.sin()[:, None]
        self._causal = torch.zeros(prefix, prefix).masked_fill(torch.ones(prefix, prefix).triu(1).bool(), -1e9)
        is_prefix = torch.arange(prefix) < tree.prefix_length[:, None]
        own = torch.ones(branch, branch, dtype=torch.bool).tril()
        mask = torch.cat([is_prefix[:, None].expand(rows, branch, prefix), own.expand(rows, branch, branch)], dim=2)
        bias = torch.zeros(mask.shape).masked_fill(~mask, -1e9)
        self._mask = bias[:, None, None].expand(rows, self._branches, 1, branch, prefix + branch).flatten(0, 1)

    def rotate(self, x: Tensor) -> Tensor:
        """Rotary positions, halves of a head as pairs."""
        left, right = x.chunk(2, dim=-1)
        return torch.cat([left * self._cos - right * self._sin, right * self._cos + left * self._sin], dim=-1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[tokens, heads, head width] of all three; the result like q."""
        group = self._shape.heads // self._shape.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        split = self._rows * self._prefix
        q_prefix, k_prefix, v_prefix = (self._as_prefix(part[:split]) for part in (q, k, v))
        q_own, k_own, v_own = (self._as_branch(part[split:]) for part in (q, k, v))
        first = _attention(q_prefix, k_prefix, v_prefix, self._causal)
        shared = (part.repeat_interleave(self._branches, 0) for part in (k_prefix, v_prefix))
        keys, values = (torch.cat(pair, dim=2) for pair in zip(shared, (k_own, v_own), strict=True))
        second = _attention(q_own, keys, values, self._mask)
        return torch.cat([self._flat(first), self._flat(second)])

    def _as_prefix(self, x: Tensor) -> Tensor:
        return x.view(self._rows, self._prefix, *x.shape[1:]).transpose(1, 2)

    def _as_branch(self, x: Tensor) -> Tensor:
        return x.view(self._rows * self._branches, self._branch, *x.shape[1:]).transpose(1, 2)

    @staticmethod
    def _flat(x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(0, 1)


def _attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Plain matrix products: for short sequences and narrow heads faster than PyTorch's fused kernel on a CPU."""
    scores = torch.baddbmm(
        bias.expand(*q.shape[:2], *bias.shape[-2:]).flatten(0, 1),
        q.flatten(0, 1),
        k.flatten(0, 1).mT,
        alpha=q.shape[-1] ** -0.5,
    )
    return (scores.softmax(-1) @ v.flatten(0, 1)).view(q.shape)


@torch.no_grad()
def start(network: Network) -> None:
    """The weights before training; `torch.manual_seed` decides them."""
    shape = network.shape
    for block in network.blocks:
        for matrix in (block.attention.q, block.attention.k, block.attention.v, block.gate, block.up):
            nn.init.normal_(matrix.weight, std=shape.width**-0.5)
        for matrix in (block.attention.o, block.down):
            nn.init.normal_(matrix.weight, std=0.3 * matrix.in_features**-0.5)
        for matrix in (block.attention.q, block.attention.k, block.attention.v):
            nn.init.zeros_(matrix.bias)
    for kv_head in range(shape.kv_heads):
        _look_back(network.blocks[0].attention, kv_head, kv_head + 1, shape)
    _induce(network.blocks[0].attention, network.blocks[1].attention, shape)
    nn.init.constant_(network.norm.weight, 0.5)


_SHARPNESS = 6.0  # Of the four fastest pairs: the token before is then attended to with 98 %, whatever it is.


def _look_back(attention: Attention, kv_head: int, distance: int, shape: Shape) -> None:
    """The first query head of `kv_head` looks `distance` tokens back, by its biases alone."""
    half, width = shape.head_width // 2, shape.head_width
    head = kv_head * (shape.heads // shape.kv_heads)
    pace = shape.rope_base ** (-torch.arange(0, width, 2) / width)[:4]
    k_bias, q_bias = attention.k.bias[kv_head * width :][:width], attention.q.bias[head * width :][:width]
    k_bias[:4] = _SHARPNESS
    q_bias[:4] = _SHARPNESS * (-pace * distance).cos()
    q_bias[half : half + 4] = _SHARPNESS * (-pace * distance).sin()
    attention.q.weight[head * width :][:width] *= 0.2


def _induce(before: Attention, after: Attention, shape: Shape) -> None:
    """Keys of kv head 0 in `after` hold what head 0 of `before` brought; its queries ask for the token at hand."""
    width, group = shape.head_width, shape.heads // shape.kv_heads
    read, written = before.v.weight[:width], before.o.weight[:, :width]
    nn.init.orthogonal_(written, gain=1.0)
    nn.init.orthogonal_(read, gain=1.0)
    scale = math.sqrt(2.0) * width**0.25
    after.k.weight[:width] = scale * torch.linalg.pinv(written)
    for head in range(group):
        after.q.weight[head * width :][:width] = scale * read
    copied = nn.init.orthogonal_(torch.empty(width, shape.width))
    after.v.weight[:width] = copied
    for head in range(group):
        after.o.weight[:, head * width :][:, :width] = copied.T
