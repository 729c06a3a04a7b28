"""Photographs and brackets as samples: what is drawn, that it repeats, and what happens to bad files."""

import csv
import dataclasses
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from utils.fusing.fusion import Fuser
from utils.fusing.tiles import on_device
from utils.pictures.image import read_image
from utils.pictures.pixels import eight_bits, luma
from utils.pictures.scenes import Scene, read_pairs
from utils.stack.response import fit_response
from utils.training import augment
from utils.training import dataset as data
from utils.training.dataset import BracketStacks, Draws, Fusing, Photographs, SimulatedPairs, WholePairs


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
    """Three scenes of five shots, of mean luminances of about .1, .3, .3 (twins), .5 and .7."""
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
    assert all(len({common for _, _, common in first[i : i + 4]}) == 1 for i in range(0, 24, 4))
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
    shown, sample, _ = Photographs(paths, crop_size=32)[(2, 0, 0)]
    assert sample.shape == (1, 1, 32, 32) and sample.dtype == torch.float32
    assert torch.equal(shown, sample)
    gray = cv2.cvtColor(cv2.imread(paths[2]), cv2.COLOR_BGR2GRAY)
    matches = []  # the crop is found again, to 8-bit rounding, in one of the symmetries
    for k in range(4):
        for turned in (np.rot90(sample[0, 0], k), np.rot90(sample[0, 0], k).T):
            template = np.rint(turned * 255).astype(np.uint8)
            matches.append(cv2.matchTemplate(gray, template, cv2.TM_SQDIFF).min() / 32**2)
    assert min(matches) < 1


def test_rgb_photographs_are_in_the_order_of_rgb_networks(tmp_path):
    cv2.imwrite(str(tmp_path / "red.png"), np.full((50, 50, 3), (0, 0, 255), np.uint8))  # BGR
    sample = Photographs([str(tmp_path / "red.png")], crop_size=32, image_channels=3)[(0, 0, 0)].judges
    assert sample.shape == (1, 3, 32, 32) and sample.mean((0, 2, 3)).tolist() == [1, 0, 0]


@pytest.mark.parametrize("simulate", [True, False])
def test_samples_do_not_depend_on_the_workers(photographs, simulate):
    samples = Photographs(data.find_photographs([photographs]), 32, fusing=Fusing() if simulate else None)
    one, two = (
        list(DataLoader(samples, 3, sampler=Draws(6, 9, 1, 3), collate_fn=data.stack_alike, num_workers=workers))
        for workers in (0, 2)
    )
    for batch, again in zip(one, two, strict=True):
        assert sum(len(group.exposures) for group in batch) == sum(len(group.name.split("\n")) for group in batch) == 3
        for a, b in zip(batch, again, strict=True):
            assert torch.equal(a.exposures, b.exposures) and torch.equal(a.judges, b.judges) and a[2:] == b[2:]
    assert len(one) == 3


def test_scenes_of_a_batch_give_alike_samples(tmp_path):
    """Sizes of nearly the same proportions, lying and upright."""
    scenes = []
    for name, (height, width) in {"a": (356, 536), "b": (324, 484), "c": (612, 408), "d": (200, 300)}.items():
        scenes += ramp_scene(tmp_path / name, height, width)
    samples = BracketStacks(scenes, 192, fusing=Fusing(exposures=0))
    batches = [data.stack_alike([samples[(item, item, common)] for item in range(4)]) for common in range(30)]
    assert sum(len(batch) == 1 for batch in batches) > 15  # a border of rounding can lie between them
    assert len({group.exposures.shape for batch in batches for group in batch}) > 10


def test_batches_stack_what_is_alike_and_lose_nothing(photographs):
    samples = Photographs(data.find_photographs([photographs]), 32, fusing=Fusing(exposures=5))
    drawn = [samples[(seed % 6, seed, seed)]._replace(name=str(seed)) for seed in range(60)]
    groups = data.stack_alike(drawn + drawn[:20])  # some of one shape are sure to be among them
    kinds = [(*group.exposures.shape[1:], *group.judges.shape[1:]) for group in groups]
    assert len(set(kinds)) == len(kinds) > 10
    names = [group.name.split("\n") for group in groups]
    assert sorted(map(int, sum(names, []))) == sorted([*range(60), *range(20)])
    for group, numbers in zip(groups, names, strict=True):
        for name, exposures, judges in zip(numbers, group.exposures, group.judges, strict=True):
            sample = drawn[int(name)]
            assert torch.equal(exposures, sample.exposures) and torch.equal(judges, sample.judges)


def test_small_photographs_are_enlarged_and_tiny_ones_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "small.png"), picture(np.random.default_rng(0), 20, 30))
    paths = data.find_photographs([tmp_path])
    assert Photographs(paths, crop_size=64)[(0, 0, 0)].judges.shape == (1, 1, 64, 64)
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
        assert Photographs(paths, 32)[(broken, 0, 0)].judges.shape == (1, 1, 32, 32)


