"""Orders against brute force and the curve's definition; when to sort."""

import numpy as np
import pytest

from penstock.solvers.parameters.fields import BinaryField, GaussianField
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.sorting.sorter import (
    BUDGET_FRACTION,
    GROUP_SYSTEMS,
    NUM_COMPONENTS,
    NUM_PAIRS,
    WINDOWS_BETWEEN_TRIALS,
    Sorter,
    Worth,
    distance_gain,
    fast_order,
    greedy_order,
    hilbert_index,
    hilbert_order,
    principal_components,
)


def brute_force(features, start):
    left, order = list(range(len(features))), []
    if start is None:
        order.append(left.pop(0))
        start = features[0]
    while left:
        nearest = min(left, key=lambda i: np.linalg.norm(features[i] - start))
        left.remove(nearest)
        order.append(nearest)
        start = features[nearest]
    return order


def fields(kind, num_draws, resolution=32):
    field = GaussianField(resolution)
    if kind == "binary":
        field = BinaryField(field, above=12.0, below=3.0)
    return np.stack([field.features(field.draw(generator_of(0, "test", i))) for i in range(num_draws)])


def test_follows_the_nearest_neighbour():
    generator = np.random.default_rng(0)
    features = 1e3 + generator.standard_normal((60, 5))
    assert greedy_order(features) == brute_force(features, None)
    start = 1e3 + generator.standard_normal(5)
    assert greedy_order(features, start) == brute_force(features, start)


@pytest.mark.parametrize("order_of", [greedy_order, fast_order, lambda *given: hilbert_order(*given, group=2)])
def test_points_on_a_line_are_visited_in_turn(order_of):
    positions = np.array([3.0, 0.0, 4.0, 1.0, 2.0])[:, None]
    assert order_of(positions, np.array([-1.0])) == [1, 3, 4, 0, 2]
    assert order_of(positions, np.array([9.0])) == [2, 0, 4, 3, 1]


@pytest.mark.parametrize("order_of", [greedy_order, fast_order, lambda *given: hilbert_order(*given, group=3)])
def test_every_system_is_visited_once(order_of):
    assert order_of(np.ones((4, 3))) == [0, 1, 2, 3]
    assert order_of(np.empty((0, 3))) == []
    assert order_of(np.ones((1, 3)), np.zeros(3)) == [0]
    equal = np.full((GROUP_SYSTEMS + 5, 3), 0.1)
    assert order_of(equal) == list(range(len(equal)))
    generator = np.random.default_rng(0)
    for shape in ((2, 1), (7, 2), (50, 200), (GROUP_SYSTEMS + 5, 3)):
        features = generator.standard_normal(shape)
        features[len(features) // 2 :] = features[0]
        for start in (None, features[-1], np.full(shape[1], 1e6)):
            order = order_of(features, start)
            assert sorted(order) == list(range(len(features)))
            assert order_of(features.copy(), start) == order


@pytest.mark.parametrize(("dimensions", "bits"), [(1, 6), (2, 1), (2, 5), (3, 3), (4, 2), (6, 2)])
def test_hilbert_curve_goes_through_every_cell_by_neighbours(dimensions, bits):
    cells = np.stack(np.meshgrid(*[np.arange(2**bits)] * dimensions), axis=-1).reshape(-1, dimensions)
    index = hilbert_index(cells, bits)
    assert sorted(index) == list(range(2 ** (bits * dimensions)))
    steps = np.diff(cells[np.argsort(index)], axis=0)
    assert (np.abs(steps).sum(axis=1) == 1).all()
    assert (cells[np.argmin(index)] == 0).all()


def test_the_first_hilbert_curve_is_the_known_one():
    cells = np.array([[0, 0], [0, 1], [1, 1], [1, 0]])
    assert hilbert_index(cells, 1).tolist() in ([0, 1, 2, 3], [0, 3, 2, 1])


def test_hilbert_cells_up_to_63_bits_stay_apart():
    cells = np.random.default_rng(0).integers(0, 2**9, (1000, 7))
    cells[-1] = 2**9 - 1
    index = hilbert_index(cells, 9)
    assert index.min() >= 0 and len(set(index.tolist())) == len({tuple(cell) for cell in cells.tolist()})


def test_principal_components_are_those_of_the_svd():
    generator = np.random.default_rng(0)
    features = generator.standard_normal((40, 30)) * 0.8 ** np.arange(30) @ generator.standard_normal((30, 500)) + 5.0
    components = principal_components(features)
    assert np.allclose(components.T @ components, np.eye(NUM_COMPONENTS))
    leading = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)[2][:NUM_COMPONENTS]
    assert np.allclose(np.linalg.svd(leading @ components)[1], 1.0)  # the same space


