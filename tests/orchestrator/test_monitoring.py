"""Rules, alerts and dashboard: by promtool, by a Prometheus on made faults, and by what there is to show."""

import re
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from penstock.messages import Decision, SolveRecord
from penstock.orchestrator.config.metrics import MetricsSection
from penstock.orchestrator.views.prometheus.metrics import Metrics
from penstock.record import Bottleneck, Record
from penstock.status import RankStatus, WorkerStatus
from tests.support.prometheus import DASHBOARD, DEPLOY, certificate_in, prometheus, queries, require_prometheus
from tests.support.waiting import wait_until

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
GROUPS = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
RECORDED = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def promtool(*arguments, cwd=DEPLOY / "prometheus"):
    require_prometheus()
    return subprocess.run(["promtool", *arguments], cwd=cwd, capture_output=True, text=True)


def names_in(query: str) -> set[str]:
    """The metrics that a query is made from."""
    for record, expression in RECORDED.items():
        query = query.replace(record, expression)
    assert ":penstock" not in query, "a rule that is not recorded"
    names = re.findall(r"\bpenstock_\w+", query)
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}


@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yml"), ("check", "rules", "rules.yml"), ("test", "rules", "rules_test.yml")],
)
def test_promtool_accepts_the_configuration_and_the_rules_and_made_series_raise_the_alerts(arguments):
    result = promtool(*arguments)
    assert result.returncode == 0, result.stdout + result.stderr


def test_registry_page_and_dashboard_have_the_same_names():
    families = list(Metrics().registry.collect())
    registry = {f"{family.name}{'_total' if family.type == 'counter' else ''}" for family in families}
    assert all(family.documentation for family in families)
    rows = re.findall(r"^\| `(penstock_\w+)` \| (\w+) \|", PAGE, re.M)
    assert len(rows) == len(families) and {name for name, _ in rows} == registry
    assert dict(rows) == {
        f"{family.name}{'_total' if family.type == 'counter' else ''}": family.type for family in families
    }
    assert {name for query in queries() for name in names_in(query.text)} == registry
    assert {name for rule in RULES for name in names_in(rule["expr"])} <= registry


def test_every_query_of_the_dashboard_parses(tmp_path):
    rules = [{"record": f"query:{number}", "expr": query.text} for number, query in enumerate(queries())]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    result = promtool("check", "rules", "queries.yml", cwd=tmp_path)
    assert result.returncode == 0 and f"{len(rules)} rules found" in result.stdout, result.stdout + result.stderr
    path.write_text(path.read_text().replace("penstock_train_loss{", "penstock_train_loss}{"))
    assert promtool("check", "rules", "queries.yml", cwd=tmp_path).returncode != 0


def test_the_page_lists_the_alerts():
    alerts = [rule["alert"] for rule in RULES if "alert" in rule]
    assert re.findall(r"^\| `(Penstock\w+)` \|", PAGE, re.M) == alerts
    assert all(rule["annotations"]["summary"] for rule in RULES if "alert" in rule)


def test_the_dashboard_is_one_of_grafana():
    """What Grafana asks for (grafana-foundation-sdk has its types), with panels that every Grafana has."""
    assert DASHBOARD["uid"] and DASHBOARD["schemaVersion"] >= 39
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource", "instance"]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    cells = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        taken = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells and place["x"] + place["w"] <= 24
        cells |= taken
    for panel in PANELS:
        assert panel["type"] in ("timeseries", "stat", "gauge", "table")
        assert panel["title"] and panel["description"] and panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            metrics = re.findall(r"[\w:]*penstock_[\w:]+", target["expr"])
            assert target["expr"].count('{instance="$instance"}') == len(metrics)
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_the_containers_find_their_files():
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    mounts = {}
    for service in services.values():
        for mount in service["volumes"]:
            source, target, *_ = mount.split(":")
            mounts[target] = source
            assert not source.startswith(".") or (DEPLOY / source).is_dir()
    provisioning = DEPLOY / "grafana" / "provisioning"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "penstock.yml").read_text())["providers"]
    assert (DEPLOY / mounts[provider["options"]["path"]] / "penstock.json").is_file()
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    command = " ".join(services["prometheus"]["command"])
    assert f"--web.listen-address={source['url'].removeprefix('http://')}" in command
    assert "--config.file=/etc/prometheus/prometheus.yml" in command and mounts["/etc/prometheus"] == "./prometheus"
    assert services["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"


BIAS = {"parameters": {"source": {"mean": 0.5, "spread": 0.3, "ks": 0.1}}, "age_p95": 10.0}
VALIDATION = {
    "relative_l2": {"mean": 0.1, "median": 0.1, "p99": 0.2, "max": 0.2},
    "fields": {"u": {"vrmse": 0.1}},
    "rollout": {"relative_l2": [0.1], "correlation_time": 3.0},
}
SOUND = Record(
    **{"workers": 2, "buffer_samples": 9, "buffer_capacity": 9, "loss": 0.1, "bias": BIAS, "validation": VALIDATION},
    bottleneck=Bottleneck(side="learner", certainty=1.0, sentence="", learner_per_s=9.0),
)


@pytest.mark.timeout(120)
def test_alerts_fire_on_made_faults_and_every_panel_has_data(tmp_path):
    """Faults in what the driver reports, by TLS seen by a Prometheus that sends a token; windows last seconds."""
    require_prometheus()
    (tmp_path / "token").write_text("abcdef\n")
    token_file, (certificate, key) = str(tmp_path / "token"), certificate_in(tmp_path)
    metrics, began = Metrics(MetricsSection(token_file=token_file, certificate=certificate, key=key)), time.time()
    metrics.choose([Decision(family="darcy", strategy="cg", seconds={"cg": 0.1}, reason="")])
    solve = SolveRecord(strategy="cg", seconds=0.01, iterations=3, relative_residual=0.0)

    def report(*, is_sound: bool) -> None:
        """What the driver does once per second, at any time."""
        seconds = time.time() - began
        counts = {"unique": int(10 * seconds), "trained": int(40 * seconds), "delivered": int(10 * seconds)}
        errors = VALIDATION if is_sound else VALIDATION | {"relative_l2": dict.fromkeys(("mean", "p99", "max"), 0.4)}
        wait = 0.0 if is_sound else 0.9 * (time.time() - ill_since)
        metrics.update(replace(SOUND, **counts, validation=errors, learner_wait_seconds=wait), [solve])
        worker = WorkerStatus(place=0, is_ready=True, simulations=counts["delivered"], resident_bytes=9)
        restarts = 0 if is_sound else 3
        workers = [replace(worker, restarts=restarts), replace(worker, place=1)]
        metrics.processes.show(workers, [RankStatus(resident_bytes=9, device_bytes=9)], (100, 50 if is_sound else 4))

    def is_shown() -> bool:
        report(is_sound=True)
        return not server.panels_without_data(began, time.time())

    faults = {"PenstockLearnerStarved", "PenstockWorkersRestart", "PenstockDiskNearlyFull", "PenstockErrorRises"}
    report(is_sound=True)
    tls = {"scheme": "https", "tls_config": {"ca_file": certificate}}
    with prometheus(tmp_path, metrics.url, authorization={"credentials_file": token_file}, **tls) as server:
        wait_until(is_shown, every_s=0.3)
        assert server.health() == ("up", "") and not server.firing()
        fired, ill_since = set(), time.time()

        def all_have_fired() -> bool:
            report(is_sound=False)
            fired.update(server.firing())
            return fired == faults

        wait_until(all_have_fired, every_s=0.3)
