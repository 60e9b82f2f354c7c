-- What may kill its worker: a row is written before each attempt and removed after it, so that only
-- an attempt that ended in the worker's death leaves one behind.

CREATE TABLE suspects (
    subject  text        PRIMARY KEY,
    attempts integer     NOT NULL CHECK (attempts >= 0),
    first_at timestamptz NOT NULL DEFAULT transaction_timestamp(),
    last_at  timestamptz NOT NULL DEFAULT transaction_timestamp()
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
