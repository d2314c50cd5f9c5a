"""Small image networks whose layers order their outputs in different ways; one patch is 8 x 8 pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

PATCH = 8


class Patches(nn.Module):
    """A patch embedding, two mixing layers, and outputs in the order that ``order`` names."""

    def __init__(self, order: str, prefix: int = 0, suffix: int = 0, width: int = 12) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, PATCH, stride=PATCH)
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.special = nn.Parameter(torch.randn(prefix + suffix, width))
        self.prefix, self.order = prefix, order
        self.block, self.head = nn.Identity(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + 0.2 * self.mix(x)
        # Special tokens see all of the image, as [CLS] does.
        special = self.special + x.mean(dim=(2, 3))[:, None]
        self.block(ORDERS[self.order](x, special, self.prefix))
        return self.head(x.mean(dim=(2, 3)))


def sequence(x: Tensor, special: Tensor, prefix: int) -> Tensor:
    return torch.cat([special[:, :prefix], x.flatten(2).transpose(1, 2), special[:, prefix:]], dim=1)


def unrolled(x: Tensor, special: Tensor, prefix: int) -> Tensor:
    """Tokens one quarter of the image after the other, as in Hiera."""
    n, c, h, w = x.shape
    return x.reshape(n, c, 2, h // 2, 2, w // 2).permute(0, 2, 4, 3, 5, 1).reshape(n, h * w, c)


def heads(x: Tensor, special: Tensor, prefix: int) -> Tensor:
    tokens = sequence(x, special, prefix)
    return tokens.unflatten(2, (3, -1)).transpose(1, 2)


def attention(x: Tensor, special: Tensor, prefix: int) -> Tensor:
    queries = heads(x, special, prefix)
    return (queries @ queries.transpose(2, 3)).softmax(dim=-1)


def blocks(x: Tensor, special: Tensor, prefix: int) -> Tensor:
    n, c, h, w = x.shape
    return x.reshape(n, c, 2, h // 2, 2, w // 2).permute(0, 2, 4, 3, 5, 1).reshape(n, 4, h * w // 4, c)


ORDERS = {
    "sequence": sequence,
    "unrolled": unrolled,
    "heads": heads,
    "attention": attention,
    "blocks": blocks,
    "windows": lambda x, special, prefix: blocks(x, special, prefix).flatten(0, 1),
    "first": lambda x, special, prefix: x,
    "last": lambda x, special, prefix: x.permute(0, 2, 3, 1),
    "class token": lambda x, special, prefix: special[:, :1],
    "mixed": lambda x, special, prefix: x.mean(dim=(2, 3), keepdim=True).expand_as(x).contiguous(),
    "constant": lambda x, special, prefix: torch.zeros_like(x),
}


def patches(order: str = "sequence", **options: int) -> nn.Module:
    torch.manual_seed(0)
    return Patches(order, **options)
