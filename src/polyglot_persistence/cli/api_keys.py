"""`polyglot api-keys`: make keys for the API. Needs no server, and keeps nothing."""

import click

from polyglot_persistence.cli.command import Commands, as_json


@click.group(
    name="api-keys",
    cls=Commands,
    short_help="Make keys for the API.",
    examples=("polyglot api-keys new shop",),
)
def api_keys() -> None:
    """Make keys for the API."""


@api_keys.command(
    short_help="Make a key, and print it once.",
    examples=(
        "polyglot api-keys new shop",
        "polyglot api-keys new oncall --scopes read,admin",
        "polyglot api-keys new shop --json | jq -r .line >> api-keys",
    ),
)
@click.argument("name")
@click.option(
    "--scopes",
    default="read,write",
    show_default=True,
    help="What it allows: read, write, admin, with commas in between. None includes another.",
)
@as_json
def new(name: str, scopes: str, *, as_json: bool) -> None:
    """Make a key for the client NAME, and print it and the line by which the server knows it.

    Give the key to the client; it is nowhere kept. Add the line to the setting API_KEYS, or to the
    file that API_KEYS_FILE names, which is read again when it changes. To rotate a key, make
    another of the same name, and take the old line out when nobody uses it any more.
    """
    from polyglot_persistence.cli import reports
    from polyglot_persistence.domain import access

    try:
        secret, key = access.new_api_key(name, sorted(access.parse_scopes(scopes), key=str))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        click.echo(reports.as_json({"key": secret, "line": key.line}))
        return
    click.echo(f"key   {secret}")
    click.echo(f"line  {key.line}")
