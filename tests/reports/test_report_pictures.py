"""Pictures, pixel by pixel."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from simdistill.evaluation.quality import reference_for
from simdistill.evaluation.reference import Reference
from simdistill.evaluation.sampling import Sampler, teacher_sampler
from simdistill.evaluation.statistics import Statistics
from simdistill.reports.pictures import (
    GAP,
    LINE,
    LINES,
    WIDE,
    WIDTH,
    Window,
    caption_font,
    captioned,
    picture,
    side_by_side,
)
from simdistill.runs.folder import RunFolder
from simdistill.teachers.loading import load_teacher
from simdistill.workflows.evaluating import show


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def test_a_grid_of_grey_images():
    images = torch.tensor([-1.0, 0.0, 1.0, 7.0]).reshape(4, 1, 1, 1).expand(4, 1, 2, 2)
    sheet = pixels(picture(images, columns=3, edge=4))  # every pixel twice, a gap of 1
    assert sheet.shape == (2 * 4 + 1, 3 * 4 + 2)
    assert [sheet[0, 0], sheet[3, 5], sheet[0, 13]] == [0, 128, 255]
    assert sheet[5, 0] == 255  # 7 is clamped to 1
    assert (sheet[4] == 255).all()  # the gap
    assert (sheet[5:, 5:] == 255).all()  # no image here


def test_colours_keep_their_channels():
    image = torch.tensor([1.0, -1.0, 0.0]).reshape(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert pixels(picture(image, columns=1, edge=4))[2, 1].tolist() == [255, 0, 128]


def test_vectors_become_a_scatter_plot():
    assert Image.open(io.BytesIO(picture(torch.randn(50, 2)))).size == (480, 480)
    assert Image.open(io.BytesIO(picture(torch.randn(50, 1)))).format == "PNG"


def where_ink_is(png):
    """Left, right, top and bottom of the points (blue), as shares of the picture."""
    sheet = pixels(png).astype(int)
    rows, columns = np.nonzero(sheet[..., 2] - sheet[..., 0] > 40)
    return [columns.min() / 480, columns.max() / 480, rows.min() / 480, rows.max() / 480]


def test_a_collapsed_student_looks_collapsed_on_the_axes_of_the_reference(rng):
    reference = torch.randn(2000, 2, generator=rng) + torch.tensor([5.0, -3.0])
    window = Window.around(reference)
    assert (window.x, window.y) == pytest.approx((5, -3), abs=0.4)
    assert 3 < window.half < 5
    spread = where_ink_is(picture(reference, window=window))
    collapsed = torch.tensor([5.0, -3.0]) + 0.01 * torch.randn(2000, 2, generator=rng)
    left, right, top, bottom = where_ink_is(picture(collapsed, window=window))
    assert right - left < 0.05 * (spread[1] - spread[0])
    assert bottom - top < 0.05 * (spread[3] - spread[2])
    left, right, _, _ = where_ink_is(picture(collapsed))  # by itself it fills its picture
    assert right - left > 0.9 * (spread[1] - spread[0])


def test_pictures_of_a_run_have_the_axes_of_its_reference(tmp_path):
    teacher = load_teacher("gaussians-25")
    run = RunFolder.create(tmp_path / "run", {"verb": "distill"})
    reference = reference_for(teacher)
    moments = Reference("moments", reference.extractor, Statistics(2000, reference.statistics.moments))
    samplers = {"teacher": teacher_sampler(teacher), "student": Sampler(lambda z, rows: 0.02 * z, nfe=1)}
    for against in (reference, moments):
        found = {}
        for name, sampler in samplers.items():
            show(run, name, sampler, teacher, against, "cpu")
            left, right, _, _ = where_ink_is(run.picture(name).read_bytes())
            found[name] = right - left
        assert found["teacher"] > 0.35
        assert found["student"] < 0.07


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_window_is_the_square_around_all_but_the_outermost_points(d):
    points = torch.linspace(-2, 2, 2001)[:, None].expand(-1, d).clone()
    points[0] = 1e6
    window = Window.around(points)
    assert (window.x, window.y, window.half) == pytest.approx((0, 0, 2.4), abs=0.02)


def test_points_outside_are_counted():
    points = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, -9.0]])
    window = Window(0.0, 0.0, 1.0)
    told, alone = (pixels(picture(p, window=window)) for p in (points, points[:1]))
    assert (told != alone).any()  # "2 of 3 outside"
    assert where_ink_is(picture(points, window=window)) == where_ink_is(picture(points[:1], window=window))


def test_rows_stand_beside_their_captions():
    red = torch.tensor([1.0, -1.0, -1.0]).reshape(1, 3, 1, 1).expand(2, 3, 16, 16)
    grey = torch.zeros(1, 1, 16, 16)
    sheet = pixels(captioned([("words " * 100, red), ("", grey)], heads=["first", "second"], edge=128))
    height, left, top = 128 + GAP, WIDTH + 2 * GAP, LINE + GAP
    assert sheet.shape == (top + 2 * height, left + 2 * (128 + GAP), 3)
    assert (sheet[top : top + 128, left : left + 128] == [255, 0, 0]).all()
    assert (sheet[top : top + 128, left + 128 + GAP : left + 256 + GAP] == [255, 0, 0]).all()
    assert (sheet[top + height : top + height + 128, left : left + 128] == 128).all()
    assert (sheet[top + height :, left + 128 :] == 255).all()  # no second picture
    assert (sheet[top : top + LINES * LINE, :left] < 128).any()  # words
    assert (sheet[top + LINES * LINE + 3 : top + height, :left] == 255).all()  # of which the last are left out
    assert (sheet[:top, left:] < 128).any()  # heads
    assert (pixels(captioned([("", grey)], edge=20))[GAP : GAP + 32, left : left + 32] == 128).all()  # twice as large


def test_many_pictures_of_a_caption_go_on_below_and_few_leave_room_for_other_captions():
    greys = torch.linspace(-1, 1, 20).reshape(20, 1, 1, 1).expand(20, 1, 16, 16)
    step, left = 128 + GAP, WIDTH + 2 * GAP
    across = (1600 - left) // step
    sheet = pixels(captioned([("many", greys), ("one", greys[:1])]))
    assert sheet.shape == (GAP + 4 * step, left + across * step, 3)
    shades = [sheet[GAP + k // across * step + 64, left + k % across * step + 64, 0] for k in range(20)]
    assert shades == [round(255 * k / 19) for k in range(20)]
    assert sheet[GAP + 3 * step + 64, left + 64, 0] == 0  # the other caption's, below
    sheet = pixels(captioned([("a", greys[:1]), ("b", greys[9:10]), ("c", greys[4:5]), ("d", greys[5:6])]))
    block = WIDTH + GAP + step
    assert sheet.shape == (GAP + step, GAP + 4 * block, 3)
    assert [sheet[GAP + 64, left + k * block + 64, 0] for k in range(4)] == [0, 121, 54, 67]
    sheet = pixels(captioned([("a", greys[:4]), ("b", greys[9:13]), ("c", greys[4:5])]))
    block = WIDTH + GAP + 4 * step
    assert sheet.shape == (GAP + 2 * step, GAP + 2 * block, 3)
    assert [sheet[GAP + 64, left + block + 64, 0], sheet[GAP + step + 64, left + 64, 0]] == [121, 54]


def test_captions_have_accents_and_dashes():
    glyphs = [bytes(caption_font().getmask(letter)) for letter in "é—ü\uffff"]
    assert len(set(glyphs)) == 4  # none of them the box that stands for a missing one


def test_captions_fit_beside_their_pictures():
    assert max(caption_font().getlength(text) for text in (WIDE * "n", "a smiling person with long red hair")) <= WIDTH


def test_side_by_side():
    black = picture(-torch.ones(1, 1, 4, 4), columns=1, edge=4)
    grey = picture(torch.zeros(1, 1, 8, 8), columns=1, edge=8)
    both = pixels(side_by_side(black, grey, gap=2))
    assert both.shape == (8, 4 + 2 + 8, 3)
    assert both[0, :, 0].tolist() == [0] * 4 + [255] * 2 + [128] * 8
    assert both[7, 0].tolist() == [255] * 3
