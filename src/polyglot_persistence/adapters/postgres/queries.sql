-- Every statement, each under `-- name:` and its purpose in a line.

-- name: begin_session
-- Return reign and process, on a primary only; override the session's unsafe settings.
SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) || ' ' || pg_postmaster_start_time()
           AS reign,
       pg_backend_pid() AS process,
       CASE current_setting('synchronous_commit')
           WHEN 'off' THEN set_config('synchronous_commit', 'on', false)
       END,
       CASE WHEN current_setting('transaction_timeout', true) <> '0'
           THEN set_config('transaction_timeout', '0', false)
       END;

-- name: look_at_process
-- Return whether a process is this session's own, whether it is active, and when its query began.
SELECT pg_backend_pid() = $1::int AS mine,
       coalesce(state NOT IN ('idle', 'disabled'), false) AS works,
       query_start AS since
FROM (VALUES (1)) AS one
LEFT JOIN pg_stat_activity ON pid = $1::int;

-- name: persist
-- Insert a batch, sorted by id; only the new rows feed rollup and outbox.
WITH inserted AS (
    INSERT INTO orders (id, product_name, amount, created_at, accepted_at)
    SELECT id, product_name, amount::numeric, created_at, accepted_at
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[])
        AS batch (id, product_name, amount, created_at, accepted_at)
    ON CONFLICT (id) DO NOTHING
    RETURNING id, product_name, amount, created_at
), quarter_hours AS (
    INSERT INTO sales_quarter_hours AS cell (bucket, slot, revenue, orders)
    SELECT date_bin('15 minutes', created_at, timestamptz 'epoch'), pg_backend_pid() % 4,
           sum(amount), count(*)
    FROM inserted
    GROUP BY 1
    ORDER BY 1
    ON CONFLICT (bucket, slot) DO UPDATE
    SET revenue = cell.revenue + excluded.revenue, orders = cell.orders + excluded.orders
), product_days AS (
    INSERT INTO sales_product_days AS cell (day, product_name, slot, revenue, orders)
    SELECT (created_at AT TIME ZONE 'UTC')::date, product_name, pg_backend_pid() % 4,
           sum(amount), count(*)
    FROM inserted
    GROUP BY 1, 2
    ORDER BY 1, 2
    ON CONFLICT (day, product_name, slot) DO UPDATE
    SET revenue = cell.revenue + excluded.revenue, orders = cell.orders + excluded.orders
), outbox AS (
    INSERT INTO index_outbox (orders, order_ids)
    SELECT count(*), array_agg(id)
    FROM inserted
    HAVING count(*) > 0
    RETURNING id
), total AS (
    INSERT INTO persisted_orders AS cell (slot, orders)
    SELECT pg_backend_pid() % 4, count(*)
    FROM inserted
    HAVING count(*) > 0
    ON CONFLICT (slot) DO UPDATE SET orders = cell.orders + excluded.orders
)
SELECT transaction_timestamp() AS persisted_at,
       (SELECT id FROM outbox) AS outbox_id,
       (SELECT count(*) FROM inserted) AS inserted,
       CASE WHEN (SELECT count(*) FROM inserted) < cardinality($1)
            THEN (SELECT array_agg(id) FROM inserted) END AS inserted_ids,
       (SELECT array_agg(letter.id)
        FROM dead_letters AS letter
        JOIN inserted ON inserted.id = letter.order_id) AS letter_ids;

-- name: orders_by_ids
-- Return the rows of the given ids.
SELECT id, product_name, amount, created_at, accepted_at, persisted_at
FROM orders
WHERE id = ANY ($1::uuid[]);

-- name: find
-- Return for each id its row, or else its latest dead letter; and the epoch, also for no ids.
SELECT (SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)) AS timeline,
       (SELECT epoch FROM cache_epoch) AS epoch,
       orders.id, orders.product_name, orders.amount, orders.created_at, orders.accepted_at,
       orders.persisted_at,
       dead.id AS dead_id, dead.order_id, dead.unit_id, dead.payload, dead.reason, dead.stage,
       dead.attempts, dead.first_at, dead.last_at
