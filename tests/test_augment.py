"""Shapes of samples, random windows, symmetries, simulated shots."""

from collections import Counter

import numpy as np
import pytest

from run_train import OBJECTIVES
from utils.training import augment
from utils.training.loss import WINDOW


def test_shapes_have_every_number_and_size():
    rng = np.random.default_rng(0)
    shapes = [augment.random_shape(256, rng) for _ in range(2000)]
    for name, choices in (("shots", augment.SHOTS), ("upright", (False, True))):
        counts = Counter(getattr(shape, name) for shape in shapes)
        assert {value: pytest.approx(count / 2000, abs=0.05) for value, count in counts.items()} == {
            value: choices.count(value) / len(choices) for value in choices
        }
    shares = [(shape.side / 256) ** 2 for shape in shapes]
    assert 1 / 4 <= min(shares) < 1 / 3.8 and 0.95 < max(shares) <= 1


@pytest.mark.parametrize("multiple", [1, 4])
def test_sizes_keep_pixels_and_proportions_within_rounding(multiple):
    for height, width in ((400, 600), (600, 400), (500, 500), (300, 600)):
        for side in (60, 100.5, 187):
            tall, wide = augment.size_like(height, width, side, multiple)
            assert tall % multiple == wide % multiple == 0
            assert abs(tall * width - wide * height) <= multiple / 2 * (width + height)
            assert abs(tall * wide - side**2) <= multiple / 2 * (tall + wide + multiple)
    for height, width in ((100, 900), (900, 100)):  # panoramas: 2 to 1
        short, long = sorted(augment.size_like(height, width, 128, multiple))
        assert abs(long - 2 * short) <= 1.5 * multiple and (
            short == augment.size_like(height, width, 128, multiple)[height > width]
        )
    assert min(augment.size_like(100, 900, 2, multiple)) == multiple  # never nothing


@pytest.mark.parametrize("zoom", [True, False])
def test_window_lies_inside_and_reaches_everywhere(zoom, monkeypatch):
    monkeypatch.setattr(augment, "WHOLE", 0.5)
    rng = np.random.default_rng(0)
    windows = [augment.random_window(400, 600, (80, 120), rng, zoom) for _ in range(3000)]
    sizes = np.array([[part.stop - part.start for part in window] for window in windows])
    parts = [window for window, (tall, _) in zip(windows, sizes, strict=True) if tall < 200]
    for axis, side in enumerate((400, 600)):
        assert min(window[axis].start for window in parts) == 0
        assert side - 4 <= max(window[axis].stop for window in windows) <= side
        assert {window[axis].start // 50 for window in parts} >= set(range((side - 200) // 50))
    assert np.abs(sizes[:, 0] / sizes[:, 1] * 1.5 - 1).max() < 1 / 40
    whole = (sizes == (400, 600)).all(1)
    assert whole.mean() == pytest.approx(augment.WHOLE if zoom else 0, abs=0.03)
    others = sizes[~whole, 0]
    assert others.min() == 80 and np.median(others) == pytest.approx(80 * 5**0.5 if zoom else 80, rel=0.08)
    for window, (tall, _) in zip(windows, sizes, strict=True):  # a decoder may shrink it as a whole
        step = augment.reduction(tall, 80)
        assert step == (1 if tall < 160 else 2 if tall < 320 else 4)
        assert not any(edge % step for part in window for edge in (part.start, part.stop))


@pytest.mark.parametrize("zoom", [True, False])
def test_windows_of_smaller_pictures_are_as_large_as_these_allow(zoom):
    rng = np.random.default_rng(0)
    for height, width, expected in ((40, 60, (40, 60)), (40, 90, (40, 60)), (70, 60, (40, 60))):
        rows, columns = augment.random_window(height, width, (80, 120), rng, zoom)
        assert (rows.stop - rows.start, columns.stop - columns.start) == expected


def test_pictures_are_shrunk_by_area_and_grown_smoothly():
    y = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
    means = y.reshape(20, 2, 20, 3).mean((1, 3))
    assert np.abs(augment.resize_to(y, (20, 20)) - means).max() <= 0.5
    assert augment.resize_to(y, (40, 60)) is y
    ramp = np.tile(np.arange(0, 100, 10, dtype=np.uint8), (8, 1))
    assert augment.resize_to(ramp, (16, 20)).shape == (16, 20)
    assert np.abs(np.diff(augment.resize_to(ramp, (16, 20))[:, 3:-3].astype(int)) - 5).max() <= 1  # steps half as high


def test_symmetries_are_the_eight_of_the_square():
    rng = np.random.default_rng(0)
    square = np.arange(9).reshape(3, 3)
    seen = {augment.random_symmetry(square, rng).tobytes() for _ in range(200)}
    assert seen == {np.rot90(s, k).tobytes() for s in (square, square.T) for k in range(4)}


def test_symmetries_lie_or_stand_as_told():
    rng, lying = np.random.default_rng(0), np.arange(6).reshape(2, 3)
    for upright, expected in ((False, lying), (True, lying.T)):
        four = {expected[::a, ::b].tobytes() for a in (1, -1) for b in (1, -1)}
        for given in (lying, lying.T):
            turned = [augment.random_symmetry(given, rng, upright) for _ in range(100)]
            assert {one.shape for one in turned} == {expected.shape} and {one.tobytes() for one in turned} == four


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


def test_wide_pictures_are_shrunk_by_area():
    y = np.random.default_rng(0).integers(0, 256, (80, 1024), dtype=np.uint8)
    expected = y.reshape(40, 2, 512, 2).mean((1, 3))
    assert np.abs(augment.narrow(y) - expected).max() <= 0.5
    assert np.array_equal(augment.narrow(y[:, :512]), y[:, :512])
    assert augment.narrow(np.zeros((900, 600, 3), np.uint8)).shape == (768, 512, 3)


def test_samples_of_the_smallest_crops_have_room_for_the_window_of_the_loss():
    rng = np.random.default_rng(0)
    least = min(objective.least_crop for objective in (OBJECTIVES["mef"], OBJECTIVES["exposure"]))
    shapes = [augment.random_shape(least, rng) for _ in range(3000)]
    least = min(min(augment.size_like(100, 900, shape.side, shape.multiple)) for shape in shapes)
    assert WINDOW <= least <= 1.5 * WINDOW
