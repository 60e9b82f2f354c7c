-- The search index that is being built anew, and what the current one has got meanwhile.

CREATE TABLE search_rebuild (
    singleton  boolean     PRIMARY KEY DEFAULT true CHECK (singleton),
    index_name text        NOT NULL,
    position   uuid,
    filled     bigint      NOT NULL DEFAULT 0,
    total      bigint      NOT NULL,
    started_at timestamptz NOT NULL DEFAULT transaction_timestamp()
) WITH (fillfactor = 50);

CREATE TABLE rebuild_arrivals (
    id        bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    orders    integer NOT NULL,
    order_ids uuid[]  NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
