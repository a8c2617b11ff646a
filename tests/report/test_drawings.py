"""The drawings: marks are where the numbers say, and awkward curves stay inside the frame."""

import re

import numpy as np
import pytest

from calibwrap.metrics import reliability_curve
from calibwrap.report import reliability_picture, svg
from calibwrap.report.markup import Markup, escaped, own, table, tag
from calibwrap.report.svg import (
    confidence_histogram,
    interval_strip,
    reliability_diagram,
    risk_coverage_diagram,
    short_count,
)
from calibwrap.summary import Figure

from .sets import asked, planted


def attributes(drawn, mark):
    """Return the attributes of each element of a class, numbers as floats."""
    found = [dict(re.findall(r'([\w-]+)="([^"]*)"', one)) for one in re.findall(r"<[a-z]+ [^>]*>", drawn)]
    return [
        {key: float(value) for key, value in one.items() if re.fullmatch(r"-?[\d.]+", value)}
        for one in found
        if mark in one.get("class", "").split()
    ]


def test_point_bar_gap_and_whisker_are_where_the_bin_says():
    """Ten answers at 0.9, six right; the frame is 304 wide from 46 and 272 high from 10."""
    drawn = reliability_diagram(reliability_curve([0.9] * 10, [1] * 6 + [0] * 4, n_bins=10), "x")
    (point,) = attributes(drawn, "point")
    assert (point["cx"], point["cy"]) == (319.6, 118.8)
    (bar,) = attributes(drawn, "right")
    assert (bar["y"], bar["height"]) == pytest.approx((118.8, 163.2))
    (gap,) = attributes(drawn, "over")
    assert (gap["y"], gap["height"]) == pytest.approx((37.2, 81.6))
    (whisker,) = attributes(drawn, "whisker")
    low, high = (282 - whisker["y1"]) / 272, (282 - whisker["y2"]) / 272
    assert (low, high) == pytest.approx((0.3127, 0.8318), abs=1e-3)  # Wilson, 6 of 10
    assert "10 questions: said 90%, right 60% (95% interval 31% to 83%)" in drawn


def test_underconfidence_has_its_own_colour():
    drawn = reliability_diagram(reliability_curve([0.3] * 10, [1] * 10), "x")
    assert len(attributes(drawn, "under")) == 1
    assert not attributes(drawn, "over")


def test_empty_bins_draw_nothing_and_counts_are_written():
    drawn = reliability_diagram(reliability_curve([0.05, 0.95, 0.96], [0, 1, 1], n_bins=10), "x")
    assert len(attributes(drawn, "point")) == len(attributes(drawn, "count")) == 2
    assert re.findall(r'class="number">([^<]*)<', drawn) == ["1", "2"]


@pytest.mark.parametrize("confidence", [[0.0, 0.0], [1.0, 1.0], [0.5, 1.0]])
def test_the_ends_of_the_scale_stay_inside(confidence):
    for correct in ([0, 0], [1, 1], [0, 1]):
        drawn = reliability_diagram(reliability_curve(confidence, correct), "x")
        assert "nan" not in drawn
        for mark in attributes(drawn, "point"):
            assert 46 <= mark["cx"] <= 350
            assert 10 <= mark["cy"] <= 282


def test_a_long_risk_curve_is_thinned_and_keeps_its_ends():
    coverage = np.arange(1, 5001) / 5000
    drawn = risk_coverage_diagram([(coverage, coverage / 2)], "x")
    points = re.search(r'points="([^"]*)"', drawn).group(1).split()
    assert len(points) == svg.MOST_POINTS
    assert points[-1] == "350,10"


def test_a_risk_of_zero_everywhere_is_drawn():
    drawn = risk_coverage_diagram([(np.array([0.5, 1.0]), np.array([0.0, 0.0]))], "x")
    assert 'points="198,240 350,240"' in drawn


def test_more_states_than_colours():
    curve = np.array([0.5, 1.0]), np.array([0.1, 0.2])
    assert 'class="curve s0"' in risk_coverage_diagram([curve] * 5, "x").rsplit("<polyline", 1)[1]


def test_strip_places_value_and_interval():
    drawn = interval_strip(Figure(0.5, 0.25, 1.0), 1.0, "x")
    assert attributes(drawn, "dot")[0]["cx"] == 100
    assert (attributes(drawn, "reach")[0]["x1"], attributes(drawn, "reach")[0]["x2"]) == (52.5, 195)
    assert "dot" not in interval_strip(Figure(None, None, None, "not defined"), 1.0, "x")


def test_histogram_counts():
    drawn = confidence_histogram(np.array([0.0, 0.5, 1.0]), np.array([2, 1]), "x")
    heights = [bar["height"] for bar in attributes(drawn, "count")]
    assert heights[0] == 2 * heights[1]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (1000, "1.0k"), (9949, "9.9k"), (9950, "10k"), (123456, "123k"), (4_200_000, "4.2M")],
)
def test_short_counts(count, text):
    assert short_count(count) == text


def test_markup_escapes_texts_and_attributes_and_keeps_markup():
    assert tag("p", "<i>", Markup("<i></i>"), title='a"b') == '<p title="a&quot;b">&lt;i&gt;<i></i></p>'
    assert escaped(escaped("&")) == "&amp;"
    assert own("x" * 50, limit=10) == "<bdi>xxxxxxxxxx…</bdi>"
    assert table("L", ["", "<h>"], [["<r>", "<c>"]]).count("&lt;") == 3


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_picture_is_written_in_the_format_of_its_name(tmp_path, ending):
    path = reliability_picture(tmp_path / f"picture.{ending}", planted(60))
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending]
    assert path.read_bytes().startswith(start)
    assert list(tmp_path.iterdir()) == [path]


def test_picture_refuses_what_it_cannot_draw(tmp_path):
    with pytest.raises(ValueError, match=r"\.png, \.svg or \.pdf"):
        reliability_picture(tmp_path / "picture.txt", planted(5))
    with pytest.raises(ValueError, match="nothing can be drawn"):
        reliability_picture(tmp_path / "picture.png", asked([None], [[0.0, -1.0]]))


def test_picture_has_both_colours_of_the_gap(tmp_path):
    """Orange where the model claims too much, blue where it claims too little, as in report.css."""
    from matplotlib import image

    section = asked([0] * 5 + [1] * 5, np.log([[0.55, 0.45]] * 5 + [[0.95, 0.05]] * 5))
    pixels = 255 * image.imread(reliability_picture(tmp_path / "p.png", section))[..., :3]
    orange_on_white = 0.55 * np.array([230, 159, 0]) + 0.45 * 255
    blue_on_grey = 0.55 * np.array([86, 180, 233]) + 0.45 * np.array([185, 195, 208])
    for colour in (orange_on_white, blue_on_grey):
        assert (np.abs(pixels - colour).max(axis=-1) < 3).sum() > 500
