"""Run folders made by hand, after those of real runs."""

import json

import pytest
import yaml

from penstock.orchestrator.store.run_folder import RunFolder

CONFIG = {"name": "tiny", "problem": {"name": "darcy", "options": {"resolution": 16}}, "model": {"name": "fno"}}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A function that makes a folder under runs/, which is the current one: of its files, and their content."""
    monkeypatch.chdir(tmp_path)

    def make(name, *, state="failed", cause=None, events=(), logs=(), records=(), config=None, **run):
        folder = RunFolder((tmp_path / "runs" / name).resolve())
        folder.logs.mkdir(parents=True)
        (folder.path / "config.yaml").write_text(yaml.safe_dump(CONFIG | (config or {})))
        (folder.path / "run.json").write_text(
            json.dumps({"state": state, "cause": cause, "host": "here", "driver_pid": 2**22 + 1} | run)
        )
        stamp = "2026-11-30T21:15:{:06.3f}+00:00"
        lines = [{"time": stamp.format(second), "event": event} | keys for second, event, keys in events]
        if lines:
            folder.events.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        if records:
            folder.metrics.write_text("".join(f"{json.dumps(record)}\n" for record in records))
        for process, text in dict(logs).items():
            (folder.logs / f"{process}.log").write_text(text)
        return folder

    return make
