-- How many orders the record holds, counted by the transactions that insert them: counting the rows
-- takes longer with every order. Spread over a few slots, as the sales rollup is.

CREATE TABLE persisted_orders (
    slot   smallint PRIMARY KEY,
    orders bigint   NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

INSERT INTO persisted_orders (slot, orders)
SELECT 0, coalesce(sum(orders), 0) FROM sales_quarter_hours;
