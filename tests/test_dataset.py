"""Photographs and brackets as samples: what is drawn, that it repeats, and what happens to bad files."""

import csv
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from utils import util_augment as augment
from utils import util_dataset as data
from utils.util_dataset import BracketStacks, Draws, Photographs, SimulatedPairs, WholePairs
from utils.util_exposure import complete
from utils.util_image import read_image, to_float
from utils.util_scenes import Scene, read_pairs


def picture(rng, height=90, width=120):
    """A smooth BGR picture, uint8."""
    return cv2.resize(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def photographs(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "train2014" / "deeper").mkdir(parents=True)
    for i in range(6):
        folder = tmp_path / "train2014" / ("deeper" if i % 2 else "")
        cv2.imwrite(str(folder / f"{i}.png"), picture(rng))
    return tmp_path / "train2014"


@pytest.fixture
def scenes(tmp_path):
    """Three scenes of four shots, of mean luminances of about .1, .3, .5 and .7, the second shot a twin."""
    rng = np.random.default_rng(1)
    for name in ("a", "b", "c"):
        folder = tmp_path / "scenes" / name
        folder.mkdir(parents=True)
        texture = picture(rng) // 8
        for number, base in enumerate((180, 75, 77, 20, 120)):  # not in the order of brightness
            cv2.imwrite(str(folder / f"{number}.png"), texture + base)
    return tmp_path / "scenes"


def test_draws_use_every_item_alike_and_repeat():
    draws = Draws(items=7, samples=24, seed=3, batch_size=4)
    draws.epoch = 5
    first = list(draws)
    counts = Counter(item for item, *_ in first)
    assert len(first) == len(draws) == 24 and set(counts.values()) == {3, 4}
    assert first == list(draws)
    draws.epoch = 6
    assert first != list(draws)
    assert sorted(item for item, *_ in Draws(7, 0, 3)) == list(range(7))
    assert [len(set(seeds)) for seeds in zip(*first, strict=True)] == [7, 24, 6]
    batches = [batch for *_, batch in first]
    assert all(len(set(batches[i : i + 4])) == 1 for i in range(0, 24, 4))
    assert len(list(Draws(7, 22, 3, 4))) == len(Draws(7, 22, 3, 4)) == 24  # whole batches


def test_draws_go_on_after_an_interruption_and_are_shared_out():
    draws = Draws(items=7, samples=24, seed=3, batch_size=4)
    whole = list(draws)
    draws.done = 2
    assert list(draws) == whole[8:] and len(draws) == 16
    shares = [Draws(7, 24, 3, 4, rank, ranks=2) for rank in range(2)]
    for share in shares:
        share.done = 2
    assert [len(share) for share in shares] == [8, 8]
    for first in range(0, 8, 2):  # of each batch of four, two each
        batch = [draw for share in shares for draw in list(share)[first : first + 2]]
        assert sorted(batch) == sorted(whole[8 + 2 * first : 12 + 2 * first])


def test_hold_out_splits_by_seed():
    train, held_out = data.hold_out(list("abcdefgh"), 3, seed=1)
    assert sorted(train + held_out) == list("abcdefgh") and len(held_out) == 3
    assert (train, held_out) == data.hold_out(list("abcdefgh"), 3, seed=1)
    with pytest.raises(ValueError, match="found 2 to train on, of which 2"):
        data.hold_out(["a", "b"], 2, seed=1)


def test_photographs_are_found_everywhere_and_cut_from_the_picture(photographs):
    paths = data.find_photographs([photographs])
    assert len(paths) == 6
    sample, judges, factor, _ = Photographs(paths, crop_size=32)[(2, 0, 0)]
    assert sample.shape == (1, 1, 32, 32) and sample.dtype == torch.float32 and len(judges) == 0 and factor == 1
    gray = cv2.cvtColor(cv2.imread(paths[2]), cv2.COLOR_BGR2GRAY)
    matches = []  # the crop is found again, to 8-bit rounding, in one of the symmetries
    for k in range(4):
        for turned in (np.rot90(sample[0, 0], k), np.rot90(sample[0, 0], k).T):
            template = np.rint(turned * 255).astype(np.uint8)
            matches.append(cv2.matchTemplate(gray, template, cv2.TM_SQDIFF).min() / 32**2)
    assert min(matches) < 1


def test_rgb_photographs_are_in_the_order_of_rgb_networks(tmp_path):
    cv2.imwrite(str(tmp_path / "red.png"), np.full((50, 50, 3), (0, 0, 255), np.uint8))  # BGR
    sample = Photographs([str(tmp_path / "red.png")], crop_size=32, image_channels=3)[(0, 0, 0)].exposures
    assert sample.shape == (1, 3, 32, 32) and sample.mean((0, 2, 3)).tolist() == [1, 0, 0]


@pytest.mark.parametrize("simulate", [True, False])
def test_samples_do_not_depend_on_the_workers(photographs, simulate):
    samples = Photographs(data.find_photographs([photographs]), 32, simulate=simulate)
    one, two = (list(DataLoader(samples, 3, sampler=Draws(6, 9, 1, 3), num_workers=workers)) for workers in (0, 2))
    assert len(one) == len(two) == 3
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a.exposures, b.exposures) and torch.equal(a.judges, b.judges)
        assert (
            torch.equal(a.factor, b.factor)
            and a.name == b.name
            and len(a.name) == 3
            and a.exposures.shape[:1] == a.judges.shape[:1] == (3,)
        )


