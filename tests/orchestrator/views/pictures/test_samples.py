"""The picture of predictions: what is drawn of every kind of geometry, and where."""

import numpy as np
import pytest
from matplotlib import pyplot as plt

from penstock.geometry import Grid, Mesh, Points
from penstock.layout import FieldSpec, Layout
from penstock.orchestrator.views.pictures.samples import MAX_LINES, MAX_ROWS, draw_comparison, draw_samples, names_of

AXIS = np.linspace(0, 1, 13)


def square():
    x, y = (each.ravel() for each in np.meshgrid(2 * AXIS, AXIS, indexing="ij"))
    corner = (np.arange(12)[:, None] * 13 + np.arange(12)).ravel()
    cells = [[corner, corner + 13, corner + 14], [corner, corner + 14, corner + 1]]
    return np.stack([x, y], axis=1), np.concatenate([np.stack(each, axis=1) for each in cells])


def cube():
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])
    return corners, np.array([[0, 1, 2, 3], [1, 2, 3, 4]])


GEOMETRIES = {
    "one axis": Grid((40,), extent=(3.0,), centring="vertices"),
    "two axes": Grid((24, 16), extent=(3.0, 2.0)),
    "three axes": Grid((12, 10, 8)),
    "flat": Grid((64, 8), extent=(100.0, 1.0)),
    "masked": Grid((24, 16), extent=(3.0, 2.0), is_masked=True),
    "mesh": Mesh(169, 2, square),
    "line mesh": Mesh(13, 1, lambda: (AXIS[:, None], np.stack([np.arange(12), np.arange(1, 13)], axis=1))),
    "space mesh": Mesh(5, 3, cube),
    "line points": Points(60, 1),
    "points": Points(300, 2, extent=(2.0, 1.0)),
    "space points": Points(300, 3),
}


def coordinates(geometry, arrays, row):
    """[d, *] of a sample's values."""
    if isinstance(geometry, Grid):
        return np.stack(np.meshgrid(*geometry.axes(), indexing="ij"))
    return geometry.arrays.points.T if isinstance(geometry, Mesh) else arrays["points"][row].T


