"""What measuring may cost: the ladder, its costs in closed form, and what was asked for."""

import json
import re
from pathlib import Path

import pytest
import torch

from simdistill.evaluation.extractors import PIXELS
from simdistill.evaluation.sampling import teacher_sampler
from simdistill.runs.folder import RunFolder
from simdistill.teachers.teacher import Teacher
from simdistill.workflows import budget
from simdistill.workflows.budget import FULL, LADDER, Cost, Costs, Fineness, chosen, cost_of, costs_of
from simdistill.workflows.measuring import WITHIN_BUDGET, Budget, Measurements

FREE = Costs(Cost(1, 0, 0), (Cost(35, 0, 0), Cost(1, 0, 0)), None, 0, 0, 0, 100)


def costs(call=0.01, sample=0.001, reference=True):
    """A teacher of 35 evaluations, a student and a start of one; free features and metrics."""
    student, teacher = Cost(1, call, sample), Cost(35, call, sample)
    return Costs(student, (teacher, student, student), teacher if reference else None, 0.0, 0.0, 0.0, 100)


def test_the_cost_of_drawing():
    """35 calls for each of 3 batches, and 35 × 250 samples in them."""
    assert Cost(35, 0.1, 0.01).seconds(250, 100) == pytest.approx(35 * (3 * 0.1 + 250 * 0.01))
    assert Cost(1, 0.0, 0.002).seconds(250, 100) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("cost", "most", "batch"),
    [
        (Cost(1, 0.0, 1.0), 500, 4),  # four seconds
        (Cost(35, 0.0, 1e-6), 500, 500),
        (Cost(35, 1.0, 0.1), 500, 1),  # one takes longer than that already
        (Cost(4, 0.5, 0.1), 500, 5),
    ],
)
def test_a_batch_takes_four_seconds_at_most(cost, most, batch):
    assert cost.batch(most) == batch


def test_the_cost_of_everything_by_hand():
    one = Fineness(samples=200, seeds=3, milestones=4, milestone_samples=100, milestone_seeds=2)
    draws = 5 * 2 * 0.11  # milestones: a call of 10 ms and 100 samples
    draws += 3 * (35 + 1 + 1) * (2 * 0.01 + 0.2)  # at the end
    draws += (35 + 1 + 1) * (0.01 + 0.08)  # pictures of 80
    draws += 35 * (2 * 0.01 + 0.2)  # the reference
    assert costs().seconds(one) == pytest.approx(draws)


def test_features_and_metrics_are_counted():
    few, many = Fineness(100, 1, 0, 100, 1), Fineness(2000, 1, 0, 2000, 1)
    compared = Costs(Cost(1, 0, 0), (Cost(1, 0, 0),), None, features=0.001, quick=0.1, full=0.3, batch=100)
    assert compared.seconds(few) == pytest.approx(2 * 100 * 0.001 + 0.1 + 0.3)
    assert compared.seconds(many) == pytest.approx(2 * 2000 * 0.001 + 8 * (0.1 + 0.3))  # (2000/500)^1.5


def test_the_docs_have_the_ladder():
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    page = page.replace("| none |", "| 0 × 0 |").replace("| pictures only |", "| 0 × 1 |")
    rows = re.findall(r"^\| ([\d,]+) × (\d) \| (\d+) \| ([\d,]+) × (\d) \|$", page, re.MULTILINE)
    assert [Fineness(*(int(number.replace(",", "")) for number in row)) for row in rows] == [*LADDER]


def test_what_is_measured_at_the_end_can_be_tested():
    """Welch's test of two seeds a side rejects only for differences of ten standard deviations."""
    assert {rung.seeds for rung in LADDER if rung.samples} == {3, 5}
    assert min(rung.samples for rung in LADDER if rung.samples) == 50


def test_the_ladder_descends():
    """Each rung costs less than the one before, whatever is dear: calls, samples, features or metrics."""
    for dear in (
        costs(1, 0),
        costs(0, 1),
        Costs(Cost(1, 0, 0), (Cost(1, 0, 0),), None, 1, 0, 0, 100),
        Costs(Cost(1, 0, 0), (Cost(1, 0, 0),), None, 0, 1, 1, 100),
    ):
        prices = [dear.seconds(rung) for rung in LADDER]
        assert prices == sorted(prices, reverse=True)


@pytest.mark.parametrize("training", [5.0, 60.0, 600.0, 7200.0, 1e6])
def test_measuring_takes_a_tenth_of_the_training_or_ten_seconds(training):
    taken = chosen(costs(), training, WITHIN_BUDGET.of)
    allowed = max(10.0, training / 10)
    assert costs().seconds(taken) <= allowed
    finer = LADDER[max(LADDER.index(taken) - 1, 0)]
    assert taken == FULL or costs().seconds(finer) > allowed


def test_what_is_dearer_than_allowed_even_so_is_measured_most_coarsely():
    assert chosen(costs(call=100.0), 1.0, WITHIN_BUDGET.of) == LADDER[-1]


def test_what_was_asked_for_stays_and_the_rest_follows():
    asked = Measurements(milestones=7, samples=300)
    taken = chosen(costs(), 5.0, asked.of)
    assert (taken.milestones, taken.samples, taken.seeds) == (7, 300, FULL.seeds)
    assert taken.milestone_samples < FULL.milestone_samples
    everything = Measurements(3, 1, 0, milestone_samples=40)
    assert everything.of(FULL) == everything.of(LADDER[-1]) == Fineness(0, 5, 3, 40, 1)


