"""What an iteration is said to need: against measured memory, torch's counter, and what must hold of any estimate."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_of_steps import NETWORKS, SETTINGS

from benchmarks import iteration
from benchmarks.iteration import RETURN_MEMORY
from benchmarks.machine import finish, start
from simdistill.config.recipes import RECIPES, Recipe
from simdistill.method.denoisers import Preconditioned
from simdistill.method.text import TextInput
from simdistill.networks.mlp import MLP
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.published import ARCHITECTURES
from simdistill.teachers.teacher import Teacher
from simdistill.training import footprint
from simdistill.training.footprint import EMAS, footprints, forward
from simdistill.training.memory_tracker import WORKING

HERE = Path(__file__).parents[1] / "helpers"
ENVIRONMENT = RETURN_MEMORY | {"PYTHONPATH": f"{HERE.parents[1]}:{HERE}"}
KINDS = ("mlp", "unet", "transformer")
SMALL = Preconditioned(MLP((1, 4, 4), 64, 1, label_dim=4), (1, 4, 4), classes=4)
TEACHER = Teacher(SMALL, SMALL.shape, SMALL.classes)
BYTES = 4 * sum(p.numel() for p in SMALL.parameters())


def of(recipe, processes=1, teacher=TEACHER, gpu=True):
    return footprints(teacher, recipe, processes=[processes], gpu=gpu)[processes]


def teacher_of(name):
    denoiser = NETWORKS[name].make()
    return Teacher(denoiser, denoiser.shape)


def compare(name, kinds):
    """Estimates over measurements, by setting."""
    command = [sys.executable, str(HERE / "memory_of_steps.py"), name, *kinds]
    measured = finish(start(command, threads=1, environment=ENVIRONMENT))
    base = Recipe(batch=NETWORKS[name].batch)
    estimates = [of(replace(base, **SETTINGS[kind]), teacher=teacher_of(name), gpu=False) for kind in kinds]
    return {kind: e.total / 1e6 / m for kind, e, m in zip(kinds, estimates, measured, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_memory_is_what_is_measured_in_every_setting(name):
    kinds = [kind for kind in SETTINGS if not (name == "transformer" and kind == "bf16")]  # minutes, on CPUs without it
    ratios = compare(name, kinds)
    print(name, {kind: round(ratio, 3) for kind, ratio in ratios.items()})
    assert all(0.95 < ratio < 1.05 for ratio in ratios.values()), ratios


@pytest.mark.slow
def test_memory_of_two_processes_is_what_is_measured(tmp_path):
    """Replicated and sharded; the sharded trainer keeps one whole network on the CPU, which on a GPU is elsewhere."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launch, str(HERE / "memory_of_processes.py")]
    measured = finish(start(command, threads=1, environment=ENVIRONMENT))
    for name, (replicated, sharded) in measured.items():
        teacher = teacher_of(name)
        recipe = Recipe(batch=NETWORKS[name].batch)
        blank = sum(p.numel() * p.element_size() for p in teacher.trainable.parameters())
        ratios = (
            of(recipe, 2, teacher, gpu=False).total / replicated,
            (of(replace(recipe, shard=True), 2, teacher, gpu=False).total + blank) / sharded,
        )
        print(name, ratios)
        assert all(0.85 < ratio < 1.15 for ratio in ratios), (name, ratios)


@pytest.mark.parametrize("name", ["mlp", *(pytest.param(name, marks=pytest.mark.slow) for name in KINDS[1:])])
@pytest.mark.parametrize("kind", ["plain", "shared samples", "four parts", "blocks computed twice"])
def test_operations_are_those_that_torch_counts(name, kind, monkeypatch):
    network = replace(NETWORKS[name], batch=4)
    recipe = replace(Recipe(batch=4), **SETTINGS[kind])
    monkeypatch.setitem(iteration.step_of.__globals__["SETTINGS"], kind, SETTINGS[kind])
    counted = iteration._operations(kind, network)
    assert of(recipe, teacher=teacher_of(name)).flops == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize(
    ("name", "parameters", "tensors"),
    [
        ("cifar10-uncond", 55_733_891, 425),
        ("cifar10-cond", 55_735_299, 427),
        ("ffhq64", 61_805_571, 553),
        ("afhqv2-64", 61_805_571, 553),
        ("imagenet64-cond", 295_899_267, 553),
        ("pixart-512", 610_856_096, 603),
    ],
)
def test_published_architectures(name, parameters, tensors):
    teacher = ARCHITECTURES[name](name)
    denoiser = teacher.trainable
    assert sum(p.numel() for p in denoiser.parameters()) == parameters
    assert len(denoiser.state_dict()) == tensors
    assert {t.device.type for t in denoiser.state_dict().values()} == {"meta"}
    assert teacher.classes == {"cifar10-cond": 10, "imagenet64-cond": 1000}.get(name, 0)
    assert teacher.shape == {"cifar10": (3, 32, 32), "pixart": (4, 64, 64)}.get(name.split("-")[0], (3, 64, 64))
    assert teacher.text == (TextInput(120, 4096) if name == "pixart-512" else None)


@pytest.mark.slow
def test_cifar10_costs_11_passes_of_42_gigaflop():
    """And less than the 10 GB that SiD's authors report for 16 images a GPU, with room for Adam's first moments."""
    teacher = ARCHITECTURES["cifar10-uncond"]("cifar10-uncond")
    denoiser = teacher.trainable
    assert forward(teacher, denoiser, 1)[1] == pytest.approx(42.4e9, rel=1e-3)
    need = of(replace(RECIPES["cifar10-uncond"], batch=16), teacher=teacher)
    assert need.flops == pytest.approx(11 * 16 * 42.4e9, rel=0.005)
    weights = 4 * 55_733_891
    for name in ("teacher", "online", "generator", EMAS):
        assert need.memory[name] == pytest.approx(weights, rel=1e-4)
    assert need.memory["optimizers"] == pytest.approx(2 * weights, rel=1e-4)
    assert 6e9 < need.total + 2 * weights < 10e9


