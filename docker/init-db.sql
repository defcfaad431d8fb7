-- Made by: bin/tapeline migrate --print
-- For an empty database; an existing one is brought up to date by: bin/tapeline migrate

BEGIN;
SELECT pg_advisory_xact_lock(7453910);
CREATE TABLE IF NOT EXISTS schema_migrations (
  version    integer PRIMARY KEY,
  name       text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now()
);

-- Migration 1: tables
-- Tables, hypertables and views. All times are timestamptz in UTC.

CREATE EXTENSION IF NOT EXISTS timescaledb;

-- Facts about this database: 'source' names the exchange of its data.
CREATE TABLE meta (
  key        text PRIMARY KEY,
  value      text NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now()
);

-- Events with ids. The id sequences of the types overlap, so the key includes event_type. It uses
-- the exchange's trade time, because REST and the dumps have no event time.
CREATE TABLE trades (
  trade_time          timestamptz   NOT NULL,
  event_time          timestamptz,
  symbol              text          NOT NULL,
  event_type          text          NOT NULL CHECK (event_type IN ('trade', 'aggTrade', 'blockTrade')),
  epoch               integer       NOT NULL DEFAULT 0 CHECK (epoch BETWEEN 0 AND 1023),
  trade_id            bigint        NOT NULL,
  price               numeric(20,8) NOT NULL,
  quantity            numeric(20,8) NOT NULL,
  first_trade_id      bigint,
  last_trade_id       bigint,
  is_buyer_maker      boolean       NOT NULL,
  ingestion_timestamp timestamptz   NOT NULL,
  source              text          NOT NULL DEFAULT 'stream' CHECK (source IN ('stream', 'backfill', 'archive'))
);
COMMENT ON COLUMN trades.event_time IS 'When the exchange sent the event; null for backfilled and imported rows, because REST and daily files do not give it.';
COMMENT ON COLUMN trades.epoch IS 'Increases by one each time the exchange restarts an id sequence; (epoch::bigint << 53) + trade_id orders all trades of a symbol.';
SELECT create_hypertable('trades', 'trade_time', chunk_time_interval => interval '1 day', create_default_indexes => false);
-- Time precedes the id: queries by time read only what they need, and no row needs a second index.
CREATE UNIQUE INDEX trades_identity ON trades (symbol, event_type, trade_time, trade_id);

-- bookTicker events have no time except their receipt.
CREATE TABLE book_ticker (
  ingestion_timestamp timestamptz   NOT NULL,
  symbol              text          NOT NULL,
  update_id           bigint        NOT NULL,
  bid_price           numeric(20,8) NOT NULL,
  bid_quantity        numeric(20,8) NOT NULL,
  ask_price           numeric(20,8) NOT NULL,
  ask_quantity        numeric(20,8) NOT NULL
);
SELECT create_hypertable('book_ticker', 'ingestion_timestamp', chunk_time_interval => interval '1 day', create_default_indexes => false);
CREATE UNIQUE INDEX book_ticker_identity ON book_ticker (symbol, ingestion_timestamp, update_id);

-- A sum over trades counts volume twice, as trades and as aggTrades: query these views instead.
CREATE VIEW raw_trades AS
SELECT trade_time, event_time, symbol, epoch, trade_id, price, quantity, is_buyer_maker,
       CASE WHEN is_buyer_maker THEN 'sell' ELSE 'buy' END AS taker_side, ingestion_timestamp, source
FROM trades WHERE event_type = 'trade';

CREATE VIEW agg_trades AS
SELECT trade_time, event_time, symbol, epoch, trade_id AS agg_trade_id, first_trade_id, last_trade_id, price, quantity,
       is_buyer_maker, CASE WHEN is_buyer_maker THEN 'sell' ELSE 'buy' END AS taker_side, ingestion_timestamp, source
FROM trades WHERE event_type = 'aggTrade';

CREATE VIEW block_trades AS
SELECT trade_time, event_time, symbol, epoch, trade_id AS block_trade_id, price, quantity, is_buyer_maker,
       CASE WHEN is_buyer_maker THEN 'sell' ELSE 'buy' END AS taker_side, ingestion_timestamp, source
