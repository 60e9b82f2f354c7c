"""Settings: what is taken from the environment, what is refused, and that no password shows."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from asyncpg import connect_utils
from hypothesis import given
from hypothesis import strategies as st

from polyglot_persistence.config import Settings, load
from polyglot_persistence.config.addresses.passwords import mask
from polyglot_persistence.config.addresses.postgres import postgres_url
from polyglot_persistence.domain.schedule import Schedule
from polyglot_persistence.errors import ConfigurationError

SECRET = "hunter2 is secret"


def _as_asyncpg_reads(url: str) -> tuple[list[Any], Any]:
    places, parameters, *_ = connect_utils._parse_connect_dsn_and_args(  # type: ignore[attr-defined]
        dsn=url,
        **dict.fromkeys(
            (
                *("host", "port", "user", "password", "passfile", "database", "ssl", "service"),
                *("servicefile", "direct_tls", "server_settings", "target_session_attrs"),
                *("krbsrvname", "gsslib"),
            )
        ),
    )
    return places, parameters


def _libpq_quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def test_the_defaults_are_the_peers() -> None:
    """Without any variable the settings are those of the peer's compose file."""
    settings = load({})
    assert (
        "redis:6379",
        "amqp://guest:guest@rabbitmq:5672/",
        "http://elasticsearch:9200",
        "0.0.0.0",
        8080,
        Schedule("@hourly"),
    ) == (
        settings.redis_addr,
        settings.rabbitmq_url,
        settings.elasticsearch_url,
        settings.api_host,
        settings.api_port,
        settings.mv_refresh_schedule,
    )
    assert (
        settings.postgres_dsn == "postgresql://postgres:secret@postgres/ecommerce?sslmode=disable"
    )


def test_an_empty_variable_is_not_set() -> None:
    """Compose files pass unset variables on as empty text."""
    assert load({}) == load({"API_PORT": "", "POSTGRES_DSN": " ", "POSTGRES_DSN_FILE": ""})


@pytest.mark.parametrize(
    ("url", "adapter"),
    [
        ("amqp://guest:guest@rabbitmq:5672/", "rabbitmq"),
        ("amqps://rabbitmq/shop", "rabbitmq"),
        ("redis://valkey:6379/0", "valkey_streams"),
        ("rediss://valkey", "valkey_streams"),
        ("valkey://valkey", "valkey_streams"),
        ("valkeys://valkey", "valkey_streams"),
        ("unix:///run/valkey.sock?db=0", "valkey_streams"),
    ],
)
def test_the_scheme_picks_the_queue(url: str, adapter: str) -> None:
    """RABBITMQ_URL says which queue it is by its scheme."""
    assert load({"RABBITMQ_URL": url}).queue_adapter == adapter


def test_the_scheme_picks_the_search() -> None:
    """ELASTICSEARCH_URL may be a directory for tantivy, with escapes undone."""
    assert load({}).search_directory is None
    settings = load({"ELASTICSEARCH_URL": "tantivy:///var/my%20data/search"})
    assert settings.search_directory == Path("/var/my data/search")


