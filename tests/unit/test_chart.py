"""The Helm chart: what it makes is valid, reaches every setting, and lets through what it needs."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml
from prometheus_client.exposition import generate_latest

from polyglot_persistence import __version__, bootstrap
from polyglot_persistence.api.routes import ROUTES
from polyglot_persistence.config import Settings, load
from polyglot_persistence.config.addresses.elasticsearch import node_urls
from polyglot_persistence.config.addresses.postgres import postgres_url
from polyglot_persistence.config.addresses.rabbitmq import read_rabbitmq
from polyglot_persistence.config.addresses.redis import read_redis
from polyglot_persistence.domain.access import digest_of
from polyglot_persistence.telemetry import REGISTRY
from scripts import document_settings
from tests.support.documents import ROOT
from tests.support.kubernetes import CHART, NEEDS_HELM, VERSIONS, Object, check, helm, rendered

VALUES = sorted(map(str, (CHART / "ci").glob("*-values.yaml")))
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
OF_SETTINGS: dict[str, dict[str, Any]] = SCHEMA["$defs"]["settings"]["properties"]
MINIMAL, EVERYTHING, OPERATORS = (
    str(CHART / "ci" / f"{name}-values.yaml") for name in ("minimal", "everything", "operators")
)
PROCESSES = ("api", "worker")
KEY = f"metrics:read:{digest_of(b'key').hex()}"
CONTENTS = {
    "rabbitmq/connection_string": "amqp://default_user:secret@orders-queue.shop.svc:5672/",
    "api-keys/keys": KEY,
}
"""What the files of secrets hold; others hold a password."""
_SECRET_FILE = re.compile(r"/run/secrets/([\w.-]+)/([\w.-]+)")
_SENTINELS_SERVER = 6379

pytestmark = NEEDS_HELM
every_file = pytest.mark.parametrize("values", VALUES, ids=lambda path: Path(path).stem)


def of_kind(objects: Sequence[Object], kind: str) -> dict[str, Object]:
    """Return the objects of a kind by their component."""
    found = [one for one in objects if one["kind"] == kind]
    return {one["metadata"]["labels"]["app.kubernetes.io/component"]: one for one in found}


def pods(objects: Sequence[Object]) -> dict[str, Object]:
    """Return the template of each pod by its component."""
    return {
        component: one["spec"]["template"]
        for kind in ("Deployment", "Job")
        for component, one in of_kind(objects, kind).items()
    }


def container(pod: Object) -> Object:
    """Return the one container of a pod."""
    [one] = pod["spec"]["containers"]
    assert isinstance(one, dict)
    return one


def environment(pod: Object) -> dict[str, str]:
    """Return the variables of a pod, as a node sets them; its address is 10.2.3.4."""
    named = {one["name"]: one.get("value", "10.2.3.4") for one in container(pod)["env"]}
    return {name: text.replace("$(POD_IP)", named["POD_IP"]) for name, text in named.items()}


def settings_of(pod: Object, directory: Path) -> Settings:
    """Return the settings of a pod, as its process reads them with all secrets there."""
    variables = environment(pod)
    for text in variables.values():
        for secret, key in _SECRET_FILE.findall(text):
            file = directory / secret / key
            file.parent.mkdir(exist_ok=True)
            file.write_text(CONTENTS.get(f"{secret}/{key}", "secret"))
    return load(
        {name: text.replace("/run/secrets", str(directory)) for name, text in variables.items()}
    )


# --- the chart itself ------------------------------------------------------------------------


@every_file
def test_helm_finds_nothing_to_complain_of(values: str) -> None:
    """Nor a value that is none of the chart's."""
    done = helm("lint", "--strict", str(CHART), f"--values={values}")
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout


@every_file
@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(values: str, version: str) -> None:
    """By the strict schemas of the oldest and newest Kubernetes, and those of operators."""
    objects = rendered(values)
    assert {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"} <= {
        one["kind"] for one in objects
    }
    for one in objects:
        check(one, version)
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(names) == len(set(names))


def test_a_field_that_does_not_exist_is_found() -> None:
    """Of Kubernetes and of operators alike."""
    objects = rendered(EVERYTHING)
    for kind, path in (
        ("Deployment", ("spec", "template", "spec")),
        ("NetworkPolicy", ("spec",)),
        ("ScaledObject", ("spec", "fallback")),
        ("ServiceMonitor", ("spec",)),
    ):
        one = json.loads(json.dumps(next(one for one in objects if one["kind"] == kind)))
        place = one
        for name in path:
            place = place[name]
        place["replicaz"] = 1
        with pytest.raises(Exception, match="replicaz"):
            check(one, VERSIONS[-1])


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_valid(path: Path) -> None:
    """Each object of an operator has known fields, and makes what the values file names."""
    if path.stem.endswith("-values"):
        assert yaml.safe_load(path.read_text())["sentinel"]["enabled"] is True
        return
    for one in yaml.safe_load_all(path.read_text()):
        check(one, VERSIONS[-1])
        assert one["metadata"]["namespace"] == "shop"


