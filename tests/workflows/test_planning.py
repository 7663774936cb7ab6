"""The plan of a distillation: what GPUs make of an iteration's needs, and the words that ask for it."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from simdistill.cli import main
from simdistill.config.recipes import RECIPES
from simdistill.config.settings import to_mapping
from simdistill.evaluation.sampling import batch_for
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.published import ARCHITECTURES
from simdistill.training.footprint import Footprint, forward
from simdistill.workflows import planning
from simdistill.workflows.planning import CONVOLUTIONS_SHARE, GPUS, PRODUCTS_SHARE, RESERVED, plan

DIGITS = RECIPES["digits"]


def outlook(made, gpu, count):
    (found,) = [one for one in made.outlook if (one.gpu, one.gpus) == (gpu, count)]
    return found


@pytest.mark.slow
def test_text_to_image_fits_the_papers_own_gpus():
    """B.3 on four A100-40G; operations by hand from PixArt-XL/2's sizes.

    A pass: linear layers on 1,024 patches (in a block 8 width² for attention's four, 4 for the queries and outputs of
    the prompt's, 16 for two of four times the width) and on 120 tokens (4 for its keys and values; into the width from
    4,096, and once more), and products of queries, keys and values. With recomputed blocks an iteration is 15 passes: 4
    for the generator, 3 for each network that it is held against, 1 for new samples, 4 for the online network; the
    backward pass of attention takes five products for two.
    """
    pixart = plan("pixart-512", RECIPES["pixart-512"], Path("runs/x"), ["A100-40GB"], [4])
    assert (pixart.parameters, pixart.micro_batch) == (610_856_096, {4: 32})
    width, blocks, patches, tokens = 1152, 28, 1024, 120
    linear = blocks * (28 * patches + 4 * tokens) * width**2 + 2 * tokens * (4096 + width) * width
    attention = blocks * 4 * patches * (patches + tokens) * width
    assert pixart.flops_per_forward_pass == pytest.approx(linear + attention, rel=0.01)
    iteration = 1024 * (15 * (linear + attention) + 4 * attention / 2)
    assert pixart.flops_per_iteration == pytest.approx(iteration, rel=0.02)
    training = sum(pixart.memory[4].values()) - pixart.memory[4]["measuring"]
    assert 30e9 < training < 40e9
    ours = outlook(pixart, "A100-40GB", 4)
    assert ours.hours == pytest.approx(16_000 * pixart.flops_per_iteration / (4 * 0.4 * 312e12) / 3600, rel=0.01)


@pytest.mark.slow
def test_the_papers_own_setting_fits_the_papers_own_gpus():
    """Table 5 on four A100-40G: 256 samples, 11 passes of 42.4 GFLOP, 55.7 million parameters."""
    cifar = plan("cifar10-uncond", RECIPES["cifar10-uncond"], Path("runs/x"), counts=[4])
    assert (cifar.parameters, cifar.micro_batch) == (55_733_891, {4: 64})
    assert cifar.flops_per_forward_pass == pytest.approx(42.4e9, rel=1e-3)
    assert cifar.flops_per_iteration == pytest.approx(11 * 256 * 42.4e9, rel=0.005)
    assert cifar.recipe == to_mapping(RECIPES["cifar10-uncond"])
    ours = outlook(cifar, "A100-40GB", 4)
    assert ours.fits
    assert ours.seconds_per_iteration == pytest.approx(cifar.flops_per_iteration / (4 * 156e12 * 0.25))
    assert ours.hours == pytest.approx(400_000 * ours.seconds_per_iteration / 3600)
    assert ours.bytes_per_gpu == sum(cifar.memory[4].values())


@pytest.mark.slow
def test_what_does_not_fit_is_told_how_it_would(monkeypatch):
    monkeypatch.setattr(planning, "RESERVED", 0)
    need = plan("digits", DIGITS, Path(), ["H100"], [2]).memory[2]
    staying = sum(need.values()) - need["activations"]
    for name, part in (("all", 1.01), ("third", 0.34), ("nothing", -0.01)):  # of the activations beside what stays
        size = (staying + part * need["activations"]) / 1e9
        monkeypatch.setitem(GPUS, name, planning.GPU(size, 1.0, None, None, None))
    made = plan("digits", DIGITS, Path(), ["all", "third", "nothing"], [2])
    assert [(one.fits, one.gradient_accumulation) for one in made.outlook] == [(True, 1), (False, 4), (False, None)]


@pytest.mark.slow
def test_activations_shrink_with_the_parts_of_a_batch():
    without = plan("digits", DIGITS, Path(), ["H100"], [2]).memory[2]
    with_parts = plan("digits", replace(DIGITS, gradient_accumulation=4), Path(), ["H100"], [2]).memory[2]
    # a quarter of the graph, and the draws of all parts
    assert 0.25 < with_parts["activations"] / without["activations"] < 0.37
    assert with_parts["gradients"] == without["gradients"]  # in the buckets of two processes anyway


@pytest.mark.slow
def test_a_plan_for_several_gpus():
    made = plan("digits", DIGITS, Path())
    assert made.micro_batch == {1: 64, 4: 16, 8: 8}
    assert [(one.gpu, one.gpus) for one in made.outlook] == [(gpu, n) for gpu in GPUS for n in (1, 4, 8)]
    assert made.memory[1]["reserved"] == RESERVED
    teacher = load_teacher("digits")
    network = teacher.trainable
    weights = sum(t.numel() * t.element_size() for t in (*network.parameters(), *network.buffers()))
    assert made.memory[8]["measuring"] == weights + forward(teacher, network, batch_for(network.shape))[0]
    assert made.memory[1]["teacher"] == made.memory[8]["teacher"] == weights
    one, eight = (outlook(made, "H100", n) for n in (1, 8))
    assert one.hours == pytest.approx(8 * eight.hours)


def test_a_batch_is_not_planned_for_more_gpus_than_it_has_samples():
    assert plan("digits", replace(DIGITS, batch=6), Path(), ["H100"]).micro_batch == {1: 6, 4: 2}
    with pytest.raises(ValueError, match="batch = 6: must be at least processes × gradient_accumulation = 8"):
        plan("digits", replace(DIGITS, batch=6), Path(), counts=[8])


@pytest.mark.parametrize(
    ("precision", "gpu", "arithmetic"),
    [
        ("fp32", "A100-40GB", "tf32"),
        ("fp32", "V100-32GB", "fp32"),
        ("fp32", "RTX-4090", "fp32"),  # whose TF32 is no faster
        ("bf16", "H100", "bf16"),
        ("fp16", "V100-32GB", "fp16"),
        ("bf16", "V100-32GB", None),
    ],
)
def test_arithmetic_by_precision(precision, gpu, arithmetic):
    need = Footprint(1, {}, flops=5e12, convolving=2e12)
    found = planning._seconds(GPUS[gpu], precision, need)
    if arithmetic is None:
        assert found is None
    else:
        work = 2 / CONVOLUTIONS_SHARE[arithmetic] + 3 / PRODUCTS_SHARE[arithmetic]
        assert found == pytest.approx(work / getattr(GPUS[gpu], arithmetic))


def test_the_table_of_gpus():
    for gpu in GPUS.values():
        assert gpu.fp16 > gpu.fp32
        assert gpu.tf32 is None or (gpu.bf16 is not None and gpu.fp32 <= gpu.tf32)
        assert gpu.bf16 in (None, gpu.fp16)
    for shares in (CONVOLUTIONS_SHARE, PRODUCTS_SHARE):
        assert set(shares) == {"fp32", "tf32", "bf16", "fp16"}
        assert all(0 < share <= 1 for share in shares.values())


def test_an_exact_teacher_is_planned_with_its_proxy():
    made = plan("listing-1", RECIPES["listing-1"], Path(), ["H100"], [1])
    assert made.memory[1]["teacher"] == 0
    assert made.memory[1]["online"] > 0


def test_every_recipe_of_a_published_teacher_is_known_by_it():
    for name in ARCHITECTURES:
        assert RECIPES[name].teacher == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["listing-1", "--teacher", ""], "--teacher = '': must be given for listing-1"),
        (["digits", "--gpu", "H1"], "--gpu = 'H1': must be one of V100-32GB, A100-40GB"),
        (["digits", "--gpus", "0"], "--gpus = 0: must be at least 1"),
        (["digits", "--teacher", "none.safetensors"], "none.safetensors: no such file"),
        (["nosuch"], "RECIPE = 'nosuch': must be one of digits,"),
        ([], "write `simdistill plan RECIPE …`"),
    ],
)
def test_bad_requests(capsys, words, message):
    assert main(["plan", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err
    assert len(shown.err.splitlines()) == 1


@pytest.mark.slow
def test_plan_and_dry_run_print_the_same(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["digits", "--batch", "32", "--gpu", "A100-40GB", "--gpus", "2", "--out", "mine"]
    shown = []
    for verb, flags in (("plan", ["--json"]), ("distill", ["--json", "--dry-run"])):
        assert main([verb, *words, *flags]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    values = json.loads(shown[0])
    assert (values["out"], values["recipe"]["batch"], values["micro_batch"]) == ("mine", 32, {"2": 16})
    assert list(tmp_path.iterdir()) == []


def test_the_plan_as_a_table(capsys):
    assert main(["plan", "digits", "--precision", "bf16", "--gpu", "V100-32GB", "H100", "--gpus", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("# here, without a GPU: about 1 min 44 s for 8,000 iterations, on 1 thread of the CPU")
    assert re.match("# would write runs/digits; 332,032 parameters .*digits$", lines[1])
    assert 'precision = "bf16"' in lines
    cells = [line.split() for line in lines]
    assert ["V100-32GB", "no", "bf16"] in cells
    assert ["H100", "<", "0.1"] in cells
    assert ["online", "0.00133"] in cells


@pytest.mark.parametrize(("gpu", "said"), [(False, 1), (True, 0)])
def test_without_a_gpu_the_first_line_says_how_long_it_takes_here(monkeypatch, capsys, gpu, said):
    """391 MFLOP an iteration, one thread of 30 GFLOP a second: 30,000 of them take 391 seconds."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    assert main(["plan", "digits", "--iterations", "30000", "--gpu", "L4", "--gpus", "1"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert ("here, without a GPU: about 6 min 31 s for 30,000 iterations" in first) == said


def test_a_large_network_has_all_threads(monkeypatch):
    """One of fewer than a million parameters has one: here it counts as large."""
    monkeypatch.setattr(planning, "SMALL", 1000)
    monkeypatch.setattr("torch.get_num_threads", lambda: 7)
    made = plan("digits", DIGITS, Path("x"), ["L4"], [1])
    assert made.cpu_threads == 7
    assert made.cpu_seconds == pytest.approx(made.recipe["iterations"] * made.flops_per_iteration / (7 * 3e10))
