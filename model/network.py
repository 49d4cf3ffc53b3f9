"""The network: a small decoder of the Llama kind with biases, which llama.cpp runs as it is.

Three things are not as usual, and all are gone after export.

**Embeddings.** The vector of a token is `meaning @ lens + code + trained`: the frozen meaning of its word through a
learnt matrix, a fixed random code that tells words of like meaning apart, and a free part that only tokens without a
meaning have (pieces, digits, punctuation, function words). So nothing is learnt about a single content word, and an
unseen one is read through the same lens. The table is also the output layer, so copying an unseen word is as easy.
The code lies in the last dimensions, the meaning in the others.

**Start.** Heads of the first layer begin by looking one, two and three tokens back, and two heads of the second
begin as induction heads over the first of them: what stood behind the last place where this token stood. They carry
codes, and so do two heads of each layer above the reader. Training might find this too, but copying is most of what
the model does.

**A reader.** At the end of every text a layer below the last has to say what is known of it (its mood, its language,
…), whatever was asked. An answer of one word is a thin signal for the many tokens before it: with it alone, 4,000
steps had not taught the network to tell a good review from a bad one.

Sequences come as trees: one prefix (system prompt and instruction) shared by several branches (text and answer),
which attend to the prefix and to themselves. It is the same function as reading each branch behind its own prefix.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  As everybody writes it.
from torch import Tensor, nn

SCALE = 6.0  # Length of a meaning and of a code: against what the layers add, they must not be small.
_BLURRED = 0.15  # The share of words that are read as another of like meaning, in training.
READER = 3  # It sees what so many layers have made of the text.


class Shape(NamedTuple):
    """The size of a network. A head carries as many numbers as the code of a token has, so it can copy one whole."""

    layers: int = 5
    width: int = 192
    heads: int = 4
    kv_heads: int = 2
    head_width: int = 64
    hidden: int = 512
    rope_base: float = 10_000.0
    epsilon: float = 1e-6


class Tree(NamedTuple):
    """A batch. All int64; padding is 0 and stands at the right."""

    prefix: Tensor  # [rows, prefix tokens]
    prefix_length: Tensor  # [rows]
    branches: Tensor  # [rows, branches, branch tokens]


class Embedding(nn.Module):
    """See the module. `meaning` [tokens, meanings] has zero rows for tokens without one; `alike` [tokens, any] names
    the nearest in meaning."""

    def __init__(self, meaning: Tensor, code: Tensor, free: Tensor, alike: Tensor, width: int) -> None:
        super().__init__()
        self.register_buffer("meaning", meaning)
        self.register_buffer("alike", alike)
        self.register_buffer("code", code)
        place = torch.full((len(meaning),), int(free.sum()), dtype=torch.long)
        place[free] = torch.arange(int(free.sum()))
        self.register_buffer("place", place)  # Among the free tokens; the last row is padding, zero.
        self.lens = nn.Parameter(torch.eye(meaning.shape[1], width))
        self.trained = nn.Parameter(torch.zeros(int(free.sum()) + 1, width))

    def blurred(self, tokens: Tensor, share: float) -> Tensor:
        """Vectors of `tokens`, a `share` of them with the meaning of a word that means nearly the same. So answers
        cannot hang on single words, and copying must go by the codes."""
        other = self.alike[tokens, torch.randint(self.alike.shape[1], tokens.shape)]
        return self(tokens, torch.where(torch.rand(tokens.shape) < share, other, tokens))

    def forward(self, tokens: Tensor, meant: Tensor | None = None) -> Tensor:
        """Vectors of `tokens`, with the meanings of `meant` if those are others."""
        trained = F.embedding(self.place[tokens], self.trained, padding_idx=len(self.trained) - 1)
        return self.meaning[tokens if meant is None else meant] @ self.lens + self.code[tokens] + trained


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

    def __init__(self, shape: Shape, embedding: Embedding, judgements: int) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = embedding
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=shape.epsilon)
        self.reader_norm = nn.RMSNorm(shape.width, eps=shape.epsilon)
        self.reader = nn.Linear(shape.width, judgements)

    def forward(self, tree: Tree, wanted: Tensor, read: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Hidden states of the branches' tokens in the mask `wanted`, float32 [tokens, width], normalised; and what
        the reader says at those in `read`, [tokens, judgements]."""
        layout = Layout(tree, self.shape)
        x = self._read(tree, layout)
        judged = None if read is None else self._judged(x, tree, read)
        for block in self.blocks[READER:-1]:
            x = block(x, layout)
        return self.norm(self.blocks[-1](x, layout, _places(tree, wanted))), judged

    def read(self, tree: Tree, read: Tensor) -> Tensor:
        """Only what the reader says at the tokens in `read`, [tokens, judgements]."""
        return self._judged(self._read(tree, Layout(tree, self.shape)), tree, read)

    def _read(self, tree: Tree, layout: "Layout") -> Tensor:
        tokens = torch.cat([tree.prefix.flatten(), tree.branches.flatten()])
        x = self.embedding.blurred(tokens, _BLURRED) if self.training else self.embedding(tokens)
        for block in self.blocks[:READER]:
            x = block(x, layout)
        return x

    def _judged(self, x: Tensor, tree: Tree, read: Tensor) -> Tensor:
        return self.reader(self.reader_norm(x[_places(tree, read)]))

    def logits(self, hidden: Tensor, candidates: Tensor) -> Tensor:
        """Scores [..., candidates] of the tokens `candidates`."""
        return hidden @ self.embedding(candidates).T