FROM (SELECT) AS always
LEFT JOIN unnest($1::uuid[]) AS wanted (id) ON true
LEFT JOIN orders ON orders.id = wanted.id
LEFT JOIN LATERAL (
    SELECT *
    FROM dead_letters
    WHERE orders.id IS NULL AND order_id = wanted.id AND stage <> 'index'
    ORDER BY last_at DESC, id DESC
    LIMIT 1
) AS dead ON true;

-- name: page_first
-- Return the newest orders.
SELECT id, product_name, amount, created_at, accepted_at, persisted_at
FROM orders
ORDER BY created_at DESC, id DESC
LIMIT $1;

-- name: page_before
-- Return the newest orders before a position.
SELECT id, product_name, amount, created_at, accepted_at, persisted_at
FROM orders
WHERE (created_at, id) < ($1, $2)
ORDER BY created_at DESC, id DESC
LIMIT $3;

-- name: bury
-- Write dead letters, sorted; an existing one counts up and gets the new reason.
INSERT INTO dead_letters AS letter
    (order_id, unit_id, payload, payload_digest, reason, stage, attempts)
SELECT *
FROM unnest($1::uuid[], $2::uuid[], $3::bytea[], $4::bytea[], $5::text[], $6::text[], $7::int[])
ON CONFLICT ON CONSTRAINT dead_letters_once DO UPDATE
SET attempts = letter.attempts + excluded.attempts, reason = excluded.reason,
    last_at = excluded.last_at;

-- name: dead_letters
-- Return the latest matching letters below an id, each payload cut to its beginning.
SELECT id AS dead_id, order_id, unit_id, substring(payload FOR 1000) AS payload, reason, stage,
       attempts, first_at, last_at
FROM dead_letters
WHERE id < $1
  AND ($2::text IS NULL OR strpos(lower(reason), lower($2)) > 0)
  AND ($3::text IS NULL OR stage = $3)
  AND ($4::uuid IS NULL OR order_id = $4)
  AND ($5::uuid IS NULL OR unit_id = $5)
  AND ($6::timestamptz IS NULL OR last_at >= $6)
  AND ($7::timestamptz IS NULL OR last_at < $7)
ORDER BY id DESC
LIMIT $8;

-- name: dead_letter_groups
-- Count the matching letters by stage and reason, ignoring ids and positions in the reason.
WITH reasons AS (
    SELECT stage, reason, count(*) AS letters, max(last_at) AS last_at
    FROM dead_letters
    WHERE ($1::text IS NULL OR strpos(lower(reason), lower($1)) > 0)
      AND ($2::text IS NULL OR stage = $2)
      AND ($3::uuid IS NULL OR order_id = $3)
      AND ($4::uuid IS NULL OR unit_id = $4)
      AND ($5::timestamptz IS NULL OR last_at >= $5)
      AND ($6::timestamptz IS NULL OR last_at < $6)
    GROUP BY 1, 2
), usual AS (
    SELECT * FROM reasons ORDER BY letters DESC LIMIT 10000
), shapes AS (
    SELECT stage, letters, last_at,
           regexp_replace(
               regexp_replace(reason, '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', '<id>', 'g'),
               '(byte|character|column|position) \d+', '\1 <n>', 'g'
           ) AS reason
    FROM usual
)
SELECT stage, reason, sum(letters)::bigint AS letters, max(last_at) AS last_at,
       (SELECT sum(letters)::bigint FROM reasons) AS total
FROM shapes
GROUP BY stage, reason
ORDER BY 3 DESC, 1, 2
LIMIT $7;

-- name: dead_letters_by_ids
-- Return whole letters.
SELECT id AS dead_id, order_id, unit_id, payload, reason, stage, attempts, first_at, last_at
FROM dead_letters
WHERE id = ANY ($1::bigint[])
ORDER BY id;

