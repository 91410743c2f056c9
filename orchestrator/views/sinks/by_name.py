"""The programs that show a run besides penstock, by name."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from penstock.errors import PenstockError
from penstock.orchestrator.views.sinks.mlflow_sink import MlflowSink
from penstock.orchestrator.views.sinks.sink import Sink
from penstock.orchestrator.views.sinks.tensorboard_sink import TensorBoardSink
from penstock.orchestrator.views.sinks.wandb_sink import WandbSink

SINKS: dict[str, type[Sink]] = {"tensorboard": TensorBoardSink, "wandb": WandbSink, "mlflow": MlflowSink}


def require_packages(names: Sequence[str]) -> None:
    """Check that the packages of sinks are installed.

    Args:
        names: keys of SINKS.

    Raises:
        PenstockError: one is not.
    """
    for name in names:
        if find_spec(SINKS[name].package) is None:
            raise PenstockError(
                f"monitor: the package {SINKS[name].package} is not installed: pip install '{SINKS[name].install}', "
                f"or leave {name} out"
            )
