"""The parts of Elasticsearch's answers that we read; an answer without them is none."""

from typing import Any

from msgspec import Struct, field

from polyglot_persistence.adapters.elasticsearch.documents import Columns


class Meta(Struct):
    """Whose mapping it is, as we write it."""

    owner: str | None = None
    form: int | str | None = None  # anything, if it is not ours
    alias: str | None = None
    """Whose index it is, of several installations on a cluster."""


class Mapping(Struct):
    """The mapping of an index."""

    meta: Meta = field(name="_meta", default_factory=Meta)


class IndexMapping(Struct):
    """An index, as its mapping is asked for."""

    mappings: Mapping


class IndexAliases(Struct):
    """An index, as its aliases are asked for."""

    aliases: dict[str, Any]


class Total(Struct):
    """How many documents matched."""

    value: int
    relation: str = "eq"
    """`gte`: they were not counted further."""


class Found(Struct):
    """One document that matched, as it was asked for."""

    source: dict[str, Any] = field(name="_source", default_factory=dict)
    fields: Columns | None = None


class Hits(Struct):
    """The documents that matched, best first."""

    hits: list[Found]
    total: Total | None = None
    """Unless it was not to be counted."""


class SearchAnswer(Struct):
    """A search's."""

    hits: Hits
    aggregations: dict[str, Any] = {}


class AnswerOrError(Struct):
    """Of one search among several."""

    hits: Hits | None = None
    aggregations: dict[str, Any] = {}
    error: dict[str, Any] | str | None = None
    status: int = 500


class ManyAnswers(Struct):
    """Of several searches."""

    responses: list[AnswerOrError]


class ItemResult(Struct):
    """What became of an item of a bulk."""

    status: int
    error: dict[str, Any] | str | None = None


class ItemAnswer(Struct):
    """An item, by what was asked of it: one of the two."""

    index: ItemResult | None = None
    delete: ItemResult | None = None


class BulkAnswer(Struct):
    """A bulk's."""

    errors: bool
    items: list[ItemAnswer]


class Version(Struct):
    """The server's."""

    number: str


class InfoAnswer(Struct):
    """The server's."""

    version: Version


class HealthAnswer(Struct):
    """An index's."""

    status: str


class Translog(Struct):
    """How an index writes its log."""

    durability: str = "request"


class IndexSettings(Struct):
    """The settings that could break a promise."""

    translog: Translog = field(default_factory=Translog)


class Settings(Struct):
    """Of one index."""

    index: IndexSettings


class SettingsAnswer(Struct):
    """One index, as its settings are asked for."""

    settings: Settings


class Done(Struct):
    """Of a request that is answered by its status alone."""