def test_the_chart_is_of_this_version() -> None:
    """Its images are those of the program beside it."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)
    images = {name: container(pod)["image"] for name, pod in pods(rendered(MINIMAL)).items()}
    assert images == {name: f"polyglot-persistence-{name}:{__version__}" for name in PROCESSES}


# --- settings --------------------------------------------------------------------------------


def test_the_schema_lists_the_settings() -> None:
    """Else run `make docs`."""
    text = document_settings.CHART_SCHEMA.read_text()
    assert text == document_settings.with_values(text)
    names = {item.name for item in load({}).describe()}
    more = {name for name in OF_SETTINGS if name not in names}
    assert more >= {"POSTGRES_DSN_FILE", "API_KEYS_FILE"}
    assert {name.removesuffix("_FILE") for name in more} <= {
        *names,
        *document_settings.READ_BY_OPENTELEMETRY,
    }


@pytest.mark.parametrize("bound", ["default", "minimum", "maximum"])
def test_every_setting_reaches_the_processes(bound: str, tmp_path: Path) -> None:
    """With the text that the process reads: large numbers, fractions and words."""
    wanted = {}
    for item in load({}).describe():
        low_and_high = OF_SETTINGS[item.name]
        if bound != "default" and bound in low_and_high:
            wanted[item.name] = low_and_high[bound]
        else:
            is_number = low_and_high.get("type") == "number"
            wanted[item.name] = float(item.default) if is_number else item.default
    wanted |= dict.fromkeys(document_settings.SERVED_IN_THE_CHART, 9000)
    wanted["API_PROCESSES"] = 2
    jsonschema.validate({"settings": wanted}, SCHEMA)
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps({"settings": wanted}))
    for component, pod in pods(rendered(str(file))).items():
        variables = environment(pod)
        assert variables.keys() - {"POD_IP"} >= wanted.keys(), component
        for name, value in wanted.items():
            text = variables[name]
            assert re.fullmatch(r"[0-9.]+", text) if isinstance(value, float) else text, name
            assert float(text) == value if isinstance(value, float) else text == str(value), name


@every_file
def test_the_settings_are_valid(values: str, tmp_path: Path) -> None:
    """Each process starts with them, once its secrets are there."""
    for component, pod in pods(rendered(values)).items():
        settings = settings_of(pod, tmp_path)
        assert settings.ignored == {}
        assert "secret" not in repr(environment(pod)).replace("/run/secrets", ""), component
        if dsn := environment(pod).get(bootstrap.SUPERUSER_DSN):
            postgres_url(dsn.replace("/run/secrets", str(tmp_path)))


@every_file
def test_every_file_of_a_setting_is_mounted(values: str) -> None:
    """From a Secret that is named, with that key if it names keys."""
    for pod in pods(rendered(values)).values():
        mounts = {one["mountPath"]: one["name"] for one in container(pod)["volumeMounts"]}
        volumes = {one["name"]: one for one in pod["spec"]["volumes"]}
        for text in environment(pod).values():
            for secret, key in _SECRET_FILE.findall(text):
                source = volumes[mounts[f"/run/secrets/{secret}"]]["secret"]
                assert key in [one["path"] for one in source.get("items", [{"path": key}])]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("replicaz=1", "replicaz"),
        ("settings.DIRTY_ORDERS=1", "DIRTY_ORDERS"),
        ("settings.DIRTY_ORDERS_MAX=1", "DIRTY_ORDERS_MAX"),
        ("settings.API_FAST_LANE=true", "API_FAST_LANE"),
        ("settings.REDIS_ADDR=null", "REDIS_ADDR"),
        ("worker.settings.WORKER_PORT=0", "WORKER_PORT"),
        ("api.image.digest=latest", "digest"),
        ("worker.autoscaling.enabled=true", "prometheus"),
        ("networkPolicy.egress.mysql.ports={3306}", "mysql"),
        ("secrets.Stores.name=x", "Stores"),
    ],
)
def test_a_wrong_value_is_refused(wrong: str, named: str) -> None:
    """The error names it."""
    done = helm("template", "orders", str(CHART), f"--values={MINIMAL}", f"--set={wrong}")
    assert done.returncode != 0
    assert named in done.stderr


def test_allowed_hosts_leave_prometheus_in(tmp_path: Path) -> None:
    """It addresses a pod by its address; probes say that they mean the loopback."""
    pod = pods(rendered(EVERYTHING))["api"]
    allowed = settings_of(pod, tmp_path).front.allowed_hosts
    assert allowed == frozenset({"orders.example", "10.2.3.4"})


# --- who may reach whom ----------------------------------------------------------------------


def open_ports(rules: Sequence[Object]) -> set[int]:
    """Return the TCP ports of the rules of a policy."""
    return {one["port"] for rule in rules for one in rule["ports"] if one["protocol"] == "TCP"}


def store_ports(settings: Settings) -> Iterator[int]:
    """Yield each port that a process connects to, as its adapters read the addresses."""
    for place in urlsplit(settings.postgres_dsn).netloc.rpartition("@")[2].split(","):
        yield urlsplit(f"//{place}").port or 5432
    redis = read_redis(settings.redis_addr)
    yield from (host.port for host in redis.hosts)
    if redis.name is not None:
        yield _SENTINELS_SERVER
    yield from (host.port for host in read_rabbitmq(settings.rabbitmq_url).hosts)
    for url in (*node_urls(settings.elasticsearch_url), settings.rabbitmq_management_url):
        if url is not None:
            port = urlsplit(url).port
            assert port
            yield port


@every_file
def test_every_port_is_allowed(values: str, tmp_path: Path) -> None:
    """To each store and to name servers; from clients and Prometheus; and no others inwards."""
    objects = rendered(values)
    policies = of_kind(objects, "NetworkPolicy")
    assert policies.keys() == pods(objects).keys()
    for component, pod in pods(objects).items():
        spec = policies[component]["spec"]
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        assert spec["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        settings = settings_of(pod, tmp_path)
        needed = {*store_ports(settings), 53}
        if settings.otel_traces_exporter == "otlp":
            port = urlsplit(environment(pod)["OTEL_EXPORTER_OTLP_ENDPOINT"]).port
            assert port
            needed.add(port)
        if component == "migration":
            needed = {port for port in needed if port in (53, 5432, 5433)}
        assert needed <= open_ports(spec["egress"]), component
        served = {one["containerPort"] for one in container(pod).get("ports", [])}
        assert served == open_ports(spec.get("ingress", [])), component


def test_peers_are_the_ones_that_are_named() -> None:
    """Clients reach the API, and Prometheus alone the worker."""
    policies = of_kind(rendered(OPERATORS), "NetworkPolicy")

    def sources(component: str) -> list[str]:
        return [
            peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
            for rule in policies[component]["spec"]["ingress"]
            for peer in rule["from"]
        ]

    assert sources("api") == ["ingress", "monitoring"]
    assert sources("worker") == ["monitoring"]
    open_to_all = [rule for rule in policies["api"]["spec"]["egress"] if "to" not in rule]
    assert [open_ports([rule]) for rule in open_to_all] == [{53}, {4318}]


@every_file
def test_services_and_budgets_find_their_pods(values: str) -> None:
    """Each selector is of one component, and each port is one of its pods."""
    objects = rendered(values)
    for one in objects:
        spec = one["spec"]
        component = one["metadata"]["labels"]["app.kubernetes.io/component"]
        pod = pods(objects).get(component, {"metadata": {"labels": {}}})
        if one["kind"] == "Service":
            assert spec["selector"].items() <= pod["metadata"]["labels"].items()
            names = {port["name"]: port["containerPort"] for port in container(pod)["ports"]}
            assert {port["targetPort"] for port in spec["ports"]} <= names.keys()
        if one["kind"] in ("PodDisruptionBudget", "Deployment"):
            assert spec["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        if one["kind"] in ("HorizontalPodAutoscaler", "ScaledObject"):
            target = spec["scaleTargetRef"]["name"]
            assert target == of_kind(objects, "Deployment")[component]["metadata"]["name"]


# --- pods ------------------------------------------------------------------------------------


@every_file
def test_pods_may_do_nothing_special(values: str) -> None:
    """They are the image's user, write to memory only, and have no token of the cluster."""
    [user] = re.findall(r"^USER (\d+):\d+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for pod in pods(rendered(values)).values():
        spec, one = pod["spec"], container(pod)
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] == security["fsGroup"] == int(user)
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert one["resources"]["requests"].keys() == {"cpu", "memory"}
        assert one["resources"]["limits"].keys() == {"memory"}
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        written = [mount for mount in one["volumeMounts"] if not mount.get("readOnly")]
        assert [volumes[mount["name"]]["emptyDir"]["medium"] for mount in written] == ["Memory"]


