"""Compose file, Dockerfile and what they mount agree with settings, documents and each other."""

import re
import shlex
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from polyglot_persistence import bootstrap
from polyglot_persistence.bootstrap.stores import SEARCH_ALIAS
from polyglot_persistence.config import Settings, load
from polyglot_persistence.config.addresses.postgres import postgres_url
from scripts import document_settings, lock
from tests.support.compose import check_bounds, in_bytes, interpolated, read_first, seconds

ROOT = Path(__file__).parents[2]
COMPOSE = read_first()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
OPERATIONS = (ROOT / "docs" / "ops.md").read_text()
START_REDIS = (ROOT / "deploy" / "redis" / "start.sh").read_text()

OURS = ("api", "worker")
ONCE = "migrate"
"""Ours, too, but it ends."""
LASTING: dict[str, dict[str, Any]] = {
    name: service for name, service in SERVICES.items() if name != ONCE
}
STORES = ("redis", "rabbitmq", "postgres", "elasticsearch")
MONITORING = ("prometheus", "grafana")
PASSWORDS = {
    "postgres_password": {ONCE, "postgres"},
    "postgres_worker_password": {*OURS, ONCE},
    "redis_password": {*OURS, "redis"},
    "rabbitmq_password": {*OURS, "rabbitmq"},
    "elasticsearch_password": {*OURS, "elasticsearch"},
    "kibana_password": {"elasticsearch", "kibana"},
    "grafana_password": {"grafana"},
}
"""Each with whom it is known to."""
OF_SEVERAL_NODES = {"redis_replication_password", "rabbitmq_erlang_cookie"}
"""What only the second file gives to anybody, although scripts of both read it."""
NETWORKS = {
    "edge": {"api"},
    "stores": {*OURS, ONCE, *STORES},
    "kibana": {"elasticsearch", "kibana"},
    "metrics": {*OURS, "rabbitmq", "prometheus"},
    "monitoring": {"prometheus", "grafana"},
}
"""Each with whom it joins."""
ADDRESSES = {"POSTGRES_DSN", "REDIS_ADDR", "RABBITMQ_URL", "ELASTICSEARCH_URL"}
OPENTELEMETRY = set(document_settings.READ_BY_OPENTELEMETRY)
_SECRET = re.compile(r"/run/secrets/(\w+)")
_PORT = re.compile(r"\$\{BIND_ADDRESS:-127\.0\.0\.1\}:\$\{(\w+):-(\d+)\}:(\d+)")


def environment(service: str, **variables: str) -> dict[str, str]:
    """Return what the service's container gets to see."""
    return {
        name: variables.get(name, "") if value is None else interpolated(value, variables)
        for name, value in SERVICES[service]["environment"].items()
    }


def settings_of(service: str, secrets: Path, **variables: str) -> Settings:
    """Return the service's settings, as it reads them with the secrets of a directory."""
    return load(
        {
            name: _SECRET.sub(rf"{secrets}/\1", value)
            for name, value in environment(service, **variables).items()
        }
    )


def published(service: str) -> dict[str, tuple[int, int]]:
    """Return the ports outside and inside, by the variable of the former."""
    found = [_PORT.fullmatch(port) for port in SERVICES[service].get("ports", [])]
    assert all(found), service
    return {match[1]: (int(match[2]), int(match[3])) for match in found if match}


# --- services --------------------------------------------------------------------------------


def test_the_services_are_these() -> None:
    """Seven come up by themselves, once one has prepared the record; two more with the profile."""
    plain = {name for name, service in SERVICES.items() if "profiles" not in service}
    assert plain == {*OURS, ONCE, *STORES, "kibana"}
    assert SERVICES.keys() - plain == set(MONITORING)
    assert all(SERVICES[name]["profiles"] == ["monitoring"] for name in MONITORING)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_bounded(name: str) -> None:
    """It has limits of memory and log, and no privileges."""
    check_bounds(SERVICES[name])


@pytest.mark.parametrize("name", LASTING)
def test_every_service_is_watched(name: str) -> None:
    """It restarts, and has a check that finds it soon."""
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    check = service["healthcheck"]
    assert seconds(check["start_interval"]) <= 3 < seconds(check["interval"])
    assert seconds(check["start_period"]) >= 30
    assert seconds(check["timeout"]) < seconds(check["interval"])


