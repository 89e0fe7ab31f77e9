"""The files of examples/deploy: every flag, variable, metric, path and name in them exists, and they drain in time."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import ratelimited_llm
from ratelimited_llm import cli
from ratelimited_llm.telemetry.prometheus import Collector

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "examples" / "deploy"
PACKAGE = Path(ratelimited_llm.__file__).parent
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
TEXTS = sorted(path for path in DEPLOY.rglob("*") if path.is_file())
QUEUE = "dramatiq+redis://127.0.0.1/1"


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def objects():
    """What is in kubernetes.yaml, by kind and name."""
    found = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8"))
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def pod(objects, name):
    kind = "StatefulSet" if name == "valkey" else "Deployment"
    return objects[kind, name]["spec"]["template"]


def instructions():
    """The Dockerfile's lines: (instruction, the rest), comments left out and continued lines joined."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.M)).splitlines()
    return [tuple(line.strip().split(None, 1)) for line in lines if line.strip()]


def last(name):
    return [rest for instruction, rest in instructions() if instruction == name][-1]


def unit(path):
    """A unit's settings, each a list as most may be repeated."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, sign, value = line.partition("=")
        if sign and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def commands(compose, objects):
    """Every command line of ours in any of the files, with how long its process is given to end (None: not said)."""
    yield "Dockerfile", json.loads(last("CMD")), None
    for name in ("gateway", "worker"):
        service = compose["services"][name]
        yield f"compose {name}", service["command"], float(service["stop_grace_period"].removesuffix("s"))
        spec = pod(objects, name)["spec"]
        stopping = spec["containers"][0].get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [0])
        yield name, spec["containers"][0]["args"], spec["terminationGracePeriodSeconds"] - float(stopping[-1])
    for path in UNITS:
        settings = unit(path)
        yield path.name, shlex.split(settings["ExecStart"][0])[1:], float(settings["TimeoutStopSec"][0])


# -- command lines ----------------------------------------------------------------------------------------------------


def test_every_command_line_is_one_that_the_cli_takes(compose, objects, monkeypatch):
    """Each of them is parsed by the parser itself, so a renamed flag fails here."""
    monkeypatch.setenv("RATELIMITED_LLM_QUEUE", QUEUE)  # as the files give it to workers
    for where, words, _ in commands(compose, objects):
        args = cli._parser().parse_args(words)
        assert args.command_name in ("serve", "worker"), where


def test_every_process_is_given_longer_to_end_than_it_drains(compose, objects, monkeypatch):
    """A kill in the middle of a drain would throw away what is in flight."""
    monkeypatch.setenv("RATELIMITED_LLM_QUEUE", QUEUE)
    for where, words, grace in commands(compose, objects):
        if grace is not None:
            assert grace >= cli._parser().parse_args(words).drain + 5, where


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_variable_of_ours_is_one_that_the_package_reads(path):
    """A misspelt variable would be silently of no effect."""
    source = "\n".join(each.read_text(encoding="utf-8") for each in PACKAGE.rglob("*.py"))
    options = {name.upper() for name in re.findall(r'"(\w+)"', source)}
    for name in set(re.findall(r"RATELIMITED_LLM_([A-Z_]+[A-Z])", path.read_text(encoding="utf-8"))):
        assert f"RATELIMITED_LLM_{name}" in source or name in options, name


def test_limits_that_are_left_empty_are_learned(monkeypatch):
    """compose.yaml hands on the variables of .env even when they are empty."""
    from ratelimited_llm.options import split_limits

    monkeypatch.setenv("RATELIMITED_LLM_RPM", "")
    monkeypatch.setenv("RATELIMITED_LLM_TPM", "")
    assert split_limits(None, {}).rpm is None


# -- metrics ----------------------------------------------------------------------------------------------------------


def known_metrics():
    """The names of all time series that the exposition may have."""
    names = set()
    for family in Collector().describe():
        endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        names.update(family.name + ending for ending in endings)
    return names


def queries():
    board = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]
    for group in yaml.safe_load((DEPLOY / "alerts.yml").read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


LABELS = {"provider", "model", "bucket", "priority", "operation", "outcome", "type", "limit", "reason", "le", "job"}


def test_queries_ask_only_for_metrics_that_there_are():
    """The dashboard and the alerts know no name that the exposition does not have."""
    known = known_metrics()
    for where, query in queries():
        for name in re.findall(r"ratelimited_llm_\w+", query):
            assert name in known, f"{where}: {name}"


def test_queries_ask_only_for_labels_that_there_are():
    """By label values and groupings alike."""
    for where, query in queries():
        asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", query))
        for listed in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", query):
            asked.update(name.strip() for name in listed.split(","))
        assert asked <= LABELS, where


def test_queries_are_balanced():
    """Brackets and quotes close."""
    for where, query in queries():
        assert query.count("(") == query.count(")"), where
        assert query.count("{") == query.count("}"), where
        assert query.count('"') % 2 == 0, where


def test_panels_of_the_dashboard_do_not_lie_on_each_other():
    """Each has its own number and its own place on Grafana's grid of 24 columns."""
    panels = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_prometheus_scrapes_what_compose_starts(compose):
    """Names of hosts are names of services, ports those that they listen on, and the rules are mounted."""
    told = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))
    gateway, worker = told["scrape_configs"]
    assert gateway["static_configs"][0]["targets"] == ["gateway:8089"]
    assert worker["dns_sd_configs"][0]["names"] == ["worker"]
    metrics_port = compose["services"]["worker"]["environment"]["RATELIMITED_LLM_METRICS_PORT"]
    assert worker["dns_sd_configs"][0]["port"] == int(metrics_port)
    for name in told["rule_files"]:
        assert (DEPLOY / name).is_file()
        assert any(volume.startswith(f"./{name}:") for volume in compose["services"]["prometheus"]["volumes"])
    secret = gateway["authorization"]["credentials_file"]
    assert secret == f"/run/secrets/{compose['services']['prometheus']['secrets'][0]['source']}"


