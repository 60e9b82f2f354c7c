"""The HTTP interface: routes, schemas, problems."""