def test_ports_are_the_well_known_ones_on_the_loopback() -> None:
    """The defaults are those of the programs, and each has a variable that the document tells."""
    ports = {name: port for service in SERVICES for name, port in published(service).items()}
    assert ports == {
        "API_PORT": (8080, 8080),
        "REDIS_PORT": (6379, 6379),
        "RABBITMQ_PORT": (5672, 5672),
        "RABBITMQ_UI_PORT": (15672, 15672),
        "POSTGRES_PORT": (5432, 5432),
        "ELASTICSEARCH_PORT": (9200, 9200),
        "KIBANA_PORT": (5601, 5601),
        "PROMETHEUS_PORT": (9090, 9090),
        "GRAFANA_PORT": (3000, 3000),
    }
    assert [port for port, _ in ports.values() if f"localhost:{port}" not in OPERATIONS] == []


def test_every_variable_is_documented() -> None:
    """The operations page names whatever can be set from outside."""
    names = set(re.findall(r"\$\{(\w+):-", (ROOT / "docker-compose.yml").read_text()))
    assert "SECRETS_DIR" in names
    assert [name for name in sorted(names) if f"`{name}`" not in OPERATIONS] == []


def test_ours_start_after_the_stores() -> None:
    """API and worker wait for each store to be healthy, and Kibana for Elasticsearch.

    And both for their role, which is made once.
    """
    healthy = {"condition": "service_healthy"}
    for name in OURS:
        assert SERVICES[name]["depends_on"] == {
            **dict.fromkeys(STORES, healthy),
            ONCE: {"condition": "service_completed_successfully"},
        }
    assert SERVICES[ONCE]["depends_on"] == {"postgres": healthy}
    assert SERVICES[ONCE]["restart"] == "no"
    assert SERVICES[ONCE]["healthcheck"] == {"disable": True}
    assert SERVICES["kibana"]["depends_on"] == {"elasticsearch": healthy}


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_is_written_but_to_volumes_and_memory(name: str) -> None:
    """Everything else of a container is read-only."""
    assert SERVICES[name]["read_only"]


def test_each_network_joins_those_who_talk() -> None:
    """Nobody else; and only one that no port is open for can be internal."""
    joined = {
        network: {name for name, service in SERVICES.items() if network in service["networks"]}
        for network in NETWORKS
    }
    assert joined == NETWORKS
    assert COMPOSE["networks"].keys() == NETWORKS.keys()
    assert [name for name, one in COMPOSE["networks"].items() if one] == ["metrics"]
    assert COMPOSE["networks"]["metrics"] == {"internal": True}
    for name in SERVICES:
        if published(name):
            assert set(SERVICES[name]["networks"]) - {"metrics"}, name


def test_a_password_is_a_file_of_those_who_need_it() -> None:
    """It is in deploy/secrets, or where SECRETS_DIR says, and in no environment."""
    known = {
        secret: {name for name, one in SERVICES.items() if secret in one.get("secrets", [])}
        for secret in COMPOSE["secrets"]
    }
    assert known == PASSWORDS
    for secret, source in COMPOSE["secrets"].items():
        file = ROOT / interpolated(source["file"], {})
        assert file == ROOT / "deploy/secrets" / secret
        assert file.stat().st_mode & 0o004, "whoever runs the container can read it"
        assert interpolated(source["file"], {"SECRETS_DIR": "/safe"}) == f"/safe/{secret}"
    for name, service in SERVICES.items():
        text = str({key: value for key, value in service.items() if key != "secrets"})
        mounts = [one.split(":")[0] for one in service.get("volumes", []) if one[0] == "."]
        text += "".join(
            file.read_text()
            for mount in mounts
            for file in [ROOT / mount, *(ROOT / mount).glob("*.sh")]
            if file.is_file()
        )
        used = set(_SECRET.findall(text)) - OF_SEVERAL_NODES
        assert used == {secret for secret, users in PASSWORDS.items() if name in users}, name