@pytest.mark.parametrize("num_features", [1, 3, NUM_COMPONENTS, 400])
def test_features_of_few_dimensions_keep_their_distances(num_features):
    generator = np.random.default_rng(1)
    features = generator.standard_normal((50, min(num_features, 10))) @ np.eye(min(num_features, 10), num_features)
    reduced = features @ principal_components(features)
    for i, j in ((0, 1), (5, 49), (30, 31)):
        distance = np.linalg.norm(features[i] - features[j])
        assert np.linalg.norm(reduced[i] - reduced[j]) == pytest.approx(distance)


@pytest.mark.parametrize(("kind", "kept"), [("smooth", 0.93), ("binary", 0.6)])
def test_components_keep_the_distances_of_fields(kind, kept):
    features = fields(kind, 300)
    reduced = features @ principal_components(features)
    first, second = np.random.default_rng(0).permutation(300)[:300].reshape(2, 150)
    full = np.linalg.norm(features[first] - features[second], axis=1)
    ratio = np.linalg.norm(reduced[first] - reduced[second], axis=1) / full
    assert ratio.max() <= 1 + 1e-9 and np.mean(ratio) > kept
    assert np.corrcoef(full, ratio * full)[0, 1] > 0.9


@pytest.mark.parametrize("kind", ["smooth", "binary"])
def test_fast_order_is_nearly_as_short_as_the_greedy_one(kind):
    features = fields(kind, 200)
    drawn, greedy, fast = (
        distance_gain(features, order) for order in (list(range(200)), greedy_order(features), fast_order(features))
    )
    grouped = distance_gain(features, hilbert_order(features @ principal_components(features), group=50))
    curve = distance_gain(features, hilbert_order(features @ principal_components(features), group=1))
    assert greedy < 0.75 * drawn
    assert fast < 1.05 * greedy
    assert fast < grouped < curve < 0.9 * drawn


def test_shortens_the_path():
    features = np.random.default_rng(1).standard_normal((200, 2))
    steps = np.linalg.norm(np.diff(features, axis=0), axis=1).sum()
    sorted_steps = np.linalg.norm(np.diff(features[greedy_order(features)], axis=0), axis=1).sum()
    assert sorted_steps < 0.2 * steps


def test_large_windows_are_cut_along_the_curve():
    features = np.random.default_rng(2).standard_normal((3 * GROUP_SYSTEMS, 2))
    assert distance_gain(features, fast_order(features)) < 0.05 * distance_gain(features, list(range(len(features))))


def test_distance_gain_of_a_walk_around_a_square():
    corners = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    pairs = [np.sum((corners[i] - corners[j]) ** 2) for i in range(4) for j in range(i)]
    assert distance_gain(corners, [0, 1, 2, 3]) == pytest.approx(1 / np.sqrt(np.mean(pairs)))
    assert distance_gain(corners, [0, 2, 1, 3]) == pytest.approx((2 * np.sqrt(2) + 1) / 3 / np.sqrt(np.mean(pairs)))
    assert distance_gain(np.ones((3, 2)), [0, 1, 2]) == 1.0


def windows_of(worth, num_windows, *, drawn, sorted, sort=1e-4):
    """The windows that were sorted, and the sentences returned."""
    is_sorted, sentences = [], []
    for _ in range(num_windows):
        is_sorted.append(worth.next_is_sorted)
        sentence = worth.record(sorted if is_sorted[-1] else drawn, sort, is_sorted=is_sorted[-1])
        sentences += [sentence] if sentence else []
    return is_sorted, sentences


def test_sorting_is_kept_where_it_pays_and_tried_again():
    worth = Worth()
    trial, sentences = windows_of(worth, 1 + 2 * NUM_PAIRS, drawn=0.03, sorted=0.027)
    assert trial == [False, False, True, True, False, False, True, True, False, False, True]
    assert worth.is_kept and len(sentences) == 1
    assert sentences[0].startswith("windows are sorted: 27.1 ms per system sorted, 0.1 of it for sorting, 30 as drawn")
    later, _ = windows_of(worth, WINDOWS_BETWEEN_TRIALS, drawn=0.03, sorted=0.027)
    assert all(later)
    again, sentences = windows_of(worth, 2 * NUM_PAIRS, drawn=0.03, sorted=0.031)
    assert sum(again) == NUM_PAIRS and worth.is_kept is False
    assert sentences[0].startswith("windows are solved as drawn")


