"""Runs of version 0.1 still open: their metrics, their configuration, and the header of their generator."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from simdistill.config.expressions import parse_expression
from simdistill.config.recipes import RECIPES, Recipe
from simdistill.config.settings import read_toml, settings_from_mapping
from simdistill.method.ema import EMA, PowerEMA
from simdistill.method.noise import Clamped, LogNormal, Truncated
from simdistill.method.samplers import noise_from_seeds
from simdistill.runs.folder import RunFolder
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.weights import write_network
from simdistill.workflows.models import load_generator, recipe_of
from simdistill.workflows.sampling import sample

CONFIG = """\
# repeated by: simdistill distill digits --config runs/digits/config.toml --out NEW_FOLDER
verb = "distill"
teacher = "digits"
objective = "ScoreImplicitMatching(distance=PseudoHuber(c=0.03))"
generator_noise = "Truncated(law=LogNormal(mean=-3.5, std=2.5), low=0.002, high=80.0)"
generator_weighting = "Uniform()"
online_noise = "Clamped(law=Truncated(law=LogNormal(mean=-1.2, std=1.2), low=0.01, high=20.0), low=0.02, high=10.0)"
online_weighting = "EDM(sigma_data=0.75)"
sigma_init = 2.5
betas = [0.0, 0.999]
batch = 64
accumulation = 4
share_samples = true
averages = ["HalfLife(images=22000.0, ramp_up=0.05)", "PowerFunction(std=0.1)"]
seed = 3
"""

LINE = {"iteration": 50, "seconds": 1.5, "images_per_second": 900.0}
LOSSES = {"loss": 20.0, "gradient_norm": 3.0, "generator_loss": -0.1, "generator_gradient_norm": 0.4, "y_norm": 0.3}


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text(CONFIG)
    return RunFolder.open(tmp_path / "run")


def test_its_metrics_have_their_present_names(run):
    run.log_metrics({**LINE, **LOSSES, "y": {"0.00388": 0.01, "2.92": 0.5}})
    run.log_metrics({**LINE, "iteration": 100, "rollback": "the gradient_norm is 1e+06, after 2", "rate": 0.5})
    run.log_metrics({**LINE, "iteration": 150, **LOSSES, "y": {}})
    expected = {
        **LINE,
        "online_loss": 20.0,
        "online_gradient_norm": 3.0,
        "generator_loss": -0.1,
        "generator_gradient_norm": 0.4,
        "y_norm": 0.3,
        "levels": {"y_norm": {"0.00388": 0.01, "2.92": 0.5}},
    }
    first, rollback, last = run.read_metrics()
    assert first == expected
    assert rollback == {**LINE, "iteration": 100, "rollback": "the gradient_norm is 1e+06, after 2", "rate": 0.5}
    assert last == {**expected, "iteration": 150, "levels": {"y_norm": {}}}
    assert run.forget_after(100) == [first, rollback]
    assert [json.loads(line) for line in run.metrics.read_text().splitlines()] == [first, rollback]
    assert run.read_metrics() == [first, rollback]  # what is of today stays


def test_the_loss_of_a_teacher_in_training_is_still_its_loss(tmp_path):
    run = RunFolder.create(tmp_path / "teacher", {"verb": "pretrain", "iterations": 100})
    record = {**LINE, "loss": 60.0}
    run.log_metrics(record)
    assert run.read_metrics() == [record]


def test_its_configuration_is_read(run):
    expected = Recipe(
        teacher="digits",
        generator_noise=Truncated(LogNormal(-3.5, 2.5), 0.002, 80.0),
        online_noise=Clamped(Truncated(LogNormal(-1.2, 1.2), 0.01, 20.0), 0.02, 10.0),
        online_weighting=RECIPES["digits"].online_weighting,
        batch=64,
        gradient_accumulation=4,
        share_samples=True,
        ema=(EMA(22_000.0), PowerEMA(0.1)),
        seed=3,
    )
    assert recipe_of(run) == expected
    assert settings_from_mapping(Recipe(), {k: v for k, v in read_toml(run.config).items() if k != "verb"}) == expected
    configuration = run.configuration()
    assert {"ema", "gradient_accumulation"} <= configuration.keys()
    assert not {"averages", "accumulation"} & configuration.keys()


def test_a_former_name_stands_for_the_present_one_and_for_no_other():
    assert parse_expression("HalfLife(500)") == parse_expression("EMA(images=500)") == EMA(500.0)
    assert parse_expression("PowerFunction") == PowerEMA()
    with pytest.raises(ValueError, match="EMA is given an argument twice"):
        parse_expression("HalfLife(images=5, half_life=6)")
    with pytest.raises(ValueError, match="LogNormal: no argument law"):
        parse_expression("LogNormal(law=1, std=1)")


def test_its_generator_is_read(run):
    teacher = load_teacher("digits")
    write_network(run.network, teacher.denoiser, sigma_init=2.5, shape=teacher.shape, classes=10)
    generator, facts = load_generator(run.path)
    assert generator.levels == (2.5,)
    assert facts["levels"] == [2.5]
    z, labels = noise_from_seeds(range(4), (1, 8, 8)), torch.arange(4)
    expected = teacher.denoiser(2.5 * z, torch.full((4,), 2.5), labels)
    torch.testing.assert_close(sample(run.path, range(4)), expected, rtol=0, atol=1e-6)
    write_network(run.ema(1), teacher.denoiser, sigma_init=0.5, shape=teacher.shape, classes=10)
    assert load_generator(run.path, ema=1)[0].levels == (0.5,)
    assert load_generator(run.ema(1))[0].levels == (0.5,)


def test_its_checkpoints_do_not_fit_and_that_is_said(run):
    """The state's names are others: such a training ends with the version that began it."""
    from simdistill.training.checkpoints import write_checkpoint
    from simdistill.workflows.distilling import resume
    from simdistill.workflows.measuring import Measurements

    state = {f"online.{name}": tensor for name, tensor in load_teacher("digits").denoiser.state_dict().items()}
    write_checkpoint(run.checkpoints, 10, {**state, "position": torch.tensor([10, 0])}, {"seconds": 1.0})
    with pytest.raises(ValueError, match="checkpoints: do not match this run's configuration"):
        resume(run.path, measured=Measurements(milestones=1, seeds=0, samples=0))


@pytest.mark.parametrize("levels", [None, [2.5, 0.5]])
def test_a_file_that_names_neither_is_no_generator(run, levels):
    teacher = load_teacher("digits")
    facts = {"shape": teacher.shape, "classes": 10, **({"levels": levels} if levels else {})}
    write_network(run.network, teacher.denoiser, **facts)
    if levels:
        assert load_generator(run.path)[0].levels == (2.5, 0.5)
    else:
        with pytest.raises(ValueError, match="a teacher, not a generator"):
            load_generator(run.path)
    save_file(load_file(run.network), run.network)  # without its header
    with pytest.raises(ValueError, match="no header of simdistill"):
        load_generator(run.path)
