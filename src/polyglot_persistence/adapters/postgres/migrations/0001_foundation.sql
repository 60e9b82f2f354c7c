-- The record of orders, what it feeds, and what keeps the cache honest.

CREATE TABLE orders (
    id           uuid           PRIMARY KEY,
    product_name text           NOT NULL,
    amount       numeric(12, 2) NOT NULL,
    created_at   timestamptz    NOT NULL,
    accepted_at  timestamptz    NOT NULL,
    persisted_at timestamptz    NOT NULL DEFAULT transaction_timestamp(),
    -- The edge checks these; here is the last line of defence.
    CONSTRAINT orders_product_name_length CHECK (char_length(product_name) BETWEEN 1 AND 200),
    CONSTRAINT orders_amount_range CHECK (amount BETWEEN 0 AND 9999999999.99),
    CONSTRAINT orders_moments_finite CHECK (isfinite(created_at) AND isfinite(accepted_at))
);

-- Newest first, page by page.
CREATE INDEX orders_by_creation ON orders (created_at DESC, id DESC);

-- The sales rollup. A cell is spread over a few slots, so that workers do not queue for one row;
-- room is left in each page, so that counting up stays inside it (heap-only tuples).
CREATE TABLE sales_quarter_hours (
    bucket  timestamptz NOT NULL,
    slot    smallint    NOT NULL,
    revenue numeric     NOT NULL,
    orders  bigint      NOT NULL,
    PRIMARY KEY (bucket, slot)
) WITH (fillfactor = 50);

CREATE TABLE sales_product_days (
    day          date     NOT NULL,
    product_name text     NOT NULL,
    slot         smallint NOT NULL,
    revenue      numeric  NOT NULL,
    orders       bigint   NOT NULL,
    PRIMARY KEY (day, product_name, slot)
) WITH (fillfactor = 50);

CREATE MATERIALIZED VIEW daily_sales_mv AS
SELECT (bucket AT TIME ZONE 'UTC')::date AS sale_date,
       sum(revenue)                      AS total_revenue,
       sum(orders)::bigint               AS orders
FROM sales_quarter_hours
GROUP BY 1;

-- REFRESH ... CONCURRENTLY matches old rows to new ones by it.
CREATE UNIQUE INDEX daily_sales_mv_by_date ON daily_sales_mv (sale_date);

CREATE TABLE view_refreshes (
    view         text        PRIMARY KEY,
    refreshed_at timestamptz NOT NULL
);

-- Orders that are persisted and not known to be searchable.
CREATE TABLE index_outbox (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT transaction_timestamp(),
    orders     integer     NOT NULL,
    order_ids  uuid[]      NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

CREATE TABLE dead_letters (
    id             bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id       uuid,
    unit_id        uuid,
    payload        bytea       NOT NULL,
    payload_digest bytea       NOT NULL,
    reason         text        NOT NULL,
    stage          text        NOT NULL CHECK (stage IN ('decode', 'persist', 'index')),
    attempts       integer     NOT NULL CHECK (attempts >= 0),
    first_at       timestamptz NOT NULL DEFAULT transaction_timestamp(),
    last_at        timestamptz NOT NULL DEFAULT transaction_timestamp(),
    CONSTRAINT dead_letters_once UNIQUE NULLS NOT DISTINCT (order_id, stage, payload_digest)
);

CREATE INDEX dead_letters_by_unit ON dead_letters (unit_id);

-- One row: while the cache's copy differs, a miss in the cache proves no absence.
CREATE TABLE cache_epoch (
    singleton  boolean     PRIMARY KEY DEFAULT true CHECK (singleton),
    epoch      bigint      NOT NULL CHECK (epoch > 0),
    changed_at timestamptz NOT NULL
);