-- name: dead_letters_of_units
-- Return the ids of all letters of the given units.
SELECT id
FROM dead_letters
WHERE unit_id = ANY ($1::uuid[])
ORDER BY id;

-- name: discard
-- Delete letters, except those that another transaction is deleting.
DELETE FROM dead_letters
WHERE id IN (
    SELECT id FROM dead_letters WHERE id = ANY ($1::bigint[]) ORDER BY id FOR UPDATE SKIP LOCKED
);

-- name: reindex
-- Replace letters of stage index by an outbox row with their orders.
WITH taken AS (
    DELETE FROM dead_letters
    WHERE id IN (
        SELECT id
        FROM dead_letters
        WHERE id = ANY ($1::bigint[]) AND stage = 'index'
        ORDER BY id
        FOR UPDATE SKIP LOCKED
    )
    RETURNING order_id
)
INSERT INTO index_outbox (orders, order_ids)
SELECT count(DISTINCT order_id), array_agg(DISTINCT order_id)
FROM taken
HAVING count(order_id) > 0;

-- name: take_turn
-- Wait for the exclusive right to replay or discard dead letters.
SELECT pg_advisory_lock($1);

-- name: commit_lazily
-- Commit this transaction without waiting for the disk: a crash of the server may undo it.
SET LOCAL synchronous_commit TO off;

-- name: attempted
-- Return the suspects with an attempt that was not survived.
SELECT subject FROM suspects WHERE subject = ANY ($1::text[]) AND attempts > 0;

-- name: begin_attempts
-- Count one more attempt at each suspect, in a fixed order, and return the counts.
INSERT INTO suspects AS suspect (subject, attempts)
SELECT subject, 1 FROM unnest($1::text[]) AS begun (subject) ORDER BY subject
ON CONFLICT (subject) DO UPDATE SET attempts = suspect.attempts + 1, last_at = excluded.last_at
RETURNING subject, attempts;

-- name: take_back_attempts
-- Undo one attempt at each suspect.
UPDATE suspects SET attempts = greatest(attempts - 1, 0) WHERE subject = ANY ($1::text[]);

-- name: end_attempts
-- Delete suspects, and all without an attempt for a day.
DELETE FROM suspects
WHERE subject = ANY ($1::text[]) OR last_at < transaction_timestamp() - interval '1 day';

-- name: claim_outbox
-- Lock old unlocked rows, and return the first with up to $2 orders in all.
WITH claimed AS MATERIALIZED (
    SELECT id, orders
    FROM index_outbox
    WHERE created_at <= transaction_timestamp() - $1::interval
    ORDER BY id
    LIMIT $3
    FOR UPDATE SKIP LOCKED
), counted AS (
    SELECT id, sum(orders) OVER (ORDER BY id) AS orders_so_far, orders FROM claimed
)
SELECT id
FROM counted
WHERE orders_so_far <= $2 OR orders_so_far = orders
ORDER BY id;

-- name: outbox_orders
-- Return the contents of outbox rows, each id once: the orders, and ids without one.
SELECT waiting.id AS wanted_id, orders.*, waiting.since = orders.persisted_at AS new
FROM (
    SELECT named.id, min(created_at) AS since
    FROM index_outbox, unnest(order_ids) AS named (id)
    WHERE index_outbox.id = ANY ($1::bigint[])
    GROUP BY named.id
) AS waiting
LEFT JOIN orders USING (id);

-- name: outbox_done
-- Delete unclaimed outbox rows and return their ids; a rebuild keeps the rows as arrivals.
WITH done AS (
    DELETE FROM index_outbox
    WHERE id IN (
        SELECT id FROM index_outbox WHERE id = ANY ($1::bigint[]) ORDER BY id FOR UPDATE SKIP LOCKED
    )
    RETURNING id, orders, order_ids
), kept AS (
    INSERT INTO rebuild_arrivals (orders, order_ids)
    SELECT orders, order_ids FROM done WHERE EXISTS (SELECT FROM search_rebuild)
)
SELECT id FROM done;

