"""Random squares, symmetries, shapes of batches, simulated shots, gaps that are filled."""

import numpy as np
import pytest

from utils import util_augment as augment
from utils.util_exposure import complete
from utils.util_image import to_float


def test_batches_of_exposures_have_every_number_and_size():
    shapes = [augment.batch_shape(256, seed) for seed in range(600)]
    assert {shape.shots for shape in shapes} == set(augment.STACKS)
    assert sum(shape.shots == 2 for shape in shapes) > 300
    assert all(shape.side % shape.factor == 0 for shape in shapes)
    assert not any(shape.filled for shape in shapes if shape.shots >= 4)
    assert {shape.filled for shape in shapes if shape.shots < 4} == {0, 1, 2}
    for factor in augment.FACTORS:
        sides = [shape.side for shape in shapes if shape.factor == factor]
        largest = 256 if factor > 1 else 128
        assert min(sides) in range(largest // 2, largest // 2 + 8) and max(sides) in range(largest - 8, largest + 1)
    for seed, shape in enumerate(shapes[:200]):  # the paper's networks: neither smaller decisions nor virtual exposures
        paper = augment.batch_shape(256, seed, pyramid=False)
        assert (paper.shots, paper.filled, paper.factor) == (shape.shots, 0, 1) and 128 <= paper.side <= 256


@pytest.mark.parametrize("zoom", [True, False])
def test_window_lies_inside_and_reaches_everywhere(zoom):
    rng = np.random.default_rng(0)
    windows = [augment.random_window(40, 60, 16, rng, zoom) for _ in range(3000)]
    sides = {rows.stop - rows.start for rows, _ in windows}
    assert all(w[0].stop - w[0].start == w[1].stop - w[1].start for w in windows)
    assert (min(sides), max(sides)) == (16, 40 if zoom else 16)
    assert min(w[0].start for w in windows) == min(w[1].start for w in windows) == 0
    assert max(w[0].stop for w in windows) == 40 and max(w[1].stop for w in windows) == 60


def test_symmetries_are_the_eight_of_the_square():
    rng = np.random.default_rng(0)
    square = np.arange(9).reshape(3, 3)
    seen = {augment.random_symmetry(square, rng).tobytes() for _ in range(200)}
    assert seen == {np.rot90(s, k).tobytes() for s in (square, square.T) for k in range(4)}


def test_simulated_shots_are_so_much_brighter_in_8_bits():
    rng = np.random.default_rng(0)
    y = rng.random((40, 50)).astype(np.float32)
    for seed in range(20):
        stops = augment.simulated_stops(2 + seed % 3, np.random.default_rng(seed))
        assert -4 <= stops[0] <= -0.5 and 0.5 <= stops[1] <= 3
        assert all(stops[0] < between < stops[1] for between in stops[2:])
        shots = augment.simulate_shots(y, [*stops, 0.0], np.random.default_rng(seed))
        assert shots.shape == (len(stops) + 1, 40, 50) and shots.dtype == np.uint8
        assert np.argsort(shots.mean((1, 2))).tolist() == np.argsort([*stops, 0.0]).tolist()


@pytest.mark.parametrize("positions, max_gap", [(1, 4), (2, 1.2)])
def test_the_widest_gap_is_filled_as_for_fusing(positions, max_gap):
    y = np.random.default_rng(0).integers(60, 200, (48, 48), dtype=np.uint8)
    shots = [y // 2 + 100, y // 8 + 10, y // 6 + 12]  # the darker two are near each other
    filled = augment.fill_widest_gap(shots, positions)
    expected = [one.apply(shots[one.shot]) for one in complete([to_float(shot) for shot in shots], max_gap)]
    assert len(filled) == len(expected) == 3 + 2 * positions
    assert all(map(np.array_equal, filled, expected))


def test_wide_pictures_are_shrunk_by_area():
    y = np.random.default_rng(0).integers(0, 256, (80, 1024), dtype=np.uint8)
    expected = y.reshape(40, 2, 512, 2).mean((1, 3))
    assert np.abs(augment.narrow(y) - expected).max() <= 0.5
    assert np.array_equal(augment.narrow(y[:, :512]), y[:, :512])
    assert augment.narrow(np.zeros((900, 600, 3), np.uint8)).shape == (768, 512, 3)
