"""What a job runs on a machine of a cluster that this one knows nothing of."""

from __future__ import annotations

import shlex
from pathlib import Path

from penstock import __version__
from penstock.orchestrator.launch.launcher import OUTPUT

# Ray kills a job that has not ended by then; a driver writes its checkpoint and ends within 20 s.
STOP_WITHIN_S = 25

SCRIPT = f"""\
#!/bin/bash
{{prologue}}set +eu +o pipefail # which a prologue may have set
folder={{folder}}
here="penstock: $(hostname)"
if [ ! -w "$folder/logs" ]; then
    echo "$here cannot write to $folder: launch from a folder that the cluster has at the same path" >&2
    exit 2
fi
exec >>"$folder/logs/{OUTPUT}" 2>&1
version=$(python -c "import penstock; print(penstock.__version__)" 2>&1 | tail -n 1)
if [ "$version" != {__version__} ]; then
    echo "$here has penstock $version, and the run was launched with {__version__}: use one version"
    exit 2
fi
cd "$folder/../.." || exit
exec python -m penstock resume "$folder" cluster.address=auto
"""


def script(prologue: str, folder: Path) -> str:
    """The script of a driver on a node of a Ray cluster, in bash.

    It goes where the folder is seen and has the version of penstock that launches it, else it ends in one line.

    Args:
        prologue: lines to run first.
        folder: the run folder.

    Returns:
        Its text.
    """
    return SCRIPT.format(prologue=prologue.rstrip("\n") + "\n" if prologue else "", folder=shlex.quote(str(folder)))
