"""Runs of `penstock train` in a folder that is removed afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from penstock.errors import PenstockError


def trained(values: Mapping[str, Any], *then: list[str]) -> dict[str, Any]:
    """The summary of a run.

    Args:
        values: its configuration.
        *then: what penstock is called with once it has ended.

    Returns:
        What summary.json holds.

    Raises:
        PenstockError: a command failed; with its last line.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "run.yaml").write_text(yaml.safe_dump(dict(values)))
        for command in (["train", "run.yaml"], *then):
            done = subprocess.run(
                [sys.executable, "-m", "penstock", *command], cwd=folder, capture_output=True, text=True
            )
            if done.returncode:
                fault = (done.stderr.strip() or "no word").splitlines()[-1].removeprefix("penstock: ")
                raise PenstockError(f"`{command[0]}` failed: {fault}")
        return json.loads((Path(folder) / "runs" / "latest" / "summary.json").read_text())