def test_the_default_passwords_are_told() -> None:
    """The operations page has each, for whoever logs in, and says how to change them."""
    for secret in PASSWORDS:
        assert f"`{(ROOT / 'deploy/secrets' / secret).read_text().strip()}`" in OPERATIONS
    assert "`SECRETS_DIR`" in OPERATIONS


def test_data_is_in_named_volumes() -> None:
    """Each store has one, none is declared for nothing, and the document names the stores'."""
    used = {
        name: [volume.split(":")[0] for volume in service.get("volumes", []) if volume[0] != "."]
        for name, service in SERVICES.items()
    }
    for name in (*STORES, *MONITORING):
        assert used[name] == [f"{name}_data"]
    assert {volume for volumes in used.values() for volume in volumes} == COMPOSE["volumes"].keys()
    assert [name for name in STORES if f"`{name}_data`" not in OPERATIONS] == []


def test_what_is_mounted_is_there_and_cannot_be_written() -> None:
    """Each file that comes from the checkout exists, and is mounted read-only."""
    mounted = [
        volume.split(":")
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
        if volume.startswith(".")
    ]
    assert len(mounted) == 8
    for source, _, mode in mounted:
        assert (ROOT / source).exists(), source
        assert mode == "ro"


@pytest.mark.parametrize("name", [name for name in LASTING if name not in OURS])
def test_images_are_pinned(name: str) -> None:
    """By a whole version, and under a name that leaves the registry to the engine."""
    image, _, tag = SERVICES[name]["image"].partition(":")
    assert re.match(r"v?\d+\.\d+(\.\d+)?(-\w+)?(@sha256:[0-9a-f]{64})?$", tag)
    assert "." not in image


def test_elasticsearch_matches_its_client() -> None:
    """Server, Kibana and the pinned client are of one minor version."""
    minor = pins("image")["elasticsearch"].rpartition(".")[0]
    tags = {
        name: SERVICES[name]["image"].partition("@")[0].partition(":")[2]
        for name in ("elasticsearch", "kibana")
    }
    assert tags["elasticsearch"] == tags["kibana"]
    assert tags["kibana"].startswith(f"{minor}.")


# --- settings --------------------------------------------------------------------------------


def test_every_setting_can_be_set() -> None:
    """The names in the file are those of the settings; else run `make docs`."""
    text = document_settings.COMPOSE.read_text()
    assert text == document_settings.with_names(text)


@pytest.mark.parametrize("service", OURS)
def test_every_setting_reaches_the_container(service: str) -> None:
    """Each is passed on, and nothing else is: a variable that is no setting would do nothing."""
    names = {item.name for item in load({}).describe()}
    given = {name for name in SERVICES[service]["environment"] if name not in OPENTELEMETRY}
    other = {"api": "WORKER_PORT", "worker": "API_PORT"}[service]
    assert given == names - {other, *(["API_HOST"] if service == "worker" else [])}
    settings = settings_of(service, ROOT / "deploy/secrets", LOG_LEVEL="debug")
    assert settings.log_level == "debug"


@pytest.mark.parametrize("service", OURS)
def test_the_stores_are_found_by_default(service: str) -> None:
    """Without any variable the addresses are the settings' own defaults, with logins."""
    settings, default = settings_of(service, ROOT / "deploy/secrets"), load({})
    login = "postgres:secret@"
    theirs = login.replace("postgres", "polyglot_worker")
    assert settings.postgres_dsn == default.postgres_dsn.replace(login, theirs)
    assert settings.redis_addr == f"redis://:secret@{default.redis_addr}"
    assert settings.rabbitmq_url == default.rabbitmq_url
    assert settings.elasticsearch_url == "http://polyglot:secret@elasticsearch:9200"
    hosts = {"redis", "rabbitmq", "postgres", "elasticsearch"}
    addresses = " ".join(environment(service)[name] for name in ADDRESSES)
    assert {host for host in hosts if re.search(rf"\b{host}(:|\b)", addresses)} == hosts


