"""The docs: tables are what the code gives, the theory page claims what is so, the site has no loose ends."""

import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch

from benchmarks.tables import publish
from docs import figure_2, noise_levels, pictures, site, tables
from docs.distillation import Distillation
from docs.experiments import MISTAKES, PAPER, RIGHT, START, TARGET, errors, expected_gradient, tensor, train
from simdistill.method.distances import DISTANCES, SquaredL2
from simdistill.method.noise import LogNormal
from simdistill.method.objectives import DiffInstruct
from simdistill.teachers.loading import load_teacher
from simdistill.training.trainer import DistillationTrainer

DOCS = Path(tables.__file__).parent


def rows_of(page: Path, name: str) -> list[list[str]]:
    """The cells of a table between its markers, without its head."""
    (text,) = re.findall(rf"<!-- {name} -->\n(.*?)<!-- end -->", page.read_text(encoding="utf-8"), re.DOTALL)
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]


# --- Tables -----------------------------------------------------------------------------------------------------------


def test_the_tables_are_what_the_code_gives():
    page = tables.PAGE.read_text(encoding="utf-8")
    assert publish(page, tables.tables()) == page, "python -m docs.tables renews it"


def test_table_4_has_each_distance_once():
    rows = tables.table_4().rows
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert {row[1].strip("`") for row in rows} == {kind.__name__ for kind in DISTANCES}


def test_columns_part_when_recipes_differ(monkeypatch):
    monkeypatch.setitem(tables.RECIPES, "cifar10-cond", replace(tables.RECIPES["cifar10-cond"], batch=512))
    table = tables.tables()[1]
    assert len(table.columns) == 4
    assert next(row for row in table.rows if row[0] == "`batch`")[1:3] == ["256", "512"]


# --- What docs/theory.md claims ---------------------------------------------------------------------------------------


def test_the_error_of_the_gradient_falls_as_one_over_root_n():
    counts = [2**k for k in range(6, 15)]
    assert pictures.slope(counts, errors(PAPER, RIGHT, counts, seeds=12)) == pytest.approx(-0.5, abs=0.1)
    assert errors(PAPER, "d'(y) detached", [2**14], seeds=4).min() > 0.25
    slopes = [float(row[-1]) for row in rows_of(pictures.PAGE, "errors")]
    assert slopes[:2] == pytest.approx([-0.5, -0.5], abs=0.05)
    assert abs(slopes[2]) < 0.1


def test_what_each_mistake_does_to_the_gradient():
    ratios = {mistake: tensor(pair) for mistake, pair in pictures.gradient_ratios(PAPER).items()}
    shown = {row[0]: tensor([float(row[1]), float(row[2])]) for row in rows_of(pictures.PAGE, "mistakes")}
    assert ratios.keys() == shown.keys() == MISTAKES.keys()
    for mistake, pair in ratios.items():
        assert (pair - shown[mistake]).abs().max() < 0.0051
    exactly = {RIGHT: [1, 1], "wrong sign": [-1, -1], "d'(y) detached": [1, 0.5]}
    for mistake, pair in exactly.items():
        assert ratios[mistake].tolist() == pytest.approx(pair, rel=1e-9)
    assert (ratios["x_0 detached"] + ratios["x_t detached"]).tolist() == pytest.approx([1, 1], rel=1e-9)
    assert ratios["online under no_grad"].tolist() == pytest.approx([0, -0.69], abs=0.01)


def test_without_x_t_the_squared_distance_is_twice_diff_instruct(monkeypatch):
    monkeypatch.setitem(MISTAKES, "KL", lambda it: replace(it, objective=DiffInstruct()))
    theta = tensor(START)
    detached, kl = (expected_gradient(SquaredL2(), theta, name, 601, 16) for name in ("x_t detached", "KL"))
    assert detached.tolist() == pytest.approx((2 * kl).tolist(), rel=1e-9)


def test_where_trainings_end():
    shown = {row[0]: row[4] for row in rows_of(pictures.PAGE, "mistakes")}
    assert shown.keys() == MISTAKES.keys()
    assert {name for name, there in shown.items() if there == "yes"} == {RIGHT, "d'(y) detached", "x_t detached"}
    assert (train(PAPER, RIGHT, 60, batch=64, rate=0.05).theta[-1] - tensor(TARGET)).abs().max() < 0.02
    away = (train(PAPER, "wrong sign", 20, batch=64, rate=0.02).theta - tensor(TARGET)).abs()
    assert (away[-1] > away[0]).all()
    assert train(PAPER, "teacher under no_grad", 60, batch=64, rate=0.05).theta[-1, 1] > TARGET[1] + 0.2


def test_the_loss_says_nothing_and_y_does():
    trace = train(PAPER, RIGHT, 40, rate=0.025)  # just before it is there
    standard = trace.loss / trace.loss_error
    assert abs(standard.mean()) < 4 / len(standard) ** 0.5
    assert 0.7 < standard.std() < 1.3
    assert trace.y[-5:].mean() < trace.y[:5].mean() / 3


