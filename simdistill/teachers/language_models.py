"""Language models such as BERT and T5 as text encoders, from transformers' folders."""

from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import pad

from simdistill.method.text import Text, TextInput
from simdistill.support.checks import require
from simdistill.support.libraries import library, short


class LanguageModel:
    """Encodes prompts as the last hidden states of the language model in `folder`, for the first `limit` tokens.

    Nothing in the folder is executed. Raises `ValueError` if it is no language model, damaged, or takes fewer tokens.
    """

    trimmed = True

    def __init__(self, folder: Path, device: torch.device | str, dtype: torch.dtype, limit: int) -> None:
        self._device, self.limit = torch.device(device), limit
        with library():
            transformers: Any = import_module("transformers")
            local = {"local_files_only": True, "trust_remote_code": False}
            try:
                self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(str(folder), **local)
                self._model: Any = transformers.AutoModelForTextEncoding.from_pretrained(
                    str(folder), dtype=dtype, **local
                )
            except Exception as error:  # whatever transformers raises
                what = "cannot be read as a language model with its tokenizer"
                raise ValueError(f"encoder = '{folder}': {what} ({short(error)})") from error
        self._model.to(self._device).eval()
        most = min(self._tokenizer.model_max_length, getattr(self._model.config, "max_position_embeddings", limit))
        require(2 <= limit <= most, "--tokens", limit, f"2 to {most}, as the encoder {folder} takes")

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> Text:
        """The encoded prompts, on the CPU, float32, padded with zeros."""
        cut = {"padding": "longest", "truncation": True, "max_length": self.limit, "return_tensors": "pt"}
        with library():
            tokens = self._tokenizer(list(prompts), **cut).to(self._device)
            states = self._model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
        mask, missing = tokens.attention_mask.bool(), self.limit - states.shape[1]
        return Text(pad(states * mask[..., None], (0, 0, 0, missing)).float().cpu(), pad(mask, (0, missing)).cpu())

    def empty(self) -> Text:
        """The empty prompt."""
        return self([""])

    def tokens(self, prompts: Sequence[str]) -> list[int]:
        """How many tokens each prompt has, before truncation to `limit`."""
        with library():
            return [len(ids) for ids in self._tokenizer(list(prompts), truncation=False, verbose=False).input_ids]

    @cached_property
    def text(self) -> TextInput:
        """The shape of what it returns."""
        return TextInput(self.limit, int(self._model.config.hidden_size))
