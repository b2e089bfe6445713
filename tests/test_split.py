"""The network split at its normalisations: what is measured, what is applied, and the graphs of both."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

import torch
from click.testing import CliRunner
from conftest import MakePack
from tiny import SIZES, network, photo

from impasto.card import Style, save_card
from impasto.cli import main
from impasto.errors import ExportError, PackError, WrongCall
from impasto.inference.split import Split
from impasto.packs import APPLY, FOLDED, MEASURE, SHARED, Pack
from impasto.training import TransformerNet, export_pack, split_graph
from impasto.training.split import Apply, Measure, affine_length
from impasto.training.split_graph import SPLIT_FILES, check_split, export_split

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")

STYLE, STRENGTH = [0.2, 0.5, 0.3], 0.8


@torch.no_grad()
def measure(net: TransformerNet, crops: torch.Tensor, *, given=None, known: int = 0, margins=None):
    given = torch.zeros(1, affine_length(net)) if given is None else given
    margins = torch.zeros(len(crops), 4, dtype=torch.long) if margins is None else torch.tensor(margins)
    return Measure(net)(crops, torch.tensor([STYLE]), torch.tensor([STRENGTH]), given, torch.tensor([known]), margins)


@torch.no_grad()
def painted(net: TransformerNet, image: torch.Tensor) -> torch.Tensor:
    count = len(image)
    style, strength = torch.tensor([STYLE] * count), torch.full((count,), STRENGTH)
    return net(image.permute(0, 3, 1, 2), style, strength).permute(0, 2, 3, 1)


def first_maps(net: TransformerNet, image: torch.Tensor) -> torch.Tensor:
    """What goes into the first normalisation."""
    seen: list[torch.Tensor] = []
    norm = next(iter(net.normalisations.values()))
    hook = norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    painted(net, image)
    hook.remove()
    return seen[0]


class TestModules:
    @pytest.mark.parametrize(
        ("name", "sizes"),
        [
            ("fast", SIZES),
            ("fast", SIZES | {"stride": 8}),
            ("fast", SIZES | {"stem": 2}),
            ("fast", SIZES | {"head": 0, "separable": 1}),
            ("johnson", {}),
        ],
    )
    @pytest.mark.parametrize("size", [(33, 70), (64, 16)])
    def test_measured_then_applied_is_the_network(self, name, sizes, size):
        net = network(name, **sizes)
        image = photo(1, *size)
        affine, moments = measure(net, image)
        with torch.no_grad():
            got = Apply(net)(image, affine)
        assert affine.shape == (1, affine_length(net)) and moments.shape == (1, affine_length(net) - 1)
        torch.testing.assert_close(got, painted(net, image), rtol=0, atol=2e-4)
        assert painted(net, image).std() > 0.05

    def test_moments_are_pooled_over_the_crops(self):
        net, crops = network(**SIZES), photo(3, 32, 40)
        crops[1] *= 0.2
        maps = first_maps(net, crops)
        channels = maps.shape[1]
        _, moments = measure(net, crops)
        together = maps.transpose(0, 1).flatten(1).double()
        torch.testing.assert_close(moments[0, :channels].double(), together.mean(1), rtol=1e-4, atol=1e-5)
        variance = together.var(1, correction=0)
        torch.testing.assert_close(moments[0, channels : 2 * channels].double(), variance, rtol=1e-4, atol=1e-5)
        each = maps.double().var((2, 3), correction=0).mean(0)  # the mean of the crops' own variances is another
        assert (each - variance).abs().max() > 0.01

    def test_margins_do_not_count(self):
        net, crops = network(**SIZES), photo(2, 32, 40)
        maps = first_maps(net, crops)
        channels = maps.shape[1]
        _, moments = measure(net, crops, margins=[[1, 2, 3, 4], [0, 5, 0, 6]])
        height, width = maps.shape[2:]
        parts = [maps[0, :, 1 : height - 3, 2 : width - 4], maps[1, :, :, 5 : width - 6]]
        together = torch.cat([part.flatten(1) for part in parts], 1).double()
        torch.testing.assert_close(moments[0, :channels].double(), together.mean(1), rtol=1e-4, atol=1e-5)

    def test_what_is_known_is_used_and_the_rest_measured(self):
        net, image = network(**SIZES), photo(1, 32, 40)
        true, _ = measure(net, image)
        channels = next(iter(net.normalisations.values())).scale.shape[1]
        other, _ = measure(net, photo(1, 48, 48).flip(1) ** 3)
        mixed, moments = measure(net, image, given=other, known=1)
        assert torch.equal(mixed[0, : 2 * channels], other[0, : 2 * channels])
        again, same = measure(net, image, given=other, known=0)
        assert torch.equal(again, true)
        torch.testing.assert_close(moments[0, : 2 * channels], same[0, : 2 * channels])  # of the first maps in any case
        assert not torch.allclose(mixed[0, 2 * channels : -1], true[0, 2 * channels : -1])

    def test_the_strength_stands_at_the_end(self):
        affine, _ = measure(network(**SIZES), photo(1, 32, 32))
        assert affine[0, -1] == pytest.approx(STRENGTH)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("split")
    export_split(network(**SIZES), folder)
    return folder


def opened(folder: Path) -> Split:
    return Split.of_files({name: (folder / name).read_bytes() for name in SPLIT_FILES}, provider="cpu", threads=1)


class TestGraphs:
    def test_they_agree_with_the_network(self, folder):
        found = check_split(network(**SIZES), folder)
        assert found["largest_difference"] < 0.1

    def test_a_graph_that_disagrees_is_found(self, folder):
        net = network(**SIZES)
        with torch.no_grad():
            net.painter.output.weight.mul_(1.3)
        with pytest.raises(ExportError, match=r"apply\(measure\(x\)\) and the network disagree on the picture 'odd'"):
            check_split(net, folder)

    def test_the_weights_stand_in_one_file_once(self, folder):
        inside = sum(
            len(constant.raw_data)
            for name in (MEASURE, APPLY, FOLDED)
            for constant in onnx.load(str(folder / name), load_external_data=False).graph.initializer
        )
        net = network(**SIZES)
        phases = sum(module.phase_kernel().numel() for module in net.modules() if hasattr(module, "phase_kernel"))
        trunk = sum(value.numel() for key, value in net.named_parameters() if key not in net.row_names) + phases
        assert (folder / SHARED).stat().st_size < 4 * trunk + 4 * sum(row.numel() for row in net.rows) + 4096
        assert inside < 20_000
        for name in (MEASURE, APPLY, FOLDED):  # as ONNX itself reads them
            onnx.checker.check_model(str(folder / name))

    def test_folding_gives_the_same_and_follows_what_is_given(self, folder):
        split = opened(folder)
        image = photo(1, 40, 56).numpy()
        one = split.measure(image, np.array(STYLE), STRENGTH).affine
        other = split.measure(image, np.array([1, 0, 0]), 0.4).affine
        for affine in (one, other):
            np.testing.assert_allclose(split.fold(affine)(image), split.apply(image, affine[None]), atol=1e-4)
        assert np.abs(split.fold(one)(image) - split.fold(other)(image)).max() > 0.05

    def test_pictures_of_a_batch_have_their_own(self, folder):
        split = opened(folder)
        images = photo(2, 32, 48).numpy()
        affine = np.stack([split.measure(image[None], np.array(STYLE), STRENGTH).affine for image in images])
        expected = painted(network(**SIZES), torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(split.apply(images, affine), expected, atol=1e-3)

    def test_a_picture_is_painted_by_pieces_with_one_measurement(self, folder):
        """A crop's painting is the whole's, away from its border, which instance normalisation alone would not give."""
        split, net = opened(folder), network(**SIZES)
        image = photo(1, 160, 168).numpy()
        image[:, :80] *= 0.3
        affine = split.measure(image, np.array(STYLE), STRENGTH).affine
        whole, crop = split.apply(image, affine[None]), split.apply(image[:, 16:144, 8:160], affine[None])
        inner = np.abs(crop[:, 48:-48, 48:-48] - whole[:, 64:96, 56:112])
        assert inner.max() < 1e-4
        alone = painted(net, torch.from_numpy(image[:, 16:144, 8:160])).numpy()
        assert np.abs(alone[:, 48:-48, 48:-48] - whole[:, 64:96, 56:112]).max() > 0.02


def test_a_pack_has_both_halves(tmp_path):
    pack = export_pack(network(**SIZES), tmp_path / "pack", styles=[Style(name) for name in "abc"])
    assert set(SPLIT_FILES) <= set(pack.card.files)
    assert pack.card.parity["split"]["largest_difference"] <= 1
    assert (
        Split(pack.path).length
        == affine_length(network(**SIZES))
        == (sum(2 * entry["channels"] for entry in pack.card.normalisations) + 1)
    )


def test_an_older_pack_written_anew_has_them(tmp_path):
    made = export_pack(network(**SIZES), tmp_path / "made", styles=[Style(name) for name in "abc"], quality={"a": 1})
    old = {name: digest for name, digest in made.card.files.items() if name not in SPLIT_FILES}
    save_card(dataclasses.replace(made.card, files=old), made.path)
    done = CliRunner().invoke(main, ["export", str(made.path), "-o", str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    new = Pack.load(tmp_path / "new")
    assert set(SPLIT_FILES) <= set(new.card.files)
    assert (new.card.name, new.card.styles, new.card.quality) == ("made", made.card.styles, {"a": 1})
    assert new.read("weights.safetensors") == made.read("weights.safetensors")


def test_an_older_pack_says_what_to_do(make_pack: MakePack):
    with pytest.raises(PackError, match=r"the pack has no measure.onnx; export it again with this version"):
        Split(make_pack())


def test_openvino_is_refused(tmp_path):
    pack = export_pack(network(**SIZES), tmp_path / "pack", styles=[Style(name) for name in "abc"])
    with pytest.raises(WrongCall, match="openvino runs a pack's paint.onnx only"):
        Split(pack.path, provider="openvino")


def test_an_operator_that_is_not_portable_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(split_graph, "MEASURE_OPERATORS", split_graph.OPERATORS)
    with pytest.raises(ExportError, match="operators outside the portable list: .*Where"):
        export_split(network(**SIZES), tmp_path)
