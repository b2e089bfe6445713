"""From a network to a pack: what stands in the graph, that it paints as torch does, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import impasto
from impasto.errors import CheckpointError, ExportError, PackError, WrongCall
from impasto.packs import Pack, Style, save_card
from impasto.training import TransformerNet, export_pack
from impasto.training.checkpoints import export_checkpoint, load_checkpoint
from impasto.training.export import check_output, load_network, pack_name
from impasto.training.graph import OPERATORS, OPSET, PARITY_SIZES, check_parity, export_graph

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")

ROOT = Path(__file__).resolve().parents[1]
STYLES = {"fast": ("sea", "sky", "wave"), "johnson": ("sea", "sky")}
BOTH = pytest.mark.parametrize("network", ["fast", "johnson"])


def make(network: str, seed: int = 0) -> TransformerNet:
    """A network with rows that differ between its styles and pictures that use the whole range."""
    torch.manual_seed(seed)
    sizes = {"width": 8, "blocks": 1, "head": 4} if network == "fast" else {}
    net = TransformerNet(network, len(STYLES[network]), **sizes)
    with torch.no_grad():
        for row in net.rows:
            row.add_(0.3 * torch.randn_like(row))
    return net


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pack]:
    folder = tmp_path_factory.mktemp("packs")
    return {
        network: export_pack(
            make(network), folder / network, styles=[Style(name) for name in names], training={"seed": 3}
        )
        for network, names in STYLES.items()
    }


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def painted_by_torch(net: TransformerNet, image: np.ndarray, style: np.ndarray, strength: np.ndarray) -> np.ndarray:
    photos = torch.from_numpy(image).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        painted = net(photos, torch.from_numpy(style), torch.from_numpy(strength))
    return np.rint(painted.permute(0, 2, 3, 1).numpy() * 255).astype(int)


# the graph


@BOTH
def test_the_graph_has_the_packs_inputs_and_output(network: str, packs: dict[str, Pack]) -> None:
    session = onnxruntime.InferenceSession(packs[network].path / "paint.onnx", providers=["CPUExecutionProvider"])
    count = len(STYLES[network])
    found = [(value.name, value.type, value.shape) for value in (*session.get_inputs(), *session.get_outputs())]
    assert [(name, kind) for name, kind, _ in found] == [
        ("image", "tensor(uint8)"),
        ("style", "tensor(float)"),
        ("strength", "tensor(float)"),
        ("painted", "tensor(uint8)"),
    ]
    image, style, strength, painted = (shape for *_, shape in found)
    assert [isinstance(side, str) for side in image] == [True, True, True, False] and image[3] == 3
    assert isinstance(style[0], str) and style[1] == count
    assert len(strength) == 1 and isinstance(strength[0], str)
    assert painted == image
    assert session.get_modelmeta().custom_metadata_map == {
        "impasto": impasto.__version__,
        "styles": ",".join(STYLES[network]),
    }


@BOTH
def test_the_graph_is_of_opset_18_and_of_portable_operators(network: str, packs: dict[str, Pack]) -> None:
    model = onnx.load(str(packs[network].path / "paint.onnx"))
    assert [(entry.domain, entry.version) for entry in model.opset_import if entry.domain == ""] == [("", 18)]
    assert OPSET == 18 and not model.functions
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert {node.op_type for node in model.graph.node} <= OPERATORS
    assert not [tensor for tensor in model.graph.initializer if tensor.external_data]
    # what is on the list is of the standard, and nothing there takes code or text with it
    assert all(onnx.defs.has(operator, OPSET) for operator in OPERATORS)


@BOTH
def test_nothing_of_the_machine_stands_in_the_files(network: str, packs: dict[str, Pack]) -> None:
    for name in ("paint.onnx", "weights.safetensors", "card.json"):
        data = (packs[network].path / name).read_bytes()
        for word in (
            str(ROOT),
            str(packs[network].path.parent),
            sys.prefix,
            "stack_trace",
            ".py",
            "/site-packages",
            "forward(",
        ):
            assert word.encode() not in data, f"{name} says {word}"


def test_an_operator_outside_the_list_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impasto.training.graph.OPERATORS", OPERATORS - {"Conv", "Pad"})
    with pytest.raises(ExportError, match=r"operators outside the portable list: Conv, Pad$"):
        export_graph(make("fast").eval(), tmp_path / "paint.onnx", {})


# it paints as torch does


def test_the_sizes_compared_are_odd_tiny_wide_tall_and_a_batch() -> None:
    assert len(PARITY_SIZES) == 6 and (1, 16, 16) in PARITY_SIZES.values()
    assert any(height % 2 and width % 2 for _, height, width in PARITY_SIZES.values())
    assert any(height % 4 and width % 4 for _, height, width in PARITY_SIZES.values())
    assert any(width > 4 * height for _, height, width in PARITY_SIZES.values())
    assert any(height > 4 * width for _, height, width in PARITY_SIZES.values())
    assert max(PARITY_SIZES.values())[0] == 3


@BOTH
@pytest.mark.parametrize("size", [(16, 16), (33, 47), (90, 61)])
def test_the_pack_paints_as_torch_does(network: str, size: tuple[int, int], packs: dict[str, Pack]) -> None:
    stylizer = impasto.Stylizer(packs[network].path, provider="cpu", threads=1)
    image = noise(3, *size, 3)
    count = len(STYLES[network])
    style = np.eye(count, dtype=np.float32)[[count - 1, 0, 0]]
    style[2] = 1 / count
    strength = np.array([1, 1, 0.5], np.float32)
    expected = painted_by_torch(make(network), image, style, strength)
    painted = stylizer.paint(image, style, strength)
    assert painted.shape == image.shape
    assert np.abs(painted.astype(int) - expected).max() <= 1
    assert expected.std() > 10 and np.abs(expected[0] - expected[1]).max() > 10, "styles that can be told apart"


def test_a_file_is_painted_as_torch_does(packs: dict[str, Pack], tmp_path: Path) -> None:
    picture = noise(37, 50, 3)
    Image.fromarray(picture).save(tmp_path / "a.png")
    painted = impasto.Stylizer(packs["fast"].path, provider="cpu").stylize(tmp_path / "a.png", "sky", strength=0.7)
    expected = painted_by_torch(make("fast"), picture[None], np.float32([[0, 1, 0]]), np.float32([0.7]))
    assert np.abs(np.asarray(painted).astype(int) - expected[0]).max() <= 1


@BOTH
def test_strength_0_gives_the_photo_back(network: str, packs: dict[str, Pack]) -> None:
    picture = noise(21, 34, 3)
    painted = impasto.Stylizer(packs[network].path, provider="cpu").stylize(picture, "sea", strength=0)
    np.testing.assert_array_equal(np.asarray(painted), picture)


def test_a_graph_of_other_weights_is_refused(packs: dict[str, Pack]) -> None:
    message = r"disagree on the picture 'odd' \(1x101x77\): up to \d+ of 255 apart.*expected at most 2"
    with pytest.raises(ExportError, match=message):
        check_parity(make("fast", seed=1).eval(), packs["fast"].path / "paint.onnx")
    assert check_parity(make("fast").eval(), packs["fast"].path / "paint.onnx")["largest_difference"] <= 2


def test_a_graph_with_one_wrong_row_is_refused(packs: dict[str, Pack]) -> None:
    net = make("johnson").eval()
    with torch.no_grad():
        net.painter.output.bias[1] += 3 / 255  # three levels, in one channel
    with pytest.raises(ExportError, match=r"up to \d+ of 255 apart"):
        check_parity(net, packs["johnson"].path / "paint.onnx")


# the pack


@BOTH
def test_the_card_says_what_the_network_is(network: str, packs: dict[str, Pack]) -> None:
    card = json.loads((packs[network].path / "card.json").read_text())
    net = make(network)
    sizes = {"width": 8, "blocks": 1, "head": 4, "stem": 1, "separable": 0} if network == "fast" else {}
    parameters = sum(parameter.numel() for parameter in net.parameters())
    assert card["network"] == {"name": network, "stride": 4, "parameters": parameters, **sizes}
    assert [style["name"] for style in card["styles"]] == list(STYLES[network])
    channels = [8, 8, 8, 4] if network == "fast" else [32, 64, 128, *[128] * 10, 64, 32]
    assert [norm["channels"] for norm in card["normalisations"]] == channels
    assert card["name"] == network and card["training"] == {"seed": 3}
    assert set(card["parity"]) == {"largest_difference", "share_within_1_of_255", "sizes", "split", "onnxruntime"}
    assert card["parity"]["largest_difference"] <= 2 and card["parity"]["share_within_1_of_255"] >= 0.999
    assert card["parity"]["onnxruntime"] == onnxruntime.__version__
    assert {path.name for path in packs[network].path.iterdir()} == {"card.json", *card["files"]}
    for name, digest in card["files"].items():
        assert hashlib.sha256((packs[network].path / name).read_bytes()).hexdigest() == digest


@BOTH
def test_the_weights_come_back(network: str, packs: dict[str, Pack]) -> None:
    net, found = make(network), load_network(packs[network])
    assert found.network == network and found.styles == net.styles and found.sizes == net.sizes
    stored = load_file(packs[network].path / "weights.safetensors")
    for key, value in net.state_dict().items():
        assert torch.equal(found.state_dict()[key], value) and torch.equal(stored[key], value)
    assert set(stored) == set(net.state_dict())


@pytest.mark.parametrize("name", ["paint.onnx", "weights.safetensors"])
def test_an_altered_or_missing_file_is_named(name: str, packs: dict[str, Pack], tmp_path: Path) -> None:
    path = tmp_path / "pack"
    shutil.copytree(packs["fast"].path, path)
    data = bytearray((path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (path / name).write_bytes(data)
    with pytest.raises(PackError, match=rf"{re.escape(name)}: altered"):
        Pack.load(path)
    use = impasto.Stylizer if name == "paint.onnx" else lambda path: load_network(Pack.load(path, verify=False))
    with pytest.raises(PackError, match=rf"{re.escape(name)}: altered"):
        use(path)
    (path / name).unlink()
    with pytest.raises(PackError, match=rf"{re.escape(name)}: No such file"):
        use(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 9}, r"does not fit the card: .*loading state_dict"),
        ({"name": "slow"}, r"does not fit the card: unknown network 'slow'"),
        ({"depth": 9}, r"does not fit the card: unknown size of the network 'fast' 'depth'"),
        ({"width": "wide"}, r"does not fit the card"),
    ],
)
def test_weights_that_do_not_fit_the_card_are_refused(
    change: dict[str, object], message: str, packs: dict[str, Pack], tmp_path: Path
) -> None:
    path = tmp_path / "pack"
    shutil.copytree(packs["fast"].path, path)
    card = packs["fast"].card
    save_card(dataclasses.replace(card, network={**card.network, **change}), path)
    with pytest.raises(PackError, match=message):
        load_network(Pack.load(path))


def test_a_network_stays_as_it_was(tmp_path: Path) -> None:
    net = make("fast").train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    export_pack(net, tmp_path / "My-Sea.2", styles=[Style(name) for name in STYLES["fast"]])
    assert net.training and all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert Pack.load(tmp_path / "My-Sea.2").card.name == "my_sea_2"


def test_a_packs_name_is_its_folders_as_a_word(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert pack_name(Path("packs/starry_night")) == "starry_night"
    assert pack_name(Path("packs/Starry Night-2")) == "starry_night_2"
    assert pack_name(Path("...")) == "pack"
    (tmp_path / "wave").mkdir()
    monkeypatch.chdir(tmp_path / "wave")
    assert pack_name(Path(".")) == "wave"


# refused, and nothing left behind


def styles_of(network: str) -> list[Style]:
    return [Style(name) for name in STYLES[network]]


@pytest.mark.parametrize(
    "error", [ExportError("it differs"), KeyboardInterrupt(), OSError(28, "No space left on device")]
)
@pytest.mark.parametrize("where", ["export_graph", "check_parity", "save_file", "save_card"])
def test_a_pack_is_written_whole_or_not_at_all(
    where: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def graph(net: object, path: Path, properties: object) -> None:
        path.write_bytes(b"graph")

    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr("impasto.training.export.export_graph", graph)
    monkeypatch.setattr("impasto.training.export.check_parity", lambda net, path: {})
    monkeypatch.setattr(f"impasto.training.export.{where}", fail)
    with pytest.raises(type(error), match="^$|differs|No space"):
        export_pack(make("fast"), tmp_path / "made" / "pack", styles=styles_of("fast"))
    assert list((tmp_path / "made").iterdir()) == []


def test_a_folder_that_is_taken_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    assert check_output(tmp_path / "pack") == tmp_path / "pack"  # empty
    (tmp_path / "pack/mine.txt").write_text("mine")
    with pytest.raises(WrongCall, match=r"pack already exists: choose another name for the pack, or move it away"):
        export_pack(make("fast"), tmp_path / "pack", styles=styles_of("fast"))
    assert [path.name for path in (tmp_path / "pack").iterdir()] == ["mine.txt"]
    with pytest.raises(WrongCall, match=r"mine\.txt already exists"):
        check_output(tmp_path / "pack/mine.txt")
    with pytest.raises(WrongCall, match=r"deeper/pack cannot be made: .*mine\.txt is not a folder that takes files"):
        check_output(tmp_path / "pack/mine.txt/deeper/pack")


def test_a_folder_that_takes_no_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: not (Path(path) == tmp_path and mode & os.W_OK))
    with pytest.raises(WrongCall, match=r"pack cannot be made: .* is not a folder that takes files"):
        check_output(tmp_path / "pack")


def test_styles_must_be_as_many_as_rows(tmp_path: Path) -> None:
    with pytest.raises(WrongCall, match=r"styles: got 1, expected 3, one for each row of the network"):
        export_pack(make("fast"), tmp_path / "pack", styles=[Style("sea")])
    assert list(tmp_path.iterdir()) == []


# checkpoints that are not ours


class Code:
    """What a checkpoint would be if it ran code when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (None, r"^no checkpoint at .*a\.ckpt: expected a file such as"),
        (b"", r"^.*a\.ckpt is not a checkpoint of impasto: "),
        (bytes(range(256)) * 8, r"^.*a\.ckpt is not a checkpoint of impasto: "),
        (pickle.dumps(Code()), r"^.*a\.ckpt is not a checkpoint of impasto: "),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused(
    contents: bytes | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if contents is not None:
        (tmp_path / "a.ckpt").write_bytes(contents)
    for use in (load_checkpoint, lambda path: export_checkpoint(path, tmp_path / "pack")):
        with pytest.raises(CheckpointError, match=message) as caught:
            use(tmp_path / "a.ckpt")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists() and not (tmp_path / "pack").exists()


def test_a_checkpoint_with_code_in_it_is_refused_and_the_code_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"hyper_parameters": {"style_images": [Code()]}, "state_dict": {}}, tmp_path / "a.ckpt")
    with pytest.raises(
        CheckpointError, match=r"a\.ckpt is not a checkpoint of impasto: .* holds more than weights and settings"
    ):
        load_checkpoint(tmp_path / "a.ckpt")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "a.ckpt", weights_only=False)  # it would have run
    assert (tmp_path / "ran").is_dir()


@pytest.mark.parametrize("contents", [torch.zeros(3), {"state_dict": {}}, {"hyper_parameters": {"rate": 1}}])
def test_a_checkpoint_of_something_else_is_refused(contents: object, tmp_path: Path) -> None:
    torch.save(contents, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"a\.ckpt is not a checkpoint of impasto: "):
        load_checkpoint(tmp_path / "a.ckpt")


def test_a_checkpoint_of_other_shapes_is_refused(tmp_path: Path) -> None:
    settings = {"network": "fast", "rows_only": False, "sizes": {}, "style_images": ["a"], "styles": [{"name": "a"}]}
    weights = {f"averaged.{key}": value for key, value in make("fast").state_dict().items()}
    contents = {"hyper_parameters": settings, "state_dict": weights, "record": {}, "quality": {}}
    torch.save(contents, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"a\.ckpt is of another version of the networks: Error\(s\) in loading"):
        export_checkpoint(tmp_path / "a.ckpt", tmp_path / "pack")
    contents["hyper_parameters"] = settings | {"rows_only": True}
    torch.save(contents, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"holds new rows for another pack; run impasto add-style again"):
        export_checkpoint(tmp_path / "a.ckpt", tmp_path / "pack")
    assert not (tmp_path / "pack").exists()
