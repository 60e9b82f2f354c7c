"""Every setting: its environment variable, default, bounds and meaning, in one table.

A setting's environment variable is its field's name in upper case. A limit is a field like any
other; how limits depend on one another is in `_AT_MOST`. `docs/ops.md` lists the same table.

Invariant: a `Settings` that exists is valid; its values need no further check.
Invariant: no password is in a `repr`, an error's text or a `Described`.
Invariant: no setting is read anywhere else; flows and loops get values or their own section, never
this object.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from polyglot_persistence.config.addresses.elasticsearch import search_directory, search_url
from polyglot_persistence.config.addresses.listening import listen_host
from polyglot_persistence.config.addresses.passwords import mask
from polyglot_persistence.config.addresses.postgres import postgres_url
from polyglot_persistence.config.addresses.rabbitmq import management_url, queue_url
from polyglot_persistence.config.addresses.redis import cache_address
from polyglot_persistence.config.fields import (
    IgnoredError,
    Spec,
    ca_file,
    choice,
    count,
    hidden,
    refuse_service_link,
    seconds,
    section,
    setting,
    values_of,
)
from polyglot_persistence.config.http import FrontSettings, HttpLimits
from polyglot_persistence.config.limits import (
    ApiLimits,
    CommitLimits,
    IndexerLimits,
    PersisterLimits,
)
from polyglot_persistence.config.secret_files import secret_of
from polyglot_persistence.domain.access import (
    ApiKey,
    Rate,
    Scope,
    parse_api_keys,
    parse_rate,
    shown_api_keys,
)
from polyglot_persistence.domain.schedule import Schedule
from polyglot_persistence.errors import ConfigurationError

_KIB = 1024


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Settings:
    """All settings, checked; made by `load`."""

    # --- stores ---
    postgres_dsn: str = setting(
        "user=postgres password=secret dbname=ecommerce sslmode=disable host=postgres",
        postgres_url,
        "PostgreSQL, the system of record.",
        "libpq keywords, or postgresql://user:password@host:5432/dbname; servers: host,host",
        masked=mask,
    )
    redis_addr: str = setting(
        "redis:6379",
        cache_address,
        "Redis or Valkey, the write-behind cache.",
        "host:port, a redis, rediss, valkey, valkeys or unix URL, or redis+sentinel://host,host/name",
        masked=mask,
    )
    rabbitmq_url: str = setting(
        "amqp://guest:guest@rabbitmq:5672/",
        queue_url,
        "The queue. The scheme selects the adapter: RabbitMQ for amqp and amqps; Valkey Streams "
        "for redis, rediss, valkey, valkeys and unix.",
        "URL",
        masked=mask,
    )
    rabbitmq_management_url: str | None = setting(
        "none",
        management_url,
        "RabbitMQ's management API, where its nodes are checked to be members of the queue. "
        "Without a user in it, that of `RABBITMQ_URL`.",
        "URL like http://rabbitmq:15672 or http://host:port,host:port, or none",
        masked=mask,
    )
    elasticsearch_url: str = setting(
        "http://elasticsearch:9200",
        search_url,
        "The search index. The scheme selects the adapter: Elasticsearch for http and https; "
        "tantivy for tantivy:///directory.",
        "URL",
        masked=mask,
    )
    elasticsearch_api_key: str | None = setting(
        "none",
        lambda text: None if text == "none" else text,
        "API key for Elasticsearch, encoded. A user and password go into the URL instead.",
        "text, or none",
        masked=hidden,
    )
    elasticsearch_shards: int = count(
        1,
        (1, 1_024),
        "Shards of a new index in Elasticsearch, one for each 200 million orders or so; `polyglot "
        "search rebuild` gives an index that is there another number.",
    )
    redis_ca_file: Path | None = ca_file(
        "CA certificate used to verify rediss:// and valkeys:// servers."
    )
    rabbitmq_ca_file: Path | None = ca_file(
        "CA certificate used to verify the server of an amqps://, rediss:// or valkeys:// queue."
    )
    elasticsearch_ca_file: Path | None = ca_file(
        "CA certificate used to verify an https:// Elasticsearch."
    )
    cache_durable: bool | None = choice(
        "auto",
        {"auto": None, "yes": True, "no": False},
        "Whether Redis fsyncs before it replies. auto reads this from the server on each "
        "connection; set yes only if the provider forbids CONFIG and guarantees durability.",
    )

    # --- process ---
    api_host: str = setting(
        "0.0.0.0",  # noqa: S104  as the peer does, and as a container must
        listen_host,
        "Address the API listens on.",
        "name or address",
    )
    api_port: int = count(8080, (1, 65535), "Port the API listens on.")
    api_processes: int = count(
        1,
        (1, 64),
        "Number of API processes that share `API_PORT`. Use one for each core that is free for "
        "them.",
    )
    api_process_port: int = count(
        0,
        (0, 65535),
        "Port on `API_HOST` where the first API process serves its own metrics and health; each "
        "further process uses the next port. 0: none.",
    )
    worker_port: int = count(
        0, (0, 65535), "Port on `API_HOST` where a worker serves its metrics and health. 0: none."
    )
    api_fast_lane: bool = choice(
        "yes",
        {"yes": True, "no": False},
        "Whether plain requests that place or read one order bypass the web framework. The "
        "answers are the same; without it they take about twice as long.",
    )
    api_keys: Sequence[ApiKey] = setting(
        "none",
        lambda text: () if text == "none" else parse_api_keys(text),
        "Valid API keys, as hashes; `polyglot api-keys new` creates one. A file (`API_KEYS_FILE`) "
        "is reread when it changes.",
        "name:scopes:hash, with white space between entries, or none",
        masked=lambda text: text if text == "none" else shown_api_keys(text),
    )
    anonymous_scopes: frozenset[Scope] | None = choice(
        "auto",
        {
            "auto": None,
            "none": frozenset(),
            "read": frozenset({Scope.READ}),
            "write": frozenset({Scope.WRITE}),
            "read,write": frozenset({Scope.READ, Scope.WRITE}),
        },
        "What clients without an API key may do. auto: read and write if no keys are set, "
        "otherwise nothing. Operating always needs a key.",
    )
    client_rate_limit: Rate | None = setting(
        "none",
        lambda text: None if text == "none" else parse_rate(text),
        "Maximum request rate of one client (API key, or network address without one) per API "
        "process; above it: 429.",
        "requests/seconds, like 600/60, or none",
    )
    mv_refresh_schedule: Schedule = setting(
        "@hourly",
        Schedule,
        "When `daily_sales_mv` is refreshed (UTC).",
        "cron expression, @hourly, @daily, @every 15m, ...",
    )
    otel_traces_exporter: str = choice(
        "none",
        {exporter: exporter for exporter in ("none", "otlp")},
        "Trace exporter. otlp sends traces over HTTP to the endpoint in the standard variable "
        "`OTEL_EXPORTER_OTLP_ENDPOINT`; requests then pass through the web framework.",
        shared=True,
    )
    log_level: str = choice(
        "info",
        {level: level for level in ("debug", "info", "warning", "error")},
        "Minimum severity of log lines. Other programs' names for a level are accepted.",
        aliases={"trace": "debug", "warn": "warning", "fatal": "error", "critical": "error"},
    )
    log_format: str = choice(
        "auto",
        {form: form for form in ("auto", "json", "text")},
        "Format of log lines. auto: text on a terminal, JSON elsewhere.",
    )
    shutdown_delay_seconds: float = seconds(
        0,
        (0, 600),
        "Time from the stop signal until an API process accepts no more connections. Until then "
        "only `/health/ready` changes: it is 503, so that load balancers send requests elsewhere.",
    )
    shutdown_timeout_seconds: float = seconds(
        20,
        (1, 600),
        "Maximum time from the stop signal, or the end of that delay, to the end of a process. "
        "Unfinished work is cut off then; no accepted order is lost.",
    )

    # --- accepting ---
    commit: CommitLimits = section(CommitLimits)
    api: ApiLimits = section(ApiLimits)

    live_streams_max: int = count(
        64, (1, 10_000), "Maximum live-page streams per API process; above it: 503."
    )

    # --- reading ---
    read_timeout_seconds: float = seconds(
        2, (0.1, 60), "Maximum time that a read waits for PostgreSQL; then: 503."
    )
    clean_ttl_seconds: int = count(
        86_400,
        (1, 31_536_000),
        "How long a persisted order stays in Redis. Dirty orders do not expire.",
    )
    read_cache_orders: int = count(
        100_000, (0, 10_000_000), "Maximum persisted orders in each API process's memory. 0: none."
    )
    read_cache_seconds: float = seconds(
        60,
        (0, 3_600),
        "Maximum time that an order stays in that memory; a persisted order never changes.",
    )

    # --- persisting ---
    persist: PersisterLimits = section(PersisterLimits)
    sweep_age_seconds: float = seconds(
        10, (0.1, 3_600), "Age at which an order that is still dirty is persisted from the cache."
    )
    sweep_interval_seconds: float = seconds(2, (0.1, 600), "Time between two sweeps.")
    sweep_batch_orders: int = count(
        2_000, (1, 20_000), "Approximate number of orders in one sweep step."
    )
    warm_quiet_seconds: float = seconds(
        60,
        (0.1, 3_600),
        "Minimum time until a cold cache is warm again. The queue must also be empty for a little "
        "longer than `DELIVERY_HOLD_SECONDS_MAX`.",
    )

    # --- indexing ---
    index: IndexerLimits = section(IndexerLimits)

    # --- auditing ---
    audit_interval_seconds: float = seconds(
        3_600,
        (0, 31_536_000),
        "Time between the end of one audit of all stores and the start of the next, in one worker "
        "at a time. 0: none.",
    )
    audit_orders_per_second: int = count(
        20_000,
        (1, 10_000_000),
        "Maximum orders and cache entries that an audit compares per second.",
    )

    # --- connections ---
    postgres_pool_size: int = count(8, (1, 500), "Maximum PostgreSQL connections per process.")
    postgres_connect_timeout_seconds: float = seconds(
        3, (0.1, 60), "Maximum time to connect to PostgreSQL."
    )
    postgres_statement_timeout_seconds: float = seconds(
        10,
        (0.1, 600),
        "Maximum time for one statement; refreshes and migrations have their own limits.",
    )
    redis_connect_timeout_seconds: float = seconds(
        2, (0.1, 60), "Maximum time to connect to Redis."
    )
    redis_command_timeout_seconds: float = seconds(
        2, (0.1, 60), "Maximum wait for a reply; then the connection counts as lost."
    )
    queue_connect_timeout_seconds: float = seconds(
        3, (0.1, 60), "Maximum time to connect to RabbitMQ."
    )
    queue_publish_timeout_seconds: float = seconds(
        3, (0.1, 60), "Maximum wait for RabbitMQ's publisher confirm."
    )
    search_timeout_seconds: float = seconds(2, (0.1, 60), "Maximum time for one search; then: 503.")

    # --- HTTP ---
    front: FrontSettings = section(FrontSettings)
    http: HttpLimits = section(HttpLimits)

    api_keys_file: Path | None = dataclasses.field(default=None, compare=False)
    """Where `api_keys` come from, if that is a file."""
    described: "Sequence[Described]" = dataclasses.field(default=(), compare=False)
    ignored: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False)
    """Variables that do not count, and why."""

    @property
    def api_stop_seconds(self) -> float:
        """Maximum time from the stop signal to the end of an API process."""
        return self.shutdown_delay_seconds + self.shutdown_timeout_seconds

    @property
    def queue_adapter(self) -> Literal["rabbitmq", "valkey_streams"]:
        """Which queue `rabbitmq_url` means."""
        return "rabbitmq" if self.rabbitmq_url.startswith("amqp") else "valkey_streams"

    @property
    def search_directory(self) -> Path | None:
        """The directory of tantivy's index; None: `elasticsearch_url` means Elasticsearch."""
        return search_directory(self.elasticsearch_url)

    @property
    def scopes_without_key(self) -> frozenset[Scope]:
        """What clients without an API key may do."""
        if self.anonymous_scopes is not None:
            return self.anonymous_scopes
        if self.api_keys or self.api_keys_file is not None:
            return frozenset()
        return frozenset({Scope.READ, Scope.WRITE})

    def describe(self) -> "Sequence[Described]":
        """Return every setting in the order of this class, secrets masked."""
        return self.described

    def __repr__(self) -> str:
        given = [
            f"{item.name}={item.value!r}" for item in self.described if item.source != "default"
        ]
        return f"Settings({', '.join(given)})"


