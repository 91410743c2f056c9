"""The order in which the systems of a window are solved."""

from __future__ import annotations

import numpy as np


def greedy_order(features: np.ndarray, start: np.ndarray | None = None) -> list[int]:
    """Greedy nearest neighbours: from one system always to the nearest that is left (SKR's Algorithm 1, Wang et al.,
    ICLR 2024, arXiv 2401.09516).

    features: [N, F], one row a system; distances are Euclidean. O(N² F) time, O(N F) memory.
    start: [F] the last system solved; the order begins with the system nearest to it, and with system 0 without it.
    """
    if len(features) == 0:
        return []
    # ||f - c||² - ||c||² = ||f||² - 2 f·c needs no [N, F] temporary a step; centring keeps its cancellation small.
    centre = features.mean(axis=0)
    features = features - centre
    squares = np.einsum("nf,nf->n", features, features)
    left = np.ones(len(features), dtype=bool)
    current = features[0] if start is None else start - centre
    order: list[int] = []
    for _ in range(len(features)):
        distances = np.where(left, squares - 2 * (features @ current), np.inf)
        nearest = 0 if start is None and not order else int(np.argmin(distances))
        order.append(nearest)
        left[nearest] = False
        current = features[nearest]
    return order