def test_logins_reach_both_sides(tmp_path: Path) -> None:
    """A variable or file sets a name or password for the server and for those who log in."""
    for secret in PASSWORDS:
        (tmp_path / secret).write_text(f"{secret} {secret}\n")
    given = {
        "POSTGRES_USER": "clerk",
        "POSTGRES_WORKER": "hand",
        "POSTGRES_DB": "shop",
        "RABBITMQ_USER": "mule",
    }
    settings = settings_of("worker", tmp_path, **given)
    password = "postgres_worker_password"
    place = "postgres/shop?sslmode=disable"
    assert settings.postgres_dsn == f"postgresql://hand:{password}%20{password}@{place}"
    assert settings_of("api", tmp_path, **given).postgres_dsn == settings.postgres_dsn
    assert settings_of(ONCE, tmp_path, **given).postgres_dsn == settings.postgres_dsn
    superuser = _SECRET.sub(rf"{tmp_path}/\1", environment(ONCE, **given)[bootstrap.SUPERUSER_DSN])
    password = "postgres_password"
    assert postgres_url(superuser) == f"postgresql://clerk:{password}%20{password}@{place}"
    assert settings.rabbitmq_url.startswith("amqp://mule:rabbitmq_password%20rabbitmq_password@")
    assert environment("postgres", **given) == {
        "POSTGRES_USER": "clerk",
        "POSTGRES_DB": "shop",
        "POSTGRES_PASSWORD_FILE": "/run/secrets/postgres_password",
    }
    assert environment("rabbitmq", **given) == {"RABBITMQ_DEFAULT_USER": "mule"}


def test_the_broker_has_no_administrator() -> None:
    """The one user that it makes at its first start sees the management page, of its own things."""
    text = (ROOT / "deploy/rabbitmq/rabbitmq.conf").read_text()
    tags = dict(re.findall(r"^default_user_tags\.(\w+) = (\w+)$", text, re.MULTILINE))
    assert tags == {"administrator": "false", "management": "true"}


def test_elasticsearch_has_its_users_and_no_others() -> None:
    """API and worker are one, Kibana is another, and neither is a superuser."""
    start = (ROOT / "deploy/elasticsearch/start.sh").read_text()
    users = dict(re.findall(r"^add_user (\w+) (\S+) ", start, re.MULTILINE))
    assert users == {"polyglot": "polyglot,kibana_admin", "kibana_server": "kibana_system"}
    assert environment("elasticsearch")["xpack.security.enabled"] == "true"
    assert environment("elasticsearch")["transport.host"] == "127.0.0.1"
    roles = yaml.safe_load((ROOT / "deploy/elasticsearch/roles.yml").read_text())
    assert roles == {
        "polyglot": {
            "cluster": ["monitor"],
            "indices": [{"names": [f"{SEARCH_ALIAS}*"], "privileges": ["all"]}],
        }
    }
    kibana = yaml.safe_load((ROOT / "deploy/kibana/kibana.yml").read_text())
    assert kibana["elasticsearch.username"] == "kibana_server"
    assert kibana["elasticsearch.password"] == "${KIBANA_PASSWORD}"


def test_nobody_administers_redis() -> None:
    """Its one user has no command that harms it, but those that tell whether it is durable."""
    (line,) = re.findall(r'^config="(user .*)"$', START_REDIS, re.MULTILINE)
    assert shlex.split(line.replace('\\"', "")) == [
        *("user", "default", "on", ">$(quoted", "redis_password)", "~*", "&*"),
        *("+@all", "-@admin", "-@dangerous", "+info", "+config|get"),
    ]


