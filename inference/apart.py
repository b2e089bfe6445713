"""Painting one picture in a process of its own, as it may have killed an earlier one; run as a module, that process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from impasto.errors import ImpastoError
from impasto.inference.manifest import KILLS, Row
from impasto.inference.sources import Job


def paint_apart(arguments: Mapping[str, Any], job: Job, earlier: Row | None) -> Row:
    """What `impasto.inference.painter.Painter.run` returns, or a row that says that the picture kills the process.

    Args:
        arguments: of a `Painter`.
        job: where from, where to.
        earlier: as `Painter.run`.

    Raises:
        OSError: the place that the output goes to takes no files.
        ImpastoError: the process does not come as far as to the picture.
    """
    order = {"arguments": dict(arguments), "job": asdict(job), "earlier": earlier and asdict(earlier)}
    command = [sys.executable, "-P", "-m", __name__]
    # A session of its own: Ctrl-C is for the run, which waits for what has begun.
    child = subprocess.run(command, input=json.dumps(order), stdout=subprocess.PIPE, text=True, start_new_session=True)
    ready, _, answer = child.stdout.partition("\n")
    if not ready:
        raise ImpastoError(
            f"a process for {job.source} does not start: {' '.join(command)} ends with {child.returncode}"
        )
    if not answer:
        return Row(job.source, job.output, error=f"{job.source}: {KILLS}")
    told = json.loads(answer)
    if "errno" in told:
        raise OSError(told["errno"], told["strerror"], told["filename"])
    return Row(**told)


def _main() -> None:
    from impasto.inference.painter import Painter

    order = json.load(sys.stdin)
    painter = Painter(**order["arguments"])
    print("ready", flush=True)
    try:
        row = painter.run(Job(**order["job"]), order["earlier"] and Row(**order["earlier"]), alone=True)
    except OSError as error:
        print(json.dumps({"errno": error.errno, "strerror": error.strerror, "filename": error.filename}))
    else:
        print(json.dumps(asdict(row)))


if __name__ == "__main__":
    _main()
