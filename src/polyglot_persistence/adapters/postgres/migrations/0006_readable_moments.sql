-- A moment that Python cannot hold (year 1 to 9999) makes a whole answer unreadable, and with it the
-- orders beside it. No order is accepted with one; whoever writes into the table is refused, too.
-- Rows that are there are not looked at, which on a large table takes long.
ALTER TABLE orders ADD CONSTRAINT orders_moments_readable CHECK (
    created_at >= timestamptz '0001-01-01 00:00:00+00'
    AND created_at < timestamptz '10000-01-01 00:00:00+00'
    AND accepted_at >= timestamptz '0001-01-01 00:00:00+00'
    AND accepted_at < timestamptz '10000-01-01 00:00:00+00'
) NOT VALID;