def test_small_photographs_are_enlarged_and_tiny_ones_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "small.png"), picture(np.random.default_rng(0), 20, 30))
    paths = data.find_photographs([tmp_path])
    assert Photographs(paths, crop_size=64)[(0, 0, 0)].exposures.shape == (1, 1, 64, 64)
    with pytest.raises(ValueError, match="small.png is 30x20.*--crop_size"):
        Photographs(paths, crop_size=256)[(0, 0, 0)]


def test_unreadable_photograph_is_named_and_replaced(photographs):
    (photographs / "broken.jpg").write_text("no picture")
    (photographs / "empty.jpg").touch()
    (photographs / "gone.jpg").symlink_to("nowhere.jpg")
    paths = data.find_photographs([photographs])
    assert len(paths) == 8  # the empty file is no candidate
    broken = next(i for i, path in enumerate(paths) if "broken" in path)
    with pytest.warns(UserWarning, match="broken.jpg"):
        assert Photographs(paths, 32)[(broken, 0, 0)].exposures.shape == (1, 1, 32, 32)


def test_folders_without_pictures_say_what_was_searched_for(tmp_path):
    for search in (data.find_photographs, data.read_brackets):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            search([tmp_path / "nowhere"])
        with pytest.raises(FileNotFoundError, match=r"looked for.*\.jpg"):
            search([tmp_path])


def test_simulated_stacks_are_judged_by_what_is_hidden(photographs):
    paths = data.find_photographs([photographs])
    samples = Photographs(paths, 32, simulate=True)
    two = [seed for seed in range(99) if augment.batch_shape(32, seed)[:2] == (2, 0)]
    for seed in two[:8]:
        shown, judges, factor, _ = samples[(seed % 6, seed, seed)]
        assert len(shown) == 2 and len(judges) == data.JUDGES and factor == augment.batch_shape(32, seed).factor
        given = [any(torch.equal(judge, shot) for shot in shown) for judge in judges]
        assert sum(given) == 2  # the pair itself; the photograph and two shots between are hidden
    six = next(seed for seed in range(99) if augment.batch_shape(32, seed).shots == 6)
    shown, judges, *_ = samples[(0, 0, six)]
    assert len(shown) == len(judges) == 6 and not all(any(map(torch.equal, [j] * 6, shown)) for j in judges)
    for seed in two[:3]:
        shown, judges, *_ = Photographs(paths, 32, simulate=True, hidden=False)[(0, seed, seed)]
        assert torch.equal(shown, judges)


