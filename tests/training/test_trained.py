"""What is trained is what requires gradients: a user's frozen parameters stay as they are, everywhere."""

import copy
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from simdistill.config.recipes import RECIPES, Recipe
from simdistill.method.ema import EMA, PowerEMA
from simdistill.method.samplers import noise_from_seeds
from simdistill.runs.folder import RunFolder
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.teacher import Teacher
from simdistill.teachers.weights import is_partial
from simdistill.training.trained import open_for_training, parameter_names, trained_parameters, trained_tensors
from simdistill.training.trainer import DistillationTrainer
from simdistill.workflows.distilling import distill
from simdistill.workflows.measuring import Measurements
from simdistill.workflows.models import load_generator
from simdistill.workflows.sampling import sample

RECIPE = Recipe(batch=8, iterations=4, generator_lr=1e-2, online_lr=1e-2, ema=(EMA(10.0), PowerEMA(0.2)))
UNMEASURED = Measurements(milestones=1, seeds=0, samples=0)
TRAINED, FROZEN = {"last.weight", "last.bias", "scale"}, {"first.weight", "first.bias"}
"""The tensors of `Half`; `scale` is a buffer, which goes with what is trained."""


class Half(torch.nn.Module):
    """Two layers, of which the user has frozen the first."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = torch.nn.Linear(3, 8), torch.nn.Linear(8, 2)
        self.register_buffer("scale", torch.tensor(0.5))
        self.first.requires_grad_(False)

    def forward(self, x_t, sigma, condition=None):
        return self.scale * self.last(torch.tanh(self.first(torch.cat([x_t, sigma[:, None]], 1))))


def teacher():
    return Teacher(Half(), (2,))


def trained(**settings):
    trainer = DistillationTrainer(teacher(), replace(RECIPE, **settings))
    for _ in range(3):
        trainer.step()
    return trainer


def flags(module):
    return {name: p.requires_grad for name, p in module.named_parameters()}


def test_frozen_parameters_stay_bit_by_bit_and_the_others_move():
    trainer, start = trained(), Half().state_dict()
    networks = {"online": trainer.networks["online"], "generator": trainer.student.denoiser}
    for network in [*networks.values(), trainer.snapshot(0).denoiser, trainer.snapshot(1).denoiser]:
        state = network.state_dict()
        assert all(torch.equal(state[name], start[name]) for name in FROZEN | {"scale"})
        assert not any(torch.equal(state[name], start[name]) for name in TRAINED - {"scale"})
    for network in networks.values():
        assert flags(network) == {name: name in TRAINED for name in flags(network)}
        assert all(p.grad is None for p in network.parameters())


def test_optimizers_ema_and_checkpoints_hold_what_is_trained_alone():
    trainer = trained()
    for name, network in trainer.networks.items():
        (group,) = trainer.steps[name].optimizer.param_groups
        assert {id(p) for p in group["params"]} == {id(p) for p in network.parameters() if p.requires_grad}
        assert len(trainer.steps[name].optimizer.state) == 2
    own = {f"denoiser.{name}" for name in TRAINED}
    assert [ema.tensors.keys() for ema in trainer.ema] == [own, own]
    assert trainer.frozen_names == {f"denoiser.{name}" for name in FROZEN}
    state = trainer.state()
    assert not [name for name in state if "first" in name]
    assert {name for name in state if name.startswith("network_")} == {
        *(f"network_online.{name}" for name in TRAINED),
        *(f"network_generator.denoiser.{name}" for name in TRAINED),
    }


def test_a_checkpoint_of_a_part_gives_the_same_bits():
    straight, first, second = trained(), trained(), DistillationTrainer(teacher(), RECIPE)
    second.restore(first.state())
    for trainer in (straight, second):
        trainer.step()
    for name, tensor in straight.state().items():
        assert torch.equal(tensor, second.state()[name]), name
    whole = DistillationTrainer(Teacher(Half().requires_grad_(True), (2,)), RECIPE)
    with pytest.raises(ValueError, match=r"network_online has other tensors: first\.bias"):
        whole.restore(first.state())


def test_a_file_holds_what_was_trained_and_names_what_it_leaves_out(tmp_path):
    generator = distill(teacher(), RECIPE, tmp_path / "run", measured=UNMEASURED)
    run = RunFolder.open(tmp_path / "run")
    for k in range(2):
        with safe_open(run.ema(k), "pt") as file:
            assert set(file.keys()) == TRAINED
        assert is_partial(run.ema(k))
    checkpoints = list(run.checkpoints.glob("*.safetensors"))
    assert checkpoints
    for path in checkpoints:
        with safe_open(path, "pt") as file:
            assert not [name for name in file.keys() if "first" in name]  # noqa: SIM118  (not a mapping)
    found, _ = load_generator(run.path, teacher())
    assert all(torch.equal(tensor, generator.state_dict()[name]) for name, tensor in found.state_dict().items())
    z = noise_from_seeds(range(5), (2,))
    torch.testing.assert_close(sample(run.path, range(5), teacher=teacher()), generator(z), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="--teacher"):
        load_generator(run.path)


def test_two_distillations_in_a_row_train_the_same_set_from_the_same_teacher(tmp_path):
    given = teacher()
    before, weights = flags(given.denoiser), copy.deepcopy(given.denoiser.state_dict())
    one, two = (distill(given, RECIPE, tmp_path / name, measured=UNMEASURED) for name in ("one", "two"))
    assert flags(given.denoiser) == before
    assert all(torch.equal(tensor, weights[name]) for name, tensor in given.denoiser.state_dict().items())
    assert all(torch.equal(tensor, two.state_dict()[name]) for name, tensor in one.state_dict().items())
    assert not torch.equal(one.denoiser.last.weight, weights["last.weight"])


@pytest.mark.parametrize("named", ["digits", "a module"])
def test_a_teacher_that_is_frozen_altogether_is_trained_as_a_whole(named):
    """As those in files are, and those that a user has frozen because teachers are."""
    known = load_teacher("digits") if named == "digits" else Teacher(Half().requires_grad_(False), (2,))
    recipe = replace(RECIPES["digits"], batch=8, warmup=0) if named == "digits" else RECIPE
    start = copy.deepcopy(known.trainable)
    trainer = DistillationTrainer(known, recipe)
    for _ in range(3):
        trainer.step()
    assert trainer.frozen_names == set()
    names = {f"denoiser.{name}" for name in start.state_dict()}
    assert all(ema.tensors.keys() == names for ema in trainer.ema)
    for network in (trainer.networks["online"], trainer.student.denoiser):
        moved = [not torch.equal(p, q) for p, q in zip(network.parameters(), start.parameters(), strict=True)]
        assert all(moved)
    assert not any(flags(known.trainable).values())  # the teacher itself stays frozen


@pytest.mark.parametrize("frozen", ["nothing", "a layer", "everything"])
def test_checking_a_teacher_changes_nothing_of_what_it_trains(frozen):
    module = Half().train()
    module.requires_grad_(frozen == "nothing")
    module.last.requires_grad_(frozen != "everything")
    before, weights = flags(module), copy.deepcopy(module.state_dict())
    Teacher(module, (2,)).check()
    assert flags(module) == before
    assert all(p.grad is None for p in module.parameters())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in module.state_dict().items())
    assert not module.training


def test_a_parameter_with_two_names_is_left_out_or_trained_by_both():
    module = Half()
    module.again = module.first
    assert parameter_names(module, trained=False) == FROZEN | {"again.weight", "again.bias"}
    assert trained_tensors(module).keys() == TRAINED
    module.twice = module.last
    assert parameter_names(module) == (TRAINED - {"scale"}) | {"twice.weight", "twice.bias"}
    assert [id(p) for p in trained_parameters(module)] == [id(module.last.weight), id(module.last.bias)]
    assert all(flags(open_for_training(Half().requires_grad_(False))).values())