# -- the image --------------------------------------------------------------------------------------------------------


def test_the_image_runs_as_nobody_in_particular_and_gets_its_signals():
    """Not root, by number; exec form, so that SIGTERM reaches the process; a health check; no secret inside."""
    assert last("USER") == "10001"
    assert json.loads(last("ENTRYPOINT")) == ["ratelimited-llm"]
    assert json.loads(last("HEALTHCHECK").partition("CMD ")[2])[0] == "python"
    assert not [rest for name, rest in instructions() if name in ("ENV", "ARG") and re.search("KEY|TOKEN|PASSW", rest)]


def test_the_image_copies_what_there_is_and_asks_for_extras_that_there_are():
    """Paths are those of the repository, extras those of pyproject.toml."""
    for name, rest in instructions():
        if name == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
    told = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = re.search(r"\"\.\[([a-z,]+)\]\"", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"))
    for extra in extras[1].split(","):
        assert re.search(rf"^{extra} = \[", told, re.M), f"pyproject.toml has no extra {extra}"


def test_the_health_check_asks_a_path_that_the_gateway_has(objects):
    """So do the probes of Kubernetes."""
    from ratelimited_llm.gateway import create_app

    paths = {route.path for route in create_app(token="t").routes}
    assert "/healthz" in last("HEALTHCHECK")
    container = pod(objects, "gateway")["spec"]["containers"][0]
    asked = {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert asked == {"/healthz", "/readyz"}
    assert asked <= paths


# -- compose ----------------------------------------------------------------------------------------------------------


def test_compose_starts_what_it_says_and_publishes_on_loopback_only(compose):
    """Valkey, two workers, a gateway and Prometheus; nothing can be reached from the network by default."""
    services = compose["services"]
    assert set(services) == {"valkey", "gateway", "worker", "prometheus"}
    assert services["worker"]["deploy"]["replicas"] == 2
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in compose["volumes"]


def test_compose_takes_every_secret_from_the_environment(compose):
    """None stands in the file, and a missing one stops it with a word; .env.example names each."""
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    example = (DEPLOY / ".env.example").read_text(encoding="utf-8")
    for name in set(re.findall(r"(?<!\$)\$\{(\w+)", text)):
        assert f"\n{name}=\n" in f"\n{example}", name
    for name in ("OPENAI_API_KEY", "RATELIMITED_LLM_TOKEN", "VALKEY_PASSWORD"):
        assert all(rest.startswith(":?") for rest in re.findall(rf"(?<!\$)\$\{{{name}([^}}]*)", text)), name


# -- Kubernetes -------------------------------------------------------------------------------------------------------


def test_kubernetes_selectors_find_their_pods(objects):
    """Services, deployments and the policy select labels that the pods have."""
    for (kind, name), each in objects.items():
        if kind in ("Deployment", "StatefulSet"):
            wanted = each["spec"]["selector"]["matchLabels"]
            labels = each["spec"]["template"]["metadata"]["labels"]
        elif kind == "Service":
            wanted, labels = each["spec"]["selector"], pod(objects, name)["metadata"]["labels"]
        else:
            continue
        assert wanted.items() <= labels.items(), (kind, name)


@pytest.mark.parametrize("name", ["gateway", "worker", "valkey"])
def test_kubernetes_pods_are_nobody_in_particular_and_read_secrets_by_reference(objects, name):
    """No root, no capabilities, a read-only file system; keys come from the Secret and stand nowhere."""
    spec = pod(objects, name)["spec"]
    container = spec["containers"][0]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
    for variable in container["env"]:
        if re.search("KEY|TOKEN|PASSWORD", variable["name"]):
            assert "secretKeyRef" in variable["valueFrom"], variable["name"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    claims = objects.get(("StatefulSet", name), {}).get("spec", {}).get("volumeClaimTemplates", [])
    there = {volume["name"] for volume in spec.get("volumes", [])} | {claim["metadata"]["name"] for claim in claims}
    assert mounted == there
    named = {port["name"] for port in container["ports"]}
    for probe in (value for key, value in container.items() if key.endswith("Probe")):
        port = (probe.get("httpGet") or probe.get("tcpSocket") or {}).get("port")
        assert port is None or port in named


# -- systemd ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_keep_their_process_on_a_short_leash(path):
    """Its own user, no capabilities, nothing of the system to write to, keys in a file of root's."""
    settings = unit(path)
    for name in ("DynamicUser", "NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices", "RestrictNamespaces"):
        assert settings[name] == ["yes"], name
    assert settings["ProtectSystem"] == ["strict"]
    assert settings["CapabilityBoundingSet"] == [""]
    assert settings["EnvironmentFile"] == ["/etc/ratelimited-llm/env"]
    assert not re.search("(KEY|TOKEN|PASSWORD)=[^ ,.]", path.read_text(encoding="utf-8").replace("KEY=,", ""))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_units_are_ones_that_systemd_understands(tmp_path):
    """`systemd-analyze verify` has nothing to say, once the program is one that is installed here."""
    files = []
    for path in UNITS:
        text = path.read_text(encoding="utf-8").replace("/opt/ratelimited-llm/bin/ratelimited-llm", sys.executable)
        files.append(tmp_path / path.name.replace("@.", "@1."))
        files[-1].write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, files)], capture_output=True, text=True, timeout=15
    )
    said = [line for line in done.stderr.splitlines() if "ratelimited-llm" in line]
    assert said == []
