import pytest
from drawn_blocks import blocks, many
from hypothesis import given
from hypothesis import strategies as st

from simdistill.config.expressions import VOCABULARY, expression, parse_expression
from simdistill.method.distances import DISTANCES, PseudoHuber, SquaredL2
from simdistill.method.ema import AVERAGINGS
from simdistill.method.noise import (
    DISTRIBUTIONS,
    Clamped,
    DiscreteVP,
    Karras,
    LogNormal,
    Truncated,
)
from simdistill.method.objectives import OBJECTIVES, ScoreImplicitMatching
from simdistill.method.weightings import WEIGHTINGS, Uniform, VPScore


def test_the_vocabulary_is_every_row_of_every_table_by_its_name():
    tables = (DISTANCES, DISTRIBUTIONS, WEIGHTINGS, OBJECTIVES, AVERAGINGS)
    assert {kind.__name__: kind for table in tables for kind in table} == VOCABULARY


@pytest.mark.parametrize("name", sorted(VOCABULARY))
@given(data=st.data())
@many
def test_every_building_block_is_what_its_expression_says(name, data):
    block = data.draw(blocks(VOCABULARY[name]))
    assert parse_expression(expression(block)) == block
    assert expression(block) == repr(block)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Uniform", Uniform()),
        ("Uniform()", Uniform()),
        (" Karras ( sigma_max = 20 ) ", Karras(sigma_max=20.0)),
        ("LogNormal(-3.5, std=2.5)", LogNormal(-3.5, 2.5)),
        ("LogNormal(-3, 1e-2)", LogNormal(-3.0, 0.01)),
        ("ScoreImplicitMatching(PseudoHuber(c=0.1))", ScoreImplicitMatching(PseudoHuber(c=0.1))),
        ("ScoreImplicitMatching(SquaredL2)", ScoreImplicitMatching(SquaredL2())),
        ("Truncated(Clamped(Karras, 1, 2), low=0.5, high=2)", Truncated(Clamped(Karras(), 1.0, 2.0), 0.5, 2.0)),
        ("VPScore(DiscreteVP(steps=100))", VPScore(DiscreteVP(steps=100))),
    ],
)
def test_expressions_as_a_person_writes_them(text, expected):
    assert parse_expression(text) == expected


def test_whole_numbers_become_the_declared_floats():
    assert isinstance(parse_expression("Karras(sigma_max=20)").sigma_max, float)
    assert isinstance(parse_expression("Karras(levels=900)").levels, int)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "__import__('os').system('true')",
        "Karras.__class__",
        "Karras.__class__()",
        "Karras().table()",
        "(lambda: 1)()",
        "lambda: 1",
        "[Karras for _ in (1,)]",
        "Karras(rho=x)",
        "Karras(rho=1 + 2)",
        "Karras(rho=rho * 2)",
        "Karras(rho=__import__('os').getpid())",
        "Karras(rho=Karras.rho)",
        "Karras(rho=(y := 3))",
        "Karras(*[0.1])",
        "Karras(**{'rho': 3})",
        "f'{1}'",
        "Uniform if True else EDM",
        "open('x')",
        "eval",
        "{[]: 1}",
        "Karras(rho=7, rho=8)",
        "Karras(0.1, sigma_min=0.2)",
        "Karras(",
        "Karras; EDM",
        "",
    ],
)
def test_code_and_whatever_could_be_misread_is_refused(text):
    with pytest.raises(
        ValueError, match=r"only names|unknown name|no argument|twice|not of the form|is not one of|No module named"
    ):
        parse_expression(text)


def test_nothing_is_evaluated_on_the_way_to_a_refusal(tmp_path):
    path = tmp_path / "evidence"
    for text in (f"open({str(path)!r}, 'w')", f"Karras(rho=open({str(path)!r}, 'w'))", f"EDM({{open({str(path)!r})}})"):
        with pytest.raises(ValueError, match=r"open|only names"):
            parse_expression(text)
    assert not path.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Karas()", r"'Karas\(\)': unknown name Karas; did you mean Karras\?"),
        (
            "Foo",
            "unknown name Foo; known: ScoreImplicitMatching, .*SquaredL2.*LogNormal.*, or package.module:Class",
        ),
        ("Karras(sigma_mx=20)", r"Karras: no argument sigma_mx; did you mean sigma_max\?"),
        ("Karras(foo=20)", "Karras: no argument foo; known: sigma_min, sigma_max, rho, levels, highest"),
        ("Karras(rho='steep')", "Karras: rho = 'steep': input should be a valid number"),
        ("Karras(levels=2.5)", "Karras: levels = 2.5: input should be a valid integer"),
        ("Karras(1, 2, 3, 4, 5, 6)", r"Karras takes 5 argument\(s\)"),
        ("Karras(rho=1, rho=2)", "Karras is given an argument twice"),
        ("LogNormal(1)", "LogNormal: .*'std'"),
        ("LogNormal(0, 0)", "LogNormal: std = 0.0: must be positive"),
        (
            "Clamped(Uniform, 1, 2)",
            r"Clamped: distribution = Uniform\(\) is not one of LogNormal, Karras, DiscreteVP",
        ),
        ("ScoreImplicitMatching(L1(3))", r"'ScoreImplicitMatching\(L1\(3\)\)': L1 takes 0 argument\(s\)"),
        ("not True", "'not True': only names, numbers and calls of names are allowed"),
        ("two words", r"'two words' is not of the form Name\(argument=value\)"),
    ],
)
def test_a_refusal_names_the_thing_and_the_remedy(text, message):
    with pytest.raises(ValueError, match=message):
        parse_expression(text)
