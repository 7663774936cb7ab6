"""A trainer that only counts, and a loop around it."""

import torch

from simdistill.training import checkpoints
from simdistill.training.loop import Loop
from simdistill.training.milestones import Measurement


class Counting:
    """Adds iteration + 1 at every step: after n steps the sum is n (n + 1) / 2."""

    iterations = 200

    def __init__(self, at_step=lambda trainer: None):
        self.iteration, self.rollbacks, self.sum, self.at_step = 0, 0, torch.zeros(1), at_step

    @property
    def images(self):
        return 2 * self.iteration

    def step(self):
        self.iteration += 1
        self.sum += self.iteration
        self.at_step(self)

    def metrics(self):
        return {"loss": float(self.sum)}

    def state(self):
        return {"sum": self.sum.clone(), "position": torch.tensor([self.iteration, self.rollbacks])}

    def restore(self, state):
        self.sum = state["sum"].clone()
        self.iteration, self.rollbacks = state["position"].tolist()


class Fragile(Counting):
    """Its loss is NaN from iteration 130 on, as long as its rates were lowered fewer than `wanted` times."""

    wanted = 1

    def metrics(self):
        wild = self.iteration >= 130 and self.rollbacks < self.wanted
        return {"loss": float("nan") if wild else 1.0}


def counted(iteration, wait=lambda training: None):
    """The measurement of that iteration, which first does `wait`; it is kept as a file with the iteration."""

    def measure(training):
        wait(training)
        return {"quality": {"count": iteration}}, "text"

    def keep(path):
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(iteration))

    return Measurement(measure, keep)


def go(trainer, run, milestones=4, kept=None, minutes=60.0, **options):
    def keep():
        if kept is not None:
            kept.append(trainer.iteration)

    def at_milestone():
        return counted(trainer.iteration)

    def stored(iteration, path):
        return counted(int(path.read_text()))

    options = {"checkpoint_minutes": minutes, "milestones": milestones, "stored": stored, **options}
    Loop(trainer, run, at_milestone, keep, **options).train()


def at(number, do):
    """What `Counting` does at every step: `do` at step `number`."""
    return lambda trainer: do() if trainer.iteration == number else None


def fail(error=MemoryError):
    raise error


def qualities(run):
    return [record["iteration"] for record in run.read_metrics() if "quality" in record]


def saved(run):
    return [int(path.stem) for path in checkpoints.checkpoints(run.checkpoints)]