def samples(geometry, components, num=2):
    """u = x - y / 2, of vectors (1 - y, x): what an eye can check; the prediction is 10 % above it."""
    random, arrays = np.random.default_rng(0), {}
    if isinstance(geometry, Points):
        counts = random.integers(geometry.max_points // 2, geometry.max_points + 1, num)
        is_there = np.arange(geometry.max_points) < counts[:, None]
        arrays["weights"] = np.where(is_there, 1.0, 0.0)
        places = random.random((num, geometry.max_points, geometry.dimension)) * geometry.box[1]
        arrays["points"] = np.where(is_there[:, :, None], places, 0)
    elif geometry.travelling:
        x, y = coordinates(geometry, arrays, 0)
        arrays["weights"] = np.tile(np.where((x - 1.5) ** 2 + (y - 1) ** 2 > 0.3, 1.0, 0.0), (num, 1, 1))
    fields, targets = [], []
    for row in range(num):
        x, *others = coordinates(geometry, arrays, row)
        y = others[0] if others else np.zeros_like(x)
        fields.append(np.cos(6 * x) * (row + 1))
        targets.append(np.stack([1 - y, x, *others[1:]][:components]) if components > 1 else x - y / 2)
    return arrays | {"a": np.array(fields), "k": np.arange(num) + 0.5, "u": np.array(targets)}


def layout_on(geometry, components):
    inputs = (FieldSpec(name="a", on=geometry, unit="m"), FieldSpec(name="k", unit="s"))
    return Layout(inputs, (FieldSpec(name="drag"), FieldSpec(name="u", on=geometry, components=components, unit="Pa")))


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """A function that draws samples, and gives the figure's axes."""
    figures = []
    monkeypatch.setattr(plt, "close", figures.append)

    def draw(geometry, arrays, components, name="picture"):
        layout = layout_on(geometry, components)
        predictions = {spec.name: 1.1 * arrays[spec.name] for spec in layout.outputs if spec.on is not None}
        errors = {"u": np.full(len(arrays["u"]), 0.1)}
        names = [f"simulation {row}" for row in range(len(arrays["u"]))]
        draw_comparison(tmp_path / f"{name}.png", arrays, predictions, errors, layout, names)
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
        return figures[-1].axes

    yield draw
    monkeypatch.undo()
    for figure in figures:
        plt.close(figure)


@pytest.mark.parametrize("components", [1, "vector"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_geometry_is_drawn(drawn, name, components):
    geometry = GEOMETRIES[name]
    components = max(2, geometry.dimension) if components == "vector" else 1
    axes = drawn(geometry, samples(geometry, components), components, name.replace(" ", "-"))
    panels = [axis for axis in axes if axis.get_title()]
    assert [axis.get_title() for axis in panels[:4]] == [
        "a [m]",
        "u [Pa], solver",
        "u, surrogate",
        "u, absolute error: 10 % in L2",
    ]
    assert len(panels) == 8 and panels[0].get_xlabel() == "k = 0.5 s"
    if geometry.dimension > 1:
        solver, surrogate = (panel.collections or panel.images for panel in panels[1:3])
        assert solver[0].get_clim() == surrogate[0].get_clim()  # so that colours can be compared
    if geometry.dimension == components == 2:
        assert any("Quiver" in type(artist).__name__ for artist in panels[1].collections)


def test_a_grid_is_drawn_with_x_to_the_right_and_y_upwards(drawn):
    grid = GEOMETRIES["two axes"]
    arrays = samples(grid, 1)
    image = drawn(grid, arrays, 1)[1].images[0]
    np.testing.assert_allclose(image.get_array(), arrays["u"][0].T)
    assert image.get_extent() == [0, 3, 0, 2] and image.origin == "lower"


def test_components_on_an_interval_are_lines_and_their_errors_have_no_sign(drawn):
    for name in ("one axis", "line mesh"):
        arrays = samples(GEOMETRIES[name], 2)
        arrays["u"] = -arrays["u"]
        solver, _, error = drawn(GEOMETRIES[name], arrays, 2, name.replace(" ", "-"))[1:4]
        np.testing.assert_allclose([line.get_ydata() for line in solver.lines], arrays["u"][0])
        np.testing.assert_allclose([line.get_ydata() for line in error.lines], 0.1 * np.abs(arrays["u"][0]))


@pytest.mark.parametrize(("extent", "aspect"), [((2.2, 0.41), 1.0), ((1.0, 1.0), 1.0), ((100.0, 1.0), "auto")])
def test_domains_keep_their_proportions_unless_they_are_slivers(drawn, extent, aspect):
    grid = Grid((22, 8), extent=extent)
    image = drawn(grid, samples(grid, 1), 1)[1]
    assert image.get_aspect() == aspect


def test_what_a_mask_leaves_out_is_blank_and_sets_no_limits(drawn):
    grid = GEOMETRIES["masked"]
    arrays = samples(grid, 1)
    arrays["u"] = np.where(arrays["weights"] > 0, arrays["u"], 1e6)
    image = drawn(grid, arrays, 1)[1].images[0]
    assert (image.get_array().mask == (arrays["weights"][0].T == 0)).all()
    assert image.get_clim()[1] < 4


def test_padding_is_not_drawn_and_sets_no_limits(drawn):
    cloud = GEOMETRIES["points"]
    arrays = samples(cloud, 1)
    is_there = arrays["weights"][0] > 0
    arrays["u"] = np.where(arrays["weights"] > 0, arrays["u"], 1e6)
    dots = drawn(cloud, arrays, 1)[1].collections[0]
    np.testing.assert_allclose(dots.get_offsets(), arrays["points"][0][is_there])
    np.testing.assert_allclose(dots.get_array(), arrays["u"][0][is_there])
    assert dots.get_clim()[1] < 4


def test_of_many_samples_rows_from_the_first_to_the_last_are_drawn(drawn):
    grid = GEOMETRIES["one axis"]
    axes = drawn(grid, samples(grid, 1, num=30), 1)
    labels = [axis.get_xlabel() for axis in axes if axis.get_xlabel()]
    assert len(labels) == MAX_ROWS and labels[0] == "k = 0.5 s" and labels[-1] == "k = 29.5 s"
    rows = [axis.get_ylabel() for axis in axes if axis.get_ylabel()]
    assert rows == [f"simulation {row}" for row in (0, 4, 8, 12, 17, 21, 25, 29)]
    line = axes[1].lines[0]
    np.testing.assert_allclose(line.get_xdata(), np.linspace(0, 3, 40))


def test_rows_of_a_flat_domain_are_low_and_nothing_sticks_out(drawn):
    """Colour bars are no higher than the domain, and captions begin within the picture."""
    mesh = Mesh(169, 2, square)  # 2 x 1
    axes = drawn(mesh, samples(mesh, 1), 1)
    figure = axes[0].figure
    assert figure.get_size_inches()[1] < 2 * 2.2
    panels, (bar, *_) = axes[:4], [axis for axis in axes if axis.get_label() == "<colorbar>"]
    assert bar.get_window_extent().height < 1.1 * panels[0].get_window_extent().height
    assert panels[0].xaxis.label.get_window_extent().x0 > 0 and panels[0].title.get_window_extent().y1 < figure.bbox.y1


def test_what_has_no_room_on_a_line_goes_below(tmp_path, monkeypatch):
    """Three inputs and three outputs, which are compared: two lines for each sample, an output on one of them."""
    figures = []
    monkeypatch.setattr(plt, "close", figures.append)
    grid = GEOMETRIES["two axes"]
    inputs, outputs = ([FieldSpec(name=name, on=grid) for name in names] for names in ("abc", "uvw"))
    arrays = {name: np.ones((9, *grid.shape)) * np.arange(9.0)[:, None, None] for name in "abcuvw"}
    errors, layout = dict.fromkeys("uvw", np.ones(9)), Layout(inputs, outputs)
    draw_comparison(tmp_path / "many.png", arrays, arrays, errors, layout, [f"simulation {row}" for row in range(9)])
    panels = [axis for axis in figures[-1].axes if axis.get_title()]
    places = [(axis.get_subplotspec().rowspan.start, axis.get_subplotspec().colspan.start) for axis in panels]
    assert places == [(line, column) for line in range(MAX_LINES) for column in range(6)]
    assert [axis.get_title()[0] for axis in panels[:12]] == [*"abcuuuvvvwww"]
    rows = [axis.get_ylabel() for axis in panels if axis.get_ylabel()]
    assert len(rows) == MAX_LINES / 2 and rows[0] == "simulation 0" and rows[-1] == "simulation 8"
    monkeypatch.undo()
    plt.close(figures[-1])


def test_samples_are_called_by_simulation_and_step(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plt, "close", figures.append)
    grid = GEOMETRIES["two axes"]
    layout = Layout((FieldSpec(name="before", on=grid),), (FieldSpec(name="u", on=grid),))
    simulations, steps = np.array([4, 4, 7]), np.array([0, 9, 0])
    arrays = dict.fromkeys(("before", "u"), np.zeros((3, *grid.shape)))
    names = names_of(simulations, steps, layout)
    draw_samples(tmp_path / "named.png", arrays, [0, 1, 2], layout, names)
    labels = [axis.get_ylabel() for axis in figures[-1].axes if axis.get_title() == "before [1]"]
    assert labels == ["simulation 4\nstep 0", "simulation 4\nstep 9", "simulation 7\nstep 0"]
    fed = Layout(layout.inputs, layout.outputs, {"before": "u"})
    assert names_of(simulations, steps, fed)[1] == "simulation 4, from step 9"
    assert names_of(simulations[:1], steps[:1], fed) == ["simulation 4"]
    monkeypatch.undo()
    plt.close(figures[-1])


def test_the_error_of_a_vector_is_its_length_and_points_where_it_points(drawn):
    mesh = GEOMETRIES["mesh"]
    arrays = samples(mesh, 2)
    arrays["u"] = -arrays["u"]
    image, arrows = drawn(mesh, arrays, 2)[3].collections
    np.testing.assert_allclose(image.get_array(), 0.1 * np.linalg.norm(arrays["u"][0], axis=0))
    moves = arrays["u"][0].any(axis=0)  # all but one corner
    np.testing.assert_allclose([arrows.U, arrows.V], 0.1 * arrays["u"][0][:, moves])


def test_every_output_is_drawn_with_its_own_error(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plt, "close", figures.append)
    mesh = GEOMETRIES["mesh"]
    pressure, velocity = samples(mesh, 1)["u"], samples(mesh, 2)["u"]
    layout = Layout((), (FieldSpec(name="p", on=mesh), FieldSpec(name="v", on=mesh, components=2, unit="m/s")))
    errors = {"p": np.array([0.5, 0.25]), "v": np.array([0.02, 0.01])}
    predictions = {"p": 1.5 * pressure, "v": 1.02 * velocity}
    draw_comparison(tmp_path / "two.png", {"p": pressure, "v": velocity}, predictions, errors, layout, ["a", "b"])
    panels = [axis for axis in figures[-1].axes if axis.get_title()]
    assert [axis.get_title() for axis in panels[6:]] == [
        "p [1], solver",
        "p, surrogate",
        "p, absolute error: 25 % in L2",
        "v [m/s], solver",
        "v, surrogate",
        "v, absolute error: 1 % in L2",
    ]
    image = panels[5].collections[0]
    np.testing.assert_allclose(image.get_array(), 0.02 * np.linalg.norm(velocity[0], axis=0))
    monkeypatch.undo()
    plt.close(figures[-1])