def test_the_pictures_are_made(tmp_path, monkeypatch):
    for name, value in {"COUNTS": [16, 64], "SEEDS": 2, "STEPS": 4, "FOLDER": tmp_path}.items():
        monkeypatch.setattr(pictures, name, value)
    monkeypatch.setattr(pictures, "PAGE", Path(shutil.copy(pictures.PAGE, tmp_path)))
    pictures.main()
    assert "| n = 16 | slope |" in pictures.PAGE.read_text(encoding="utf-8")
    made = {path.name for path in tmp_path.glob("*.svg")}
    assert made == set(re.findall(r"\]\((.*?\.svg)\)", (DOCS / "theory.md").read_text(encoding="utf-8")))
    assert all((DOCS / name).stat().st_size < 100_000 for name in made)


# --- The site ---------------------------------------------------------------------------------------------------------


def test_loose_ends_are_found(tmp_path):
    (tmp_path / "index.html").write_text(
        '<h1 id="top"></h1><a href="b.html#here">b</a><a href="c.html">c</a><a href="#bottom"></a><a href="https://a.b">',
        encoding="utf-8",
    )
    page = '<p id="there"><img src="x.png"><script src="https://a.b/c.js"></script><a href="index.html#top"></a>'
    (tmp_path / "b.html").write_text(page, encoding="utf-8")
    (tmp_path / "d.html").write_text("", encoding="utf-8")
    assert site.problems(tmp_path) == [
        "b.html: loads https://a.b/c.js from elsewhere",
        "b.html: x.png leads nowhere",
        "d.html: no page leads here; put it into the nav of zensical.toml",
        "index.html: #bottom: the page has no such place",
        "index.html: b.html#here: the page has no such place",
        "index.html: c.html leads nowhere",
    ]


@pytest.mark.slow
def test_the_site_is_built_without_loose_ends(tmp_path):
    pytest.importorskip("zensical", reason="needs Python 3.11")
    shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(DOCS.parent / "zensical.toml", tmp_path)
    (tmp_path / "simdistill").symlink_to(DOCS.parent / "simdistill")
    site.build(tmp_path)
    assert site.problems(tmp_path / "site") == []
    assert not list((tmp_path / "site").rglob("*.py"))
    api = (tmp_path / "site" / "api" / "method.html").read_text(encoding="utf-8")
    assert 'id="simdistill.method.distances.PseudoHuber.gradient"' in api
    (tmp_path / "docs" / "theory.md").write_text("[nowhere](nowhere.md)", encoding="utf-8")
    with pytest.raises(SystemExit, match="nowhere"):
        site.build(tmp_path)


# --- What docs/noise-levels.md measures -------------------------------------------------------------------------------


def test_an_update_tells_what_its_levels_tell():
    useful = torch.linspace(0.1, 1.4, len(noise_levels.LEVELS))
    for k in (0, 5, 13):
        noise = LogNormal(noise_levels.LEVELS[k].log().item(), 1e-3)
        assert noise_levels.told(noise, useful) == pytest.approx(useful[k].item() / 1.4)
    for outside in (1e-4, 1e3):
        assert noise_levels.told(LogNormal(math.log(outside), 0.1), useful) == 0
    inside = noise_levels.told(LogNormal(-1.0, 2.0), torch.full((14,), 3.0))
    assert inside == pytest.approx(0.9556, abs=1e-4)  # Phi((1.375 ln 10 + 1) / 2) - Phi((-2.125 ln 10 + 1) / 2)


def test_signal_and_noise_are_told_apart():
    """Gradients of a known mean and variance."""
    rng = torch.Generator().manual_seed(0)
    mean, batches = torch.tensor([[3.0, 0.0], [0.0, 0.0]]), 20_000
    drawn = mean + 2 * torch.randn(batches, 2, 2, generator=rng)
    found = noise_levels.Gradients(drawn.mean(0), drawn.square().sum(2).mean(0), batches)
    torch.testing.assert_close(found.signal, torch.tensor([9.0, 0.0]), rtol=0, atol=0.15)
    torch.testing.assert_close(found.noise, torch.tensor([8.0, 8.0]), rtol=0.03, atol=0)


def test_an_online_network_that_is_fitted_has_kept_up(monkeypatch):
    monkeypatch.setattr(noise_levels, "LEVELS", torch.tensor([0.1, 1.0]))
    found = noise_levels.heard("digits", moments=(30,), seeds=1, batches=8, fit=40)[30]
    assert found.kept_up.shape == found.signal.shape == (1, 2)
    assert (found.signal > 0).all()
    teacher = load_teacher("digits")
    trainer = DistillationTrainer(teacher, noise_levels.DIGITS)
    for _ in range(30):
        trainer.step()
    training = Distillation.of(trainer)
    fitted = noise_levels.caught_up(training, teacher.shape, teacher.classes, 40)
    assert fitted.generator is trainer.student
    assert fitted.online is not trainer.networks["online"]
    z, eps, labels = noise_levels.draw(2000, teacher.shape, teacher.classes, torch.Generator().manual_seed(3))
    losses = [d.denoising_loss(z, torch.ones(2000), eps, labels).mean() for d in (fitted, training)]
    assert losses[0] < 0.95 * losses[1]
    one, other = (noise_levels.gradients(fitted, teacher.shape, teacher.classes, 8, seed) for seed in (1, 2))
    torch.testing.assert_close((one.mean * other.mean).sum(1) / other.signal, torch.ones(2), rtol=0, atol=0.25)