def test_folders_without_pictures_say_what_was_searched_for(tmp_path):
    for search in (data.find_photographs, data.read_brackets):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            search([tmp_path / "nowhere"])
        with pytest.raises(FileNotFoundError, match=r"looked for.*\.jpg"):
            search([tmp_path])


def test_simulated_stacks_are_judged_by_what_is_hidden(photographs):
    paths = data.find_photographs([photographs])
    counts = Counter()
    for seed in range(40):
        shown, judges, *_ = Photographs(paths, 32, fusing=Fusing())[(seed % 6, seed, seed)]
        counts[len(shown)] += 1
        assert len(judges) == data.JUDGES
        given = sum(any(torch.equal(judge, shot) for shot in shown) for judge in judges)
        assert given == min(len(shown), data.JUDGES - 1)  # at least one is hidden
        shown, judges, *_ = Photographs(paths, 32, fusing=Fusing(hidden=False))[(seed % 6, seed, seed)]
        assert torch.equal(shown, judges)
    assert counts.keys() == set(augment.SHOTS)


def test_a_photograph_judges_its_simulated_shots(photographs, monkeypatch):
    def flat(y, stops, rng):
        return np.stack([np.full(y.shape, round(128 + 20 * stop), np.uint8) for stop in stops])

    monkeypatch.setattr(data, "simulate_shots", flat)
    paths = data.find_photographs([photographs])
    for seed in range(10):
        judges = (Photographs(paths, 64, fusing=Fusing())[(seed % 6, seed, seed)].judges[:, 0, 0, 0] * 255).round()
        assert judges[2] == 128 and judges[0] == judges.min() < 128 < judges.max() == judges[1]


def wide_pair():
    """A pair 5 stops apart, (H, W) uint8, with noise."""
    y = cv2.resize(np.random.default_rng(0).random((9, 12)), (80, 60)) * 0.8 + 0.2
    return [np.rint(255 * np.clip(y * gain, 0, 1) ** (1 / 2.2)).astype(np.uint8) for gain in (1 / 32, 1)]


