"""Batches on their way to a device, and in micro-batches."""

from typing import Any

import torch

from simdistill.method.algorithm import Batch


def in_parts(batch: Batch, n: int) -> list[Batch]:
    """The batch in `n` micro-batches as equal as can be."""
    columns = [[None] * n if column is None else column.tensor_split(n) for column in batch]
    return [Batch(*part) for part in zip(*columns, strict=True)]


def sent(batch: Batch, device: torch.device) -> Batch:
    """The batch on `device`, without waiting for what the device still has to do."""

    def moved(column: Any) -> Any:
        if column is None:
            return None
        column = column.pin_memory() if device.type == "cuda" else column
        return column.to(device, non_blocking=True)

    return Batch(*map(moved, batch))
