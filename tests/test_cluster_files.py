"""The cluster files: Ray's own check takes them, and they keep strangers out and other people's Ray alive."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
import yaml

CLUSTER = Path(str(resources.files("crispedit.configs"))) / "cluster"


@pytest.mark.parametrize("name", ["aws.yaml", "machines.yaml"])
def test_ray_takes_the_file_and_every_node_has_the_token(name: str):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((CLUSTER / name).read_text())
    validate_config(prepare_config(config))
    assert "~/.ray/auth_token" in config["file_mounts"].values()
    assert "RAY_AUTH_MODE=token" in (CLUSTER / name).read_text()


def test_machines_stop_no_ray_of_others():
    config = yaml.safe_load((CLUSTER / "machines.yaml").read_text())
    commands = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    assert not any("ray stop" in command for command in commands)
    started = [command for command in commands if "ray start" in command]
    assert all("RAY_AUTH_MODE=token" in command for command in started)
    assert "--dashboard-host=127.0.0.1" in started[0]
    assert "--temp-dir=/tmp/ray-crispedit" in started[0]


def test_no_document_opens_a_dashboard_without_a_token():
    text = (CLUSTER.parents[1] / "docs" / "cluster.md").read_text() if (CLUSTER.parents[1] / "docs").exists() else ""
    commands = [line for block in text.split("```sh\n")[1:] for line in block.partition("```")[0].splitlines()]
    assert not any("--dashboard-host=0.0.0.0" in line for line in commands)
