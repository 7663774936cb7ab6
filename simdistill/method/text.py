"""Encoded prompts: the condition of text-to-image networks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class Text:
    """A batch of encoded prompts, one row each; indexed, split and moved between devices like a tensor.

    `prompt_embeds` are the encoder's last hidden states, `attention_mask` is false for padding tokens, and `pooled` is
    the additional vector per prompt that some networks take.
    """

    prompt_embeds: Float[Tensor, "batch tokens width"]
    attention_mask: Bool[Tensor, "batch tokens"]
    pooled: Float[Tensor, "batch pooled"] | None = None

    def __len__(self) -> int:
        return len(self.prompt_embeds)

    def __getitem__(self, rows: slice | Tensor) -> "Text":
        return self._each(lambda column: column[rows])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Text":
        """The same on `device`."""
        return self._each(lambda column: column.to(device, non_blocking=non_blocking))

    def half(self) -> "Text":
        """The same in half precision."""
        pooled = None if self.pooled is None else self.pooled.half()
        return Text(self.prompt_embeds.half(), self.attention_mask, pooled)

    def pin_memory(self) -> "Text":
        """A copy in pinned memory, for asynchronous transfer to a GPU."""
        return self._each(Tensor.pin_memory)

    def tensor_split(self, n: int) -> list["Text"]:
        """`n` parts, as equal as possible."""
        pooled = [None] * n if self.pooled is None else self.pooled.tensor_split(n)
        return [
            Text(*part)
            for part in zip(
                self.prompt_embeds.tensor_split(n), self.attention_mask.tensor_split(n), pooled, strict=True
            )
        ]

    def replaced(self, rows: Bool[Tensor, " batch"], by: "Text") -> "Text":
        """The same with the only row of `by` wherever `rows` is true; the shorter of the two is padded."""
        tokens = max(self.attention_mask.shape[1], by.attention_mask.shape[1])
        text, by = self.filled(tokens), by.filled(tokens)

        def choose(new: Tensor, old: Tensor) -> Tensor:
            return torch.where(rows.reshape(-1, *[1] * (old.ndim - 1)), new, old)

        pooled = None if text.pooled is None or by.pooled is None else choose(by.pooled, text.pooled)
        return Text(
            choose(by.prompt_embeds, text.prompt_embeds), choose(by.attention_mask, text.attention_mask), pooled
        )

    def filled(self, tokens: int) -> "Text":
        """The same, padded to this number of tokens (masked)."""
        more = tokens - self.attention_mask.shape[1]
        return Text(pad(self.prompt_embeds, (0, 0, 0, more)), pad(self.attention_mask, (0, more)), self.pooled)

    def expand(self, n: int) -> "Text":
        """Its only row, `n` times, without copies."""
        return self._each(lambda column: column.expand(n, *column.shape[1:]))

    @staticmethod
    def cat(parts: Sequence["Text"]) -> "Text":
        """The rows of all `parts`, which have the same form."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        states, mask = (
            torch.cat([part.prompt_embeds for part in parts]),
            torch.cat([part.attention_mask for part in parts]),
        )
        return Text(states, mask, torch.cat(pooled) if pooled else None)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Text":
        return Text(
            change(self.prompt_embeds),
            change(self.attention_mask),
            None if self.pooled is None else change(self.pooled),
        )


@runtime_checkable
class Prompts(Protocol):
    """A list of encoded prompts: `prompts[rows]` is the `Text` of those rows, `[n]` on the CPU."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor, /) -> Text: ...


@dataclass(frozen=True)
class TextInput:
    """The form of the text that a network takes: `tokens` per prompt of `width`, and a vector of `pooled` if not 0."""

    tokens: int
    width: int
    pooled: int = 0

    def blank(self, n: int, device: torch.device | str = "cpu") -> Text:
        """`n` prompts of zeros with no token masked, to try a network or simulate a training."""
        pooled = torch.zeros(n, self.pooled, device=device) if self.pooled else None
        mask = torch.ones(n, self.tokens, dtype=torch.bool, device=device)
        return Text(torch.zeros(n, self.tokens, self.width, device=device), mask, pooled)


@dataclass(frozen=True)
class BlankPrompts:
    """A list of one prompt of zeros, for when only shapes matter."""

    text: TextInput

    def __len__(self) -> int:
        return 1

    def __getitem__(self, rows: Tensor) -> Text:
        return self.text.blank(len(rows), rows.device)