FROM trades WHERE event_type = 'blockTrade';

-- Quotes with the figures that are queried most: the mid price, and the spread in price and in
-- basis points of the mid price. Computed on read.
CREATE VIEW spreads AS
SELECT ingestion_timestamp, symbol, update_id, bid_price, ask_price, (bid_price + ask_price) / 2 AS mid_price,
       ask_price - bid_price AS spread, 20000 * (ask_price - bid_price) / nullif(bid_price + ask_price, 0) AS spread_bps
FROM book_ticker;

-- The ledger of gaps, mirrored from its topic; a row changes only to a higher revision.
CREATE TABLE gaps (
  gap_id      text PRIMARY KEY,
  revision    integer     NOT NULL,
  symbol      text        NOT NULL,
  event_type  text        NOT NULL,
  epoch       integer     NOT NULL DEFAULT 0 CHECK (epoch BETWEEN 0 AND 1023),
  from_id     bigint,
  to_id       bigint,
  from_time   timestamptz,
  to_time     timestamptz,
  cause       text        NOT NULL,
  status      text        NOT NULL CHECK (status IN ('open', 'filled', 'unrecoverable')),
  reason      text,
  detected_at timestamptz NOT NULL,
  updated_at  timestamptz NOT NULL,
  closed_at   timestamptz
);
CREATE INDEX gaps_by_symbol ON gaps (symbol, event_type, from_id);

-- Messages that could not be stored, by their position in Kafka. A broker that has lost the end of a
-- partition writes other messages at the same offsets, under the same topic id. Then the position does
-- not tell two dead letters apart, but their bytes do. A redelivered message has the same bytes.
CREATE TABLE dead_letters (
  topic           text        NOT NULL,
  topic_id        uuid        NOT NULL,
  partition       integer     NOT NULL,
  kafka_offset    bigint      NOT NULL,
  origin          text        NOT NULL CHECK (origin IN ('ingestion', 'consumer')),
  reason          text        NOT NULL,
  key             bytea,
  payload         bytea,
  headers         jsonb,
  first_failed_at timestamptz,
  failed_at       timestamptz NOT NULL,
  attempts        integer     NOT NULL DEFAULT 1,
  resolved_at     timestamptz,
  digest          bytea       NOT NULL GENERATED ALWAYS AS (sha256(coalesce(sha256(key), '') || coalesce(sha256(payload), '\x00'))) STORED,
  PRIMARY KEY (topic, topic_id, partition, kafka_offset, digest)
);
COMMENT ON COLUMN dead_letters.headers IS 'The message''s original headers, as [[name, value], ...]; null if they were not kept.';
COMMENT ON COLUMN dead_letters.failed_at IS 'Time of the last failure.';
COMMENT ON COLUMN dead_letters.first_failed_at IS 'Time of the first failure, if a retry has failed since; else null.';
COMMENT ON COLUMN dead_letters.attempts IS 'Number of failures.';
COMMENT ON COLUMN dead_letters.digest IS 'Digest of key and payload: one offset may have had two messages, one after the other.';
CREATE INDEX dead_letters_unresolved ON dead_letters (topic, topic_id, partition, kafka_offset, digest) WHERE resolved_at IS NULL;

-- The offset at which to resume each partition, written in the transaction that stored the messages
-- before it. leader_epoch: the epoch of the leader that appended the message before next_offset; -1
-- if unknown.
CREATE TABLE consumer_offsets (
  topic       text        NOT NULL,
  topic_id    uuid        NOT NULL,
  partition   integer     NOT NULL,
  next_offset bigint      NOT NULL,
  leader_epoch integer    NOT NULL DEFAULT -1,
  updated_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (topic, partition)
);

