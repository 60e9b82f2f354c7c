"""compose.ha.yml: its nodes are as safe as the one that they are made of, and find one another."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from polyglot_persistence.config import Settings, load
from polyglot_persistence.config.addresses.elasticsearch import node_urls
from polyglot_persistence.config.addresses.rabbitmq import read_rabbitmq
from polyglot_persistence.config.addresses.redis import read_redis
from tests.support.compose import (
    SECOND,
    Service,
    check_bounds,
    interpolated,
    merged,
    read_first,
    read_second,
    seconds,
)
from tests.support.documents import ROOT

STACK = merged()
SERVICES: dict[str, Service] = STACK["services"]
FIRST: dict[str, Service] = read_first()["services"]
REDIS = ("redis", "redis-2")
SENTINELS = ("sentinel-1", "sentinel-2", "sentinel-3")
RABBITMQ = ("rabbitmq", "rabbitmq-2", "rabbitmq-3")
POSTGRES = ("postgres", "postgres-2")
ELASTICSEARCH = ("elasticsearch", "elasticsearch-2", "elasticsearch-3")
NODES = (*REDIS, *SENTINELS, *RABBITMQ, *POSTGRES, *ELASTICSEARCH)
ONCE = "elasticsearch-certificate"
OURS = ("api", "worker")
SECRETS = ROOT / "deploy" / "secrets"
OPERATIONS = (ROOT / "docs" / "ops.md").read_text()
_SECRET = re.compile(r"/run/secrets/(\w+)")


def of_node(name: str) -> Service:
    """Return the service of the first file that a node is like."""
    return FIRST["redis" if name in SENTINELS else name.partition("-")[0]]


def environment(service: str) -> dict[str, str]:
    """Return what a container gets to see without any variable."""
    variables = SERVICES[service]["environment"].items()
    return {
        name: interpolated("" if value is None else value, {}).replace("/run/secrets", str(SECRETS))
        for name, value in variables
    }


def settings_of(service: str) -> Settings:
    """Return the settings of one of our processes."""
    return load(environment(service))


def test_the_nodes_are_these() -> None:
    """Everything of the first file is there, too."""
    assert SERVICES.keys() - FIRST.keys() == {*NODES, ONCE} - FIRST.keys()
    assert SERVICES.keys() >= FIRST.keys()
    for name in OURS:
        assert SERVICES[name]["deploy"] == {"replicas": 2}
        assert SERVICES[name]["depends_on"].keys() == {*NODES, "migrate"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_bounded(name: str) -> None:
    """It has limits of memory and log, no privileges, and writes to volumes and memory only."""
    check_bounds(SERVICES[name])
    assert SERVICES[name]["read_only"] is True


@pytest.mark.parametrize("name", NODES)
def test_a_node_is_watched_and_pinned_like_the_first(name: str) -> None:
    """It restarts, has a check that finds it soon, and time to stop.

    A Sentinel keeps nothing: on a volume of the image each new container would leave one behind.
    """
    service, first = SERVICES[name], of_node(name)
    assert service["restart"] == "unless-stopped"
    assert seconds(service["healthcheck"]["start_interval"]) <= 3
    assert service["healthcheck"]["test"]
    for key in ("image", "user", "stop_grace_period"):
        assert service.get(key) == first.get(key), key
    own = {"/data"} if name.startswith("sentinel") else set()
    assert set(service.get("tmpfs", ())) == {*first.get("tmpfs", ()), *own}


def test_ports_are_open_for_one_node_of_each_store() -> None:
    """And for both API processes; every node that extends another one closes them itself.

    Compose takes `!reset` from no anchor.
    """
    opened = {name: one["ports"] for name, one in SERVICES.items() if one.get("ports")}
    assert opened.keys() == {name for name, one in FIRST.items() if one.get("ports")}
    assert opened["api"] == ["${BIND_ADDRESS:-127.0.0.1}:${API_PORTS:-8080-8081}:8080"]
    assert all(opened[name] == FIRST[name]["ports"] for name in opened if name != "api")
    [services] = [
        value for key, value in yaml.compose(SECOND.read_text()).value if key.value == "services"
    ]
    for key, node in services.value:
        if key.value not in FIRST:
            tags = {own.value: value.tag for own, value in node.value}
            assert tags["ports"] == "!reset", key.value


def test_each_network_joins_those_who_talk() -> None:
    """The nodes are on those of the first, but Kibana asks one Elasticsearch alone."""
    for name in NODES:
        expected = set(of_node(name)["networks"])
        if name in ELASTICSEARCH[1:]:
            expected -= {"kibana"}
        assert set(SERVICES[name]["networks"]) == expected, name
    assert set(SERVICES[ONCE]["networks"]) == {"stores"}


def test_a_password_is_a_file_of_those_who_need_it() -> None:
    """The sentinels know no password of clients, and only nodes that of the replication."""
    known = {
        secret: {name for name, one in SERVICES.items() if secret in one.get("secrets", [])}
        for secret in STACK["secrets"]
    }
    assert known["redis_replication_password"] == {*REDIS, *SENTINELS}
    assert known["redis_password"] == {*OURS, *REDIS}
    assert known["rabbitmq_erlang_cookie"] == set(RABBITMQ)
    assert known["postgres_password"] == {"migrate", *POSTGRES}
    assert known["elasticsearch_password"] == {*OURS, *ELASTICSEARCH}
    for secret, source in STACK["secrets"].items():
        assert Path(interpolated(source["file"], {})) == Path("deploy/secrets") / secret
        assert (SECRETS / secret).stat().st_mode & 0o004
        assert interpolated(source["file"], {"SECRETS_DIR": "/safe"}) == f"/safe/{secret}"
    for secret in read_second()["secrets"]:
        assert f"`{secret}`" in OPERATIONS


def test_each_node_has_data_of_its_own() -> None:
    """A volume that is declared; only the certificate is shared, and read."""
    owners: dict[str, list[str]] = {}
    for name, service in SERVICES.items():
        for mount in service.get("volumes", []):
            source, _, *mode = mount.split(":")
            if source.startswith("./"):
                assert (ROOT / source).exists(), source
                assert mode == ["ro"]
            elif source == "elasticsearch_certificates":
                assert (mode == ["ro"]) is (name != ONCE)
            else:
                owners.setdefault(source, []).append(name)
    assert all(len(names) == 1 for names in owners.values())
    assert {*owners, "elasticsearch_certificates"} == STACK["volumes"].keys()
    assert {names[0] for names in owners.values()} >= {*NODES} - {*SENTINELS}


@pytest.mark.parametrize("service", OURS)
def test_every_node_is_found(service: str) -> None:
    """The addresses name them, as the adapters read them, with the logins of the first file."""
    settings = settings_of(service)
    [hosts] = parse_qs(urlsplit(settings.postgres_dsn).query)["host"]
    assert tuple(hosts.split(",")) == POSTGRES
    redis = read_redis(settings.redis_addr)
    assert [(host.name, host.port) for host in redis.hosts] == [(one, 26379) for one in SENTINELS]
    assert (redis.name, redis.password) == ("polyglot", "secret")
    broker = read_rabbitmq(settings.rabbitmq_url)
    assert tuple(host.name for host in broker.hosts) == RABBITMQ
    assert (broker.username, broker.password) == ("guest", "guest")
    pages = settings.rabbitmq_management_url
    assert pages == "http://rabbitmq:15672,rabbitmq-2:15672,rabbitmq-3:15672"
    urls = [urlsplit(url) for url in node_urls(settings.elasticsearch_url)]
    assert tuple(url.hostname for url in urls) == ELASTICSEARCH
    assert {(url.username, url.password, url.port) for url in urls} == {
        ("polyglot", "secret", 9200)
    }


def test_nothing_else_of_our_processes_changes() -> None:
    """The second file sets addresses alone, and the schema is migrated on the primary of two."""
    for name in OURS:
        changed = {
            variable
            for variable, value in SERVICES[name]["environment"].items()
            if FIRST[name]["environment"].get(variable) != value
        }
        assert changed == {
            *("POSTGRES_DSN", "REDIS_ADDR", "RABBITMQ_URL", "RABBITMQ_MANAGEMENT_URL"),
            "ELASTICSEARCH_URL",
        }
    migrate = environment("migrate")
    assert migrate["POSTGRES_DSN"] == environment("api")["POSTGRES_DSN"]
    assert "host=postgres,postgres-2 user=postgres " in migrate["POSTGRES_SUPERUSER_DSN"]


def test_nodes_of_redis_and_sentinels_know_one_another() -> None:
    """By the names of their services, and the primary by the name that clients ask for."""
    for name in (*REDIS, *SENTINELS):
        variables = environment(name)
        assert variables["NODE"] == name
        assert tuple(variables["NODES"].split()) == REDIS
        assert tuple(variables["SENTINELS"].split()) == SENTINELS
    scripts = {name: (ROOT / "deploy" / "redis" / name).read_text() for name in ("sentinel.sh",)}
    assert re.findall(r"^sentinel monitor (\w+) ", scripts["sentinel.sh"], re.MULTILINE) == [
        read_redis(settings_of("api").redis_addr).name
    ]


def test_nobody_administers_the_sentinels() -> None:
    """Without a password they answer, and change nothing."""
    text = (ROOT / "deploy" / "redis" / "sentinel.sh").read_text()
    [line] = re.findall(r"^user default (.*)$", text, re.MULTILINE)
    granted = {word for word in line.split() if word.startswith("+")}
    assert "-@all" in line
    assert granted == {
        *("+@connection", "+@pubsub", "+info", "+role"),
        *(
            f"+sentinel|{command}"
            for command in (
                *("get-master-addr-by-name", "masters", "master", "sentinels", "replicas"),
                *("is-master-down-by-addr", "ckquorum"),
            )
        ),
    }


def test_nodes_of_rabbitmq_know_one_another() -> None:
    """By their host names, which are those of their services."""
    text = (ROOT / "deploy" / "rabbitmq" / "cluster.conf").read_text()
    names = re.findall(r"classic_config\.nodes\.\d = rabbit@(\S+)$", text, re.MULTILINE)
    assert tuple(names) == RABBITMQ
    for name in RABBITMQ:
        assert SERVICES[name]["hostname"] == name
        mounts = [mount.split(":")[0] for mount in SERVICES[name]["volumes"]]
        assert "./deploy/rabbitmq/cluster.conf" in mounts
    assert "cluster_partition_handling = pause_minority" in text


def test_each_postgres_knows_the_other() -> None:
    """One is to be the standby at first; both keep what docker-compose.yml sets."""
    assert [environment(name)["OTHER"] for name in POSTGRES] == [POSTGRES[1], POSTGRES[0]]
    assert [environment(name).get("FOLLOWS") for name in POSTGRES] == [None, "yes"]
    for name in POSTGRES:
        assert SERVICES[name]["entrypoint"] == ["bash", "/opt/polyglot/start.sh"]
        assert SERVICES[name]["command"] == FIRST["postgres"]["command"]
    access = (ROOT / "deploy" / "postgres" / "pg_hba.conf").read_text()
    assert [line.split()[-1] for line in access.splitlines() if line.startswith("host")] == [
        "scram-sha-256",
        "scram-sha-256",
    ]


def test_nodes_of_elasticsearch_know_one_another() -> None:
    """By names that lead to one network, over connections that a certificate protects."""
    names = [f"elasticsearch-{number}" for number in (1, 2, 3)]
    for service, name in zip(ELASTICSEARCH, names, strict=True):
        variables: dict[str, Any] = environment(service)
        assert variables["node.name"] == variables["transport.publish_host"] == name
        assert variables["cluster.initial_master_nodes"].split(",") == names
        assert variables["discovery.seed_hosts"].split(",") == names
        assert variables["xpack.security.enabled"] == "true"
        assert variables["xpack.security.transport.ssl.enabled"] == "true"
        assert SERVICES[service]["depends_on"].keys() == {ONCE}
    assert read_second()["services"]["elasticsearch"]["networks"] == {
        "stores": {"aliases": [names[0]]}
    }


def test_every_variable_is_documented() -> None:
    """The operations page names whatever can be set from outside."""
    names = set(re.findall(r"\$\{(\w+):-", SECOND.read_text()))
    assert "API_PORTS" in names
    assert [name for name in sorted(names) if f"`{name}`" not in OPERATIONS] == []
