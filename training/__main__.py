"""Lightning's own command line on the same classes: ``python -m impasto.training fit --config recipe.yaml``."""

from __future__ import annotations

import sys
from typing import Any

from impasto.errors import ImpastoError, require


def main(arguments: list[str] | None = None) -> Any:
    """Run Lightning's command line, with our callbacks; events go to ``runs/lightning`` unless told otherwise."""
    require("jsonargparse", purpose="Lightning's command line", extra="train")
    from impasto.training.command_line import run_command_line

    return run_command_line(arguments)


if __name__ == "__main__":
    try:
        main()
    except ImpastoError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
