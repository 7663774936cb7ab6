"""What distillation needs to know of a teacher."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

import torch
from torch import Tensor, nn

from simdistill.config.recipes import Recipe
from simdistill.data.embeddings import Embeddings
from simdistill.method.denoisers import Denoiser, residual
from simdistill.method.guidance import Guided
from simdistill.method.shapes import Condition, Data, Pictures, Rows
from simdistill.method.text import Prompts, Text, TextInput
from simdistill.support.checks import require
from simdistill.teachers.encoders import digest_of

SMALL = 1_000_000  # parameters, below which a second thread does not help


@dataclass(frozen=True)
class Asked:
    """What a teacher is conditioned on besides class labels: encoded `prompts`, and the name of their `encoder`.

    `unconditional`, one row, is the unconditional embedding that guidance needs: a DiT's unconditional label, the
    encoded empty prompt. `encoder` is a name for `load_encoder`.
    """

    prompts: Prompts | None = None
    unconditional: Tensor | Text | None = None
    encoder: str = ""


@dataclass(frozen=True)
class Judged:
    """The reference of samples: the data set `data` ("digits"), or by default the teacher's own samples.

    `decode` turns latents into pictures in [-1, 1], the input of all feature extractors except "pixels".
    """

    data: str | None = None
    decode: Callable[[Data], Pictures] | None = None


@dataclass(frozen=True)
class Teacher:
    """A frozen denoiser and its facts: the only input of distillation, which needs no data.

    `shape` is that of one sample. With `classes` > 0 the condition is an integer label 0 … classes - 1, with
    `text` encoded text of that shape. [`sigma_min`, `sigma_max`] is the range that the denoiser was trained on; the
    reference sampler stays inside it. `asked` has its prompts, `judged` the reference of its samples. Raises
    `ValueError` for an invalid range, shape or number of classes.
    """

    denoiser: Denoiser
    shape: tuple[int, ...]
    classes: int = 0
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    name: str = "teacher"
    text: TextInput | None = None
    asked: Asked = Asked()
    judged: Judged = Judged()

    def __post_init__(self) -> None:
        listed = isinstance(self.shape, (tuple, list))  # pyright: ignore[reportUnnecessaryIsInstance]
        require(
            listed and len(self.shape) > 0 and min(self.shape) > 0,
            "shape",
            self.shape,
            "a sample's shape, such as (3, 32, 32)",
        )
        require(self.classes >= 0, "classes", self.classes, "0 (unconditional) or the number of class labels")
        require(0 < self.sigma_min < self.sigma_max, "sigma_min", self.sigma_min, "above 0 and below sigma_max")
        require(self.text is None or not self.classes, "classes", self.classes, "0 with text: one condition only")

    @property
    def unguided(self) -> Denoiser:
        """The denoiser without guidance."""
        return self.denoiser.denoiser if isinstance(self.denoiser, Guided) else self.denoiser

    def guide(self, denoiser: Denoiser, scale: float, interval: tuple[float, float]) -> Denoiser:
        """`denoiser`, of the teacher's kind, with classifier-free guidance (see `Guided`); unchanged for a scale of 1.

        Raises `ValueError` if there is no unconditional embedding.
        """
        if scale == 1:
            return denoiser
        if self.asked.unconditional is None:
            why = "has no unconditional embedding, such as a DiT's unconditional label or the empty prompt"
            raise ValueError(f"guidance = {scale}: must be 1: teacher {self.name!r} {why}")
        return Guided(denoiser, self.asked.unconditional, scale, interval)

    def prepared(self, recipe: Recipe) -> "Teacher":
        """The teacher with the recipe's prompts, if it takes text, guidance, replacing its own, and range.

        Raises `ValueError` if it takes text and gets no prompts, or those of another encoder, if it takes no text, or
        if it has no level in that range.
        """
        if self.text is None:
            require(recipe.prompts == "", "prompts", recipe.prompts, f"left out: {self.name!r} takes no text")
            teacher = self
        elif recipe.prompts:
            prompts = self._encoded(recipe.prompts, "prompts", self.text)
            teacher = self.with_prompts(prompts, prompts.empty)
        else:
            what = "prompts encoded by `simdistill encode`"
            require(self.asked.prompts is not None, "prompts", recipe.prompts, f"given for {self.name!r}: {what}")
            teacher = self
        guided = teacher.guide(self.unguided, recipe.teacher_guidance, recipe.guidance_interval)
        return replace(teacher.within(*recipe.teacher_range), denoiser=guided)

    def within(self, low: float, high: float) -> "Teacher":
        """The teacher with the part of its range that is in [`low`, `high`]; `ValueError` if there is none."""
        least, most = max(low, self.sigma_min), min(high, self.sigma_max)
        own = f"levels within those of teacher {self.name!r}, {self.sigma_min:g} … {self.sigma_max:g}"
        require(0 <= low < high and least < most, "teacher_range", (low, high), own)
        return replace(self, sigma_min=least, sigma_max=most)

    def with_prompts(self, prompts: Prompts, unconditional: Text | None = None) -> "Teacher":
        """The teacher with other prompts, and another encoded empty prompt if one is given."""
        row = self.asked.unconditional if unconditional is None else unconditional
        return replace(self, asked=replace(self.asked, prompts=prompts, unconditional=row))

    def held_out(self, recipe: Recipe) -> "Teacher":
        """The teacher with the recipe's held-out prompts, if any, for evaluation; `ValueError` as above."""
        if not recipe.held_out_prompts or self.text is None:
            return self
        return self.with_prompts(self._encoded(recipe.held_out_prompts, "held_out_prompts", self.text))

    def _encoded(self, folder: str, option: str, text: TextInput) -> Embeddings:
        """The prompts in a folder of `simdistill encode`; `ValueError` if another encoder encoded them."""
        prompts = Embeddings(Path(folder), option)
        what, encoder = f"{option} = '{folder}'", quote(self.asked.encoder) if self.asked.encoder else "of this teacher"
        remedy = f"encode them again with --encoder {encoder}"
        for name in ("width", "pooled"):
            found, wanted = getattr(prompts.encoding.text, name), getattr(text, name)
            require(found == wanted, f"{what}: {name} of the text", found, f"{wanted}; {remedy}")
        own = digest_of(self.asked.encoder)
        mine = own in (None, prompts.encoding.encoder)
        require(mine, f"{what}: encoder", prompts.encoding.name, f"the teacher's, which has other weights; {remedy}")
        return prompts

    @property
    def conditions(self) -> int:
        """The number of conditions: classes, or prompts; 0 without either."""
        return self.classes if self.asked.prompts is None else len(self.asked.prompts)

    def condition(self, rows: Rows, device: torch.device | str = "cpu") -> Condition:
        """The denoiser's condition for `rows`: the rows themselves if they are labels, or prompts on `device`."""
        if rows is None or self.asked.prompts is None:
            return rows
        return self.asked.prompts[rows.cpu()].to(device)

    @property
    def trainable(self) -> nn.Module | None:
        """The denoiser as a trainable module, or None (an exact density, a plain function)."""
        module = self.unguided if isinstance(self.unguided, nn.Module) else None
        return module if module is not None and any(True for _ in module.parameters()) else None

    def decoded(self, samples: Data, device: torch.device | str = "cpu") -> Pictures:
        """`samples` as they are, or if they are latents, their pictures, decoded on `device`."""
        return samples if self.judged.decode is None else self.judged.decode(samples.to(device)).cpu()

    def check(self, device: torch.device | str = "cpu") -> None:
        """Put the denoiser on `device`, in eval mode, and call it once.

        Raises `ValueError` unless its output has the samples' shape and is float32, finite and differentiable.
        """
        if isinstance(self.denoiser, nn.Module):  # eval: without dropout
            hollow = next((name for name, p in self.denoiser.named_parameters() if p.is_meta), "")
            remedy = (
                "with its weights: load them (load_state_dict with assign=True), or build it outside of a meta context"
            )
            require(not hollow, f"teacher {self.name!r}: parameter", f"{hollow} on the meta device", remedy)
            self.denoiser.to(device).eval()
        x_t = torch.zeros(2, *self.shape, device=device, requires_grad=True)
        sigma = torch.tensor([0.5, 1.0], device=device)
        condition = self.blank(2, device)
        try:
            difference = residual(self.denoiser, x_t, sigma, condition)
            open_to_gradients = self.denoiser(x_t, sigma, condition).requires_grad
        except ValueError:
            raise
        except Exception as error:  # whatever the user's own code raises
            raise ValueError(
                f"teacher {self.name!r}: fails on x_t of shape {list(x_t.shape)}, sigma of shape [2] and "
                f"{self._conditions()} ({type(error).__name__}: {error}); check its shape and classes"
            ) from error
        require(open_to_gradients, "denoiser output", "detached from x_t", "differentiable: no no_grad(), no detach()")
        finite = bool(torch.isfinite(difference).all())
        require(finite, "denoiser output", "not finite", "finite; is the network loaded?")
        require(
            difference.dtype == torch.float32, "denoiser output", difference.dtype, "float32; convert it with .float()"
        )

    def blank(self, n: int, device: torch.device | str = "cpu") -> Condition:
        """`n` conditions of the right shape, to test a network or simulate a training: label 0, or prompts of zeros."""
        if self.text is not None:
            return self.text.blank(n, device)
        return torch.zeros(n, dtype=torch.int64, device=device) if self.classes else None

    def _conditions(self) -> str:
        if self.text is not None:
            return f"prompts of {self.text.tokens} tokens"
        return "labels of shape [2]" if self.classes else "no labels"