@pytest.mark.parametrize(
    ("name", "text", "fragment"),
    [
        ("API_PORT", "x", "'x' is not a whole number from 1 to 65535; e.g. 8080"),
        ("API_PORT", "0", "whole number"),
        ("API_PORT", "65536", "whole number"),
        ("API_PORT", "80.5", "whole number"),
        ("API_PORT", "٣", "whole number"),
        ("COMMIT_ORDERS_MAX", "0", "whole number"),
        ("COMMIT_ORDERS_MAX", "9" * 5000, "whole number"),
        ("WAITING_ORDERS_MAX", "999", "from 1000"),
        ("SEARCH_TIMEOUT_SECONDS", "nan", "number of seconds"),
        ("SEARCH_TIMEOUT_SECONDS", "inf", "number of seconds"),
        ("SEARCH_TIMEOUT_SECONDS", "-1", "number of seconds"),
        ("SEARCH_TIMEOUT_SECONDS", "5s", "number of seconds"),
        ("CACHE_DURABLE", "maybe", "none of auto, yes, no; e.g. auto"),
        ("LOG_LEVEL", "loud", "none of debug, info"),
        ("LOG_FORMAT", "xml", "none of auto"),
        ("MV_REFRESH_SCHEDULE", "hourly", "five fields; e.g. @hourly"),
        ("API_HOST", "a b", "not a host name"),
        ("REDIS_ADDR", "redis", "not host:port"),
        ("REDIS_ADDR", "redis:0", "not host:port"),
        ("REDIS_ADDR", "redis:port", "not host:port"),
        ("REDIS_ADDR", "amqp://redis", "not a URL of scheme redis"),
        ("REDIS_ADDR", "redis://redis:99999", "not a valid URL"),
        ("REDIS_ADDR", "unix://valkey.sock", "needs an absolute path"),
        ("RABBITMQ_URL", "rabbitmq:5672", "not a URL of scheme amqp"),
        ("RABBITMQ_URL", "amqp:///vhost", "names no host"),
        ("RABBITMQ_URL", "amqp://user:p@ss@rabbitmq/", "%40"),
        ("ELASTICSEARCH_URL", "elasticsearch:9200", "not a URL of scheme http"),
        ("ELASTICSEARCH_URL", "tantivy://search/dir", "needs an absolute path"),
        ("ELASTICSEARCH_URL", "tantivy:///", "needs an absolute path"),
        ("POSTGRES_DSN", "postgres", "not keyword=value"),
        ("POSTGRES_DSN", "mysql://host/db", "not a URL of scheme postgresql"),
        ("POSTGRES_DSN", "host=h port=abc", "port is not a number"),
        ("POSTGRES_DSN", "host=h password='open", "not keyword=value"),
        ("POSTGRES_DSN", "host=h connect_timeout=3", "POSTGRES_CONNECT_TIMEOUT_SECONDS"),
        ("POSTGRES_DSN", "postgresql://h/db?connect_timeout=3", "POSTGRES_CONNECT_TIMEOUT_SECONDS"),
        ("POSTGRES_DSN", "host=a,b target_session_attrs=any", "none of primary, read-write"),
        ("POSTGRES_DSN", "postgresql://a,b/db?target_session_attrs=standby", "none of primary"),
        ("POSTGRES_DSN", "postgresql://a:1,b:x/db", "not a valid URL"),
        ("POSTGRES_DSN", "postgresql://a:1,,b/db", "without a host"),
        ("POSTGRES_DSN", "host=a,,b", "without a host"),
        ("POSTGRES_DSN", "host=a,b,c port=1,2", "one port for all hosts"),
        ("POSTGRES_DSN", "postgresql:///db?host=a,b&port=1,x", "port is not a number"),
    ],
)
def test_a_wrong_value_is_one_clear_line(name: str, text: str, fragment: str) -> None:
    """It names the variable first, then the fault and an example."""
    with pytest.raises(ConfigurationError) as caught:
        load({name: text})
    line = str(caught.value)
    assert line.startswith(f"{name}: ")
    assert fragment in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("POSTGRES_DSN", f"user=u password='{SECRET}' host=h dbname"),
        ("POSTGRES_DSN", f"postgresql://u:{SECRET}@h:x/db"),
        ("POSTGRES_DSN", f"postgresql://u:{SECRET}@h:1,i:x/db"),
        ("POSTGRES_DSN", f"ftp://u:{SECRET}@h/db"),
        ("REDIS_ADDR", f"redis://:{SECRET}@h:x"),
        ("REDIS_ADDR", f":{SECRET}@h:x"),
        ("RABBITMQ_URL", f"http://u:{SECRET}@h"),
        ("ELASTICSEARCH_URL", f"https://u:{SECRET}@"),
    ],
)
def test_an_error_holds_no_password(name: str, address: str) -> None:
    """Neither its text nor its cause repeats an address that could not be read."""
    with pytest.raises(ConfigurationError) as caught:
        load({name: address})
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("POSTGRES_DSN", f"user=u password='{SECRET}' host=h"),
        ("POSTGRES_DSN", f"user=u password = {SECRET.replace(' ', chr(92) + ' ')} host=h"),
        ("POSTGRES_DSN", f"postgresql://u:{SECRET}@h/db"),
        ("POSTGRES_DSN", f"postgresql://h/db?user=u&password={SECRET}&sslpassword={SECRET}"),
        ("REDIS_ADDR", f"redis://:{SECRET}@h"),
        ("REDIS_ADDR", f"unix:///run/valkey.sock?db=0&password={SECRET}"),
        ("RABBITMQ_URL", f"amqps://u:{SECRET}@h/"),
        ("ELASTICSEARCH_URL", f"https://elastic:{SECRET}@h:9200"),
    ],
)
def test_a_password_never_shows(name: str, address: str) -> None:
    """It is in the value that the adapter gets, and in nothing that is for people."""
    settings = load({name: address})
    assert SECRET in unquote(getattr(settings, name.lower()))
    shown = f"{settings!r} {settings} {settings.describe()}"
    assert "hunter2" not in shown
    assert "secret" not in next(d.value for d in settings.describe() if d.name == name)
    assert "***" in shown