@pytest.mark.parametrize("exposures", [5, 4, 0])
@pytest.mark.parametrize("colours", [False, True])
def test_a_wide_pair_is_seen_as_when_it_is_fused(pyramid, monkeypatch, exposures, colours):
    pyramid.arch = dataclasses.replace(pyramid.arch, exposures=exposures, decision_pixels=10_000)
    fuser, pair, given = Fuser(on_device(pyramid)), wide_pair(), []
    if colours:
        pair = [np.dstack([y, y // 2, y // 3 * 2]) for y in pair]
    decide = fuser.network.decide
    monkeypatch.setattr(fuser.network, "decide", lambda shown: decide(given.append(shown) or shown))
    fuser.fuse(pair)
    shown, judges, name = Fusing(exposures).sample(pair, [pair[1]], "a")
    assert len(shown) == (exposures or 2) and name == "a"
    np.testing.assert_allclose(shown[:, 0].numpy(), given[0], atol=1e-6)
    assert len(judges) == 1 and np.abs(judges[0, 0].numpy() - luma(pair[1])).max() == 0


def test_with_no_number_the_shots_are_shown_as_they_are_and_nothing_virtual_judges():
    pair = wide_pair()
    shown, *_ = Fusing().sample(pair, pair)
    assert np.array_equal(np.rint(shown[:, 0].numpy() * 255), pair)
    shown, judges, *_ = Fusing(5, hidden=False).sample(pair, [])
    assert len(shown) > 2 and np.array_equal(np.rint(judges[:, 0].numpy() * 255), pair)


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
    for room, expected in ((0, 0), (7 * 3 * size / 1e6, 7)):
        partly = data.read_brackets([scenes], cache_mb=room)
        assert sum(y is not None for b in partly for y in b.cached) == expected
        draws = [(i % 3, i, i) for i in range(6)]
        full, part = BracketStacks(brackets, 32), BracketStacks(partly, 32)
        assert all(torch.equal(a, b) for draw in draws for a, b in zip(full[draw][:2], part[draw][:2], strict=True))


def test_stacks_share_crop_and_symmetry(scenes, monkeypatch):
    samples = BracketStacks(data.read_brackets([scenes]), 32)
    numbers = set()
    for seed in range(30):
        sample, judges, name = samples[(seed % 3, seed, seed)]
        numbers.add(len(sample))
        assert name == str(scenes / "abc"[seed % 3]) and len(judges) == 5 < data.JUDGES
        steps = torch.cat([sample[1:], judges]) - sample[:1]
        assert steps[0].min() > 0.1 and (steps.amax((2, 3)) - steps.amin((2, 3))).max() < 2.5 / 255
    assert numbers == {2, 3, 4, 5}  # of six to be fused there are five


def ramp_scene(folder, height, width):
    """Writes a scene whose luminance tells the column: 0 to 100, and 100 more."""
    folder.mkdir(parents=True)
    ramp = np.tile(np.linspace(0, 100, width).round().astype(np.uint8), (height, 1))
    for number in (0, 1):
        cv2.imwrite(str(folder / f"{number}.png"), ramp + 100 * number)
    return data.read_brackets([folder])


@pytest.mark.parametrize("height, width", [(600, 800), (800, 600)])
def test_most_stacks_show_the_whole_scene_in_its_proportions(tmp_path, monkeypatch, height, width):
    samples = BracketStacks(ramp_scene(tmp_path / "a", height, width), 192, fusing=Fusing(exposures=0))
    whole = []
    for seed in range(200):
        shown, judges, _ = samples[(0, seed, seed)]
        over = shown[1, 0]
        if over.mean(0).std() < over.mean(1).std():
            over = over.T  # the ramp lies again
        tall, wide = over.shape
        whole.append((over.max() - over.min()).item() * 255 / 100 > 0.93)
        assert judges.shape[1:] == shown.shape[1:] and len(shown) == len(judges) == 2  # of more to be fused: all
        step = augment.random_shape(192, np.random.default_rng(seed)).multiple
        assert tall % step == wide % step == 0 and step > 10
        assert abs(tall * width - wide * height) <= step / 2 * (width + height)
        rounding = step * (tall + wide)
        assert 192**2 / 4 - rounding <= tall * wide <= 192**2 + rounding
    assert np.mean(whole) == pytest.approx(augment.WHOLE, abs=0.1)


@pytest.mark.parametrize("height, width", [(100, 600), (600, 100)])
def test_of_panoramas_windows_of_two_to_one(tmp_path, height, width):
    cv2.imwrite(str(tmp_path / "panorama.png"), np.zeros((height, width, 3), np.uint8))
    photographs = Photographs([str(tmp_path / "panorama.png")], 64, fusing=Fusing(exposures=0))
    brackets = BracketStacks(ramp_scene(tmp_path / "a", height, width), 64, fusing=Fusing(exposures=0))
    for samples in (photographs, brackets):
        for seed in range(30):
            shown, *_ = samples[(0, seed, seed)]
            short, long = sorted(shown.shape[2:])
            assert abs(long - 2 * short) <= 1.5 * augment.random_shape(64, np.random.default_rng(seed)).multiple


def test_stacks_of_brackets_are_merged(scenes):
    brackets = data.read_brackets([scenes])
    for seed in range(30):
        bare = BracketStacks(brackets, 48, fusing=Fusing(exposures=0))[(seed % 3, seed, seed)]
        full = BracketStacks(brackets, 48, fusing=Fusing(exposures=5))[(seed % 3, seed, seed)]
        assert len(full.exposures) == 5 and torch.equal(full.judges, bare.judges)
        shots = [np.rint(shot[0].numpy() * 255).astype(np.uint8) for shot in bare.exposures]  # they are gray
        expected = fit_response(shots).expose(shots, 5)
        assert np.abs(full.exposures[:, 0].numpy() - expected).max() < 0.04  # the shots here are rounded to levels


def test_brackets_are_judged_by_what_is_hidden(scenes, monkeypatch):
    monkeypatch.setattr(data, "UNDER", (0.05, 0.35))
    monkeypatch.setattr(data, "OVER", (0.4, 0.8))
    brackets = data.read_brackets([scenes])
    hidden = beyond = 0
    for seed in range(30):
        shown, judges, *_ = BracketStacks(brackets, 32)[(seed % 3, seed, seed)]
        low, high = shown[0].mean() + 1e-6, shown[1].mean() - 1e-6
        means = judges.mean((1, 2, 3))
        assert means[0] <= low and means[-1] >= high and (means.diff() >= -1e-6).all()
        beyond += bool(means[0] < low - 0.01 or means[-1] > high + 0.01)
        hidden += not all(any(torch.equal(judge, shot) for shot in shown) for judge in judges)
        shown, judges, *_ = BracketStacks(brackets, 32, fusing=Fusing(hidden=False))[(seed % 3, seed, seed)]
        assert torch.equal(shown, judges)
    assert hidden > 15 and beyond > 5  # the others are the scene's widest pairs, or whole stacks


def test_photographs_join_the_brackets(scenes, tmp_path):
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((40, 40, 3), np.uint8))
    black = Photographs([str(tmp_path / "black.png")], 32, fusing=Fusing())
    samples = BracketStacks(data.read_brackets([scenes]), 32, black)
    drawn = [samples[(seed % 3, seed, seed)] for seed in range(200)]
    share = np.mean([sample.exposures.mean().item() < 0.05 for sample in drawn])
    assert abs(share - data.SIMULATED) < 0.12


def test_photographs_beside_brackets_are_cut_everywhere_at_any_scale(scenes, monkeypatch):
    def spy(height, width, size, rng, zoom):
        rows, columns = window(height, width, size, rng, zoom)
        if height == 400:
            photographed.append(((rows.stop - rows.start) / 400, rows.start))
        return rows, columns

    window, photographed = augment.random_window, []
    monkeypatch.setattr(augment, "random_window", spy)
    monkeypatch.setattr(data, "SIMULATED", 0.5)
    monkeypatch.setattr(augment, "WHOLE", 0.5)
    cv2.imwrite(str(scenes.parent / "photo.png"), np.zeros((400, 500), np.uint8))
    photo = Photographs([str(scenes.parent / "photo.png")], 32, fusing=Fusing())
    samples = BracketStacks(data.read_brackets([scenes]), 32, photo)
    for seed in range(200):
        samples[(seed % 3, seed, seed)]
    shares, tops = zip(*photographed, strict=True)
    assert min(shares) < 0.1 and max(shares) > 0.9 and max(tops) > 200


@pytest.mark.parametrize("name", ["brackets", "photographs"])
def test_patches_are_squares_of_own_pixels_of_as_many_shots_as_asked(scenes, photographs, monkeypatch, name):
    windows, window = [], augment.random_window
    monkeypatch.setattr(augment, "random_window", lambda *of, **how: windows.append(window(*of, **how)) or windows[-1])
    if name == "brackets":
        samples = BracketStacks(data.read_brackets([scenes]), 24, fusing=Fusing(shots=[2], patches=True))
    else:
        samples = Photographs(data.find_photographs([photographs]), 24, fusing=Fusing(shots=[3], patches=True))
    for seed in range(20):
        shown = samples[(seed % 3, seed, seed)].exposures
        assert shown.shape == (2 if name == "brackets" else 3, 1, 24, 24)
    assert (
        {rows.stop - rows.start for rows, _ in windows}
        == {columns.stop - columns.start for _, columns in windows}
        == {24}
    )
    assert len({rows.start for rows, _ in windows}) > 5


def test_drawn_pairs_are_dark_and_bright_but_not_always_the_extremes():
    rng = np.random.default_rng(0)
    means = [0.05, 0.1, 0.2, 0.45, 0.7, 0.85, 0.98]
    draws = [tuple(data.draw_shots(means, 4, rng)) for _ in range(1000)]
    assert all(len(set(draw)) == 4 for draw in draws) and len(data.draw_shots(means, 9, rng)) == 7
    assert {draw[:2] for draw in draws} == {(i, j) for i in (0, 1, 2) for j in (4, 5, 6)}
    assert {draw[2] for draw in draws} == set(range(7))
    for means in ([0.05, 0.15, 0.2], [0.7, 0.75, 0.8]):  # all dark, all bright: never a shot with its like
        assert {tuple(data.draw_shots(means, 2, rng)) for _ in range(200)} <= {(0, 2), (0, 1)}


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
    assert (name, len(judges)) == ("b", 5)
    expected = cv2.cvtColor(cv2.imread(str(scenes / "b" / "1.png")), cv2.COLOR_BGR2GRAY)
    assert under.dtype == np.uint8 and under.shape == (90, 120, 3) and under.mean() < over.mean()
    assert np.abs(eight_bits(luma(under)).astype(int) - expected).max() <= 1
    assert [judge.mean() for judge in judges] == [
        eight_bits(luma(read_image(path))).mean() for path in sorted((scenes / "b").iterdir())
    ]
    ((_, pair, judges),) = WholePairs(read_pairs(scenes, table), hidden=False)
    assert all(np.array_equal(eight_bits(luma(shot)), judge) for shot, judge in zip(pair, judges, strict=True))
    assert len(judges) == 2
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
    assert all(shot.shape[:2] == (40, 512) for shot in (*pair, *judges))


def test_simulated_validation_pairs_repeat(photographs):
    (photographs / "broken.jpg").write_text("no picture")
    pairs = SimulatedPairs([*enumerate(data.find_photographs([photographs]))], seed=0)
    with pytest.warns(UserWarning, match="broken.jpg"):
        first = list(pairs)
    with pytest.warns(UserWarning):
        second = list(pairs)
    assert len(first) == 6
    for (_, pair, judges), (_, again, judges_again) in zip(first, second, strict=True):
        assert all(map(np.array_equal, [*pair, *judges], [*again, *judges_again]))
        assert np.array_equal(pair[0], judges[0]) and len(judges) == 3 and not np.array_equal(judges[1], pair[1])
