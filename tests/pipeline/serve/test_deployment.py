"""What watches a server asks for metrics that it has; what starts it calls it rightly."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from command_lines import unknown_words
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.serve.metrics import Metrics


@pytest.fixture
def compose(repository: Path) -> dict:
    return yaml.safe_load((repository / "compose.yaml").read_text())


def test_every_metric_of_the_dashboard_exists(repository):
    metrics = Metrics()
    for counter in (metrics.characters, metrics.seconds, metrics.damaged):
        counter.labels("ana").inc(0)
    metrics.requests.labels("/v1/audio/speech", "200").inc(0)
    page = generate_latest(metrics.registry).decode()
    there = {sample.name for family in text_string_to_metric_families(page) for sample in family.samples}
    dashboard = json.loads((repository / "deploy/grafana/voxline.json").read_text())
    targets = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = {name for target in targets for name in re.findall(r"voxline_\w+", target)}
    assert len(asked) > 8
    assert asked <= there


def test_compose_starts_the_server_by_a_command_that_there_is(compose):
    command = compose["services"]["voxline"]["command"]
    assert unknown_words(" ".join(command)) == []


def test_compose_mounts_files_that_there_are_and_names_every_volume(compose, repository):
    for service in compose["services"].values():
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            if source.startswith("./") and source != "./registry":  # which the first published voice makes
                assert (repository / source).exists(), source
            elif not source.startswith("."):
                assert source in compose["volumes"]


def test_only_this_machine_reaches_what_compose_starts(compose):
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert compose["services"]["voxline"]["ports"][0].endswith(":8080")


def test_prometheus_looks_where_the_server_listens(repository, compose):
    watched = yaml.safe_load((repository / "deploy/prometheus.yml").read_text())
    (target,) = watched["scrape_configs"][0]["static_configs"][0]["targets"]
    host, port = target.split(":")
    assert host in compose["services"]
    assert compose["services"][host]["command"][-1] == port
