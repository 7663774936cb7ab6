"""Recipes: every setting of a distillation as one value, and the paper's tables as values of it."""

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias

from simdistill.method.algorithm import Method, ScoreDistillation
from simdistill.method.distances import PseudoHuber
from simdistill.method.ema import EMA, Averaging
from simdistill.method.metrics import OwnMetric
from simdistill.method.noise import Clamped, DiscreteVP, Karras, LogNormal, NoiseDistribution, Truncated
from simdistill.method.objectives import Objective, ScoreIdentity, ScoreImplicitMatching
from simdistill.method.weightings import EDM, Uniform, VPScore, Weighting
from simdistill.support.checks import check_count, check_seed, require

Levels: TypeAlias = Literal["scheduler", "paper"]


@dataclass(frozen=True)
class Recipe:
    """Every setting of a distillation. Raises `ValueError` for values that cannot be."""

    teacher: str = ""
    """The model to distil: digits, fashion-mnist, faces (shipped); gaussians-25, gaussians-8, rings, checkerboard
    (exact densities); a FILE.safetensors; an EDM FILE.pkl; a diffusers FOLDER; package.module:function."""
    method: Method | None = None
    """A method of your own, package.module:Class(…). If not given: Algorithm 2, by the settings below."""
    objective: Objective = ScoreImplicitMatching(PseudoHuber(c=0.03))  # noqa: RUF009  (frozen, as all below)
    """Objective of the generator, with its distance."""
    generator_noise: NoiseDistribution = LogNormal(-3.5, 2.5)  # noqa: RUF009
    """Noise distribution of the generator's update."""
    generator_weighting: Weighting = Uniform()  # noqa: RUF009
    """Loss weight of the generator's update, by noise level."""
    online_noise: NoiseDistribution = LogNormal(-1.2, 1.2)  # noqa: RUF009
    """Noise distribution of the online network's update."""
    online_weighting: Weighting = EDM()  # noqa: RUF009
    """Loss weight of the online network's denoising loss, by noise level."""
    online_steps: int = 1
    """Updates of the online network for each update of the generator."""
    prompts: str = ""
    """Folder of prompts that `simdistill encode` made, for a text-to-image teacher."""
    held_out_prompts: str = ""
    """Such a folder of other prompts, for milestones and evaluation; the training's own if empty."""
    teacher_levels: Levels = "scheduler"
    """Noise levels of a diffusers FOLDER's timesteps: its scheduler's, or the paper's for PixArt [B.13]."""
    teacher_range: tuple[float, float] = (0.0, math.inf)
    """Noise levels at which the teacher is asked, from, to: a part of its own range, if it is wrong beyond."""
    teacher_guidance: float = 1.0
    """Classifier-free guidance scale of the teacher, in training and in its samples; 1 is none."""
    online_guidance: float = 1.0
    """Guidance scale of the online network ("long and short guidance", Zhou et al. 2024); 1 is none."""
    guidance_interval: tuple[float, float] = (0.0, math.inf)
    """Noise levels that are guided: from, to."""
    outside_range: Literal["truncate", "allow"] = "truncate"
    """Noise distributions with more than 1 % of their levels outside the teacher's range: truncate them to it, or allow
    these levels."""
    sigma_init: float = 2.5
    """Noise level from which the generator starts [B.4]."""
    generator_lr: float = 1e-5
    """Learning rate of the generator (Adam)."""
    online_lr: float = 1e-5
    """Learning rate of the online network (Adam)."""
    betas: tuple[float, float] = (0.0, 0.999)
    """Adam's betas."""
    warmup: int = 0
    """Iterations of linear learning-rate warm-up."""
    decay: Literal["none", "linear"] = "none"
    """Learning-rate schedule of the generator after warm-up: constant, or linear decay to zero."""
    batch: int = 256
    """Batch size of every update."""
    gradient_accumulation: int = 1
    """Micro-batches that a batch is split into, for less memory; gradients add up to the same."""
    share_samples: bool = False
    """Fit the online network to the samples of the generator's update: saves one forward pass in eleven."""
    iterations: int = 400_000
    """Training iterations, each with one generator update."""
    ema: tuple[Averaging, ...] = (EMA(500_000.0),)
    """EMA of the generator's weights; of several the first is kept as the student, all are evaluated."""
    reference: str = ""
    """Reference statistics of the metrics: a .npz of `simdistill stats`; the teacher's data or samples if empty."""
    features: str = ""
    """Feature space of the metrics: pixels, digits, fashion-mnist, faces, imagenet, a classifier's .safetensors (of
    `simdistill features`), or a file of Inception-v3; that of the reference or teacher if empty."""
    metrics: tuple[OwnMetric, ...] = ()
    """More metrics than the usual ones, as package.module:Class(…)."""
    seed: int = 0
    """Random seed."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Mixed precision (autocast) of the networks; weights and optimizer states stay in fp32. bf16 and fp16 pay on GPUs."""
    compile: bool = False
    """Compile the losses (torch.compile): pays off after some minutes of training."""
    gradient_checkpointing: bool = False
    """Activation (gradient) checkpointing of the networks' blocks: a third more work, much less memory."""
    shard: bool = False
    """Shard networks over torchrun's processes (FSDP2), for those that outgrow one device."""
    checkpoint_minutes: float = 1.0
    """Minutes between two checkpoints."""

    def __post_init__(self) -> None:
        for name in ("online_steps", "batch", "gradient_accumulation", "iterations"):
            check_count(getattr(self, name), name)
        check_seed(self.seed)
        for name in ("teacher_guidance", "online_guidance"):
            require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "positive; 1 is no guidance")
        for name in ("sigma_init", "generator_lr", "online_lr"):
            require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "positive and finite")
        for name in ("warmup", "checkpoint_minutes"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        require(all(0 <= beta < 1 for beta in self.betas), "betas", self.betas, "both in [0, 1)")
        divides = self.batch % self.gradient_accumulation == 0
        require(divides, "gradient_accumulation", self.gradient_accumulation, f"a divisor of batch = {self.batch}")
        require(len(self.ema) > 0, "ema", self.ema, 'at least one, as "EMA(0)" for none')
        scalable = self.precision != "fp16" or not self.shard
        require(scalable, "precision", self.precision, "bf16 or fp32 with shard: torch scales no sharded gradients")

    @property
    def algorithm(self) -> Method:
        """The method that distils: Algorithm 2 with these settings, or the one that `method` makes of it."""
        base = ScoreDistillation(**{field.name: getattr(self, field.name) for field in fields(ScoreDistillation)})
        if self.method is None:
            return base
        own: Any = self.method
        return replace(own, base=base) if "base" in (field.name for field in fields(own)) else own


EDM_TIMES = LogNormal(-1.2, 1.2)  # [B.5]
SIM_TIMES = Truncated(LogNormal(-3.5, 2.5), 0.002, 80.0)  # [B.9], kept to the teachers' range: the paper is silent
KARRAS_TIMES = Karras()  # [B.8]
DMD_TIMES = Truncated(Karras(highest=980), 0.0032, 80.0)  # Yin et al. 2024: bins 20 to 980 of 1000, 2 % to 98 %
PIXART_TIMES = Clamped(LogNormal(-2.0, 2.0), 0.01, 156.6155)  # B.3
SIM = ScoreImplicitMatching(PseudoHuber(c=0.03))
SID = ScoreIdentity(alpha=1.2)

# Table 5: both columns are alike but for the teacher. It gives no EMA (this is SiD's) and no number of iterations (ours:
# a quarter of the images of SiD's).
TABLE_5 = Recipe(
    objective=SIM,
    generator_noise=SIM_TIMES,
    generator_weighting=Uniform(),
    online_noise=EDM_TIMES,
    online_weighting=EDM(sigma_data=0.5),
    sigma_init=2.5,
    generator_lr=1e-5,
    online_lr=1e-5,
    betas=(0.0, 0.999),
    batch=256,
)
# 64×64 images, for EDM's teachers. The paper has none; what follows are SiD's settings (Zhou et al. 2024, the commands
# of its release for four GPUs) with SIM's loss and times. SiD's: batch and its parts, rates, half-life of the average,
# half precision, sigma_init, betas (its command for FFHQ has beta_1 = 0.9 for the generator; Table 5's 0 stays). Its
# alpha (1.2; AFHQv2 1.0) belongs to its loss. Ours: c, as 0.00054 √dimensions (Song and Dhariwal 2024), which gives
# CIFAR-10's 0.03; and iterations, a quarter of the images that SiD's published generators have seen (453, 372 and 939
# million; CIFAR-10, 404), as above. Unknown: how SIM fares with any of it; no full run has been made.
AT_64 = replace(
    TABLE_5, objective=ScoreImplicitMatching(PseudoHuber(c=0.06)), batch=512, gradient_accumulation=4, precision="fp16"
)
# Our own, for 8×8 images; docs/digits.md tells what was tried.
DIGITS = replace(
    TABLE_5,
    teacher="digits",
    generator_noise=LogNormal(-0.9, 1.2),
    online_weighting=EDM(sigma_data=0.75),
    generator_lr=3e-4,
    online_lr=3e-4,
    warmup=50,
    decay="linear",
    batch=64,
    share_samples=True,
    iterations=8000,
    ema=(EMA(22_000.0),),
)
# Our own, for grey 32×32 images and a U-Net on two CPU cores; docs/fashion-mnist.md tells what was tried.
FASHION_MNIST = replace(
    DIGITS,
    teacher="fashion-mnist",
    features="fashion-mnist",
    generator_noise=SIM_TIMES,
    online_weighting=EDM(sigma_data=0.664),
    generator_lr=4e-4,
    online_lr=4e-4,
    warmup=20,
    batch=32,
    iterations=1800,
    ema=(EMA(2000.0),),
)
# Our own, for text: 16×16 faces by PixArt's transformer on two CPU cores; docs/faces.md tells what was tried.
FACES_UNGUIDED = replace(
    DIGITS,
    teacher="faces",
    features="faces",
    generator_noise=LogNormal(-0.4, 1.6),
    online_weighting=EDM(sigma_data=0.488),
    generator_lr=2e-4,
    online_lr=4e-4,
    warmup=20,
    batch=32,
    iterations=800,
    ema=(EMA(4000.0),),
)
# Our own, for the exact densities in two dimensions; docs/gallery.md tells what was tried.
IN_TWO_DIMENSIONS = replace(
    TABLE_5,
    teacher="gaussians-25",
    objective=ScoreImplicitMatching(PseudoHuber(c=1.0)),
    generator_noise=LogNormal(-1.1, 1.3),
    online_noise=LogNormal(-0.9, 1.5),
    online_weighting=EDM(sigma_data=1.4),
    generator_lr=1e-3,
    online_lr=1e-3,
    warmup=50,
    decay="linear",
    batch=512,
    share_samples=True,
    iterations=6000,
    ema=(EMA(50_000.0),),
)

# fmt: off
RECIPES: dict[str, Recipe] = {
    "digits":          DIGITS,
    "fashion-mnist":   FASHION_MNIST,
    "faces":           replace(FACES_UNGUIDED, teacher_guidance=1.5, guidance_interval=(0.3, 3.0)),
    "faces-unguided":  FACES_UNGUIDED,
    "cifar10-uncond":  TABLE_5,                                                                      # Table 5, left
    "cifar10-cond":    TABLE_5,                                                                      # Table 5, right
    "ffhq64":          replace(AT_64, iterations=220_000),
    "afhqv2-64":       replace(AT_64, iterations=180_000, generator_lr=5e-6, online_lr=5e-6),
    "imagenet64-cond": replace(AT_64, iterations=29_000, generator_lr=4e-6, online_lr=4e-6,
                               batch=8192, gradient_accumulation=128, ema=(EMA(2_000_000.0),)),
    "pixart-512":      replace(TABLE_5, generator_noise=PIXART_TIMES, online_noise=PIXART_TIMES,     # B.3
                               teacher_levels="paper",
                               online_weighting=Uniform(), generator_lr=5e-6, online_lr=5e-6,
                               batch=1024, gradient_accumulation=8, iterations=16_000, precision="bf16",
                               gradient_checkpointing=True, checkpoint_minutes=15),
    "listing-1":       replace(TABLE_5, teacher="gaussians-25",                                      # Listing 1
                               generator_noise=DiscreteVP(), online_noise=DiscreteVP(), online_weighting=VPScore(),
                               online_steps=2, generator_lr=1e-3, online_lr=1e-3, batch=2000, iterations=2000),
    "densities":       IN_TWO_DIMENSIONS,
}
# fmt: on