def test_wide_gaps_are_filled_as_for_fusing(photographs):
    filled = next(seed for seed in range(99) if augment.batch_shape(64, seed)[:2] == (2, 1))
    shape = augment.batch_shape(64, filled)
    y = cv2.imread(str(photographs / "0.png"), cv2.IMREAD_GRAYSCALE)[: shape.side, : shape.side]
    under, over = y // 5 + 14, y // 2 + 100
    shown, judges, *_ = data.fusion_sample([under, over], [y], shape, hidden=True)
    shots = [under, over]
    expected = [one.apply(shots[one.shot]) for one in complete([to_float(shot) for shot in shots], max_gap=3)]
    assert len(shown) == len(expected) == 4
    assert all(np.array_equal(np.rint(x[0].numpy() * 255), e) for x, e in zip(shown, expected, strict=True))
    assert len(judges) == 1 and np.array_equal(np.rint(judges[0, 0].numpy() * 255), y)
    shown, judges, *_ = data.fusion_sample(shots, [y], shape, hidden=False)
    assert len(shown) == 2 and torch.equal(shown, judges)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_window_of_a_large_jpeg_is_what_shrinking_shows(tmp_path, orientation):
    path = tmp_path / "large.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture(np.random.default_rng(0), 723, 1001)[..., ::-1]).save(path, quality=95, exif=exif)
    whole = read_image(path)
    size = whole.shape[:2]
    for length, decoded in ((704, 176), (500, 125), (398, 199), (180, 180)):  # to be shrunk to 100
        window = slice(20, 20 + length), slice(8, 8 + length)
        found = data.read_window(path, size, window, (100, 100))
        assert found.shape == (decoded, decoded, 3)
        expected = augment.resize_to(whole[window], (100, 100)).astype(int)
        assert np.abs(augment.resize_to(found, (100, 100)) - expected).mean() < 1.5
    assert np.array_equal(read_image(path, shrink=4).shape, [-(-pixels // 4) for pixels in size] + [3])


def test_brackets_are_sorted_and_cached_within_the_bound(scenes):
    brackets = data.read_brackets([scenes])
    assert [b.folder.name for b in brackets] == ["a", "b", "c"]
    assert [path.name for path in brackets[0].paths] == ["3.png", "1.png", "2.png", "4.png", "0.png"]
    assert list(brackets[0].means) == sorted(brackets[0].means)
    size = 90 * 120
    for room, expected in ((0, 0), (7 * size / 1e6, 7)):
        partly = data.read_brackets([scenes], cache_mb=room)
        assert sum(y is not None for b in partly for y in b.cached) == expected
        draws = [(i % 3, i, i) for i in range(6)]
        full, part = BracketStacks(brackets, 32), BracketStacks(partly, 32)
        assert all(torch.equal(a, b) for draw in draws for a, b in zip(full[draw][:2], part[draw][:2], strict=True))


def test_stacks_share_crop_and_symmetry(scenes, monkeypatch):
    monkeypatch.setattr(data, "HARDER", 0)  # unpushed, the shots differ by a constant
    monkeypatch.setattr(augment, "FILLED", [0])
    samples = BracketStacks(data.read_brackets([scenes]), 32)
    for seed in range(20):
        sample, judges, factor, _ = samples[(seed % 3, seed, seed)]
        shape = augment.batch_shape(32, seed)
        assert sample.shape == (shape.shots, 1, shape.side, shape.side) and factor == shape.factor
        assert samples[(seed % 3, seed, seed)].name == str(scenes / "abc"[seed % 3])
        assert judges.shape == (max(shape.shots, data.JUDGES), 1, shape.side, shape.side)
        steps = torch.cat([sample[1:5], judges]) - sample[:1]  # a sixth shot of five is simulated
        assert steps[0].min() > 0.1 and (steps.amax((2, 3)) - steps.amin((2, 3))).max() < 2.5 / 255


def test_brackets_are_judged_by_what_is_hidden(scenes, monkeypatch):
    monkeypatch.setattr(data, "HARDER", 0)
    brackets = data.read_brackets([scenes])
    hidden = beyond = 0
    for seed in range(30):
        shown, judges, *_ = BracketStacks(brackets, 32)[(seed % 3, seed, seed)]
        low, high = shown[0].mean() + 1e-6, shown[1].mean() - 1e-6
        means = judges.mean((1, 2, 3))
        assert means[0] <= low and means[-1] >= high and (means.diff() >= -1e-6).all()
        beyond += bool(means[0] < low - 0.01 or means[-1] > high + 0.01)
        hidden += not all(any(torch.equal(judge, shot) for shot in shown) for judge in judges)
        shown, judges, *_ = BracketStacks(brackets, 32, hidden=False)[(seed % 3, seed, seed)]
        assert torch.equal(shown, judges) and len(shown) == augment.batch_shape(32, seed).shots
    assert hidden > 15 and beyond > 5  # the others are the scene's widest pairs, or whole stacks


def test_pushed_pairs_are_further_apart_and_judged_as_shot(scenes, monkeypatch):
    samples, gaps, judged = BracketStacks(data.read_brackets([scenes]), 32), [], []
    for share in (0, 1):
        monkeypatch.setattr(data, "HARDER", share)
        drawn = [samples[(seed % 3, seed, seed)] for seed in range(20)]
        gaps.append([(sample.exposures[1].mean() - sample.exposures[0].mean()).item() for sample in drawn])
        judged.append([(sample.judges[-1].mean() - sample.judges[0].mean()).item() for sample in drawn])
    assert all(pushed > gap for gap, pushed in zip(*gaps, strict=True))
    assert judged[0] == pytest.approx(judged[1], abs=1e-6)


def test_photographs_join_the_brackets(scenes, tmp_path):
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((40, 40, 3), np.uint8))
    black = Photographs([str(tmp_path / "black.png")], 32, simulate=True)
    samples = BracketStacks(data.read_brackets([scenes]), 32, black)
    drawn = [samples[(seed % 3, seed, seed)] for seed in range(200)]
    assert all(sample.exposures.shape[2] == augment.batch_shape(32, seed).side for seed, sample in enumerate(drawn))
    share = np.mean([sample.exposures.mean().item() < 0.05 for sample in drawn])
    assert abs(share - data.SIMULATED) < 0.12


def test_photographs_beside_brackets_are_cut_everywhere_at_any_scale(scenes, monkeypatch):
    def spy(height, width, side, rng, zoom):
        rows, columns = window(height, width, side, rng, zoom)
        if height == 400:
            photographed.append(((rows.stop - rows.start) / 400, rows.start))
        return rows, columns

    window, photographed = data.random_window, []
    monkeypatch.setattr(data, "random_window", spy)
    cv2.imwrite(str(scenes.parent / "photo.png"), np.zeros((400, 500), np.uint8))
    photo = Photographs([str(scenes.parent / "photo.png")], 32, simulate=True)
    samples = BracketStacks(data.read_brackets([scenes]), 32, photo)
    for seed in range(200):
        samples[(seed % 3, seed, seed)]
    shares, tops = zip(*photographed, strict=True)
    assert min(shares) < 0.1 and max(shares) > 0.9 and max(tops) > 200


def test_missing_shots_are_simulated(scenes):
    for name in ("1.png", "2.png", "4.png"):
        (scenes / "a" / name).unlink()
    pair = data.read_brackets([scenes / "a"])[0]
    four = next(seed for seed in range(99) if augment.batch_shape(32, seed).shots == 4)
    sample = BracketStacks([pair], 32)[(0, 0, four)].exposures.mean((1, 2, 3))
    assert len(sample) == 4 and all(sample[0] < mean < sample[1] for mean in sample[2:])


def test_drawn_pairs_are_never_alike(scenes):
    rng = np.random.default_rng(0)
    means = data.read_brackets([scenes])[0].means
    draws = [tuple(data.draw_shots(means, 4, rng)) for _ in range(2000)]
    assert all(len(set(draw)) == 4 for draw in draws) and len(data.draw_shots(means, 9, rng)) == 5
    counts = Counter(draw[:2] for draw in draws)
    assert (1, 2) not in counts and len(counts) == 9 and all(i < j for i, j in counts)
    assert counts[0, 4] == max(counts.values())


def test_unusable_scenes_and_shots_are_named(scenes):
    grey = np.full((90, 120, 3), 100, np.uint8)
    for name, shots in {
        "single": [grey],
        "alike": [grey, grey + 18],  # 7 % of the range
        "sizes": [grey, cv2.resize(grey, (60, 60)) + 90],
        "tiny": [grey[:20] - 90, grey[:20]],
    }.items():
        (scenes / name).mkdir()
        for number, shot in enumerate(shots):
            cv2.imwrite(str(scenes / name / f"{number}.png"), shot)
    (scenes / "a" / "9.png").write_text("no picture")
    with pytest.warns(UserWarning) as caught:
        brackets = data.read_brackets([scenes])
    messages = " ".join(str(w.message) for w in caught)
    assert [b.folder.name for b in brackets] == ["a", "b", "c"] and len(brackets[0].paths) == 5
    for part in ("single: 1 readable", "alike: its exposures are alike", "such as (60, 60) and (120, 90)", "9.png"):
        assert part in messages
    assert "expected at least 44" in messages
    with pytest.raises(ValueError, match="too small for crops of 400"):
        BracketStacks(brackets, 400)


def test_validation_pairs(scenes, tmp_path):
    (under, over), *_ = [scene.paths for scene in data.pairs_of(data.read_brackets([scenes]))]
    assert (under.name, over.name) == ("3.png", "0.png")  # nearest to 45 and 180
    table = tmp_path / "pairs.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("scene", "under", "over", "note"), ("b", "1.png", "4.png", "x")])
    pairs = WholePairs(read_pairs(scenes, table))
    ((name, (under, over), judges),) = pairs
    assert (name, len(pairs), len(judges)) == ("b", 1, 5)
    expected = cv2.cvtColor(cv2.imread(str(scenes / "b" / "1.png")), cv2.COLOR_BGR2GRAY)
    assert under.dtype == np.uint8 and under.shape == (90, 120) and under.mean() < over.mean()
    assert np.abs(under.astype(int) - expected).max() <= 1
    assert [judge.mean() for judge in judges] == [
        data.luma8(read_image(path)).mean() for path in sorted((scenes / "b").iterdir())
    ]
    ((_, pair, judges),) = WholePairs(read_pairs(scenes, table), hidden=False)
    assert all(map(np.array_equal, pair, judges)) and len(judges) == 2
    cv2.imwrite(str(scenes / "b" / "small.png"), np.zeros((50, 60, 3), np.uint8))
    table.write_text("scene,under,over\nb,small.png,4.png\n")
    with pytest.raises(ValueError, match=r"0.png is \(120, 90\), expected the size of .*small.png, \(60, 50\)"):
        list(WholePairs(read_pairs(scenes, table)))
    table.write_text("scene,under,over\nb,1.png,99.png\n")
    with pytest.raises(FileNotFoundError, match="99.png: .* not there"):
        WholePairs(read_pairs(scenes, table))
    table.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="columns scene, under, over"):
        read_pairs(scenes, table)


def test_pictures_to_validate_on_are_bounded(tmp_path):
    for name in ("0.png", "1.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((80, 1024), np.uint8))
    paths = (tmp_path / "0.png", tmp_path / "1.png")
    ((_, pair, judges),) = WholePairs([Scene("a", paths, paths)])
    assert all(shot.shape == (40, 512) for shot in (*pair, *judges))


def test_simulated_validation_pairs_repeat(photographs):
    (photographs / "broken.jpg").write_text("no picture")
    pairs = SimulatedPairs(data.find_photographs([photographs]), seed=0)
    with pytest.warns(UserWarning, match="broken.jpg"):
        first = list(pairs)
    with pytest.warns(UserWarning):
        second = list(pairs)
    assert len(first) == 6
    for (_, pair, judges), (_, again, judges_again) in zip(first, second, strict=True):
        assert all(map(np.array_equal, [*pair, *judges], [*again, *judges_again]))
        assert np.array_equal(pair[0], judges[0]) and len(judges) == 3 and not np.array_equal(judges[1], pair[1])