class Described(NamedTuple):
    """One setting, for people; contains no secret."""

    name: str
    value: str
    source: Literal["default", "environment", "file"]
    default: str
    allowed: str
    doc: str


def load(environ: Mapping[str, str]) -> Settings:
    """Return the settings of an environment; an empty variable counts as not set.

    `NAME_FILE` instead of `NAME` names a file that holds the value of a setting with a secret.

    Raises:
        ConfigurationError: one line that names the variable, the fault and an example.
    """
    parsed: dict[str, Any] = {}
    described: list[Described] = []
    ignored: dict[str, str] = {}

    def value(name: str, spec: Spec) -> Any:
        text, source = _text(environ, name, spec)
        try:
            refuse_service_link(text)
            parsed[name] = spec.parse(text)
        except IgnoredError as error:
            ignored[name] = str(error)
            text, source = spec.default, "default"
            parsed[name] = spec.parse(text)
        except ValueError as error:
            example = "" if "e.g." in str(error) else f"; e.g. {spec.default}"
            raise ConfigurationError(f"{name}: {error}{example}") from None  # it may hold a secret
        shown = spec.masked(text) if spec.masked else text
        described.append(Described(name, shown, source, spec.default, spec.allowed, spec.doc))
        return parsed[name]

    values = values_of(Settings, value)
    sources = {setting.name: setting.source for setting in described}
    keys_file = Path(environ["API_KEYS_FILE"]) if sources["API_KEYS"] == "file" else None
    _check_relations(parsed)
    return Settings(**values, api_keys_file=keys_file, described=tuple(described), ignored=ignored)


