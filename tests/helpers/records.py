"""Lines of a run's metrics."""


def line(iteration, seconds, **metrics):
    return {"iteration": iteration, "seconds": seconds, "loss": 1.0 + iteration, **metrics}


def milestone(iteration, seconds):
    frechet = {"mean": 1.0, "std": 0.0, "seeds": 1, "values": [1.0]}
    return {
        "iteration": iteration,
        "seconds": seconds,
        "quality": {"frechet": frechet, "precision": 0.8, "recall": 0.5},
    }
