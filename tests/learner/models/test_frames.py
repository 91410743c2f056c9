"""Which channels a model takes for frames, of the layouts that windows and trajectories give, and of others."""

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.buffers.units import Trajectories
from penstock.learner.buffers.windows import Windows
from penstock.learner.models.frames import FrameLayout

GRID = Grid((3,))
FED = Layout(  # the state is a vector between other fields, and not all outputs are fed
    (FieldSpec(name="force", on=GRID), FieldSpec(name="before", on=GRID, components=2), FieldSpec(name="s")),
    (FieldSpec(name="pressure", on=GRID), FieldSpec(name="velocity", on=GRID, components=2)),
    {"before": "velocity"},
)
PLAIN = Layout((FieldSpec(name="a", on=GRID),), (FieldSpec(name="u", on=GRID), FieldSpec(name="v", on=GRID)))


def frames_of(layout, unit):
    return FrameLayout.of(unit.fitted(layout).layout(layout))


def test_windows_have_frames_that_are_given_and_predicted():
    """Channel 0 is the force, then come the frames of two components; of an output frame pressure is not given."""
    assert frames_of(FED, Windows(9, inputs=2, outputs=3)) == FrameLayout(((1, 2), (3, 4)), (0,), 3, (None, 3, 4))
    assert frames_of(FED, Windows(9, outputs=3)) == FrameLayout(((1, 2),), (0,), 3, (None, 1, 2))
    assert frames_of(PLAIN, Windows(9, inputs=2)) == FrameLayout(((1, 2), (3, 4)), (0,), 1, (3, 4))
    assert frames_of(PLAIN, Windows(30, inputs=11, outputs=12)).given[10] == (21, 22)


def test_trajectories_have_frames_that_are_predicted():
    assert frames_of(PLAIN, Trajectories(4)) == FrameLayout(((0,),), (), 4, (None, None))


def test_a_layout_without_frames_is_one_frame():
    assert FrameLayout.of(FED) == FrameLayout(((1, 2),), (0,), 1, (None, 1, 2))
    assert FrameLayout.of(PLAIN) == FrameLayout(((0,),), (), 1, (None, None))
    scalars = Layout((FieldSpec(name="s"),), (FieldSpec(name="u", on=GRID),))
    assert FrameLayout.of(scalars) == FrameLayout((), (), 1, (None,))


def test_numbers_that_no_window_gives_are_names():
    def outputs(*names, components=(1, 1, 1, 1)):
        specs = [FieldSpec(name=name, on=GRID, components=num) for name, num in zip(names, components, strict=False)]
        return FrameLayout.of(Layout((FieldSpec(name="a", on=GRID),), tuple(specs))).num_predicted

    assert outputs("u_0", "v_0", "u_1", "v_1") == 2
    assert outputs("u_1", "u_2") == outputs("u_0", "v_1") == outputs("u_0", "u_1", "p") == 1
    assert outputs("u_0", "u_1", "v_0", "v_1") == 1
    assert outputs("u_0", "u_1", components=(1, 2)) == 1
