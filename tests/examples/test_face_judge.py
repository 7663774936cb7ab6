"""The judge of faces, on pictures that show the attributes as plain rows, and what it finds of captions."""

import numpy as np
import pytest
import torch
from faces_in_rows import SIZES, Reader, in_rows

from examples.faces.attributes import VALUES
from examples.faces.judge import FEATURES, faces, follow, judged, numbers, read_judge, report, spread, train
from examples.faces.making import draw
from simdistill.evaluation.extractors import load_extractor
from simdistill.evaluation.features import ImageClassifier, write_classifier


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return in_rows(tmp_path_factory.mktemp("faces"), 600, 80)


def test_faces_come_with_the_numbers_of_their_values(data):
    pictures, right = faces(data / "held-out.zip")
    assert pictures.shape == (80, 3, 16, 16)
    assert torch.equal(judged(Reader(), pictures), right)
    assert right.amax(0).tolist() == [size - 1 for size in SIZES]


def test_a_report_has_the_share_of_each_attribute_and_of_all(data):
    assert report(Reader(), data) == {**dict.fromkeys(VALUES, 1.0), "all nine": 1.0}

    class AlwaysTan(Reader):
        def forward(self, pictures):
            heads = list(super().forward(pictures).split(SIZES, 1))
            heads[7] = torch.tensor([[0.0, 1.0, 0.0]]).expand(len(pictures), 3)
            return torch.cat(heads, 1)

    tan = np.mean([draw("held-out", 0, index)[0].attributes["skin"] == "tan" for index in range(80)])
    shares = report(AlwaysTan(), data)
    assert shares == pytest.approx({**dict.fromkeys(VALUES, 1.0), "skin": tan, "all nine": tan})


def test_numbers_count_the_values_and_leave_out_what_is_not_said():
    assert numbers([{"hat": "blue", "expression": "sad"}]).tolist() == [[2, -1, -1, -1, 2, -1, -1, -1, -1]]


def test_follow_counts_the_specified_values_alone(data):
    pictures, _ = faces(data / "held-out.zip")
    attributes = [draw("held-out", 0, index)[0].attributes for index in range(80)]
    assert follow(Reader(), pictures, attributes) == (1.0, 1.0)
    hats = [{"hat": face["hat"], "skin": face["skin"]} for face in attributes]
    for index in range(20):
        hats[index]["hat"] = {"none": "red", "red": "blue", "blue": "none"}[hats[index]["hat"]]
    assert follow(Reader(), pictures, hats) == pytest.approx((1 - 20 / 160, 1 - 20 / 80))
    one = [{"hat": hats[0]["hat"]}, *attributes[1:]]
    assert follow(Reader(), pictures, one) == pytest.approx((1 - 1 / (1 + 79 * 9), 1 - 1 / 80))


def test_spread_is_of_what_captions_leave_open_alone(data):
    pictures, _ = faces(data / "held-out.zip")
    attributes = [draw("held-out", 0, index)[0].attributes for index in range(80)]
    told = [dict(list(face.items())[:2]) for face in attributes]
    told[:9] = attributes[:9]  # of which nothing is counted
    overlaps = [
        sum(min(np.mean([face[name] == value for face in attributes[9:]]), 1 / len(values)) for value in values)
        for name, values in list(VALUES.items())[2:]
    ]
    assert spread(Reader(), pictures, told) == pytest.approx(np.mean(overlaps))
    hatless = [{name: value for name, value in face.items() if name != "hat"} for face in attributes]
    blue = pictures[[k for k, face in enumerate(attributes) if face["hat"] == "blue"]]
    assert spread(Reader(), blue, hatless[: len(blue)]) == pytest.approx(1 / 3)  # all mass on one value of three
    with pytest.raises(ValueError, match="specified = 'all nine': must be fewer"):
        spread(Reader(), pictures, attributes)


@pytest.mark.slow
def test_a_judge_is_trained_reported_and_its_features_are_the_metrics(data, tmp_path):
    train(data, tmp_path / "judge.safetensors", iterations=120, seed=0)
    judge = read_judge(tmp_path / "judge.safetensors")
    shares = report(judge, data)
    assert list(shares) == [*VALUES, "all nine"]
    assert min(shares[name] for name in VALUES) > 0.9
    pictures, right = faces(data / "held-out.zip")
    assert shares["all nine"] == pytest.approx(float((judged(judge, pictures) == right).all(1).float().mean()))
    features = load_extractor(str(tmp_path / "judge.safetensors")).features(pictures)
    assert features.shape == (80, FEATURES)
    assert torch.equal(features, judge.features(pictures))


def test_a_classifier_of_other_things_is_no_judge(tmp_path):
    write_classifier(tmp_path / "other.safetensors", ImageClassifier((3, 16, 16), 10, 32))
    with pytest.raises(ValueError, match=r"attributes = None: must be today's nine"):
        read_judge(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("specified", "message"),
    [
        ([{"hat": "red"}], "specified = 1: must be 2, one per picture"),
        ([{"hat": "red"}, {"hat": "pink"}], "hat = 'pink'"),
        ([{"hat": "red"}, {}], "at least one attribute per picture"),
    ],
)
def test_specifications_are_checked(specified, message):
    with pytest.raises(ValueError, match=message):
        follow(Reader(), torch.zeros(2, 3, 16, 16), specified)


def test_spread_wants_a_caption_for_each_picture():
    with pytest.raises(ValueError, match="specified = 1: must be 2, one per picture"):
        spread(Reader(), torch.zeros(2, 3, 16, 16), [{"hat": "red"}])
