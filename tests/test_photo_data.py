"""Photos as batches: a pure function of seed and step, from any folder, whatever stands in it."""

from __future__ import annotations

import hashlib
import logging
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import bad_files
from PIL import Image
from torch.utils.data import DataLoader

from impasto.errors import PictureError, WrongCall
from impasto.training import PhotoData
from impasto.training.data import HeldOutPhotos
from impasto.training.photos import (
    PhotoBatches,
    PhotoCache,
    centre_crop,
    find_photos,
    first_good,
    flat_picture,
    hold_out,
    random_crop,
    resize_by_torch,
)


def write_photos(folder: Path, count: int, size: tuple[int, int] = (40, 56)) -> list[Path]:
    """Photos of one grey each: photo i is (20 + 10 i) everywhere, so a crop says which photo it is of."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:02d}.png" for i in range(count)]
    for i, path in enumerate(paths):
        Image.fromarray(np.full((*size, 3), 20 + 10 * i, np.uint8)).save(path)
    return paths


def make(
    photos: list[Path],
    batch: int = 2,
    seed: int = 0,
    close: float = 0.0,
    flat: float = 0.0,
    size: int = 16,
    device: torch.device | None = None,
) -> PhotoBatches:
    return PhotoBatches(photos, size, batch, seed, length=1000, close=close, flat=flat, megabytes=16, device=device)


def photos_of(batches: PhotoBatches, steps: int) -> list[int]:
    """Which photo each picture is of, step by step."""
    values = torch.cat([batches[step].flatten(1).mean(1) for step in range(steps)])
    return ((values * 255 - 20) / 10).round().int().tolist()


@pytest.fixture
def textured(tmp_path: Path) -> list[Path]:
    """Photos in which any two crops differ."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "textured"
    folder.mkdir()
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (48, 40 + i, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return find_photos([folder])


# a pure function of seed and step


def digest(batches: PhotoBatches, steps: range) -> str:
    return hashlib.sha256(b"".join(batches[step].numpy().tobytes() for step in steps)).hexdigest()


def test_a_batch_depends_on_seed_and_step_alone(textured: list[Path]) -> None:
    batches = make(textured, batch=3, flat=0.2)
    forwards = {step: batches[step] for step in range(8)}
    again = make(textured, batch=3, flat=0.2)
    for step in (7, 0, 5, 5, 2, 6, 1):
        assert torch.equal(again[step], forwards[step])
    assert torch.equal(make(textured, batch=3, flat=0.2)[4], forwards[4])  # without those before
    others = [make(textured, batch=3, flat=0.2, seed=1)[step] for step in range(8)]
    assert all(not torch.equal(other, forwards[step]) for step, other in enumerate(others))
    assert len({tensor.numpy().tobytes() for tensor in forwards.values()}) == 8


def test_pictures_are_counted_through_so_the_batch_size_does_not_matter(textured: list[Path]) -> None:
    pairs, singles = make(textured, batch=2, flat=0.2), make(textured, batch=1, flat=0.2)
    assert torch.equal(pairs[3], torch.cat([singles[6], singles[7]]))


def test_another_process_makes_the_same_batches(textured: list[Path]) -> None:
    code = (
        "import hashlib, pathlib, sys\n"
        "from impasto.training.photos import PhotoBatches\n"
        "batches = PhotoBatches([pathlib.Path(p) for p in sys.argv[1:]], 16, 2, 0, 1000, 0.0, 0.2, 16)\n"
        "print(hashlib.sha256(b''.join(batches[s].numpy().tobytes() for s in range(3, 6))).hexdigest())"
    )
    command = [sys.executable, "-c", code, *map(str, textured)]
    other = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert other == digest(make(textured, flat=0.2), range(3, 6))


def test_workers_started_by_spawn_make_the_same_batches(textured: list[Path]) -> None:
    batches = PhotoBatches(textured, 16, 2, 0, length=3, close=0.2, flat=0.2, megabytes=16)
    loader = DataLoader(batches, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    for step, batch in enumerate(loader):
        assert torch.equal(batch, batches[step])
    assert step == 2


def test_a_batch_is_float_rgb_from_0_to_1(textured: list[Path]) -> None:
    batch = make(textured, batch=4)[0]
    assert batch.shape == (4, 3, 16, 16) and batch.dtype == torch.float32
    assert 0 <= batch.min() < 0.2 and 0.8 < batch.max() <= 1
    with pytest.raises(IndexError, match="1000"):
        make(textured)[1000]


def test_each_pass_shows_every_photo_once_in_another_order(tmp_path: Path) -> None:
    batches = make(write_photos(tmp_path, 6), batch=2)
    seen = photos_of(batches, 9)
    passes = [seen[:6], seen[6:12], seen[12:]]
    assert [sorted(order) for order in passes] == [list(range(6))] * 3
    assert len({tuple(order) for order in passes}) == 3
    odd = photos_of(make(find_photos([tmp_path]), batch=4), 3)  # a batch across two passes
    assert Counter(odd) == Counter(list(range(6)) * 2)


def test_flat_pictures_have_their_share(tmp_path: Path) -> None:
    photos = write_photos(tmp_path, 3)
    assert photos_of(make(photos, flat=0.0), 50) == [
        photo for photo in photos_of(make(photos), 50) if photo in range(3)
    ]
    batches = make(photos, batch=1, flat=0.25)
    flat = sum(bool(batches[step].std() > 1e-4) for step in range(400))  # the photos have one colour: no noise
    assert 70 <= flat <= 130


def test_close_crops_have_their_share(tmp_path: Path) -> None:
    """Of a photo that gets darker by 2 levels a pixel: a crop's slope says how much of the photo it shows."""
    ramp = np.broadcast_to((2 * np.arange(120))[:, None, None], (120, 120, 3)).astype(np.uint8)
    Image.fromarray(np.ascontiguousarray(ramp)).save(tmp_path / "ramp.png")
    batches = make([tmp_path / "ramp.png"], batch=1, close=0.25, size=32)
    sides = [float(batches[step][0, 0, 4:-4].mean(1).diff().mean()) * 255 / 2 * 32 for step in range(400)]
    assert 70 <= sum(side < 31 for side in sides) <= 130
    assert min(sides) < 10 and max(sides) > 100


# where a run goes on


def test_a_run_goes_on_with_the_batch_of_its_step(tmp_path: Path) -> None:
    write_photos(tmp_path, 6)
    data = PhotoData([str(tmp_path)], size=16, batch=2, flat=0.0)
    data.setup()
    loader = iter(data.train_dataloader())
    first = [next(loader) for _ in range(5)]
    later = PhotoData([str(tmp_path)], size=16, batch=2, flat=0.0)
    later.setup()
    later.load_state_dict({"step": 3})
    loader = iter(later.train_dataloader())
    for step in (3, 4):
        assert torch.equal(next(loader), first[step])


def test_a_gpu_that_trains_makes_the_batches(textured: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    data = PhotoData([str(textured[0].parent)], size=16)
    data.setup()
    asked = []
    monkeypatch.setattr("impasto.training.data.PhotoBatches", lambda *_, device, **__: asked.append(device) or [])
    for device in map(torch.device, ("cpu", "cuda:1")):
        strategy = SimpleNamespace(root_device=device)
        data.trainer = SimpleNamespace(global_rank=0, world_size=1, strategy=strategy)  # type: ignore[assignment]
        data.train_dataloader()
    assert asked == [None, torch.device("cuda:1")]


# on a device, for which the CPU stands here


def test_a_device_makes_the_same_batches(textured: list[Path], mixed: Path) -> None:
    """The same photos in the same order past bad files, the same crops, the same flat pictures."""
    for photos in (textured, find_photos([mixed])):
        by_pil, there = (make(photos, batch=3, close=0.3, flat=0.2, device=d) for d in (None, torch.device("cpu")))
        for step in (7, 0, 5, 5, *range(20)):
            batch = there[step]
            assert batch.shape == (3, 3, 16, 16) and batch.dtype == torch.float32
            apart = 255 * (batch - by_pil[step]).abs()
            assert apart.max() < 2.01 and apart.mean() < 0.5
    flat = [make(textured, flat=1.0, device=device)[3] for device in (None, torch.device("cpu"))]
    assert torch.equal(*flat)


def test_what_a_device_keeps_and_makes_is_on_it(textured: list[Path]) -> None:
    """On the device without memory: nothing of a batch may be made elsewhere, or it could not be stacked."""
    meta = torch.device("meta")
    for flat in (0.0, 0.5, 1.0):
        batches = make(textured, batch=8, close=0.3, flat=flat, device=meta)
        assert batches[0].device == meta and batches[0].shape == (8, 3, 16, 16)
        assert all(photo is not None and photo.device == meta for photo in batches.cache.kept.values())
        assert bool(batches.cache.kept) == (flat < 1)


# bad files


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Three good photos among files that are wrong in every way."""
    write_photos(tmp_path, 3)
    for name, (data, _) in bad_files().items():
        (tmp_path / f"bad_{name}").write_bytes(data)
    (tmp_path / "notes.txt").write_text("not looked at")
    return tmp_path


def test_bad_files_are_named_and_passed_over(mixed: Path, caplog: pytest.LogCaptureFixture) -> None:
    photos = find_photos([mixed])
    bad = [path for path in photos if path.name.startswith("bad_")]
    assert len(bad) == len(bad_files()) == 9 and len(photos) == 12
    with caplog.at_level(logging.WARNING):
        seen = photos_of(make(photos, batch=4), 30)
    assert set(seen) == {0, 1, 2}  # a file that was read by halves would have another colour
    for path in bad:
        reason = bad_files()[path.name.removeprefix("bad_")][1]
        lines = [record.getMessage() for record in caplog.records if str(path) in record.getMessage()]
        assert len(lines) == 1 and re.match(rf"skipped: {re.escape(str(path))}: .*({reason})", lines[0])
    assert len(caplog.records) == len(bad)


def test_a_bad_files_place_is_a_function_of_the_step(mixed: Path) -> None:
    photos = find_photos([mixed])
    assert torch.equal(make(photos)[11], make(photos)[11])


def test_a_bad_file_is_no_preview_and_not_validated_on(mixed: Path) -> None:
    data = PhotoData([str(mixed)], size=16, validation=0)
    data.setup()
    assert [path.name for path in data.held_out] == ["00.png", "01.png", "02.png"]
    assert [tuple(photo.shape) for photo in data.val_dataloader()] == [(1, 3, 16, 16)] * 3


def test_held_out_photos_that_are_all_bad_are_replaced(tmp_path: Path) -> None:
    photos = write_photos(tmp_path, 10)
    (held,) = hold_out(photos, 5)[1]
    held.write_bytes(b"")
    data = PhotoData([str(tmp_path)], size=16)
    data.setup()
    assert data.held_out == [photo for photo in photos if photo != held][:4]


def test_a_folder_of_bad_files_says_so(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(PictureError, match="none of the 2 photos can be read"):
        PhotoData([str(tmp_path)]).setup()
    with pytest.raises(PictureError, match="none of the 2 photos can be read"):
        make(find_photos([tmp_path]))[0]


def test_a_folder_that_is_missing_or_has_no_photo_says_so(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"^no folder of photos at .*nowhere: expected a folder with \.jpg"):
        find_photos([tmp_path / "nowhere"])
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(PictureError, match=rf"^no photo in {re.escape(str(tmp_path))}: expected files ending in \.jpg"):
        PhotoData([str(tmp_path)]).setup()


def test_folders_are_searched_below_and_each_file_counts_once(tmp_path: Path) -> None:
    write_photos(tmp_path / "a/b", 2)
    (tmp_path / "a/b/01.png").rename(tmp_path / "a/UPPER.PNG")
    found = find_photos([tmp_path, tmp_path / "a"])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a/UPPER.PNG", "a/b/00.png"]


# held out


def test_photos_are_held_out_by_their_names_and_never_trained_on(tmp_path: Path) -> None:
    photos = [tmp_path / f"{i}.jpg" for i in range(40)]
    train, held = hold_out(photos, 16)
    assert len(held) == 4 and len(train) == 36 and not set(train) & set(held)
    assert set(train) | set(held) == set(photos)
    elsewhere = [Path("/elsewhere") / photo.name for photo in reversed(photos)]
    assert {photo.name for photo in hold_out(elsewhere, 16)[1]} == {photo.name for photo in held}
    assert len(hold_out(photos, 2)[1]) == 2
    assert hold_out(photos[:9], 16) == (photos[:9], [])


def test_held_out_photos_are_their_middle_square(tmp_path: Path) -> None:
    # left to right 0 to 255, twice as wide as high: the middle square is the middle half of the ramp
    ramp = np.broadcast_to(np.linspace(0, 255, 128)[None, :, None], (64, 128, 3)).round().astype(np.uint8)
    assert np.array_equal(centre_crop(ramp, 64), ramp[:, 32:96])
    assert np.abs(centre_crop(ramp, 32)[:, :, 0].mean(0) - np.linspace(64, 191, 32)).max() < 2
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    (photo,) = HeldOutPhotos([tmp_path / "ramp.png"], 64)
    np.testing.assert_array_equal((photo[0].permute(1, 2, 0) * 255).round().numpy(), ramp[:, 32:96])


# crops


@pytest.mark.parametrize("close", [False, True])
def test_crops_are_square_and_lie_inside(close: bool) -> None:
    """Red falls with x, green with y: both slopes say the side of the crop, their ends where it lies."""
    height, width, size = 80, 120, 32
    y, x = np.mgrid[0:height, 0:width]
    picture = np.stack([2 * x, 3 * y, np.zeros_like(x)], axis=-1).astype(np.uint8)
    sides, mirrored = [], 0
    for seed in range(200):
        crop = random_crop(torch.from_numpy(picture), size, np.random.default_rng(seed), close).numpy().astype(float)
        assert crop.shape == (size, size, 3)
        inside = crop[4:-4, 4:-4]  # bicubic resampling has its own ideas at the edges of the photo
        across = np.polyfit(np.arange(size - 8), inside[:, :, 0].mean(0), 1)[0] * size / 2
        down = np.polyfit(np.arange(size - 8), inside[:, :, 1].mean(1), 1)[0] * size / 3
        assert abs(abs(across) - down) < 1.5, "not square"
        left, top = crop[:, :, 0].mean(0).min() / 2, crop[:, :, 1].mean(1).min() / 3
        assert left + down < width + 2 and top + down < height + 2
        mirrored += across < 0
        sides.append(down)
    assert 70 <= mirrored <= 130
    # log-uniform from 32 to 80, close from 8 to 32: half of them below the square root of the product
    lowest, middle, highest = (8, 16, 32) if close else (32, 50.6, 80)
    assert lowest - 1 < min(sides) < 1.1 * lowest
    assert 0.9 * highest < max(sides) < highest + 1
    assert 0.85 * middle < np.median(sides) < 1.15 * middle


def test_stripes_keep_their_period() -> None:
    """A crop of side s shown at 64 pixels: stripes of period 8 come out with period 8 * 64 / s, and stay upright."""
    stripes = np.where(np.arange(96) % 8 < 4, 255, 0).astype(np.uint8)
    picture = np.broadcast_to(stripes[:, None, None], (96, 160, 3))
    random = np.random.default_rng(3)
    periods = []
    for _ in range(20):
        crop = random_crop(torch.tensor(picture), 64, random).numpy().astype(float)
        assert crop.std(axis=1).max() < 1, "horizontal stripes stay horizontal"
        line = crop[:, :, 0].mean(1)
        spectrum = np.abs(np.fft.rfft((line - line.mean()) * np.hanning(64), 1024))
        periods.append(1024 / spectrum.argmax())
    assert min(periods) > 8 * 64 / 96 - 0.3 and max(periods) < 8 * 64 / 64 + 0.5
    assert max(periods) / min(periods) > 1.3


def test_a_photo_smaller_than_the_crop_is_enlarged_whole() -> None:
    small = torch.zeros(16, 20, 3, dtype=torch.uint8)
    small[:, :, 1] = 200
    crop = random_crop(small, 64, np.random.default_rng(0))
    assert crop.shape == (64, 64, 3) and crop[0, 0].tolist() == [0, 200, 0]


def test_crops_are_whole_pixels_of_the_photo() -> None:
    photo = torch.arange(40 * 50 * 3).reshape(40, 50, 3)  # a value says its place
    sides = []

    def look(square: torch.Tensor, size: int) -> torch.Tensor:
        top, left = divmod(int(square[0, 0, 0]) // 3, 50)
        assert torch.equal(square, photo[top : top + len(square), left : left + len(square)])
        sides.append(len(square))
        return square

    for seed in range(200):
        random_crop(photo, 16, np.random.default_rng(seed), resize=look)
    assert set(sides) == set(range(16, 41))


def test_a_crop_has_a_pixel_at_least() -> None:
    for seed in range(20):  # a quarter of a pixel would be none
        crop = random_crop(torch.full((1, 2, 3), 7).byte(), 1, np.random.default_rng(seed), close=True)
        assert crop.tolist() == [[[7, 7, 7]]]


def test_nothing_around_a_crop_is_seen_in_it() -> None:
    """White ends at column 16: a crop that begins there is black, though bicubic resampling looks further."""
    photo = torch.zeros(32, 64, 3, dtype=torch.uint8)
    photo[:, :16] = 255
    brightest = [int(random_crop(photo, 16, np.random.default_rng(seed), close=True).max()) for seed in range(200)]
    assert set(brightest) == {0, 255}


@pytest.mark.parametrize("kind", ["noise", "stripes", "clouds"])
@pytest.mark.parametrize(("size", "close"), [(32, False), (48, True), (100, False)], ids=["shrink", "enlarge", "keep"])
def test_torch_crops_as_pil_does(kind: str, size: int, close: bool) -> None:
    random = np.random.default_rng(1)
    noise = random.integers(0, 256, (100, 130, 3), dtype=np.uint8)
    coarse = Image.fromarray(noise[:8, :10]).resize((130, 100), Image.Resampling.BICUBIC)
    photo = torch.tensor({"noise": noise, "stripes": np.where(noise < 128, 0, 255), "clouds": np.array(coarse)}[kind])
    photo = photo.byte()
    for seed in range(30):
        by_pil = random_crop(photo, size, np.random.default_rng(seed), close)
        by_torch = random_crop(photo, size, np.random.default_rng(seed), close, resize_by_torch)
        assert by_torch.shape == by_pil.shape and by_torch.dtype == torch.uint8
        apart = (by_torch.int() - by_pil.int()).abs()
        assert apart.max() <= (0 if size == 100 else 2) and apart.float().mean() < 0.1


def test_flat_pictures_vary_slowly_with_a_level_of_noise() -> None:
    noises, slopes = [], []
    for seed in range(40):
        picture = flat_picture(48, np.random.default_rng(seed))
        assert picture.shape == (48, 48, 3) and picture.dtype == np.uint8
        values = picture.astype(float)
        channel = values[..., int(np.abs(values.mean((0, 1)) - 127).argmin())]  # the one that is clipped least
        y, x = np.mgrid[0:48, 0:48]
        design = np.stack([np.ones_like(x), x, y], axis=-1).reshape(-1, 3).astype(float)
        plane, *_ = np.linalg.lstsq(design, channel.ravel(), rcond=None)
        noises.append((channel.ravel() - design @ plane).std())
        slopes.append(np.hypot(plane[1], plane[2]) * 48)
    assert 0.9 < np.median(noises) < 1.3  # one level, and the rounding's sqrt(1/12)
    assert np.median(slopes) > 5 and np.percentile(slopes, 90) < 120


# memory


@pytest.mark.parametrize("device", [None, torch.device("meta")])
def test_the_cache_keeps_what_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: torch.device | None
) -> None:
    photos = write_photos(tmp_path, 4, size=(400, 500))  # 600 000 bytes each; 1 MiB holds one
    decoded: list[Path] = []
    original = __import__("impasto.images", fromlist=["read_rgb"]).read_rgb
    monkeypatch.setattr(
        "impasto.training.photos.read_rgb", lambda path, **options: (decoded.append(path), original(path, **options))[1]
    )
    cache = PhotoCache(megabytes=1, device=device)
    for _ in range(3):
        for i, photo in enumerate(photos):
            rgb = cache.read(photo)
            assert rgb is not None and rgb.device == (device or torch.device("cpu"))
            assert rgb.is_meta or rgb[0, 0, 0] == 20 + 10 * i
    assert Counter(decoded) == {photos[0]: 1, photos[1]: 3, photos[2]: 3, photos[3]: 3}
    assert sum(rgb.nbytes for rgb in cache.kept.values() if rgb is not None) == 600_000 <= 2**20
    assert cache.left == 2**20 - 600_000


def test_a_bad_file_is_opened_and_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    cache = PhotoCache(megabytes=0)
    assert cache.read(tmp_path / "a.jpg") is cache.read(tmp_path / "a.jpg") is None
    assert len(caplog.records) == 1
    assert first_good([tmp_path / "a.jpg"], 1) == []


def test_large_photos_are_kept_with_a_short_side_of_1024(tmp_path: Path) -> None:
    Image.new("RGB", (1100, 2200), (9, 8, 7)).save(tmp_path / "large.png")
    rgb = PhotoCache(megabytes=16).read(tmp_path / "large.png")
    assert rgb is not None and rgb.shape == (2048, 1024, 3)


# wrong calls and the card


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 100}, r"size: got 100, expected a multiple of 16 pixels from 16 up"),
        ({"size": 0}, r"size: got 0"),
        ({"batch": 0}, r"got batch 0, .*expected batch >= 1"),
        ({"flat": 0.8, "close": 0.3}, r"close 0\.3, flat 0\.8.*at most 1 together"),
        ({"flat": -0.1}, r"flat -0\.1.*from 0 up"),
        ({"validation": -1}, r"validation -1.*validation >= 0"),
        ({"megabytes": -1}, r"megabytes -1.*megabytes >= 0"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(WrongCall, match=message):
        PhotoData(["photos"], **options)  # type: ignore[arg-type]


def test_the_card_says_how_many_photos_and_a_hash_of_their_names(tmp_path: Path) -> None:
    photos = write_photos(tmp_path, 3)
    data = PhotoData([str(tmp_path)], size=16, batch=2, close=0.2, flat=0.1, seed=5)
    data.licence = "my own"
    data.setup()
    listing = "".join(f"0{i}.png {photo.stat().st_size}\n" for i, photo in enumerate(photos))
    assert data.describe() == {
        "photos": 3, "held_out": 0, "licence": "my own", "hash": hashlib.sha256(listing.encode()).hexdigest(),
        "size": 16, "batch": 2, "close": 0.2, "flat": 0.1, "seed": 5,
    }  # fmt: skip
