"""DiT (Peebles & Xie 2023): a transformer of latents, conditioned on class labels."""

import torch

from simdistill.teachers.families.family import Conditioning, Family
from simdistill.teachers.families.latents import Config


def _condition(config: Config) -> Conditioning:
    """The last label embedding is the unconditional one."""
    classes = int(config.get("num_embeds_ada_norm") or 0)
    return Conditioning(classes=classes, unconditional=torch.tensor([classes]))


FAMILY = Family("DiTTransformer2DModel", _condition, formerly="ada_norm_zero")
