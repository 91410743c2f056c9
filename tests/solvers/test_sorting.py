import numpy as np

from penstock.solvers.sorting import greedy_order


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


def test_follows_the_nearest_neighbour():
    generator = np.random.default_rng(0)
    features = 1e3 + generator.standard_normal((60, 5))
    assert greedy_order(features) == brute_force(features, None)
    start = 1e3 + generator.standard_normal(5)
    assert greedy_order(features, start) == brute_force(features, start)


def test_points_on_a_line_are_visited_in_turn():
    positions = np.array([3.0, 0.0, 4.0, 1.0, 2.0])[:, None]
    assert greedy_order(positions, np.array([-1.0])) == [1, 3, 4, 0, 2]


def test_equal_systems_are_all_visited_once():
    assert greedy_order(np.ones((4, 3))) == [0, 1, 2, 3]


def test_windows_of_none_and_one():
    assert greedy_order(np.empty((0, 3))) == []
    assert greedy_order(np.ones((1, 3)), np.zeros(3)) == [0]


def test_shortens_the_path():
    features = np.random.default_rng(1).standard_normal((200, 2))
    steps = np.linalg.norm(np.diff(features, axis=0), axis=1).sum()
    sorted_steps = np.linalg.norm(np.diff(features[greedy_order(features)], axis=0), axis=1).sum()
    assert sorted_steps < 0.2 * steps
