"""UNet2DModel: unconditional (such as DDPM, Ho et al. 2020) and class-conditional U-Nets, for pixels or latents."""

from simdistill.support.checks import require
from simdistill.teachers.families.family import Conditioning, Family
from simdistill.teachers.families.latents import Config, Latents


def _condition(config: Config) -> Conditioning:
    embedded = config.get("class_embed_type")
    require(embedded is None, "class_embed_type", embedded, "null: labels are integers")
    return Conditioning(classes=int(config.get("num_class_embeds") or 0))


FAMILY = Family(
    "UNet2DModel",
    _condition,
    latents=(Latents(), Latents("VQModel", "vqvae", encode=None)),
    part="unet",
)
