"""Which distances tell noise and a blurred start from the teacher, with few samples: `docs/metrics.md` quotes it.

Run as `python -m benchmarks.few_samples` (20 seconds on one core); the reference is as many samples of the teacher.
"""

from collections.abc import Callable

import torch

from simdistill.evaluation.figures import over_seeds
from simdistill.evaluation.metrics import Moments, energy_distance, frechet_distance
from simdistill.evaluation.quality import REFERENCE_SEED
from simdistill.evaluation.sampling import Sampler, balanced_labels, draw, student_sampler, teacher_sampler
from simdistill.method.generator import Generator
from simdistill.reports.headline import standing
from simdistill.teachers.loading import load_teacher

DRAWN = ((10, 2), (20, 2), (20, 5), (50, 3), (100, 3), (500, 3))  # samples and seeds


def frechet(samples: torch.Tensor, reference: torch.Tensor) -> float:
    """The Fréchet distance of two sets of samples."""
    return frechet_distance(Moments.of(samples), Moments.of(reference))


def main() -> None:
    """Print both distances of the digits in pixels, and how the report calls the difference from the teacher."""
    teacher, most = load_teacher("digits"), max(samples * seeds for samples, seeds in DRAWN)

    def drawn(sampler: Sampler, first: int = 0) -> torch.Tensor:
        labels = balanced_labels(most, teacher.conditions)
        return draw(sampler, range(first, first + most), teacher.shape, labels, "cpu").flatten(1)

    own, reference = drawn(teacher_sampler(teacher)), drawn(teacher_sampler(teacher), REFERENCE_SEED)
    start = drawn(student_sampler(Generator(teacher.trainable, (2.5,)), teacher))
    noise = own.mean() + own.std() * torch.randn(own.shape, generator=torch.Generator().manual_seed(0))
    distances: dict[str, Callable[[torch.Tensor, torch.Tensor], float]] = {
        "Fréchet": frechet,
        "energy": energy_distance,
    }
    for samples, seeds in DRAWN:
        for name, distance in distances.items():
            rows = {
                who: over_seeds([distance(part, reference[:samples]) for part in x.split(samples)[:seeds]])
                for who, x in {"teacher": own, "undistilled start": start, "noise": noise}.items()
            }
            said = [f"{who} {row['mean']:.2f} ± {row['std']:.2f}" for who, row in rows.items()]
            said += [str(standing(rows[who], rows["teacher"], "lower")) for who in ("undistilled start", "noise")]
            print(f"{samples:>4} × {seeds}  {name:<8}", *said, sep="  ")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        main()
