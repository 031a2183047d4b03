"""Gradients of several processes, added in one order, so that their number does not show in the sum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn


class OrderedSum:
    """The sum of the gradients of a batch's parts, in the order of the parts, whichever process computes which.

    Floating-point addition depends on its order, so a sum that each number of processes makes in its own order trains
    other weights. Here each process adds one slice of the gradients of all parts, part after part, as one process
    does that accumulates them; in the end all get all slices. What is sent is what a ring all-reduce sends.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], rank: int, num_processes: int):
        self.parameters, self.rank, self.num_processes = parameters, rank, num_processes
        size = sum(p.numel() for p in parameters)
        self.padding = -size % num_processes
        self.total: Tensor | None = None

    def add(self, num_parts: int) -> None:
        """Add the gradients that the first `num_parts` processes now hold, and forget them; all processes call this."""
        mine = self._flat()
        received = torch.empty_like(mine)
        dist.all_to_all_single(received, mine)
        for part in received.chunk(self.num_processes)[:num_parts]:
            self.total = part.clone() if self.total is None else self.total.add_(part)
        for parameter in self.parameters:
            parameter.grad = None

    def give_back(self, are_used: Sequence[bool]) -> None:
        """Set the gradients of all parameters to their sums, but those that no part has used."""
        assert self.total is not None
        whole = self.total.new_empty(self.total.numel() * self.num_processes)
        dist.all_gather_into_tensor(whole, self.total)
        pieces = whole.split([*(p.numel() for p in self.parameters), self.padding])
        for parameter, piece, is_used in zip(self.parameters, pieces[:-1], are_used, strict=True):
            parameter.grad = piece.view_as(parameter).clone() if is_used else None
        self.total = None

    def _flat(self) -> Float[Tensor, " weights"]:
        first = self.parameters[0]
        pieces = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        return torch.cat([*(piece.reshape(-1) for piece in pieces), first.new_zeros(self.padding)])