@pytest.mark.parametrize("wrong", [{"milestones": -1}, {"seeds": -2}, {"samples": 9}, {"milestone_samples": 3}])
def test_nonsense_is_refused_by_name(wrong):
    name = "evaluation_samples" if "samples" in wrong else next(iter(wrong))
    with pytest.raises(ValueError, match=rf"{name} = {next(iter(wrong.values()))}"):
        Measurements(**wrong)


def test_a_run_keeps_its_fineness_and_says_what_it_chose(tmp_path, capsys):
    run, asked = RunFolder(tmp_path), []

    def price():
        asked.append("costs")
        return costs()

    first = Budget(run, WITHIN_BUDGET, price)
    assert first.batch is None
    taken = first.fineness(lambda: 200.0)
    assert taken == chosen(costs(), 200.0, WITHIN_BUDGET.of) != FULL
    assert first.batch == 100
    said = capsys.readouterr().err
    assert f"{taken.seeds} × {taken.samples} at the end" in said
    assert "--milestone-samples" in said
    resumed = Budget(run, WITHIN_BUDGET, price)
    assert resumed.fineness(lambda: 1e9) == taken  # however long it seems to take now
    assert resumed.batch == 100
    assert Budget(run, Measurements(milestones=5), price).fineness(lambda: 1.0).milestones == 5
    assert asked == ["costs"]
    assert json.loads(run.measuring.read_bytes())["training_seconds"] == 200.0


@pytest.mark.parametrize(
    ("dear", "said"),
    [
        (costs(call=0.02), "1 × 100 at 2 milestones, none at the end"),
        (costs(call=3.0), "only pictures, no figures, at 2 milestones, none at the end"),
    ],
)
def test_what_is_not_measured_is_said(tmp_path, capsys, dear, said):
    assert Budget(RunFolder(tmp_path), WITHIN_BUDGET, lambda: dear).fineness(lambda: 60.0).samples == 0
    assert said in capsys.readouterr().err


def test_a_damaged_file_is_decided_anew(tmp_path):
    run = RunFolder(tmp_path)
    run.measuring.write_text('{"fineness": 3}')
    assert Budget(run, WITHIN_BUDGET, lambda: FREE).fineness(lambda: 1.0) == FULL


@pytest.mark.parametrize(("milestones", "measured"), [(16, 17), (8, 9), (4, 5), (2, 3), (1, 2)])
def test_coarser_milestones_are_some_of_the_finer_ones(tmp_path, milestones, measured):
    run = RunFolder(tmp_path)
    kept = {**dict.fromkeys(("samples", "milestone_samples"), 100), "seeds": 1, "milestone_seeds": 1}
    run.measuring.write_text(json.dumps({"fineness": kept | {"milestones": milestones}, "batch": 7}))
    allowed = Budget(run, WITHIN_BUDGET, lambda: FREE)
    grid = [round(k * 1800 / 16) for k in range(17)]
    found = [iteration for iteration in grid if allowed.measures(iteration, 1800, lambda: 1.0)]
    assert len(found) == measured
    assert found == [grid[k] for k in range(0, 17, 16 // milestones)]


def test_costs_are_found_out_by_a_few_calls(monkeypatch):
    """A call takes 20 ms and 1 ms for each sample, by a clock that only the network moves."""
    now, calls = [0.0], []

    def denoiser(x_t, sigma, condition=None):
        now[0] += 0.02 + 0.001 * len(x_t)
        calls.append(len(x_t))
        return 0 * x_t

    monkeypatch.setattr(budget.time, "perf_counter", lambda: now[0])
    teacher = Teacher(denoiser, (2, 2, 2))
    short, whole = teacher_sampler(teacher, 2), teacher_sampler(teacher)
    assert (short.nfe, whole.nfe) == (3, 35)
    cost = cost_of(short, teacher, "cpu", whole.nfe)
    assert (cost.nfe, cost.call, cost.sample) == (35, pytest.approx(0.02), pytest.approx(0.001))
    assert sorted(set(calls)) == [1, 63]  # a student of 3 calls draws so many in four seconds
    found = costs_of(cost, [cost], cost, teacher, PIXELS, torch.device("cpu"))
    assert found.batch == int((4 / 35 - 0.02) / 0.001) == 94
    assert (found.features, found.quick, found.full) == (0, 0, 0)  # none of it calls the network


def test_a_slow_network_is_not_called_more_than_needed(monkeypatch):
    """A call of 50 ms and a second for each sample: a batch of 64 would take minutes."""
    now, calls = [0.0], []

    def denoiser(x_t, sigma, condition=None):
        now[0] += 0.05 + len(x_t)
        calls.append(len(x_t))
        return 0 * x_t

    monkeypatch.setattr(budget.time, "perf_counter", lambda: now[0])
    teacher = Teacher(denoiser, (2, 2, 2))
    cost = cost_of(teacher_sampler(teacher, 2), teacher, "cpu")
    assert calls == [1] * 6
    assert (cost.call, cost.sample) == (0.0, pytest.approx(1.05))