def test_sorting_counts_in_what_it_costs():
    for sort, is_kept in ((1e-5, True), (2.1e-4, False)):
        worth = Worth()
        windows_of(worth, 1 + 2 * NUM_PAIRS, drawn=0.03, sorted=0.0298, sort=sort)
        assert worth.is_kept is is_kept


def test_no_window_is_sorted_beyond_the_budget():
    for solve in (1e-3, 0.03, 1.0):
        for share in (0.2, 0.35, 0.6, 2.0):
            worth = Worth()
            sort = share * BUDGET_FRACTION * solve
            is_sorted, sentences = windows_of(worth, 50, drawn=solve, sorted=0.8 * solve, sort=sort)
            if any(is_sorted):
                assert sort <= 0.02 * 0.8 * solve and worth.is_kept
            else:
                assert sort > 0.005 * solve and worth.is_kept is False and "sorting would take" in sentences[0]
            assert any(is_sorted) == (share < 0.45)


def test_sorting_stops_when_solves_become_too_quick_for_it():
    worth = Worth()
    windows_of(worth, 20, drawn=0.03, sorted=0.02)
    assert worth.next_is_sorted
    windows_of(worth, 1, drawn=1e-3, sorted=1e-3)
    assert not worth.next_is_sorted


def test_nothing_is_sorted_before_its_cost_is_known():
    worth = Worth()
    for _ in range(5):
        assert worth.record(1.0, None, is_sorted=False) is None
        assert not worth.next_is_sorted and worth.is_kept is None


def order_by(sorter, features, *, gains_from_order=True, solve_seconds=100.0):
    systems = list(range(len(features)))
    sorter.begin(systems, gains_from_order=gains_from_order)
    for system in systems:
        sorter.add(system, {"features": features[system]})
    order = sorter.order()
    sorter.end(solve_seconds)
    return order


def sorter_of(sort):
    return Sorter(sort, lambda parameters: parameters["features"], "training")


def test_forced_orders():
    features = np.random.default_rng(0).standard_normal((2, 30, 4))
    plain, published = sorter_of(False), sorter_of(True)
    last = None
    for window in features:
        assert order_by(plain, window) == list(range(30))
        order = order_by(published, window, gains_from_order=False)
        assert order == brute_force(window, last)
        last = window[order[-1]]


def test_strategies_that_use_no_other_system_are_never_sorted_for():
    calls = []

    def features(parameters):
        calls.append(parameters)
        return np.zeros(3)

    sorter = Sorter("auto", features, "training")
    for _ in range(2 + 2 * NUM_PAIRS):
        assert order_by(sorter, np.zeros((5, 3)), gains_from_order=False) == list(range(5))
    assert calls == []


def test_windows_take_turns_until_it_is_decided(caplog):
    caplog.set_level("INFO")
    generator = np.random.default_rng(0)
    sorter, changed = sorter_of("auto"), []
    for _ in range(1 + 2 * NUM_PAIRS):  # a window that was sorted is solved in no time
        order = order_by(
            sorter, generator.standard_normal((20, 4)), solve_seconds=50.0 if changed[-1:] == [2] else 100.0
        )
        changed.append(order != list(range(20)))
    assert sum(changed) == NUM_PAIRS
    assert len(caplog.messages) == 1 and "of a random pair's distance" in caplog.messages[0]


def test_a_sorted_window_goes_on_from_the_last_system_of_a_drawn_one():
    generator = np.random.default_rng(0)
    sorter = sorter_of("auto")
    windows = generator.standard_normal((3, 20, 4))
    orders = [order_by(sorter, window) for window in windows]
    assert orders[:2] == [list(range(20))] * 2
    assert orders[2] == brute_force(windows[2], windows[1][-1])


def test_features_that_cannot_be_compared_are_refused():
    sorter = sorter_of(True)
    sorter.begin([0, 1, 2, 3], gains_from_order=True)
    sorter.add(0, {"features": [1.0, 2.0]})
    with pytest.raises(ValueError, match=r"features have shape \(3,\), those before \(2,\)"):
        sorter.add(1, {"features": [1.0, 2.0, 3.0]})
    with pytest.raises(ValueError, match="not finite"):
        sorter.add(2, {"features": [1.0, np.nan]})
    sorter.add(3, {"features": [0.0, 0.0]})
    assert sorter.order() == [0, 3]