def test_the_distributions_are_named_beside_their_curves_not_over_them():
    curves = torch.ones(2, len(noise_levels.LEVELS))
    figure = noise_levels.picture({"digits": {500: noise_levels.Heard(curves, curves)}})
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(noise_levels.NOISE)
    assert not any(axes.get_window_extent().overlaps(legend.get_window_extent()) for axes in figure.axes)


# --- Figure 2 ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def compared(tmp_path):
    """Two seeds of each variant at two milestones; the k-th variant's distances are k + 1 and 4 (k + 1)."""
    rows, points = [], []
    for k, variant in enumerate(figure_2.VARIANTS):
        for seed, distance in ((0, k + 1.0), (1, 4.0 * (k + 1))):
            row = {"variant": variant, "training_seed": seed, "status": "done", "iterations": 2000}
            rows.append({**row, "frechet": distance, "precision": 0.5, "recall": 0.1 * k})
            points += [{"variant": variant, "iteration": n, "frechet": distance + 2000 - n} for n in (0, 1000, 2000)]
    (tmp_path / "it").mkdir()
    pl.DataFrame(rows).write_csv(tmp_path / "it" / "cells.csv")
    pl.DataFrame(points).write_csv(tmp_path / "it" / "milestones.csv")
    return tmp_path / "it"


def test_figure_2_is_a_table_and_curves_of_a_comparison(compared, monkeypatch):
    assert figure_2.finished(compared)
    made = figure_2.table(compared, "it", "MLP")
    assert made.title == "MLP: 2,000 iterations, 2 training seeds"
    assert [row[0] for row in made.rows] == [f"`{variant}`" for variant in figure_2.VARIANTS]
    assert [row[1].split(",")[0] for row in made.rows] == [f"{2 * (k + 1):.3f}" for k in range(9)]  # √(d · 4d)
    assert [row[4].split(",")[0] for row in made.rows] == ["best"] + 8 * ["within noise"]
    monkeypatch.chdir(compared.parent)
    Path("runs").symlink_to(".")
    axes = figure_2.curves({"it": "MLP"}).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines) == list(figure_2.VARIANTS)
    for k, line in enumerate(lines.values()):
        assert line.get_xdata().tolist() == [1000, 2000]
        assert line.get_ydata() == pytest.approx([((k + 1001) * (4 * k + 1004)) ** 0.5, 2 * (k + 1)])


def test_what_of_figure_2_is_renewed_is_told(compared, monkeypatch, capsys):
    text = "".join(f"<!-- {name} -->\nas it was\n<!-- end -->\n" for name in figure_2.RUNS)
    (compared.parent / "figure-2.md").write_text(text)
    monkeypatch.setattr(figure_2, "PAGE", compared.parent / "figure-2.md")
    monkeypatch.chdir(compared.parent)
    compared.rename("figure-2")
    Path("runs").symlink_to(".")
    figure_2.main()
    assert capsys.readouterr().out.splitlines() == [
        "table of MLP, conditional: renewed",
        *(
            f"table of {figure_2.RUNS[name]}: kept: runs/{name} is missing or has open cells"
            for name in ("figure-2-unet", "figure-2-free", "figure-2-unet-free")
        ),
        "figure-2.svg: kept: it needs all four",
    ]
    assert figure_2.PAGE.read_text().count("as it was") == 3


def test_sids_means_are_below_sims_and_five_of_sixteen_intervals_overlap():
    below, overlapping = [], []
    for page in figure_2.RUNS:
        found = {
            row[0].strip("`"): [float(x) for x in re.findall(r"[\d.]+", row[1])] for row in rows_of(figure_2.PAGE, page)
        }
        for name in (name for name in found if name.startswith("sim-")):
            (sim, sim_low, _), (sid, _, sid_high) = found[name], found[name.replace("sim-", "sid-")]
            below.append(sid < sim)
            overlapping.append(sim_low <= sid_high)
    assert below == [True] * 16
    assert sum(overlapping) == 5


def test_a_comparison_with_open_cells_is_not_published(compared, tmp_path):
    assert not figure_2.finished(tmp_path / "none")
    cells = (compared / "cells.csv").read_text().replace("done", "open", 1)
    (compared / "cells.csv").write_text(cells)
    assert not figure_2.finished(compared)