def test_a_masked_address_keeps_the_rest() -> None:
    """Who reads it can still tell which server it is."""
    assert mask("amqp://guest:guest@rabbitmq:5672/shop") == "amqp://guest:***@rabbitmq:5672/shop"
    assert mask("user=a password=b host=c") == "user=a password=*** host=c"
    assert mask("redis:6379") == "redis:6379"


def test_a_secret_comes_from_a_file(tmp_path: Path) -> None:
    """NAME_FILE holds the value, a final newline not counted; it is masked as any other."""
    file = tmp_path / "dsn"
    file.write_text(f"postgresql://u:{SECRET.replace(' ', '%20')}@h/db\n")
    settings = load({"POSTGRES_DSN_FILE": str(file)})
    assert settings.postgres_dsn.endswith("@h/db")
    described = next(d for d in settings.describe() if d.name == "POSTGRES_DSN")
    assert (described.value, described.source) == ("postgresql://u:***@h/db", "file")


NAMING_A_FILE = {
    "POSTGRES_DSN": [
        ("host=h user=u password_file={file}", "postgresql://u:{password}@h/"),
        (
            "password_file='{file}' dbname=d host=one,two",
            "postgresql://:{password}@/d?host=one%2Ctwo",
        ),
        (
            "postgresql://u@one,two:5433/d?password_file={file}",
            "postgresql://u:{password}@one,two:5433/d",
        ),
        (
            "postgres://u@/d?host=/run&password_file={file}&sslmode=disable",
            "postgres://u:{password}@/d?host=/run&sslmode=disable",
        ),
    ],
    "REDIS_ADDR": [
        ("redis://h:6379?password_file={file}", "redis://:{password}@h:6379"),
        ("rediss://u@h/2?password_file={file}", "rediss://u:{password}@h/2"),
        ("unix:///run/s?password_file={file}&db=1", "unix:///run/s?db=1&password={password}"),
        ("unix:///run/s?password_file={file}", "unix:///run/s?password={password}"),
    ],
    "RABBITMQ_URL": [
        ("amqp://u@h:5672/?password_file={file}", "amqp://u:{password}@h:5672/"),
        ("amqps://u@h/shop?password_file={file}", "amqps://u:{password}@h/shop"),
    ],
    "ELASTICSEARCH_URL": [
        ("http://u@h:9200?password_file={file}", "http://u:{password}@h:9200"),
        ("https://u@h/below/?password_file={file}", "https://u:{password}@h/below/"),
    ],
}
"""Addresses as they are written, and as they are used."""


@pytest.mark.parametrize(
    ("name", "address", "used"),
    [(name, *case) for name, cases in NAMING_A_FILE.items() for case in cases],
)
@pytest.mark.parametrize("password", ["secret", "p@ss:w/rd?#&=%", "with 'quotes\\' \"and\" blanks"])
def test_an_address_names_the_file_of_its_password(
    tmp_path: Path, name: str, address: str, used: str, password: str
) -> None:
    """It is used with it, and shown without."""
    file = tmp_path / "password"
    file.write_text(f"{password}\n")
    address = address.format(file=file)
    settings = load({name: address})
    assert getattr(settings, name.lower()) == used.format(password=quote(password, safe=""))
    (shown,) = [one for one in settings.describe() if one.name == name]
    assert (shown.value, shown.source) == (address, "environment")
    assert password not in repr(settings)


