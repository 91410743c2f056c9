"""A small configuration, in the current folder."""

import pytest

CONFIG = """
name: small
problem: {name: darcy, resolution: 16}
model: {name: fno, width: 8, modes: 4, layers: 2}
training: {device: cpu, stop_after: {steps: 2}}
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(CONFIG)
    return tmp_path / "small.yaml"