-- RETENTION_ARCHIVED_ONLY drops days when the archive has the same rows.
-- What was dropped, so that rows of the same day that are stored later can be compared together with
-- them: the archive has both.
CREATE TABLE dropped_days (
  table_name text    NOT NULL,
  day        date    NOT NULL,
  symbol     text    NOT NULL,
  rows       bigint  NOT NULL,
  hash       numeric NOT NULL,
  dropped_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (table_name, day, symbol)
);
COMMENT ON TABLE dropped_days IS 'Rows that RETENTION_ARCHIVED_ONLY has dropped, by table of the archive, UTC day and symbol.';
COMMENT ON COLUMN dropped_days.hash IS 'Sum of the hashes of these rows, as in the archive.';
INSERT INTO schema_migrations (version, name) VALUES (1, 'tables');

-- Migration 2: chunks
-- RETENTION_DAYS, COMPRESS_AFTER_DAYS and RETENTION_ARCHIVED_ONLY. The functions run with their owner's
-- rights: only the owner of a hypertable may drop chunks, and a consumer should not need to be the owner.

-- Drops the chunks of trades and book_ticker that are entirely older than so many days. Records in
-- meta, as retention:TABLE, the time before which rows were dropped. Days count from now or from
-- the end of the newest chunk, whichever is earlier: a consumer that lags, or an old capture, loses
-- nothing that was just stored. One caller at a time; the others get no rows. Returns a row per
-- table with dropped chunks. Each call drops at most the 50 oldest chunks; commit and call again
-- until it returns no row. A chunk takes 12 locks until the transaction ends, and by default a
-- server has room for 6,400.
CREATE FUNCTION drop_old_chunks(keep_days integer)
RETURNS TABLE (table_name text, chunks integer, dropped_before timestamptz)
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  newest timestamptz;
  old    record;