@pytest.mark.parametrize("name", NAMING_A_FILE)
def test_a_password_file_that_does_not_do_is_an_error(tmp_path: Path, name: str) -> None:
    """Missing, empty, too long, or beside another password, which is not told."""
    address, _ = NAMING_A_FILE[name][0]
    file = tmp_path / "password"
    for content, reason in ((None, "No such file"), ("", "is empty"), ("x" * 70_000, "KiB")):
        if content is not None:
            file.write_text(content)
        with pytest.raises(ConfigurationError, match=f"{name}: .*{reason}"):
            load({name: address.format(file=file)})
    file.write_text("secret")
    two = {
        "POSTGRES_DSN": f"host=h user=u password={quote(SECRET)} password_file={file}",
        "REDIS_ADDR": f"redis://:{quote(SECRET)}@h?password_file={file}",
        "RABBITMQ_URL": f"amqp://u:{quote(SECRET)}@h?password_file={file}",
        "ELASTICSEARCH_URL": f"http://u:{quote(SECRET)}@h?password_file={file}",
    }[name]
    with pytest.raises(ConfigurationError, match="names one by password_file") as raised:
        load({name: two})
    assert quote(SECRET) not in str(raised.value)


def _directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "fragment"),
    [
        (lambda _: None, "No such file"),
        (lambda path: path.write_text(" \n"), "is empty"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "not UTF-8"),
        (_directory, "Is a directory"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(
    make: Callable[[Path], object], fragment: str, tmp_path: Path
) -> None:
    """The line names the variable and the file."""
    path = tmp_path / "secret"
    make(path)
    with pytest.raises(ConfigurationError, match=f"^REDIS_ADDR_FILE: .*secret.*{fragment}"):
        load({"REDIS_ADDR_FILE": str(path)})


def test_a_variable_and_its_file_are_one_too_many(tmp_path: Path) -> None:
    """Which of the two is meant cannot be known."""
    with pytest.raises(ConfigurationError, match="not both"):
        load({"REDIS_ADDR": "a:1", "REDIS_ADDR_FILE": str(tmp_path / "b")})


@pytest.mark.parametrize(
    ("environ", "fragment"),
    [
        (
            {"COMMIT_ORDERS_MAX": "5000", "WAITING_ORDERS_MAX": "4999"},
            "COMMIT_ORDERS_MAX: 5000 is more than WAITING_ORDERS_MAX (4999), but",
        ),
        ({"ORDER_BODY_BYTES_MAX": "4096", "BODY_BYTES_MAX": "2048"}, "BODY_BYTES_MAX"),
        ({"REDIS_COMMAND_TIMEOUT_SECONDS": "21"}, "SHUTDOWN_TIMEOUT_SECONDS (20)"),
        ({"WARM_QUIET_SECONDS": "29"}, "DELIVERY_HOLD_SECONDS_MAX: 30 is more than"),
        ({"PERSIST_BATCH_ORDERS": "20000"}, "CONSUME_ORDERS_MAX (10000)"),
    ],
)
def test_limits_that_contradict_each_other_are_refused(
    environ: dict[str, str], fragment: str
) -> None:
    """Each bound alone is kept; together they could not work."""
    with pytest.raises(ConfigurationError) as caught:
        load(environ)
    assert fragment in str(caught.value)


def test_every_setting_is_described_in_order() -> None:
    """One row for each field of each section, with what it means and may be."""

    def fields_of(section: type[Any]) -> list[str]:
        names: list[str] = []
        for field in dataclasses.fields(section):
            if "spec" in field.metadata:
                names.append(getattr(section, "PREFIX", "") + field.name.upper())
            names += fields_of(field.metadata["section"]) if "section" in field.metadata else []
        return names

    fields = fields_of(Settings)
    described = load({"API_PORT": "81"}).describe()
    assert fields == [d.name for d in described]
    assert all(d.doc.endswith(".") and d.allowed and d.default for d in described)
    assert {"API_PORT"} == {d.name for d in described if d.source == "environment"}


# --- PostgreSQL's keyword form ---------------------------------------------------------------


@given(
    st.dictionaries(
        st.sampled_from(["user", "password", "dbname"]),
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12),
        min_size=3,
    ),
    st.sampled_from(["postgres", "db.example.org", "127.0.0.1", "::1", "/run/my pg"]),
    st.integers(1, 65535),
)
def test_asyncpg_reads_what_libpq_would(keywords: dict[str, str], host: str, port: int) -> None:
    """Whatever is quoted in the keyword form arrives at the driver through the URL."""
    keywords |= {"host": host, "port": str(port)}
    dsn = " ".join(f"{key} = {_libpq_quoted(value)}" for key, value in keywords.items())
    places, parameters = _as_asyncpg_reads(postgres_url(dsn))
    expected: object = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)
    assert [expected] == places
    assert (keywords["user"], keywords["password"], keywords["dbname"]) == (
        parameters.user,
        parameters.password,
        parameters.database,
    )


