"""Who may ask for what: the scope that each route of the table declares."""

import enum


class Scope(enum.Enum):
    """What a client must be allowed, to be answered on a route."""

    PUBLIC = "public"
    """Nothing: probes, and pages that hold no data."""
    READ = "read"
    """To see orders, and what is made of them."""
    WRITE = "write"
    """To place orders."""
    ADMIN = "admin"
    """To operate the service."""
