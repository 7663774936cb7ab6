"""The plan of a distillation: what it would need and how long it would take, before anything is started."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from simdistill.configuration import to_mapping
from simdistill.evaluation.quality import BATCH
from simdistill.recipes import Recipe
from simdistill.teachers.published import ARCHITECTURES
from simdistill.teachers.teacher import Teacher, load_teacher
from simdistill.training.footprint import Footprint, footprint, forward
from simdistill.validation import require
from simdistill.workflows.distilling import IMITATION


@dataclass(frozen=True)
class GPU:
    """Memory in 10⁹ bytes, and the most 10¹² operations a second in each arithmetic, without sparsity; None: has none."""

    memory: float
    fp32: float
    tf32: float | None
    bf16: float | None
    fp16: float | None


# fmt: off
GPUS = {  #               GB    fp32   TF32   bf16   fp16
    "V100-32GB": GPU(     32,  15.7,  None,  None, 125.0),  # NVIDIA V100 datasheet (2020), SXM2
    "A100-40GB": GPU(     40,  19.5, 156.0, 312.0, 312.0),  # NVIDIA A100 datasheet (2021), SXM
    "A100-80GB": GPU(     80,  19.5, 156.0, 312.0, 312.0),  # the same
    "H100":      GPU(     80,  67.0, 494.5, 989.5, 989.5),  # NVIDIA H100 datasheet (2023), SXM; its sparse figures halved
    "H200":      GPU(    141,  67.0, 494.5, 989.5, 989.5),  # NVIDIA H200 datasheet (2024), SXM; halved
    "L4":        GPU(     24,  30.3,  60.0, 121.0, 121.0),  # NVIDIA L4 datasheet (2023); halved
    "L40S":      GPU(     48,  91.6, 183.0, 362.0, 362.0),  # NVIDIA L40S datasheet (2023)
    "RTX-3090":  GPU(     24,  35.6,  35.6,  71.0,  71.0),  # NVIDIA GA102 whitepaper (2021), appendix A, fp32 sums
    "RTX-4090":  GPU(     24,  82.6,  82.6, 165.2, 165.2),  # NVIDIA Ada whitepaper (2022), appendix A, fp32 sums
}
# fmt: on
"""GPUs by name. Networks in fp32 multiply in TF32 where there is TF32."""

SHARE_OF_PEAK = {"fp32": 0.7, "tf32": 0.25, "bf16": 0.15, "fp16": 0.15}
"""How much of a GPU's peak an iteration is assumed to reach, by arithmetic; docs/planning.md says on what grounds."""

RESERVED = 2 * 10**9
"""Bytes assumed for CUDA's context and the workspaces of cuDNN and NCCL; not measured."""

COUNTS = (1, 4, 8)
"""Numbers of GPUs that a plan shows where none is asked for."""
