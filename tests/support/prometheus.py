"""Debian's Prometheus on what penstock ships for it, with everything that takes minutes made to take seconds."""

import contextlib
import json
import math
import os
import re
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.support.waiting import wait_until

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "penstock.json").read_text())


def require_prometheus() -> None:
    """Skip the test where Prometheus is not installed; in CI it must be."""
    missing = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
    if missing:
        reason = f"not installed: {', '.join(missing)}; Debian has both in the package prometheus"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


@dataclass(frozen=True)
class Query:
    """A query of a panel of the dashboard."""

    panel: str
    text: str
    is_instant: bool


def queries(instance: str = "127.0.0.1:9464", rate_interval: str = "1m") -> list[Query]:
    """Every query of the dashboard, with its variables replaced as Grafana does."""
    return [
        Query(
            panel["title"],
            target["expr"].replace("$instance", instance).replace("$__rate_interval", rate_interval),
            target.get("instant", False),
        )
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", ())
    ]


def quick_rules() -> str:
    """The rules with seconds in place of minutes, where one replaced worker is enough."""
    text = (DEPLOY / "prometheus" / "rules.yml").read_text()
    text = re.sub(r"\[\d+m\]", "[5s]", text.replace("increase10m > 2", "increase10m > 0"))
    return re.sub(r"for: \d+m", "for: 1s", text)


def certificate_in(folder: Path) -> tuple[str, str]:
    """The files of a certificate for 127.0.0.1, which signs itself, and of its key."""
    certificate, key = str(folder / "certificate.pem"), str(folder / "key.pem")
    subject = ["-subj", "/CN=penstock", "-addext", "subjectAltName=IP:127.0.0.1"]
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command = ["openssl", "req", *kind, *subject, "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


class Prometheus:
    """A Prometheus that scrapes one endpoint."""

    def __init__(self, address: str, target: str):
        self._address = address
        self.target = target

    def ask(self, path: str, **parameters: object) -> dict | list:
        """The data of an answer of the HTTP API."""
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url) as answer:
            return json.load(answer)["data"]

    def is_ready(self) -> bool:
        """Whether it answers queries."""
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{self._address}/-/ready") as answer:
            return answer.status == 200
        return False

    def health(self) -> tuple[str, str]:
        """How the last scrape went, and why."""
        targets = self.ask("targets")["activeTargets"]  # none in the first moment
        return (targets[0]["health"], targets[0]["lastError"]) if targets else ("unknown", "")

    def firing(self) -> set[str]:
        """Names of the alerts that fire."""
        return {alert["labels"]["alertname"] for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"}

    def values(self, query: str, *, start: float | None = None, end: float | None = None) -> list[float]:
        """Finite values of all series, at one time or over a range, as Grafana asks for either."""
        if start is None:
            return [float(series["value"][1]) for series in self.ask("query", query=query)["result"]]
        found = self.ask("query_range", query=query, start=start, end=end, step=1)["result"]
        return [value for series in found for _, text in series["values"] if math.isfinite(value := float(text))]

    def panels_without_data(self, start: float, end: float) -> set[str]:
        """Titles of the panels with a query that returns nothing."""
        return {
            query.panel
            for query in queries(self.target, "5s")
            if not self.values(query.text, **({} if query.is_instant else {"start": start, "end": end}))
        }


@contextlib.contextmanager
def prometheus(folder: Path, url: str, **options: object) -> Iterator[Prometheus]:
    """A Prometheus with the configuration and the rules of deploy/, made quick.

    options: further ones of the scrape configuration.
    """
    address, target = f"127.0.0.1:{free_port()}", urllib.parse.urlsplit(url).netloc
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    config["scrape_configs"][0] |= {"static_configs": [{"targets": [target]}], **options}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (folder / "rules.yml").write_text(quick_rules())
    command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], cwd=folder, stdout=log, stderr=log)
        try:
            server = Prometheus(address, target)
            wait_until(lambda: process.poll() is not None or server.is_ready(), every_s=0.05)
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            yield server
        finally:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port of localhost that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]
