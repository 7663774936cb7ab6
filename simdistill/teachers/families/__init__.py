"""diffusers' pipelines, a file for each family: its network, text, latents, process and shapes.

A family outside the package is also one file, which calls `register`.
"""

from simdistill.teachers.families import dit, flux, pixart, stable_diffusion, stable_diffusion_3, unet2d
from simdistill.teachers.families.family import Conditioning, DiffusersNetwork, Family, Pipeline
from simdistill.teachers.families.latents import Latents

__all__ = [
    "FAMILIES",
    "Conditioning",
    "DiffusersNetwork",
    "Family",
    "Latents",
    "Pipeline",
    "autoencoders",
    "pipelines",
    "register",
]

FAMILIES: dict[str, Family] = {
    family.network: family
    for family in (
        unet2d.FAMILY,
        dit.FAMILY,
        pixart.FAMILY,
        stable_diffusion.FAMILY,
        stable_diffusion_3.FAMILY,
        flux.FAMILY,
    )
}
"""By the class of the network."""


def register(family: Family) -> None:
    """Add a family, replacing one of the same network; folders with such a network can then be read."""
    FAMILIES[family.network] = family


def pipelines() -> dict[str, Pipeline]:
    """The pipelines of all families that encode text, by their class."""
    return {pipeline.name: pipeline for family in FAMILIES.values() for pipeline in family.pipelines}


def autoencoders() -> dict[str, Latents]:
    """How the autoencoders of all families encode and decode pictures, by their class."""
    return {latents.autoencoder: latents for family in FAMILIES.values() for latents in family.latents}