def _text(
    environ: Mapping[str, str], name: str, spec: Spec
) -> tuple[str, Literal["default", "environment", "file"]]:
    text = environ.get(name, "").strip()
    path = environ.get(f"{name}_FILE", "").strip() if spec.masked else ""
    if text and path:
        raise ConfigurationError(f"{name}: set either {name} or {name}_FILE, not both")
    if path:
        return secret_of(name, Path(path)), "file"
    return (text, "environment") if text else (spec.default, "default")


_AT_MOST = (
    ("commit_orders_max", "waiting_orders_max", "a commit takes from those that wait"),
    ("import_chunk_orders", "waiting_orders_max", "a chunk waits as a whole"),
    ("order_body_bytes_max", "body_bytes_max", "a bulk holds orders"),
    ("body_bytes_max", "http_in_flight_bytes_max", "a bulk is kept until it is complete"),
    ("http_head_bytes_max", "http_in_flight_bytes_max", "a head is kept until it is complete"),
    ("redis_command_timeout_seconds", "shutdown_timeout_seconds", "the last commit waits for it"),
    ("queue_publish_timeout_seconds", "shutdown_timeout_seconds", "the last commit waits for it"),
    ("persist_batch_orders", "consume_orders_max", "a batch is made of deliveries held"),
    ("index_batch_orders", "index_waiting_orders_max", "a batch is made of those that wait"),
    ("delivery_hold_seconds_max", "warm_quiet_seconds", "by then every delivery must be persisted"),
)


def _check_relations(parsed: Mapping[str, float]) -> None:
    for low, high, reason in _AT_MOST:
        low_value, high_value = parsed[low.upper()], parsed[high.upper()]
        if low_value > high_value:
            raise ConfigurationError(
                f"{low.upper()}: {low_value:g} is more than {high.upper()} ({high_value:g}), "
                f"but {reason}"
            )
