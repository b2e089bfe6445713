"""A model repository for NVIDIA Triton, which then answers the same requests as `impasto serve` below ``/v2``.

    DIR/
      PACK/
        config.pbtxt
        1/model.onnx     the pack's paint.onnx

Source: Triton's "Model Repository" and "Model Configuration" (``model_config.proto``). Not tried with a Triton: the
configuration is parsed with Triton's own message types by a test.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from impasto.errors import WrongCall
from impasto.packs import PAINT, Pack

MAX_BATCH = 8
QUEUE = 32
WARM_UP_SIDES = (256, 512)

_CONFIG = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: {max_batch}
input [
  {{ name: "image" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] }},
  {{ name: "style" data_type: TYPE_FP32 dims: [ {styles} ] }},
  {{ name: "strength" data_type: TYPE_FP32 dims: [ 1 ] reshape: {{ shape: [ ] }} }}
]
output [ {{ name: "painted" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] }} ]
dynamic_batching {{
  max_queue_delay_microseconds: 2000
  default_queue_policy {{
    timeout_action: REJECT
    default_timeout_microseconds: 5000000
    max_queue_size: {queue}
  }}
}}
instance_group [ {{ kind: KIND_AUTO count: 1 }} ]
version_policy: {{ latest {{ num_versions: 2 }} }}
{warm_up}"""

_WARM_UP = """\
model_warmup {{
  name: "{side} pixels"
  batch_size: 1
  inputs {{ key: "image" value {{ data_type: TYPE_UINT8 dims: [ {side}, {side}, 3 ] random_data: true }} }}
  inputs {{ key: "style" value {{ data_type: TYPE_FP32 dims: [ {styles} ] zero_data: true }} }}
  inputs {{ key: "strength" value {{ data_type: TYPE_FP32 dims: [ 1 ] zero_data: true }} }}
}}
"""


def triton_config(pack: Pack) -> str:
    """The ``config.pbtxt`` of a pack.

    Triton joins requests of one size into a batch of up to 8. ``strength`` comes as ``(N, 1)``, because a batch of
    scalars cannot be stated there; ``reshape`` takes the last axis off again.
    """
    styles = len(pack.card.style_names)
    warm_up = "".join(_WARM_UP.format(side=side, styles=styles) for side in WARM_UP_SIDES)
    return _CONFIG.format(name=pack.card.name, max_batch=MAX_BATCH, styles=styles, queue=QUEUE, warm_up=warm_up)


def export_triton(pack: Pack, folder: str | os.PathLike[str], *, version: int = 1) -> Path:
    """Add a pack to a model repository: whole, or (on any failure) not at all.

    Args:
        pack: the pack.
        folder: the repository; made if there is none.
        version: number of the version's folder; one that exists is not replaced.

    Returns:
        The folder of the model.

    Raises:
        WrongCall: a version below 1, or one that is there already.
        PackError: the pack's graph is missing or altered.
        OSError: the disk does not take the files.
    """
    model = Path(folder) / pack.card.name
    if version < 1 or (model / str(version)).exists():
        raise WrongCall(f"{model}: version {version} is there or is not a number from 1 up; choose another one")
    data = pack.read(PAINT)
    model.mkdir(parents=True, exist_ok=True)
    part = model / f".{secrets.token_hex(8)}.part"
    try:
        part.mkdir()
        (part / "model.onnx").write_bytes(data)
        config = part / "config.pbtxt"
        config.write_text(triton_config(pack), encoding="utf-8")
        os.replace(config, model / "config.pbtxt")
        part.rename(model / str(version))
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return model