-- name: progress
-- Return the counts of the record; of dead letters at most $1 are counted.
SELECT (SELECT coalesce(sum(orders), 0)::bigint FROM persisted_orders) AS persisted,
       outbox.orders AS outbox_orders, outbox.oldest AS outbox_oldest,
       (SELECT count(*) FROM (SELECT FROM dead_letters LIMIT $1) AS first) AS dead_letters,
       (SELECT max(id) FROM dead_letters) AS latest_dead_letter,
       (SELECT refreshed_at FROM view_refreshes WHERE view = 'daily_sales_mv') AS view_refreshed_at
FROM (SELECT coalesce(sum(orders), 0)::bigint AS orders, min(created_at) AS oldest
      FROM index_outbox) AS outbox;

-- name: search_rebuild
-- Return the current rebuild of the search index.
SELECT index_name, position, filled, total FROM search_rebuild;

-- name: forget_arrivals
-- Delete the arrivals of an earlier rebuild.
DELETE FROM rebuild_arrivals;

-- name: begin_search_rebuild
-- Note that an index is being built, from its beginning.
INSERT INTO search_rebuild AS rebuild (index_name, total)
VALUES ($1, (SELECT count(*) FROM orders))
ON CONFLICT (singleton) DO UPDATE
SET index_name = excluded.index_name, position = NULL, filled = 0, total = excluded.total,
    started_at = excluded.started_at
RETURNING index_name, position, filled, total;

-- name: advance_search_rebuild
-- Note how far the index is filled.
UPDATE search_rebuild SET position = $1, filled = filled + $2;

-- name: end_search_rebuild
-- Forget the rebuild.
DELETE FROM search_rebuild;

-- name: orders_first
-- Return the first orders by id.
SELECT id, product_name, amount, created_at, accepted_at, persisted_at
FROM orders
ORDER BY id
LIMIT $1;

-- name: orders_after
-- Return the next orders by id.
SELECT id, product_name, amount, created_at, accepted_at, persisted_at
FROM orders
WHERE id > $1
ORDER BY id
LIMIT $2;

-- name: orders_between
-- Return the orders of a range of ids.
SELECT id, product_name, amount, created_at, accepted_at, persisted_at
FROM orders
WHERE id BETWEEN $1 AND $2
ORDER BY id;

-- name: claim_arrivals
-- Lock arrivals for the index being built, and return the first with up to $1 orders in all.
WITH claimed AS MATERIALIZED (
    SELECT id, orders FROM rebuild_arrivals ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
), counted AS (
    SELECT id, sum(orders) OVER (ORDER BY id) AS orders_so_far, orders FROM claimed
)
SELECT id FROM counted WHERE orders_so_far <= $1 OR orders_so_far = orders ORDER BY id;

-- name: arrived_orders
-- Return the orders of arrivals, each once.
SELECT id, product_name, amount, created_at, accepted_at, persisted_at
FROM orders
WHERE id IN (SELECT unnest(order_ids) FROM rebuild_arrivals WHERE id = ANY ($1::bigint[]));

-- name: arrivals_done
-- Delete arrivals.
DELETE FROM rebuild_arrivals WHERE id = ANY ($1::bigint[]);

-- name: outbox_end
-- Return the highest id of the outbox, 0 if it is empty.
SELECT coalesce(max(id), 0) FROM index_outbox;

-- name: outbox_rows_between
-- Return the next rows of the outbox up to $2, claimed or not, with up to $3 orders in all.
WITH rows_after AS (
    SELECT id, orders FROM index_outbox WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $4
), counted AS (
    SELECT id, sum(orders) OVER (ORDER BY id) AS orders_so_far, orders FROM rows_after
)
SELECT id FROM counted WHERE orders_so_far <= $3 OR orders_so_far = orders ORDER BY id;

