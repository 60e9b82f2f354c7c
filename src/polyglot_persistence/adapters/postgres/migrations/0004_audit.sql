-- What an audit compares and remembers.

-- The same number as domain/checksum.py: 32 bits of the SHA-256 of all that an order is.
CREATE FUNCTION order_checksum(id uuid, product_name text, amount numeric, created_at timestamptz)
RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE
RETURN ('x' || left(encode(sha256(convert_to(
    id::text || ' ' || (amount * 100)::bigint || ' '
    || (extract(epoch FROM created_at) * 1000000)::bigint || ' ' || product_name,
    'UTF8')), 'hex'), 8))::bit(32)::bigint;

-- How far a rebuild of the sales has come, for as long as it is under way.
CREATE TABLE sales_rebuild (
    singleton  boolean     PRIMARY KEY DEFAULT true CHECK (singleton),
    done_until date        NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT transaction_timestamp()
);

-- Of the orders that became searchable in an hour, how many did within so many seconds.
CREATE TABLE freshness (
    hour       timestamptz PRIMARY KEY,
    orders     bigint      NOT NULL,
    within_1s  bigint      NOT NULL,
    within_5s  bigint      NOT NULL,
    within_60s bigint      NOT NULL
);
