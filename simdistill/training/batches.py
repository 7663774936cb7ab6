"""Splitting batches into micro-batches, and sending them to a device."""

from typing import Any

import torch

from simdistill.method.algorithm import Batch


def in_parts(batch: Batch, n: int) -> list[Batch]:
    """The batch in `n` micro-batches, as equal as possible."""
    columns = [[None] * n if column is None else column.tensor_split(n) for column in batch]
    return [Batch(*part) for part in zip(*columns, strict=True)]


def sent(batch: Batch, device: torch.device) -> Batch:
    """The batch on `device`, sent asynchronously."""

    def moved(column: Any) -> Any:
        if column is None:
            return None
        column = column.pin_memory() if device.type == "cuda" else column
        return column.to(device, non_blocking=True)

    return Batch(*map(moved, batch))
