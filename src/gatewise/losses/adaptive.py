"""The adaptive softmax: frequent classes in a short head, rare ones in clusters of smaller width.

Knows class counts and hidden states; it knows no tokenizer. Grave, Joulin, Cisse, Grangier and Jegou
2017, "Efficient softmax approximation for GPUs": with the classes in order of falling frequency and
cut at c_1 < ... < c_n, the head holds the c_1 most frequent classes and one entry for each cluster:

    log p(y | h) = log head(y | h)                                         for y < c_1
    log p(y | h) = log head(cluster k | h) + log tail_k(y | P_k h)         for c_k <= y < c_{k+1}

where P_k maps h to width H / div_value^k.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gatewise.errors import DataError, OptionError, ShapeError


def default_cutoffs(counts: Tensor, shares: Sequence[float] = (0.8, 0.95)) -> list[int]:
    """Cutoffs where the most frequent classes cover the given shares of all tokens.

    Args:
        counts: how often each class occurs, (V,).
        shares: rising shares of the tokens in (0, 1); one cluster starts after each.
    Returns:
        rising cutoffs, each within 1 .. V - 1; at least one.
    Raises:
        OptionError: if the shares do not rise within (0, 1), or there are fewer than 2 classes.
    """
    if not shares or any(not 0 < s < 1 for s in shares) or list(shares) != sorted(set(shares)):
        raise OptionError(f"shares: expected rising numbers between 0 and 1, found {list(shares)}")
    size = len(counts)
    if size < 2:
        raise OptionError(f"adaptive softmax: expected at least 2 classes, found {size}; use full")
    weights = counts.to(torch.float64).clamp(min=0) + 1e-9  # all zero: clusters of equal counts
    covered = weights.sort(descending=True).values.cumsum(0) / weights.sum()
    found = torch.searchsorted(covered, torch.tensor(shares, dtype=torch.float64)) + 1
    return sorted({min(max(int(c), 1), size - 1) for c in found})


class AdaptiveSoftmax(nn.Module):
    """Adaptive softmax over classes in any order; it ranks them by frequency itself.

    The frequency order is a buffer ("rank"), so a checkpoint carries it.

    Args:
        hidden_size: H.
        counts: how often each class occurs in the training data, (V,); ties keep the class order.
        cutoffs: rising sizes, in classes, after which a new cluster starts. Default:
            `default_cutoffs(counts)`.
        div_value: each cluster's width is the one before divided by this.
        bias: a bias in the head.
    """

    rank: Tensor

    def __init__(
        self,
        hidden_size: int,
        counts: Tensor | Sequence[int],
        *,
        cutoffs: Sequence[int] | None = None,
        div_value: float = 4.0,
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        table = torch.as_tensor(counts).cpu()
        if table.dim() != 1:
            raise ShapeError(f"counts: expected (V,), found {tuple(table.shape)}")
        chosen = default_cutoffs(table) if cutoffs is None else list(cutoffs)
        size = len(table)
        if not chosen or chosen != sorted(set(chosen)) or chosen[0] < 1 or chosen[-1] >= size:
            raise OptionError(f"cutoffs: expected rising 1 to {size - 1}, found {chosen}")
        if not div_value > 0 or hidden_size < 1:
            found = f"hidden_size {hidden_size}, div_value {div_value}"
            raise OptionError(f"adaptive softmax: expected both above 0, found {found}")
        if int(hidden_size / div_value ** len(chosen)) < 1:
            raise OptionError(
                f"adaptive softmax: the last cluster has width 0 with hidden_size {hidden_size}, "
                f"div_value {div_value} and {len(chosen)} cutoffs; use fewer cutoffs"
            )
        order = table.sort(descending=True, stable=True).indices
        rank = torch.empty_like(order)
        rank[order] = torch.arange(size)
        self.register_buffer("rank", rank.to(device))
        self.hidden_size, self.vocab_size = hidden_size, size
        self.softmax = nn.AdaptiveLogSoftmaxWithLoss(
            hidden_size, size, chosen, div_value, bias, device=device, dtype=dtype
        )

    @property
    def cutoffs(self) -> list[int]:
        """The sizes after which a cluster starts, without V itself."""
        return [int(c) for c in self.softmax.cutoffs[:-1]]

    def loss(self, h: Tensor, target: Tensor, *, ignore_index: int = -100) -> Tensor:
        """Mean nats per target.

        Args:
            h: (..., H).
            target: class indices, int64 (...).
            ignore_index: targets of this value count for nothing.
        Returns:
            scalar; NaN with zero gradients where no target counts, as `linear_cross_entropy`.
        Raises:
            ShapeError, DataError: as `linear_cross_entropy`.
        """
        self._check(h)
        if target.shape != h.shape[:-1] or target.dtype != torch.int64:
            found = f"{target.dtype} {tuple(target.shape)}"
            raise ShapeError(f"target: expected int64 {tuple(h.shape[:-1])}, found {found}")
        flat, rows = target.flatten(), h.flatten(0, -2) if h.dim() > 1 else h[None]
        kept = (flat != ignore_index).nonzero()[:, 0]
        if len(kept) < len(flat):
            flat, rows = flat[kept], rows[kept]
        if len(flat) == 0:
            return (
                (rows.sum() + float("nan")) if rows.requires_grad else rows.new_full((), torch.nan)
            )
        if (
            flat.device.type == "cpu"
            and not 0 <= int(flat.min()) <= int(flat.max()) < self.vocab_size
        ):
            found = f"{int(flat.min())} to {int(flat.max())}"
            raise DataError(f"target: expected classes 0 to {self.vocab_size - 1}, found {found}")
        with torch.autocast(rows.device.type, enabled=False):  # 16 bits are too few for a cost
            loss: Tensor = self.softmax(self._wide(rows), self.rank[flat]).loss
        return loss

    def log_probs(self, h: Tensor) -> Tensor:
        """Log-probabilities of all classes, in the order of the classes, in nats.

        Args:
            h: (..., H), for instance (T, B, H).
        Returns:
            (..., V).
        """
        self._check(h)
        rows = h.reshape(-1, self.hidden_size)
        with torch.autocast(rows.device.type, enabled=False):
            ranked: Tensor = self.softmax.log_prob(self._wide(rows))
        return ranked.index_select(1, self.rank).view(*h.shape[:-1], self.vocab_size)

    def _wide(self, rows: Tensor) -> Tensor:
        """In the dtype of the weights, where autocast has narrowed them."""
        return rows.to(self.softmax.head.weight.dtype)

    def _check(self, h: Tensor) -> None:
        if h.dim() < 1 or h.shape[-1] != self.hidden_size:
            raise ShapeError(f"h: expected (..., {self.hidden_size}), found {tuple(h.shape)}")