-- name: epoch
-- Return the cache epoch.
SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS timeline, epoch FROM cache_epoch;

-- name: first_epoch
-- Create the epoch if there is none; return it only if created.
INSERT INTO cache_epoch (epoch, changed_at)
VALUES ((extract(epoch FROM clock_timestamp()) * 1000000)::bigint, clock_timestamp())
ON CONFLICT DO NOTHING
RETURNING substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS timeline, epoch;

-- name: new_epoch
-- Raise the epoch to the microseconds since 1970, so that no restored backup issues an old one.
INSERT INTO cache_epoch AS mark (epoch, changed_at)
VALUES ((extract(epoch FROM clock_timestamp()) * 1000000)::bigint, clock_timestamp())
ON CONFLICT (singleton) DO UPDATE
SET epoch = greatest(mark.epoch + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint),
    changed_at = clock_timestamp()
RETURNING substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS timeline, epoch;

-- name: position
-- Return cluster, database and timeline, and the bytes of log that are flushed.
SELECT system_identifier || '.' || oid || '.' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS branch,
       (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint AS written
FROM pg_database, pg_control_system()
WHERE datname = current_database();

-- name: try_lead
-- Take a role if it is free.
SELECT pg_try_advisory_lock($1);

-- name: confirm_lead
-- Prove that the session holding the role is alive.
SELECT 1;

-- name: ping
-- Return version, what durability depends on, and the number of physical standbys.
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::int AS number,
       current_setting('fsync') AS fsync,
       current_setting('full_page_writes') AS full_page_writes,
       current_setting('transaction_read_only') AS read_only,
       current_setting('synchronous_standby_names') AS synchronous_standby_names,
       current_setting('synchronous_commit') AS synchronous_commit,
       (SELECT count(*)
        FROM pg_stat_replication AS sender
        WHERE NOT EXISTS (
            SELECT FROM pg_replication_slots
            WHERE active_pid = sender.pid AND slot_type = 'logical'
        )) AS standbys;

-- name: lock_refresh
-- Wait for a running refresh to end, and return the moment before our own begins.
SELECT clock_timestamp() FROM pg_advisory_lock($1);

-- name: view_is_populated
-- Return whether the view was ever filled.
SELECT relispopulated FROM pg_class WHERE oid = 'daily_sales_mv'::regclass;

-- name: refresh_mv
-- Refresh the view without blocking its readers.
REFRESH MATERIALIZED VIEW CONCURRENTLY daily_sales_mv;

-- name: fill_mv
-- Fill a view for the first time (CONCURRENTLY cannot).
REFRESH MATERIALIZED VIEW daily_sales_mv;

-- name: record_refresh
-- Store the moment for which the view is exact.
INSERT INTO view_refreshes (view, refreshed_at)
VALUES ('daily_sales_mv', $1)
ON CONFLICT (view) DO UPDATE SET refreshed_at = excluded.refreshed_at;

-- name: refreshed_at
-- Return the moment for which the view is exact.
SELECT refreshed_at FROM view_refreshes WHERE view = 'daily_sales_mv';

-- name: read_dashboard
-- Return the latest days that have sales.
SELECT sale_date, total_revenue, orders FROM daily_sales_mv ORDER BY sale_date DESC LIMIT $1;

-- name: live_dashboard
-- Return the latest days that have sales from the rollup, which is newer than the view.
SELECT statement_timestamp() AS as_of, day.*
FROM (SELECT) AS always
LEFT JOIN (
    SELECT (bucket AT TIME ZONE 'UTC')::date AS sale_date, sum(revenue) AS total_revenue,
           sum(orders)::bigint AS orders
    FROM sales_quarter_hours
    -- The view bounds how far back the latest days can reach.
    WHERE bucket >= coalesce(
        (SELECT sale_date FROM daily_sales_mv ORDER BY sale_date DESC OFFSET $1 - 1 LIMIT 1)
            ::timestamp AT TIME ZONE 'UTC',
        '-infinity'
    )
    GROUP BY 1
    ORDER BY 1 DESC
    LIMIT $1
) AS day ON true
ORDER BY sale_date DESC;

-- name: sales_periods
-- Sum the sales between each two neighboring bounds.
WITH sums AS (
    SELECT width_bucket(bucket, $1::timestamptz[]) AS period, sum(revenue) AS revenue,
           sum(orders)::bigint AS orders
    FROM sales_quarter_hours
    WHERE bucket >= $1[1] AND bucket < $1[cardinality($1)]
    GROUP BY 1
)
SELECT statement_timestamp() AS as_of, coalesce(revenue, 0.00) AS revenue,
       coalesce(orders, 0) AS orders
FROM generate_series(1, cardinality($1) - 1) AS period
LEFT JOIN sums USING (period)
ORDER BY period;

-- name: product_periods
-- Sum a product's sales between each two neighboring days; one index look-up per day.
WITH sums AS (
    SELECT width_bucket(day, $3::date[]) AS period, sum(revenue) AS revenue,
           sum(orders)::bigint AS orders
    FROM sales_product_days
    WHERE product_name = ANY ($1::text[]) AND day = ANY ($2::date[])
    GROUP BY 1
)
SELECT statement_timestamp() AS as_of, coalesce(revenue, 0.00) AS revenue,
       coalesce(orders, 0) AS orders
FROM generate_series(1, cardinality($3) - 1) AS period
LEFT JOIN sums USING (period)
ORDER BY period;

-- name: top_products
-- Return the products with the highest revenue.
SELECT statement_timestamp() AS as_of, top.*
FROM (SELECT) AS always
LEFT JOIN (
    SELECT product_name, sum(revenue) AS revenue, sum(orders)::bigint AS orders
    FROM sales_product_days
    WHERE day >= $1 AND day < $2
    GROUP BY product_name
    ORDER BY 2 DESC, 1
    LIMIT $3
) AS top ON true
ORDER BY revenue DESC, product_name;

-- name: audit_range
-- Sum the checksums of the next $2 orders from an id on, and return where they end.
WITH part AS MATERIALIZED (
    SELECT id, order_checksum(id, product_name, amount, created_at) AS checksum
    FROM orders
    WHERE id >= $1
    ORDER BY id
    LIMIT $2
)
SELECT count(*) AS orders, coalesce(sum(checksum), 0)::bigint AS checksum,
       (SELECT id FROM part ORDER BY id DESC LIMIT 1) AS last
FROM part;

-- name: checksums_between
-- Return the checksum of each order of a range.
SELECT id, order_checksum(id, product_name, amount, created_at) AS checksum
FROM orders
WHERE id BETWEEN $1 AND $2;

-- name: standing
-- Return the checksums of the ids that are orders, and those yet to be indexed or unindexable.
WITH waiting AS MATERIALIZED (
    SELECT id
    FROM unnest($1::uuid[]) AS asked (id)
    WHERE id IN (SELECT unnest(order_ids) FROM index_outbox)
    UNION
    SELECT order_id FROM dead_letters WHERE stage = 'index' AND order_id = ANY ($1)
)
SELECT wanted.id,
       order_checksum(orders.id, product_name, amount, created_at) AS checksum,
       waiting.id IS NOT NULL AS waiting
FROM unnest($1::uuid[]) AS wanted (id)
LEFT JOIN orders USING (id)
LEFT JOIN waiting USING (id);

-- name: index_again
-- Put ids into the outbox: those with an order are indexed, the rest are removed.
INSERT INTO index_outbox (orders, order_ids) SELECT cardinality($1::uuid[]), $1;

-- name: next_sales_day
-- Return the first UTC day from a moment on that has orders, or cells of a rollup.
SELECT (least(
    (SELECT created_at FROM orders WHERE created_at >= $1 ORDER BY created_at, id LIMIT 1),
    (SELECT bucket FROM sales_quarter_hours WHERE bucket >= $1 ORDER BY bucket LIMIT 1),
    (SELECT day::timestamp AT TIME ZONE 'UTC' FROM sales_product_days
     WHERE day >= ($1 AT TIME ZONE 'UTC')::date ORDER BY day LIMIT 1)
) AT TIME ZONE 'UTC')::date;

-- name: orders_of_day
-- Count the orders of a day.
SELECT count(*) FROM orders WHERE created_at >= $1 AND created_at < $1 + interval '1 day';

-- name: lock_correction
-- Wait for the exclusive right to correct rollups until the transaction ends.
SELECT pg_advisory_xact_lock($1);

-- name: wrong_quarter_hours
-- Return the differences between a day's cells and the sums over its orders, in one snapshot.
WITH wanted AS (
    SELECT date_bin('15 minutes', created_at, timestamptz 'epoch') AS bucket,
           sum(amount) AS revenue, count(*) AS orders
    FROM orders
    WHERE created_at >= $1 AND created_at < $1 + interval '1 day'
    GROUP BY 1
), kept AS (
    SELECT bucket, sum(revenue) AS revenue, sum(orders) AS orders,
           array_agg(slot ORDER BY orders DESC, slot) AS slots,
           array_agg(revenue ORDER BY orders DESC, slot) AS revenues,
           array_agg(orders ORDER BY orders DESC, slot) AS counts
    FROM sales_quarter_hours
    WHERE bucket >= $1 AND bucket < $1 + interval '1 day'
    GROUP BY 1
)
SELECT bucket, wanted.orders IS NULL AS vacant,
       coalesce(wanted.revenue, 0) - coalesce(kept.revenue, 0) AS revenue,
       (coalesce(wanted.orders, 0) - coalesce(kept.orders, 0))::bigint AS orders,
       slots, revenues, counts
FROM wanted
FULL JOIN kept USING (bucket)
WHERE wanted.orders IS NULL
   OR (wanted.revenue, wanted.orders) IS DISTINCT FROM (kept.revenue, kept.orders)
ORDER BY bucket;

-- name: wrong_product_days
-- Return the differences between a day's products and the sums over its orders, likewise.
WITH wanted AS (
    SELECT product_name, sum(amount) AS revenue, count(*) AS orders
    FROM orders
    WHERE created_at >= $1 AND created_at < $1 + interval '1 day'
    GROUP BY 1
), kept AS (
    SELECT product_name, sum(revenue) AS revenue, sum(orders) AS orders,
           array_agg(slot ORDER BY orders DESC, slot) AS slots,
           array_agg(revenue ORDER BY orders DESC, slot) AS revenues,
           array_agg(orders ORDER BY orders DESC, slot) AS counts
    FROM sales_product_days
    WHERE day = ($1 AT TIME ZONE 'UTC')::date
    GROUP BY 1
)
SELECT product_name, wanted.orders IS NULL AS vacant,
       coalesce(wanted.revenue, 0) - coalesce(kept.revenue, 0) AS revenue,
       (coalesce(wanted.orders, 0) - coalesce(kept.orders, 0))::bigint AS orders,
       slots, revenues, counts
FROM wanted
FULL JOIN kept USING (product_name)
WHERE wanted.orders IS NULL
   OR (wanted.revenue, wanted.orders) IS DISTINCT FROM (kept.revenue, kept.orders)
ORDER BY product_name;

-- name: correct_quarter_hours
-- Add the differences to cells; others may add to the same cells before and after.
INSERT INTO sales_quarter_hours AS cell (bucket, slot, revenue, orders)
SELECT *
FROM unnest($1::timestamptz[], $2::smallint[], $3::numeric[], $4::bigint[])
    AS lacking (bucket, slot, revenue, orders)
ORDER BY bucket, slot
ON CONFLICT (bucket, slot) DO UPDATE
SET revenue = cell.revenue + excluded.revenue, orders = cell.orders + excluded.orders;

-- name: correct_product_days
-- Add the differences to products, likewise.
INSERT INTO sales_product_days AS cell (day, product_name, slot, revenue, orders)
SELECT $1, *
FROM unnest($2::text[], $3::smallint[], $4::numeric[], $5::bigint[])
    AS lacking (product_name, slot, revenue, orders)
ORDER BY product_name, slot
ON CONFLICT (day, product_name, slot) DO UPDATE
SET revenue = cell.revenue + excluded.revenue, orders = cell.orders + excluded.orders;

-- name: drop_empty_quarter_hours
-- Delete the corrected cells that are now empty; they are locked by then.
DELETE FROM sales_quarter_hours AS cell
USING unnest($1::timestamptz[], $2::smallint[]) AS emptied (bucket, slot)
WHERE (cell.bucket, cell.slot) = (emptied.bucket, emptied.slot)
  AND cell.orders = 0 AND cell.revenue = 0;

-- name: drop_empty_product_days
-- Delete the corrected products that are now empty, likewise.
DELETE FROM sales_product_days AS cell
USING unnest($2::text[], $3::smallint[]) AS emptied (product_name, slot)
WHERE cell.day = $1 AND (cell.product_name, cell.slot) = (emptied.product_name, emptied.slot)
  AND cell.orders = 0 AND cell.revenue = 0;

-- name: sales_totals
-- Sum the orders and both rollups, in one snapshot.
SELECT orders.orders, orders.revenue,
       (orders.orders, orders.revenue) IS NOT DISTINCT FROM (hours.orders, hours.revenue)
       AND (orders.orders, orders.revenue) IS NOT DISTINCT FROM (days.orders, days.revenue) AS equal
FROM (SELECT count(*) AS orders, coalesce(sum(amount), 0) AS revenue FROM orders) AS orders,
     (SELECT coalesce(sum(orders), 0)::bigint AS orders, coalesce(sum(revenue), 0) AS revenue
      FROM sales_quarter_hours) AS hours,
     (SELECT coalesce(sum(orders), 0)::bigint AS orders, coalesce(sum(revenue), 0) AS revenue
      FROM sales_product_days) AS days;

-- name: count_orders
-- Count all orders.
SELECT count(*) FROM orders;

-- name: rebuild_position
-- Return the position of a rebuild that ran within the last hour.
SELECT done_until FROM sales_rebuild WHERE changed_at > transaction_timestamp() - interval '1 hour';

-- name: keep_rebuild_position
-- Store the position of a rebuild.
INSERT INTO sales_rebuild (done_until) VALUES ($1)
ON CONFLICT (singleton) DO UPDATE
SET done_until = excluded.done_until, changed_at = transaction_timestamp();

-- name: end_rebuild
-- Delete the position: the rebuild has ended.
DELETE FROM sales_rebuild;

-- name: count_freshness
-- Add to the counts of this hour.
INSERT INTO freshness AS counted (hour, orders, within_1s, within_5s, within_60s)
VALUES (date_trunc('hour', transaction_timestamp()), $1, $2, $3, $4)
ON CONFLICT (hour) DO UPDATE
SET orders = counted.orders + excluded.orders, within_1s = counted.within_1s + excluded.within_1s,
    within_5s = counted.within_5s + excluded.within_5s,
    within_60s = counted.within_60s + excluded.within_60s;

-- name: freshness
-- Sum the counts of the last day.
SELECT coalesce(sum(orders), 0)::bigint AS orders, coalesce(sum(within_1s), 0)::bigint AS within_1s,
       coalesce(sum(within_5s), 0)::bigint AS within_5s,
       coalesce(sum(within_60s), 0)::bigint AS within_60s
FROM freshness
WHERE hour > transaction_timestamp() - interval '1 day';