def _places(tree: Tree, mask: Tensor) -> Tensor:
    """Where the marked tokens of the branches stand in the flattened tree."""
    return mask.flatten().nonzero()[:, 0] + tree.prefix.numel()


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
    nn.init.constant_(network.norm.weight, 1.5 / SCALE)
    nn.init.normal_(network.embedding.trained[:-1], std=SCALE * shape.width**-0.5)
    for head in range(3):
        _look_back(network.blocks[0].attention, head, head + 1, shape)
    _induce(network.blocks[0].attention, network.blocks[1].attention, shape)
    for block in network.blocks[READER:]:
        _carry_codes(block.attention, shape)


_SHARPNESS = 6.0  # Of the four fastest pairs: the token before is then attended to with 98 %, whatever it is.
_INDUCTION = 0.8  # Scale of queries and keys: the right place scores about 11 more than the others, give or take 1.5.
_WRITTEN = 0.4  # Scale of what these heads write: less than the token itself.


def _look_back(attention: Attention, head: int, distance: int, shape: Shape) -> None:
    """Query head `head` looks `distance` tokens back, by its biases alone, and brings the code it finds there."""
    half, width = shape.head_width // 2, shape.head_width
    kv_head = head // (shape.heads // shape.kv_heads)
    pace = shape.rope_base ** (-torch.arange(0, width, 2) / width)[:4]
    attention.k.bias[kv_head * width :][:4] = _SHARPNESS
    q_bias = attention.q.bias[head * width :][:width]
    q_bias[:4] = _SHARPNESS * (-pace * distance).cos()
    q_bias[half : half + 4] = _SHARPNESS * (-pace * distance).sin()
    attention.q.weight[head * width :][:width] *= 0.2
    attention.v.weight[kv_head * width :][:width] = _reads_codes(shape)


def _carry_codes(attention: Attention, shape: Shape) -> None:
    """kv head 0 brings the codes of what it looks at; where to look is left to training.

    1,000 steps had not taught any head but those of `_induce` to carry a code whole.
    """
    width, group = shape.head_width, shape.heads // shape.kv_heads
    attention.v.weight[:width] = _reads_codes(shape)
    attention.o.weight[:, : group * width] = _WRITTEN * _reads_codes(shape).T.repeat(1, group)


def _reads_codes(shape: Shape) -> Tensor:
    """[head width, width]: the part of a token's vector that is its code."""
    return torch.eye(shape.width)[-shape.head_width :]


def _induce(before: Attention, after: Attention, shape: Shape) -> None:
    """Keys of kv head 0 in `after` hold the code that head 0 of `before` brought; its queries ask for their own."""
    width, group = shape.head_width, shape.heads // shape.kv_heads
    written = before.o.weight[:, :width]
    nn.init.orthogonal_(written)
    written[-width:] = 0.0  # Beside the token's own code.
    written *= _WRITTEN / written.norm(dim=0)
    after.k.weight[:width] = _INDUCTION * torch.linalg.pinv(written)
    for head in range(group):
        after.q.weight[head * width :][:width] = _INDUCTION * _reads_codes(shape)
    _carry_codes(after, shape)
