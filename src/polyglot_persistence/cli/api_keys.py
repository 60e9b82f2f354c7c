"""`polyglot api-keys`: create API keys. Needs no server and stores nothing."""

import click

from polyglot_persistence.cli import reports
from polyglot_persistence.cli.command import Commands, as_json


@click.group(
    name="api-keys",
    cls=Commands,
    short_help="Create API keys.",
    examples=("polyglot api-keys new shop",),
)
def api_keys() -> None:
    """Create API keys."""


@api_keys.command(
    short_help="Create a key and print it once.",
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
    help="Comma-separated: read, write, admin. No scope includes another.",
)
@as_json
def new(name: str, scopes: str, *, as_json: bool) -> None:
    """Create a key for the client NAME, and print the key and the server's line for it.

    Give the key to the client; it is not stored anywhere. Add the line to the setting API_KEYS or
    to the file in API_KEYS_FILE, which is reread when it changes. To rotate a key, create another
    one with the same name and remove the old line when no client uses the old key.
    """
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
