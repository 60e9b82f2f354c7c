"""The parts of Elasticsearch's responses that we read; a response without them is invalid."""

from typing import Any

from msgspec import Struct, field

from polyglot_persistence.adapters.elasticsearch.documents import Columns


class Meta(Struct):
    """Metadata that we write into a mapping to mark its owner."""

    owner: str | None = None
    form: int | str | None = None  # any type in a mapping that is not ours
    alias: str | None = None
    """The owner of the index, among several installations on a cluster."""


class Mapping(Struct):
    """The mapping of an index."""

    meta: Meta = field(name="_meta", default_factory=Meta)


class IndexMapping(Struct):
    """An index, in a response about mappings."""

    mappings: Mapping


class IndexAliases(Struct):
    """An index, in a response about aliases."""

    aliases: dict[str, Any]


class Total(Struct):
    """Number of matching documents."""

    value: int
    relation: str = "eq"
    """`gte`: counting stopped there."""


class Found(Struct):
    """One matching document, with the requested parts."""

    source: dict[str, Any] = field(name="_source", default_factory=dict)
    fields: Columns | None = None


class Hits(Struct):
    """The matching documents, best first."""

    hits: list[Found]
    total: Total | None = None
    """None if no total was requested."""


class SearchAnswer(Struct):
    """Response to a search."""

    hits: Hits
    aggregations: dict[str, Any] = {}


class AnswerOrError(Struct):
    """Response to one search among several."""

    hits: Hits | None = None
    aggregations: dict[str, Any] = {}
    error: dict[str, Any] | str | None = None
    status: int = 500


class ManyAnswers(Struct):
    """Response to several searches."""

    responses: list[AnswerOrError]


class ItemResult(Struct):
    """Result of one item of a bulk."""

    status: int
    error: dict[str, Any] | str | None = None


class ItemAnswer(Struct):
    """An item, by its action: one of the two."""

    index: ItemResult | None = None
    delete: ItemResult | None = None


class BulkAnswer(Struct):
    """Response to a bulk."""

    errors: bool
    items: list[ItemAnswer]


class Version(Struct):
    """Version of the server."""

    number: str


class InfoAnswer(Struct):
    """Response about the server."""

    version: Version


class HealthAnswer(Struct):
    """Response about an index's health."""

    status: str
    number_of_data_nodes: int = 1
    active_primary_shards: int = 0
    active_shards: int = 0


class IndexHealth(Struct):
    """Health of one index."""

    status: str
    initializing_shards: int = 0


class IndexesHealthAnswer(Struct):
    """Response about the health of each index."""

    indices: dict[str, IndexHealth] = {}


class Translog(Struct):
    """How an index writes its transaction log."""

    durability: str = "request"


class IndexSettings(Struct):
    """The settings that could break a promise."""

    translog: Translog = field(default_factory=Translog)
    number_of_replicas: str = "0"
    auto_expand_replicas: str = "false"


class Settings(Struct):
    """Settings of one index."""

    index: IndexSettings


class SettingsAnswer(Struct):
    """An index, in a response about settings."""

    settings: Settings


class Done(Struct):
    """Response to a request whose status is the whole answer."""