def test_optimizers_hold_one_moment_or_two():
    without, with_momentum = of(Recipe(batch=8)), of(Recipe(batch=8, betas=(0.9, 0.999)))
    steps = 4 * len(list(SMALL.parameters()))
    assert without.memory["optimizers"] == 2 * (BYTES + steps)
    assert with_momentum.memory["optimizers"] == 2 * (2 * BYTES + steps)


def test_every_ema_is_counted():
    averaging = Recipe().ema[0]
    one, three = of(Recipe(batch=8)).memory, of(Recipe(batch=8, ema=(averaging,) * 3)).memory
    assert three[EMAS] == 3 * one[EMAS]
    assert {**three, EMAS: 0} == {**one, EMAS: 0}


@pytest.mark.slow
@settings(max_examples=4, deadline=None)
@given(batch=st.integers(8, 500), more=st.integers(1, 500))
def test_memory_grows_with_the_batch_and_operations_in_proportion(batch, more):
    less, both = of(Recipe(batch=batch)), of(Recipe(batch=batch + more))
    assert less.total < both.total
    # small batches are fullest when gradients are whole, large ones before: of the others, all stays alike
    passing = {footprint.GRADIENTS, WORKING}
    assert less.memory.keys() == both.memory.keys()
    assert all(less.memory[name] == both.memory[name] for name in less.memory.keys() - passing)
    assert less.flops / batch == pytest.approx(both.flops / (batch + more))


@pytest.mark.parametrize(("parts", "share"), [(3, True), (4, False)])
def test_every_part_is_as_if_it_were_simulated(parts, share):
    recipe = Recipe(batch=240, gradient_accumulation=parts, share_samples=share)
    need, whole = of(recipe), of(replace(recipe, gradient_accumulation=1))
    assert need.memory["activations"] < whole.memory["activations"]
    assert need.memory["gradients"] == pytest.approx(BYTES, rel=1e-6)  # those of the parts before
    assert need.flops == pytest.approx(whole.flops)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(footprint, "PARTS", parts)
        everything = of(recipe).memory["activations"]
    assert everything == pytest.approx(need.memory["activations"], rel=0.02)  # but for a few numbers a sample


def test_sharding_splits_what_stays():
    recipe = Recipe(batch=64, shard=True)  # every first axis is a multiple of 4
    alone, four = of(recipe), of(recipe, 4)
    for name in ("teacher", "online", "generator", EMAS):
        assert 4 * four.memory[name] == alone.memory[name]
    assert four.memory["activations"] == of(replace(recipe, batch=16)).memory["activations"]
    assert 0 < four.memory["gathered"] < 4 * BYTES
    replicated = of(replace(recipe, shard=False), 4)
    assert replicated.memory["teacher"] == alone.memory["teacher"]
    assert replicated.memory["gradients"] == 2 * BYTES  # kept in buckets from step to step
    assert replicated.flops == four.flops == alone.flops


def test_uneven_shards_count_as_the_largest():
    assert footprint._shard(torch.empty(10, 3), 4) == 4 * 3 * 3
    assert footprint._shard(torch.empty(()), 4) == 4
    assert footprint._shard(torch.empty(8), 4) == 8


def test_between_two_sizes_memory_is_that_of_a_simulation():
    several = footprints(TEACHER, Recipe(batch=240), processes=[1, 3, 8])
    assert {n: need.micro_batch for n, need in several.items()} == {1: 240, 3: 80, 8: 30}
    assert several[3].memory == pytest.approx(of(Recipe(batch=240), 3).memory, rel=0.01)


def test_half_precision_takes_less_on_a_cpu_than_on_a_gpu():
    """A GPU's norms stay in float32."""
    whole, half = Recipe(batch=256), Recipe(batch=256, precision="bf16")
    sizes = [of(half, gpu=False).memory, of(half).memory, of(whole).memory]
    assert sizes[0]["activations"] < sizes[1]["activations"] < sizes[2]["activations"]
    assert sizes[1]["online"] == sizes[2]["online"]  # weights stay in float32
    assert of(replace(half, precision="fp16")).memory == sizes[1]


@pytest.mark.slow
def test_blocks_are_computed_again_in_the_precision_of_a_gpu():
    """Norms in float32 the second time too, or torch would refuse what it had not saved."""
    half = replace(Recipe(batch=8), precision="bf16")
    kept, again = (
        of(replace(half, gradient_checkpointing=checkpointing), teacher=teacher_of("transformer"))
        for checkpointing in (False, True)
    )
    assert again.memory["activations"] < kept.memory["activations"]
    assert again.flops > 1.2 * kept.flops


def test_a_teacher_without_weights_needs_a_network_to_start_from():
    teacher = load_teacher("gaussians-25")
    start = Preconditioned(MLP((2,), 32, 2), (2,))
    need = footprints(teacher, Recipe(batch=64), start)[1]
    assert need.memory["teacher"] == 0
    assert need.memory["online"] == 4 * sum(t.numel() for t in (*start.parameters(), *start.buffers()))
    with pytest.raises(ValueError, match="gaussians-25': has no weights to start from"):
        footprints(teacher, Recipe(batch=64))


def test_a_batch_must_go_round():
    with pytest.raises(ValueError, match=r"batch = 8: must be at least processes × gradient_accumulation = 16"):
        of(Recipe(batch=8, gradient_accumulation=4), 4)