def test_redis_is_durable_and_holds_the_dirty_watermark() -> None:
    """It fsyncs before it answers, evicts persisted orders only, and has room for the others."""
    _, _, line = START_REDIS.replace("\\\n", "").partition("exec redis-server - ")
    words = shlex.split(line.partition("<<")[0])
    options = dict(zip(words[::2], words[1::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "always"
    assert options["--no-appendfsync-on-rewrite"] == "no"
    assert options["--maxmemory-policy"] == "volatile-ttl"
    memory = in_bytes(options["--maxmemory"])
    assert memory > load({}).commit.dirty_orders_max * 1024  # as the setting says
    assert in_bytes(SERVICES["redis"]["mem_limit"]) > 2 * memory


def test_there_is_time_to_stop() -> None:
    """Ours are killed only after they would have ended by themselves."""
    for name in OURS:
        assert seconds(SERVICES[name]["stop_grace_period"]) > load({}).shutdown_timeout_seconds


def test_what_is_watched_is_served() -> None:
    """Prometheus asks our two processes on the ports that they listen on; Grafana asks it."""
    deploy = ROOT / "deploy"
    watched = yaml.safe_load((deploy / "prometheus" / "prometheus.yml").read_text())
    targets = {
        (source["names"][0], source["port"])
        for job in watched["scrape_configs"]
        for source in job.get("dns_sd_configs", [])
    }
    assert targets == {
        ("api", int(environment("api")["API_PORT"])),
        ("worker", int(environment("worker")["WORKER_PORT"])),
    }
    source = yaml.safe_load((deploy / "grafana" / "datasources" / "prometheus.yml").read_text())
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    provider = yaml.safe_load((deploy / "grafana" / "dashboards" / "provider.yml").read_text())
    path = provider["providers"][0]["options"]["path"]
    assert f"./deploy/grafana/dashboards:{path}:ro" in SERVICES["grafana"]["volumes"]


# --- image -----------------------------------------------------------------------------------


def stages() -> dict[str, str]:
    """Return the text of each stage of the Dockerfile."""
    parts = re.split(r"^FROM \S+ AS (\w+)$", DOCKERFILE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", OURS)
def test_the_image_runs_the_process_itself(name: str) -> None:
    """Each target starts the process without a shell, and is asked on the port that it serves."""
    assert SERVICES[name]["build"]["target"] == name
    stage, variable = stages()[name], f"{name.upper()}_PORT"
    assert f'ENTRYPOINT ["polyglot", "{name}"]' in stage
    assert f'CMD ["python", "-I", "/opt/alive.py", "{variable}"]' in stage
    port = environment(name)[variable]
    assert f"ENV {variable}={port}" in stage
    assert f"EXPOSE {port}" in stage
    assert all(inside == int(port) for _, inside in published(name).values())
    assert SERVICES[name]["read_only"]


@pytest.mark.parametrize("name", OURS)
def test_ours_start_for_as_long_as_their_check_says(name: str) -> None:
    """The check asks for more until failures count: it is the same time in all three places."""
    period = SERVICES[name]["healthcheck"]["start_period"]
    assert f"START_SECONDS = {seconds(period)}\n" in (ROOT / "deploy/image/alive.py").read_text()
    assert f"--start-period={period} " in stages()[name]


def test_the_image_runs_as_nobody_special() -> None:
    """The last user is a number other than root's, so that it can be checked from outside."""
    assert re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE) == [("10001", "10001")]
    assert stages()["runtime"].index("USER 10001") > stages()["runtime"].rindex("RUN ")


def test_the_build_gets_what_it_copies() -> None:
    """Every file that is copied from the checkout is there, and not kept from the engine."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    admitted = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert len(copied) >= 6
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, f"{pattern}*") for pattern in admitted), source


def test_the_image_holds_what_the_servers_need() -> None:
    """Its pins are the servers' profile without what only the embedded deployment needs.

    And with what sends traces.
    """
    needed, in_image = (pins(name) for name in ("servers", "image"))
    assert in_image.items() >= {
        (name, pin) for name, pin in needed.items() if name not in lock.EMBEDDED_ONLY
    }
    assert set(lock.EMBEDDED_ONLY) <= needed.keys()
    added = in_image.keys() - needed.keys()
    assert {"opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"} <= added
    assert len(added) < 15


def pins(profile: str) -> dict[str, str]:
    """Return each pin of a profile with its condition."""
    text = (ROOT / "requirements" / f"{profile}.txt").read_text()
    return dict(re.findall(r"^([a-z][\w-]*)==([^\\\n]+)", text, re.MULTILINE))


def test_every_public_image_has_a_stand_in() -> None:
    """`scripts/compose-test` can make an image under each name that it has to find."""
    text = (ROOT / "scripts" / "compose_test" / "stand-ins" / "Dockerfile").read_text()
    made = set(re.findall(r"^FROM \S+ AS (\w+)$", text, re.MULTILINE)) - {
        "debian",
        "servers",
        "descriptors",
    }
    needed = {SERVICES[name]["image"].partition(":")[0] for name in (*STORES, "kibana")}
    assert made == {*needed, "python"}
