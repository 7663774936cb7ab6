"""SIGKILL at fifty moments, half of them inside a save: the run ends as if nothing had happened."""

import json
import multiprocessing
import random
import time

import pytest
import torch
from lives import live

from simdistill.training.checkpoints import checkpoints, newest_checkpoint, read_checkpoint

KILLS = 54
LINES_OF_A_SAVE = 6000  # of Python, its libraries included; roughly


@pytest.mark.slow
def test_a_run_killed_fifty_times_ends_with_the_same_bits(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lives"])
    moments = random.Random(0)
    straight, killed = tmp_path / "straight", tmp_path / "killed"

    def born(*arguments):
        life = context.Process(target=live, args=arguments)
        life.start()
        return life

    life = born(straight)
    life.join(400)
    assert life.exitcode == 0

    for kill in range(KILLS):
        if kill % 2:
            life = born(killed)
            time.sleep(moments.uniform(0, 0.6))
            life.kill()
            life.join(20)
        else:
            life = born(killed, moments.randint(1, 2 * LINES_OF_A_SAVE))
            life.join(200)
        assert life.exitcode == -9, f"ended after {kill} kills: give it more iterations"
    life = born(killed)
    life.join(400)
    assert life.exitcode == 0

    for run in (straight, killed):
        assert [path.name for path in checkpoints(run / "checkpoints")] == [
            "000000500.safetensors",
            "000000490.safetensors",
            "000000480.safetensors",
        ]
    for path in [*(straight / "checkpoints").glob("*.safetensors"), *straight.glob("generator*.safetensors")]:
        twin = killed / path.relative_to(straight)
        assert tensors(path) == tensors(twin), path.name
    straight_state, killed_state = (
        read_checkpoint(newest_checkpoint(run / "checkpoints"))[0] for run in (straight, killed)
    )
    assert straight_state.keys() == killed_state.keys()
    assert all(torch.equal(tensor, killed_state[name]) for name, tensor in straight_state.items())
    assert metrics(straight) == metrics(killed)


def tensors(path):
    """A safetensors file without its header, which holds the time."""
    content = path.read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]


def metrics(run):
    """The lines of the metrics in the order of their iterations, without what depends on the clock."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    clocked = {"seconds": 0, "images_per_second": 0}
    return sorted((record | clocked for record in records), key=lambda r: (r["iteration"], "quality" in r))