@pytest.mark.parametrize(
    ("dsn", "url"),
    [
        (r"user=a\ b password=it\'s host=h", "postgresql://a%20b:it%27s@h/"),
        ("user=a password='' host=h", "postgresql://a@h/"),
        ("host=a,b port=1,2 user=u", "postgresql://u@/?host=a%2Cb&port=1%2C2"),
        ("host=a,::1 port=1 user=u", "postgresql://u@/?host=a%2C%5B%3A%3A1%5D&port=1"),
        ("postgresql://u:p@h:1,i/db", "postgresql://u:p@h:1,i/db"),
        ("host=h application_name='my app'", "postgresql://h/?application_name=my%20app"),
        ("postgres://u:p@h/db?sslmode=require", "postgres://u:p@h/db?sslmode=require"),
    ],
)
def test_keywords_become_a_url(dsn: str, url: str) -> None:
    """Escapes, empty values, several hosts and the driver's own parameters."""
    assert postgres_url(dsn) == url


# --- variables that were not meant for this program ------------------------------------------


@pytest.mark.parametrize(
    ("name", "link"),
    [
        ("API_PORT", "tcp://10.96.12.34:8080"),
        ("WORKER_PORT", "tcp://[fd00::7]:8081"),
        ("API_PROCESS_PORT", "udp://10.0.0.1:53"),
        ("REDIS_ADDR", "sctp://10.0.0.2:6379"),
    ],
)
def test_service_links_are_ignored_with_a_warning(name: str, link: str) -> None:
    """Kubernetes sets such variables for every Service of the namespace."""
    settings, default = load({name: link}), load({})
    assert getattr(settings, name.lower()) == getattr(default, name.lower())
    assert settings.ignored[name].startswith("is set by Kubernetes")
    (shown,) = [one for one in settings.describe() if one.name == name]
    assert shown.source == "default"


def test_what_only_resembles_a_service_link_is_still_an_error() -> None:
    """A mistake of an operator is not ignored."""
    for text in ("tcp://10.96.12.34", "http://10.96.12.34:8080", "8080 tcp://10.96.12.34:8080"):
        with pytest.raises(ConfigurationError, match="API_PORT"):
            load({"API_PORT": text})


@pytest.mark.parametrize("exporter", ["console", "zipkin", "otlp,console", "jaeger"])
def test_an_unknown_exporter_is_a_warning(exporter: str) -> None:
    """The variable is every program's on the machine."""
    settings = load({"OTEL_TRACES_EXPORTER": exporter})
    assert settings.otel_traces_exporter == "none"
    assert [exporter in warning for warning in settings.ignored.values()] == [True]
    assert load({"OTEL_TRACES_EXPORTER": "otlp"}).ignored == {}


@pytest.mark.parametrize(
    ("word", "level"),
    [("WARN", "warning"), ("Trace", "debug"), ("FATAL", "error"), ("critical", "error")],
)
def test_other_words_for_a_level_are_understood(word: str, level: str) -> None:
    """In any case."""
    assert load({"LOG_LEVEL": word}).log_level == level


@pytest.mark.parametrize(
    ("text", "host"), [("[::1]", "::1"), ("[::]", "::"), ("[fe80::1%eth0]", "fe80::1%eth0")]
)
def test_an_address_in_brackets_is_a_host(text: str, host: str) -> None:
    """As it stands in a URL."""
    assert load({"API_HOST": text}).api_host == host