BEGIN
  IF keep_days IS NULL OR keep_days < 1 THEN
    RAISE EXCEPTION 'keep_days must be 1 or more, not %', keep_days USING ERRCODE = '22023';
  END IF;
  IF NOT pg_try_advisory_xact_lock(7453912) THEN RETURN; END IF;
  SELECT least(now(), max(range_end)) INTO newest
  FROM timescaledb_information.chunks
  WHERE hypertable_schema = current_schema() AND hypertable_name IN ('trades', 'book_ticker') AND range_start <= now();
  FOR old IN
    SELECT oldest.name, count(*)::integer AS number, max(oldest.range_end) AS ends
    FROM (
      SELECT c.hypertable_name::text AS name, c.range_end FROM timescaledb_information.chunks AS c
      WHERE c.hypertable_schema = current_schema() AND c.hypertable_name IN ('trades', 'book_ticker')
        AND c.range_end <= newest - make_interval(days => keep_days)
      ORDER BY c.range_end, c.hypertable_name LIMIT 50) AS oldest
    GROUP BY oldest.name ORDER BY oldest.name
  LOOP
    PERFORM drop_chunks(format('%I', old.name)::regclass, older_than => old.ends);
    INSERT INTO meta AS stored (key, value)
    VALUES ('retention:' || old.name, to_char(old.ends AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = now()
    WHERE stored.value::timestamptz < excluded.value::timestamptz;
    table_name := old.name;
    chunks := old.number;
    dropped_before := old.ends;
    RETURN NEXT;
  END LOOP;
END $$;

-- COMPRESS_AFTER_DAYS, if the licence includes compression; days count as in drop_old_chunks.
-- Compresses one chunk per call, the oldest first, so locks last only briefly. Returns no
-- row when none is left, or while another caller runs it.
CREATE FUNCTION compress_next_chunk(after_days integer)
RETURNS TABLE (table_name text, range_end timestamptz)
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  newest timestamptz;
  chunk  record;
BEGIN
  IF after_days IS NULL OR after_days < 1 THEN
    RAISE EXCEPTION 'after_days must be 1 or more, not %', after_days USING ERRCODE = '22023';
  END IF;
  IF NOT pg_try_advisory_xact_lock(7453912) THEN RETURN; END IF;
  SELECT least(now(), max(c.range_end)) INTO newest
  FROM timescaledb_information.chunks c
  WHERE c.hypertable_schema = current_schema() AND c.hypertable_name IN ('trades', 'book_ticker') AND c.range_start <= now();
  SELECT c.hypertable_name::text AS name, format('%I.%I', c.chunk_schema, c.chunk_name) AS path, c.range_end AS ends INTO chunk
  FROM timescaledb_information.chunks c
  WHERE c.hypertable_schema = current_schema() AND c.hypertable_name IN ('trades', 'book_ticker') AND NOT c.is_compressed
    AND c.range_end <= newest - make_interval(days => after_days)
  ORDER BY c.range_end, c.hypertable_name LIMIT 1;
  IF NOT FOUND THEN RETURN; END IF;
  -- The columns of the unique index, so that a repeated row is still found. As text, because the
  -- Apache licence refuses these statements, and must not prevent creating the function.
  IF NOT (SELECT h.compression_enabled FROM timescaledb_information.hypertables h
          WHERE h.hypertable_schema = current_schema() AND h.hypertable_name = chunk.name) THEN
    IF chunk.name = 'trades' THEN
      EXECUTE $sql$ALTER TABLE trades SET (timescaledb.compress, timescaledb.compress_segmentby = 'symbol, event_type',
        timescaledb.compress_orderby = 'trade_time, trade_id')$sql$;
    ELSE
      EXECUTE $sql$ALTER TABLE book_ticker SET (timescaledb.compress, timescaledb.compress_segmentby = 'symbol',
        timescaledb.compress_orderby = 'ingestion_timestamp, update_id')$sql$;
    END IF;
  END IF;
  EXECUTE 'SELECT compress_chunk($1::regclass)' USING chunk.path;
  table_name := chunk.name;
  range_end := chunk.ends;
  RETURN NEXT;
END $$;

-- Drops a chunk whose rows were just compared with the archive, and records what it had. The figures
-- are an array of {table_name, day, symbol, rows, hash}. Returns false and drops nothing if it has
-- another number of rows now: a row was stored meanwhile. From the count on nothing can be stored in
-- it until the transaction ends. The caller has the lock of drop_old_chunks.
CREATE FUNCTION drop_archived_chunk(hypertable text, from_time timestamptz, to_time timestamptz, expected bigint, figures jsonb)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  chunk   record;
  counted bigint;
BEGIN
  IF hypertable NOT IN ('trades', 'book_ticker') OR NOT from_time < to_time THEN
    RAISE EXCEPTION 'there is no such chunk of %', hypertable USING ERRCODE = '22023';
  END IF;
  IF NOT pg_try_advisory_xact_lock(7453912) THEN RETURN false; END IF;
  FOR chunk IN
    SELECT format('%I.%I', c.chunk_schema, c.chunk_name) AS path FROM timescaledb_information.chunks c
    WHERE c.hypertable_schema = current_schema() AND c.hypertable_name = hypertable
      AND c.range_start >= from_time AND c.range_end <= to_time
  LOOP
    EXECUTE 'LOCK TABLE ' || chunk.path || ' IN ACCESS EXCLUSIVE MODE';
  END LOOP;
  EXECUTE format('SELECT count(*) FROM %I WHERE %I >= $1 AND %2$I < $2', hypertable,
    CASE hypertable WHEN 'trades' THEN 'trade_time' ELSE 'ingestion_timestamp' END) INTO counted USING from_time, to_time;
  IF counted <> expected THEN RETURN false; END IF;
  PERFORM drop_chunks(format('%I', hypertable)::regclass, older_than => to_time, newer_than => from_time);
  INSERT INTO dropped_days AS stored (table_name, day, symbol, rows, hash)
  SELECT f.table_name, f.day, f.symbol, f.rows, f.hash
  FROM jsonb_to_recordset(figures) AS f (table_name text, day date, symbol text, rows bigint, hash numeric)
  ON CONFLICT (table_name, day, symbol) DO UPDATE
  SET rows = stored.rows + excluded.rows, hash = stored.hash + excluded.hash, dropped_at = excluded.dropped_at;
  INSERT INTO meta AS stored (key, value)
  VALUES ('retention:' || hypertable, to_char(to_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
  ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = now()
  WHERE stored.value::timestamptz < excluded.value::timestamptz;
  RETURN true;
END $$;

-- Callers cannot inject tables or functions through search_path; readers and writers do not wait long
-- for their locks.
DO $$
DECLARE
  own  regprocedure;
  home constant name := (SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'timescaledb');
BEGIN
  FOREACH own IN ARRAY '{drop_old_chunks(integer),compress_next_chunk(integer),
    "drop_archived_chunk(text,timestamptz,timestamptz,bigint,jsonb)"}'::regprocedure[]
  LOOP
    EXECUTE format('ALTER FUNCTION %s SET search_path = %I, %I, pg_temp', own, current_schema(), home);
    EXECUTE format('ALTER FUNCTION %s SET lock_timeout = %L', own, '5s');
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', own);
  END LOOP;
END $$;
INSERT INTO schema_migrations (version, name) VALUES (2, 'chunks');

-- Migration 3: candles
-- Candles of one symbol's trades from one time to before another. Epoch and trade id decide opening
-- and closing price: of trades in the same millisecond only the id tells the order. PostgreSQL
-- inlines this function, so it reads only the chunks and the part of the index between the two
-- times. The bounds are typed, so that a date is converted: TimescaleDB evaluates `time_bucket(…) <
-- date` as never true and returns no rows. `greatest` of one value is that value; it hides
-- time_bucket from this rule when a query compares the bucket with a date.
CREATE FUNCTION candles(symbol text, width interval, from_time timestamptz, to_time timestamptz)
RETURNS TABLE (bucket timestamptz, open numeric, high numeric, low numeric, close numeric, volume numeric, quote_volume numeric,
  trades bigint, taker_buy_volume numeric)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
  SELECT greatest(time_bucket(candles.width, t.trade_time)), first(t.price, (t.epoch::bigint << 53) + t.trade_id), max(t.price),
         min(t.price), last(t.price, (t.epoch::bigint << 53) + t.trade_id), sum(t.quantity), sum(t.price * t.quantity), count(*),
         coalesce(sum(t.quantity) FILTER (WHERE NOT t.is_buyer_maker), 0)
  FROM trades AS t
  WHERE t.symbol = candles.symbol AND t.event_type = 'trade'
    AND t.trade_time >= candles.from_time AND t.trade_time < candles.to_time
  GROUP BY time_bucket(candles.width, t.trade_time);
END;
REVOKE ALL ON FUNCTION candles FROM PUBLIC;
INSERT INTO schema_migrations (version, name) VALUES (3, 'candles');

-- Migration 4: roles
-- Three group roles to grant to login users: tapeline_migrator owns the schema and may change it,
-- tapeline_writer has the rights of the consumer and `dead-letters retry`, tapeline_reader reads
-- everything.

-- Creates missing roles and grants each its rights; safe to repeat. Roles belong to the whole
-- cluster: another database may create the same ones at this moment, and this user may not be
-- allowed to. Returns the statements that this user must not execute; run them as a user who may,
-- then call this again.
CREATE FUNCTION tapeline_roles() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  here   constant name := current_schema();
  wanted record;
  role   name;
BEGIN
  PERFORM pg_advisory_xact_lock(7453910);
  -- Always in this order: two databases that create the roles at once wait for each other, and must
  -- not deadlock.
  FOREACH role IN ARRAY '{tapeline_migrator,tapeline_writer,tapeline_reader}'::name[] LOOP
    CONTINUE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = role);
    BEGIN
      EXECUTE format('CREATE ROLE %I NOLOGIN', role);
    EXCEPTION
      WHEN duplicate_object OR unique_violation THEN NULL; -- Another database has just made it.
      WHEN insufficient_privilege THEN RETURN NEXT format('CREATE ROLE %I NOLOGIN;', role);
    END;
  END LOOP;
  IF (SELECT count(*) FROM pg_roles WHERE rolname IN ('tapeline_migrator', 'tapeline_writer', 'tapeline_reader')) < 3 THEN
    RETURN;
  END IF;

  FOR wanted IN SELECT v.role, v.privilege FROM (VALUES ('tapeline_migrator', 'CREATE'), ('tapeline_migrator', 'USAGE'),
    ('tapeline_writer', 'USAGE'), ('tapeline_reader', 'USAGE')) AS v (role, privilege)
    WHERE NOT has_schema_privilege(v.role, here, v.privilege)
  LOOP
    BEGIN
      EXECUTE format('GRANT %s ON SCHEMA %I TO %I', wanted.privilege, here, wanted.role);
    EXCEPTION
      WHEN insufficient_privilege THEN
        RETURN NEXT format('GRANT %s ON SCHEMA %I TO %I;', wanted.privilege, here, wanted.role);
    END;
  END LOOP;

  -- A user who is no superuser must not give away ownership, and stays the owner and migrator.
  IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
    FOR wanted IN
      SELECT DISTINCT pg_get_userbyid(relowner) AS owner FROM pg_class
      WHERE relnamespace = here::regnamespace AND relname IN ('trades', 'meta', 'schema_migrations')
        AND NOT pg_has_role(relowner, 'tapeline_migrator', 'USAGE')
    LOOP
      BEGIN
        -- The previous owner, perhaps a consumer, keeps its rights.
        EXECUTE format('GRANT tapeline_migrator TO %I', wanted.owner);
      EXCEPTION
        WHEN unique_violation THEN NULL; -- Another database has just done it.
      END;
    END LOOP;
    FOR wanted IN
      SELECT CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END AS kind, format('%I.%I', here, relname) AS name FROM pg_class
      WHERE relnamespace = here::regnamespace AND relowner <> 'tapeline_migrator'::regrole AND relname IN ('schema_migrations',
        'meta', 'trades', 'book_ticker', 'raw_trades', 'agg_trades', 'block_trades', 'spreads', 'gaps', 'dead_letters', 'consumer_offsets',
        'dropped_days')
      UNION ALL
      SELECT 'FUNCTION', oid::regprocedure::text FROM pg_proc
      WHERE pronamespace = here::regnamespace AND proowner <> 'tapeline_migrator'::regrole
        AND proname IN ('drop_old_chunks', 'compress_next_chunk', 'candles', 'tapeline_roles', 'drop_archived_chunk')
    LOOP
      EXECUTE format('ALTER %s %s OWNER TO tapeline_migrator', wanted.kind, wanted.name);
    END LOOP;
  END IF;
  IF pg_has_role(current_user, 'tapeline_migrator', 'USAGE') THEN
    EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE tapeline_migrator IN SCHEMA %I GRANT SELECT ON TABLES TO tapeline_reader', here);
  END IF;
  EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT ON TABLES TO tapeline_reader', here);

  -- On a hypertable these grants include its chunks, also future ones. As text, which is parsed
  -- each time: TimescaleDB 2.19 adds the chunks to the statement that it gets, and a cached
  -- statement would crash the server.
  EXECUTE 'GRANT SELECT ON schema_migrations, meta, trades, book_ticker, raw_trades, agg_trades, block_trades, spreads, gaps, dead_letters,
    consumer_offsets, dropped_days TO tapeline_reader';
  EXECUTE 'GRANT EXECUTE ON FUNCTION candles TO tapeline_reader';
  EXECUTE 'GRANT SELECT ON schema_migrations, dropped_days TO tapeline_writer';
  EXECUTE 'GRANT SELECT, INSERT ON meta, trades, book_ticker, dead_letters TO tapeline_writer';
  EXECUTE 'GRANT SELECT, INSERT, UPDATE ON gaps, consumer_offsets TO tapeline_writer';
  EXECUTE 'GRANT UPDATE (attempts, reason, first_failed_at, failed_at, resolved_at) ON dead_letters TO tapeline_writer';
  EXECUTE 'GRANT EXECUTE ON FUNCTION drop_old_chunks(integer), compress_next_chunk(integer),
    drop_archived_chunk(text, timestamptz, timestamptz, bigint, jsonb) TO tapeline_writer';
END $$;
DO $$
BEGIN
  EXECUTE format('ALTER FUNCTION tapeline_roles SET search_path = %I, pg_temp', current_schema());
END $$;
REVOKE ALL ON FUNCTION tapeline_roles FROM PUBLIC;
INSERT INTO schema_migrations (version, name) VALUES (4, 'roles');

-- The roles and their rights.
SELECT tapeline_roles();

COMMIT;
