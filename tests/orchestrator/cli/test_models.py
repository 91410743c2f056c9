"""`penstock models`: the table, and one model."""

import re

import pytest
from typer.testing import CliRunner

from penstock.geometry import Geometry
from penstock.learner import models
from penstock.learner.models import MODELS
from penstock.learner.optimizers import OPTIMIZERS
from penstock.learner.rehearsal import comparison
from penstock.orchestrator.cli.app import app
from penstock.orchestrator.cli.catalogue import listing


def test_every_model_has_a_row_with_what_it_takes_and_its_size(capsys):
    """Parameters of the net: a bias and a weight for each of 4096 values, 256 and 256 neurons, and 4096 values."""
    listing.show_models(measures=False)
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert rows.keys() >= MODELS.keys()
    size = f"{4097 * 256 + 257 * 256 + 257 * 4096:,}"
    assert re.match(rf"mlp +a grid, a mesh +no +{size} +pt2, onnx, safetensors +Fully connected", rows["mlp"])
    assert re.match(r"fno +a grid +yes +[\d,]+ +pt2, onnx, safetensors +The Fourier", rows["fno"])
    assert re.match(r"mg_tfno +a grid +with fno +[\d,]+ ", rows["mg_tfno"])
    assert re.match(r"unet +a grid +no +[\d,]+ ", rows["unet"])
    assert re.match(r"deeponet +a grid, a mesh, points that vary +on points that vary +[\d,]+ ", rows["deeponet"])
    assert re.match(r"neuralop .* +pt2, safetensors ", rows["neuralop"])


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_resolution_free_on_geometries_that_it_takes(name):
    cls = MODELS[name]
    assert all(issubclass(kind, Geometry) for kind in cls.accepts) and set(cls.resolution_free) <= set(cls.accepts)


def test_a_measured_row_has_seconds(capsys, monkeypatch):
    monkeypatch.setattr(models, "MODELS", {"mlp": MODELS["mlp"]})
    listing.show_models(measures=True)
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].endswith("seconds per step") and "A step is of the model's own optimizer" in printed
    row = next(line for line in printed.splitlines() if line.startswith("mlp"))
    assert float(row.split()[-1]) > 0


def test_a_step_is_measured_with_the_optimizer_of_the_models_recipe(monkeypatch):
    made = []

    def recorded(name):
        return lambda groups: made.append(name) or OPTIMIZERS[name](groups)

    monkeypatch.setattr(comparison, "OPTIMIZERS", {name: recorded(name) for name in OPTIMIZERS})
    assert comparison.seconds_per_step("mlp") > 0 and comparison.seconds_per_step("t1") > 0
    assert made == ["adamw", "muon"]


def test_one_model_is_shown_with_its_options():
    shown = CliRunner().invoke(app, ["models", "show", "unet"])
    assert shown.exit_code == 0 and "width=" in shown.output and "Args:" in shown.output
    assert "resolution-free" in CliRunner().invoke(app, ["models"]).output
