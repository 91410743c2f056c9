"""Strips of frames and animations: which frames, in which colours, of every kind of geometry."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from penstock.geometry import Grid, Mesh, Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.rollout.trajectories import Trajectories
from penstock.orchestrator.views.pictures import strips
from penstock.orchestrator.views.pictures.strips import Course, animate, draw_strip


def square():
    points = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]])
    return points, np.array([[0, 1, 2], [1, 3, 2]])


def course_on(geometry, num_frames=20, components=1, given=None):
    """The truth of frame t is t + 1 everywhere, and the prediction is a tenth above it.

    `given` are the names of outputs whose state before these, 0, is given.
    """
    layout = Layout(
        (FieldSpec(name="before", on=geometry, components=components),),
        (
            FieldSpec(name="drag"),
            FieldSpec(name="u", on=geometry, components=components, unit="m"),
            *[FieldSpec(name="p", on=geometry, components=components)] * (given is not None),
        ),
    )
    shape = layout.outputs[1].shape
    true = np.arange(1.0, num_frames + 1).reshape(1, -1, *[1] * len(shape)) * np.ones(shape)
    names = [spec.name for spec in layout.outputs[1:]]
    given = {name: np.zeros((1, *shape)) for name in given or ()}
    rows = {"points": np.random.default_rng(0).random((3, 2, 30)), "weights": np.ones((3, 1, 30))}
    rolled = Trajectories(
        np.array([7]),
        np.array([2]),
        [3 * (n + 1) for n in range(num_frames)],
        dict.fromkeys(names, true),
        dict.fromkeys(names, 1.1 * true),
        given,
    )
    return Course.of(rolled, 0, layout, {name: rows[name] for name in layout.blocks if name in rows})


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """A function that draws a strip, and gives the axes of its panels and those of its bars."""
    figures = []
    monkeypatch.setattr(plt, "close", figures.append)

    def draw(course):
        draw_strip(tmp_path / "strip.png", course)
        (figure,) = figures
        assert Image.open(tmp_path / "strip.png").size[0] > 300
        panels = [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]
        return figure, panels

    yield draw
    monkeypatch.undo()
    for figure in figures:
        plt.close(figure)


@pytest.mark.parametrize("geometry", [Grid((8, 6)), Mesh(4, 2, square), Points(30, 2)], ids=["grid", "mesh", "points"])
@pytest.mark.parametrize("components", [1, 2])
def test_a_strip_has_truth_prediction_and_error_in_colours_that_hold_at_all_times(drawn, geometry, components):
    figure, panels = drawn(course_on(geometry, components=components))
    assert figure.get_suptitle() == "simulation 7"
    assert len(panels) == 3 * 8 and len(figure.axes) == 3 * 8 + 3
    titles = [axis.get_title() for axis in panels[:8]]
    assert titles[0] == "step 2" and titles[-1] == "step 59" and len(set(titles)) == 8  # numbers of samples
    assert [axis.get_ylabel() for axis in panels[::8]] == ["u [m]\nsolver", "surrogate", "absolute error"]
    images = [next(each for each in (*axis.images, *axis.collections)) for axis in panels]
    root = np.sqrt(components)
    length = 20 * root
    for image, limits in zip(images, [(root, length)] * 16 + [(0, 0.1 * length)] * 8, strict=True):
        np.testing.assert_allclose(image.get_clim(), limits, rtol=1e-6)
    np.testing.assert_allclose(images[15].get_array(), 1.1 * length, rtol=1e-6)
    np.testing.assert_allclose(images[23].get_array(), 0.1 * length, rtol=1e-6)


def test_a_state_that_is_given_comes_first(drawn):
    """What is not given has an empty place there."""
    _, panels = drawn(course_on(Grid((8, 6)), num_frames=5, given=("u",)))
    assert [axis.get_title() for axis in panels[:6]] == [f"step {step}" for step in (0, 3, 6, 9, 12, 15)]
    firsts = [axis.images for axis in panels[::6]]
    assert all(not image.get_array().any() for (image,) in firsts[:3]) and not any(firsts[3:])
    assert [axis.get_ylabel() for axis in panels[::6]][3:] == ["p [1]\nsolver", "surrogate", "absolute error"]


def test_rows_of_a_flat_domain_are_low(drawn):
    figure, panels = drawn(course_on(Grid((16, 8), extent=(2.0, 1.0))))
    assert figure.get_size_inches()[1] < 3 * 1.5
    bar = next(axis for axis in figure.axes if axis.get_label() == "<colorbar>")
    heights = [axis.get_tightbbox().height for axis in (bar, panels[0])]
    assert heights[0] < 1.3 * heights[1]


def test_lines_have_one_scale(drawn):
    _, panels = drawn(course_on(Grid((8,))))
    np.testing.assert_allclose([axis.get_ylim() for axis in panels[:16]], [(0.05, 20.95)] * 16)
    np.testing.assert_allclose(panels[7].lines[0].get_ydata(), 20)


def test_a_rollout_that_blew_up_is_drawn_in_the_colours_of_the_truth(drawn):
    course = course_on(Grid((8, 6)))
    course.predicted["u"][10:] = np.inf
    course.predicted["u"][12:] = np.nan
    _, panels = drawn(course)
    assert all(axis.images[0].get_clim() == (1, 20) for axis in panels[:16])
    assert all(axis.images[0].get_clim() == (0, 19) for axis in panels[16:])


def test_an_animation_has_every_frame_or_some_from_the_first_to_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr(strips, "MAX_FRAMES", 5)
    for num, expected in ((3, 3), (9, 5)):
        course = course_on(Grid((4, 4)), num)
        animate(tmp_path / f"{num}.gif", course)
        with Image.open(tmp_path / f"{num}.gif") as image:
            assert image.n_frames == expected
