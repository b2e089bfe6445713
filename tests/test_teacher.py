"""Runs that begin with a pack's weights, and runs that copy a pack's paintings."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import MODEL, SIZES, make, write_world

from impasto.card import Style
from impasto.errors import CheckpointError, PackError, WrongCall
from impasto.packs import Pack
from impasto.training import StyleTransfer, TransformerNet, export_pack
from impasto.training.checkpoints import load_checkpoint
from impasto.training.export import load_network
from impasto.training.photos import to_tensor
from impasto.training.train import fit

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")

TRAINER = {"accelerator": "cpu", "precision": "32-true", "log_every_n_steps": 1}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world") / "world")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """Three styles with rows that differ, of the shape of the runs."""
    torch.manual_seed(0)
    net = TransformerNet("fast", 3, **SIZES)
    with torch.no_grad():
        for row in net.rows:
            row.add_(0.5 * torch.randn_like(row))
    styles = [Style("first"), Style("sea"), Style("third")]
    return export_pack(net, tmp_path_factory.mktemp("packs") / "three", styles=styles)


def named(paintings: list[str], world: Path, **options: object) -> StyleTransfer:
    """A module of these styles; which painting is which does not matter."""
    images = [str(world / "sea.png")] * len(paintings)
    return StyleTransfer(images, styles=[{"name": name} for name in paintings], **(MODEL | options))


def test_a_style_begins_with_the_row_of_its_name_and_a_new_one_with_the_mean(pack: Pack, world: Path) -> None:
    module = named(["sea", "new"], world, start=str(pack.path))
    theirs = load_network(pack).state_dict()
    for net in (module.net, module.averaged):
        for name, value in net.state_dict().items():
            if name in module.net.row_names:
                assert torch.equal(value[0], theirs[name][1])
                torch.testing.assert_close(value[1], theirs[name].mean(0))
            else:
                assert torch.equal(value, theirs[name])


def test_the_objective_is_the_mean_absolute_difference_to_the_teachers_painting(
    pack: Pack, world: Path, tmp_path: Path
) -> None:
    module, data = make(world, teacher=str(pack.path), steady=0.0, partial=0.0)
    seen: list[tuple[torch.Tensor, torch.Tensor, float]] = []
    step = StyleTransfer.training_step

    def note(self: StyleTransfer, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        before = {key: value.clone() for key, value in self.net.state_dict().items()}
        loss = step(self, batch, batch_idx)
        ours = TransformerNet("fast", 1, **SIZES)
        ours.load_state_dict(before)
        with torch.no_grad():
            one, row = torch.ones(len(batch)), torch.eye(3)[[1] * len(batch)]  # "sea" is the pack's second style
            apart = ours(batch, torch.ones(len(batch), 1), one) - load_network(pack)(batch, row, one)
        seen.append((loss.detach(), apart.abs().mean(), float(self.trainer.callback_metrics["train/copy"])))
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StyleTransfer, "training_step", note)
        fit(module, data, tmp_path / "run", steps=3, trainer=TRAINER)
    assert len(seen) == 3
    for loss, expected, logged in seen:
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)
        assert logged == pytest.approx(float(loss)), "as train/copy"


def test_a_student_of_another_shape_comes_near_its_teacher(pack: Pack, world: Path, tmp_path: Path) -> None:
    sizes = {"width": 4, "blocks": 1, "head": 4}
    module, data = make(world, batch=4, sizes=sizes, rate=0.02, average=0.9, steady=0.0, teacher=str(pack.path))
    photo = to_tensor(np.asarray(Image.open(world / "photos/00.png")))[None]
    with torch.no_grad():
        goal = load_network(pack)(photo, torch.eye(3)[1:2])
        far = (module.averaged(photo) - goal).abs().mean()
        run = fit(module, data, tmp_path / "run", steps=80, trainer=TRAINER)
        near = (module.averaged(photo) - goal).abs().mean()
    assert near < far / 2
    record = load_checkpoint(run.checkpoint)["record"]
    assert record["teacher"] == {"pack": "three", "weights": pack.card.files["weights.safetensors"]}
    assert "teacher" not in record["config"] and str(tmp_path) not in str(record)


def test_a_teacher_without_the_style_is_refused(pack: Pack, world: Path) -> None:
    with pytest.raises(WrongCall, match="unknown style of the teacher three 'new'"):
        named(["sea", "new"], world, teacher=str(pack.path))


def test_a_teacher_without_weights_is_refused(pack: Pack, world: Path, tmp_path: Path) -> None:
    shutil.copytree(pack.path, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(PackError, match=r"weights\.safetensors"):
        named(["sea"], world, teacher=str(tmp_path / "bare"))


def test_a_run_goes_on_with_its_teacher_and_not_without(pack: Pack, world: Path, tmp_path: Path) -> None:
    module, data = make(world, teacher=str(pack.path), steady=0.0)
    begun = fit(module, data, tmp_path / "run", steps=2, trainer=TRAINER).checkpoint
    module, data = make(world, steady=0.0)
    with pytest.raises(CheckpointError, match=r"it is of a run with teacher three \(hash [0-9a-f]{8}\), now none"):
        fit(module, data, tmp_path / "run", steps=3, resume=begun, trainer=TRAINER)
    module, data = make(world, teacher=str(pack.path), steady=0.0)
    assert pickle.loads(pickle.dumps(module)).teacher.record == module.teacher.record, (
        "as for processes that are spawned"
    )
    assert fit(module, data, tmp_path / "run", steps=3, resume=begun, trainer=TRAINER).steps == 3
    assert not [key for key in module.state_dict() if "teacher" in key]