@every_file
def test_there_is_time_to_stop(values: str, tmp_path: Path) -> None:
    """A pod is killed only after its process would have ended by itself."""
    for component in PROCESSES:
        pod = pods(rendered(values))[component]
        settings = settings_of(pod, tmp_path)
        hook = container(pod).get("lifecycle", {"preStop": {"sleep": {"seconds": 0}}})
        seconds = hook["preStop"]["sleep"]["seconds"]
        seconds += (
            settings.api_stop_seconds if component == "api" else settings.shutdown_timeout_seconds
        )
        grace = pod["spec"]["terminationGracePeriodSeconds"]
        assert seconds + 5 <= grace <= math.ceil(seconds) + 10
        assert component == "worker" or settings.shutdown_delay_seconds > 0


@every_file
def test_probes_ask_what_is_served(values: str) -> None:
    """Liveness asks no store; the port is one of the container; the host is never refused."""
    paths = {route.path for route in ROUTES}
    for component in PROCESSES:
        one = container(pods(rendered(values))[component])
        asked = {kind: one[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness")}
        assert {get["path"] for get in asked.values()} == {"/health/live"}
        asked["readiness"] = one["readinessProbe"]["httpGet"]
        assert asked["readiness"]["path"] == "/health/ready"
        for get in asked.values():
            assert get["path"] in paths
            assert get["port"] in [port["name"] for port in one["ports"]]
            assert get["httpHeaders"] == [{"name": "Host", "value": "localhost"}]


def test_pods_are_spread() -> None:
    """Over zones and nodes, each component and revision by itself."""
    for component, pod in pods(rendered(MINIMAL)).items():
        keys = set()
        for one in pod["spec"]["topologySpreadConstraints"]:
            keys.add(one["topologyKey"])
            assert one["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == component
            assert one["matchLabelKeys"] == ["pod-template-hash"]
        assert keys == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}


def test_the_schema_is_migrated_first() -> None:
    """By a hook before all else, with the superuser's address, which no other pod has."""
    objects = rendered(EVERYTHING)
    job, policy = (of_kind(objects, kind)["migration"] for kind in ("Job", "NetworkPolicy"))
    hooks = [one["metadata"]["annotations"] for one in (policy, job)]
    assert all(hook["helm.sh/hook"] == "pre-install,pre-upgrade" for hook in hooks)
    weights = [int(hook.get("helm.sh/hook-weight", 0)) for hook in hooks]
    assert weights == sorted(set(weights))
    assert container(job["spec"]["template"])["command"] == ["polyglot", "migrate"]
    has_it = [
        name for name, pod in pods(objects).items() if bootstrap.SUPERUSER_DSN in environment(pod)
    ]
    assert has_it == ["migration"]
    assert "Job" not in {one["kind"] for one in rendered(MINIMAL)}


# --- scaling and watching --------------------------------------------------------------------


def test_autoscaling_decides_alone() -> None:
    """A Deployment that is scaled has no number of its own, which an upgrade would restore."""
    scaled = of_kind(rendered(EVERYTHING), "Deployment").values()
    assert all("replicas" not in one["spec"] for one in scaled)
    fixed = of_kind(rendered(MINIMAL), "Deployment").values()
    assert all(one["spec"]["replicas"] == 2 for one in fixed)


def test_workers_follow_the_backlog() -> None:
    """By the largest of the gauges, which all processes share; what is unknown is an error."""
    spec = of_kind(rendered(EVERYTHING), "ScaledObject")["worker"]["spec"]
    [trigger] = spec["triggers"]
    query = trigger["metadata"]["query"]
    match = re.fullmatch(r'max\((\w+)\{namespace="shop"\} >= 0\)', query)
    assert match
    assert f"\n{match[1]} " in generate_latest(REGISTRY).decode()
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]


def test_prometheus_scrapes_every_process() -> None:
    """On a port of its own where several share one, under the job that the alert rules name."""
    objects = rendered(EVERYTHING)
    services = [one for one in objects if one["kind"] == "Service"]
    for component, monitor in of_kind(objects, "ServiceMonitor").items():
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        [service] = [one for one in services if wanted <= one["metadata"]["labels"].items()]
        assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == component
        ports = [one["name"] for one in service["spec"]["ports"]]
        assert [one["port"] for one in monitor["spec"]["endpoints"]] == ports
        processes = ["process-1", "process-2", "process-3"]
        assert ports == (processes if component == "api" else ["metrics"])
        assert monitor["spec"]["endpoints"][0]["authorization"]["credentials"]["key"] == "api-key"
    variables = environment(pods(objects)["api"])
    served = [one["containerPort"] for one in container(pods(objects)["api"])["ports"]]
    first = int(variables["API_PROCESS_PORT"])
    assert served == [int(variables["API_PORT"]), *range(first, first + 3)]


def test_the_alert_rules_are_the_ones_of_the_repository() -> None:
    """Word for word: one file, which a link in the chart names."""
    [rules] = [one for one in rendered(OPERATORS) if one["kind"] == "PrometheusRule"]
    alerts = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())
    assert rules["spec"] == alerts
