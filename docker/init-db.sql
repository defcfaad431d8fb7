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

-- Changes of order books (100 ms each), and whole books. Levels are packed bytes, which unpack_levels
-- reads. The identity has the order in which a book takes them.
CREATE TABLE depth_updates (
  event_time          timestamptz NOT NULL,
  symbol              text        NOT NULL,
  epoch               integer     NOT NULL DEFAULT 0 CHECK (epoch BETWEEN 0 AND 1023),
  first_update_id     bigint      NOT NULL,
  last_update_id      bigint      NOT NULL,
  bids                bytea       NOT NULL,
  asks                bytea       NOT NULL,
  ingestion_timestamp timestamptz NOT NULL
);
COMMENT ON COLUMN depth_updates.bids IS 'Packed levels that changed: unpack_levels(bids). Quantity 0 removes a level. Asks likewise.';
-- pglz saves nothing of packed levels.
ALTER TABLE depth_updates ALTER COLUMN bids SET STORAGE EXTERNAL, ALTER COLUMN asks SET STORAGE EXTERNAL;
SELECT create_hypertable('depth_updates', 'event_time', chunk_time_interval => interval '1 day', create_default_indexes => false);
CREATE UNIQUE INDEX depth_updates_identity ON depth_updates (symbol, epoch, last_update_id, first_update_id, event_time);
CREATE INDEX depth_updates_by_time ON depth_updates (symbol, event_time);

CREATE TABLE depth_snapshots (
  ingestion_timestamp timestamptz NOT NULL,
  symbol              text        NOT NULL,
  epoch               integer     NOT NULL DEFAULT 0 CHECK (epoch BETWEEN 0 AND 1023),
  last_update_id      bigint      NOT NULL,
  kind                text        NOT NULL CHECK (kind IN ('rest', 'derived')),
  level_limit         integer,
  bids                bytea       NOT NULL,
  asks                bytea       NOT NULL,
  bid_horizon         numeric(20,8),
  ask_horizon         numeric(20,8),
  event_time          timestamptz,
  anchor_update_id    bigint,
  anchor_timestamp    timestamptz,
  CHECK ((kind = 'rest') = (level_limit IS NOT NULL)),
  CHECK ((kind = 'derived') = (event_time IS NOT NULL AND anchor_update_id IS NOT NULL AND anchor_timestamp IS NOT NULL))
);
COMMENT ON TABLE depth_snapshots IS 'Whole order books: rest, as the exchange returned them; derived, rebuilt from one of these and depth_updates so that reading is fast.';
COMMENT ON COLUMN depth_snapshots.level_limit IS 'Levels per side that were requested.';
COMMENT ON COLUMN depth_snapshots.bid_horizon IS 'The book is exact at and above this bid; null: it has every bid. Asks likewise, at and below.';
COMMENT ON COLUMN depth_snapshots.event_time IS 'Of the last change in a derived book; its ingestion_timestamp is that of this change.';
COMMENT ON COLUMN depth_snapshots.anchor_update_id IS 'last_update_id of the rest snapshot that a derived book began from; anchor_timestamp is its receipt.';
ALTER TABLE depth_snapshots ALTER COLUMN bids SET STORAGE EXTERNAL, ALTER COLUMN asks SET STORAGE EXTERNAL;
SELECT create_hypertable('depth_snapshots', 'ingestion_timestamp', chunk_time_interval => interval '1 day', create_default_indexes => false);
CREATE UNIQUE INDEX depth_snapshots_identity ON depth_snapshots (symbol, epoch, last_update_id, kind, ingestion_timestamp);

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

-- The hypertables, each with its time, and how it is compressed: the columns of its unique index, so
-- that a repeated row is still found.
CREATE FUNCTION tapeline_hypertables()
RETURNS TABLE (name text, time_column text, segment_by text, order_by text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
  VALUES ('trades', 'trade_time', 'symbol, event_type', 'trade_time, trade_id'),
    ('book_ticker', 'ingestion_timestamp', 'symbol', 'ingestion_timestamp, update_id'),
    ('depth_updates', 'event_time', 'symbol, epoch', 'last_update_id, first_update_id, event_time'),
    ('depth_snapshots', 'ingestion_timestamp', 'symbol, epoch', 'last_update_id, kind, ingestion_timestamp');
END;

-- Drops the chunks of the hypertables that are entirely older than so many days. Records in
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
  WHERE hypertable_schema = current_schema() AND hypertable_name IN (SELECT h.name FROM tapeline_hypertables() AS h)
    AND range_start <= now();
  FOR old IN
    SELECT oldest.name, count(*)::integer AS number, max(oldest.range_end) AS ends
    FROM (
      SELECT c.hypertable_name::text AS name, c.range_end FROM timescaledb_information.chunks AS c
      WHERE c.hypertable_schema = current_schema() AND c.hypertable_name IN (SELECT h.name FROM tapeline_hypertables() AS h)
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
  plan   record;
BEGIN
  IF after_days IS NULL OR after_days < 1 THEN
    RAISE EXCEPTION 'after_days must be 1 or more, not %', after_days USING ERRCODE = '22023';
  END IF;
  IF NOT pg_try_advisory_xact_lock(7453912) THEN RETURN; END IF;
  SELECT least(now(), max(c.range_end)) INTO newest
  FROM timescaledb_information.chunks c
  WHERE c.hypertable_schema = current_schema() AND c.hypertable_name IN (SELECT h.name FROM tapeline_hypertables() AS h)
    AND c.range_start <= now();
  SELECT c.hypertable_name::text AS name, format('%I.%I', c.chunk_schema, c.chunk_name) AS path, c.range_end AS ends INTO chunk
  FROM timescaledb_information.chunks c
  WHERE c.hypertable_schema = current_schema() AND c.hypertable_name IN (SELECT h.name FROM tapeline_hypertables() AS h)
    AND NOT c.is_compressed AND c.range_end <= newest - make_interval(days => after_days)
  ORDER BY c.range_end, c.hypertable_name LIMIT 1;
  IF NOT FOUND THEN RETURN; END IF;
  -- As text, because the Apache licence refuses these statements, and must not prevent creating the function.
  IF NOT (SELECT h.compression_enabled FROM timescaledb_information.hypertables h
          WHERE h.hypertable_schema = current_schema() AND h.hypertable_name = chunk.name) THEN
    SELECT * INTO STRICT plan FROM tapeline_hypertables() AS h WHERE h.name = chunk.name;
    EXECUTE format('ALTER TABLE %I SET (timescaledb.compress, timescaledb.compress_segmentby = %L, timescaledb.compress_orderby = %L)',
      plan.name, plan.segment_by, plan.order_by);
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
  own     record;
BEGIN
  SELECT * INTO own FROM tapeline_hypertables() AS h WHERE h.name = hypertable;
  IF NOT FOUND OR NOT from_time < to_time THEN
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
    own.time_column) INTO counted USING from_time, to_time;
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

-- Migration 4: depth
-- Order books: reading packed levels, and the book at a time. docs/order-books.md has the rules.

-- Reads packed levels (src/foundation/market/packed-levels.ts) in units: with a scale of 2, 6183763 is
-- 61837.63. Byte 0 has the scale of the prices times 16 plus that of the quantities.
CREATE FUNCTION unpack_units(packed bytea)
RETURNS TABLE (price bigint, quantity bigint)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
  -- A copy, since each get_byte would read a value that is stored elsewhere from there again.
  bytes  constant bytea := packed || '';
  ending constant integer := length(packed);
  place  integer := 1;
  part   integer;
  number bigint;
  shift  integer;
BEGIN
  price := 0;
  WHILE place < ending LOOP
    part := get_byte(bytes, place);
    place := place + 1;
    number := part & 127;
    shift := 7;
    WHILE part > 127 LOOP
      part := get_byte(bytes, place);
      place := place + 1;
      number := number | ((part & 127)::bigint << shift);
      shift := shift + 7;
    END LOOP;
    -- The lowest bit is the sign.
    price := price + ((number >> 1) # -(number & 1));
    part := get_byte(bytes, place);
    place := place + 1;
    quantity := part & 127;
    shift := 7;
    WHILE part > 127 LOOP
      part := get_byte(bytes, place);
      place := place + 1;
      quantity := quantity | ((part & 127)::bigint << shift);
      shift := shift + 7;
    END LOOP;
    RETURN NEXT;
  END LOOP;
END $$;

-- The levels of a side, in the exchange's order: the best first.
CREATE FUNCTION unpack_levels(packed bytea)
RETURNS TABLE (price numeric, quantity numeric)
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
  -- No levels are no bytes, of which there is no first one.
  SELECT round(units.price * 10::numeric ^ -(get_byte(packed || '\x00', 0) >> 4), get_byte(packed || '\x00', 0) >> 4),
         round(units.quantity * 10::numeric ^ -(get_byte(packed || '\x00', 0) & 15), get_byte(packed || '\x00', 0) & 15)
  FROM unpack_units(packed) AS units;
END;

-- Flat rows, one per level; a change without levels has one, with a side of null. Always name a symbol
-- and a short time: unpacking takes a server about a second per 300,000 levels.
CREATE VIEW depth_levels AS
SELECT d.event_time, d.symbol, d.epoch, d.first_update_id, d.last_update_id, l.side, l.level, l.price, l.quantity,
       d.ingestion_timestamp
FROM depth_updates AS d LEFT JOIN LATERAL (
  SELECT 'bid' AS side, level, price, quantity FROM unpack_levels(d.bids) WITH ORDINALITY AS bid (price, quantity, level)
  UNION ALL
  SELECT 'ask', level, price, quantity FROM unpack_levels(d.asks) WITH ORDINALITY AS ask (price, quantity, level)) AS l ON true;

CREATE VIEW depth_snapshot_levels AS
SELECT s.ingestion_timestamp, s.symbol, s.epoch, s.last_update_id, s.kind, l.side, l.level, l.price, l.quantity
FROM depth_snapshots AS s LEFT JOIN LATERAL (
  SELECT 'bid' AS side, level, price, quantity FROM unpack_levels(s.bids) WITH ORDINALITY AS bid (price, quantity, level)
  UNION ALL
  SELECT 'ask', level, price, quantity FROM unpack_levels(s.asks) WITH ORDINALITY AS ask (price, quantity, level)) AS l ON true;

-- The order book of a symbol at a time of the exchange: the best levels of both sides, inside the
-- horizon, where they are exact. Every row says the last change that it contains, the snapshot that it
-- was rebuilt from, and the time between their receipts. It is the book of
-- src/foundation/order-book/book-at.ts; a test compares both.
--
-- Refuses, with the reason and the window, where the book is not known: errors of SQLSTATE P0002.
CREATE FUNCTION book_at(symbol text, at timestamptz, levels integer DEFAULT 20)
RETURNS TABLE (side text, level integer, price numeric, quantity numeric, horizon numeric, horizon_bps numeric,
  event_time timestamptz, update_id bigint, anchor_update_id bigint, age interval)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
  coin    constant text := book_at.symbol;
  wanted  constant integer := greatest(book_at.levels, 1);
  latest  record;
  later   record;
  anchor  record;
  unit    record;
  -- Snapshots that were tried. Books derived from the same one have the same horizon.
  seen    bigint[] := '{}';
  -- Why the newest anchor gives no book, and from which id another is looked for.
  refusal  text;
  again_id bigint;
  -- The last change before missing ids, and the first one after them.
  before_id   bigint;
  before_time timestamptz;
  after_id    bigint;
  after_time  timestamptz;
  -- The levels by their ranks: asks by rising price, the border, bids by rising price. A quantity is 16
  -- times its units, plus its scale; prices have 8 decimals here, the most there are.
  quantities  bigint[];
  prices      bigint[];
  border      integer;
  best_bid    integer;
  best_ask    integer;
  bid_horizon bigint;
  ask_horizon bigint;
  place       integer;
  reached     bigint;
  takes       boolean;
  has_bid     boolean;
  has_ask     boolean;
BEGIN
  SELECT d.event_time INTO latest FROM depth_updates AS d
  WHERE d.symbol = coin AND d.event_time <= at ORDER BY d.event_time DESC LIMIT 1;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'No change of the order book of % is stored at or before %', coin, at USING ERRCODE = 'P0002';
  END IF;
  -- Event times need not rise with ids.
  SELECT d.epoch, d.first_update_id, d.last_update_id, d.event_time, d.ingestion_timestamp INTO latest FROM depth_updates AS d
  WHERE d.symbol = coin AND d.event_time <= at AND d.event_time >= latest.event_time - interval '1 minute'
  ORDER BY d.epoch DESC, d.last_update_id DESC, d.first_update_id DESC LIMIT 1;

  -- Nothing is known between two changes that do not join.
  SELECT d.epoch, d.first_update_id, d.event_time INTO later FROM depth_updates AS d
  WHERE d.symbol = coin AND (d.epoch, d.last_update_id, d.first_update_id) > (latest.epoch, latest.last_update_id, latest.first_update_id)
    AND d.event_time >= latest.event_time - interval '1 day'
  ORDER BY d.epoch, d.last_update_id, d.first_update_id LIMIT 1;
  IF later.epoch > latest.epoch AND at > latest.event_time THEN
    RAISE EXCEPTION 'The update ids of % began again between % and %', coin, latest.event_time, later.event_time USING ERRCODE = 'P0002',
      HINT = book_known_again(coin, later.epoch, later.first_update_id - 1);
  ELSIF later.first_update_id > latest.last_update_id + 1 AND at > latest.event_time THEN
    RAISE EXCEPTION 'The update ids % to % of % are missing, between % and %', latest.last_update_id + 1, later.first_update_id - 1, coin,
      latest.event_time, later.event_time USING ERRCODE = 'P0002', HINT = book_known_again(coin, latest.epoch, later.first_update_id - 1);
  END IF;

  again_id := latest.last_update_id + 1;
  -- Another snapshot may have more levels, and so a wider horizon.
  FOR tried IN 1..3 LOOP
    SELECT s.last_update_id, s.ingestion_timestamp, s.bids, s.asks, s.bid_horizon, s.ask_horizon,
           coalesce(s.anchor_update_id, s.last_update_id) AS from_id, coalesce(s.anchor_timestamp, s.ingestion_timestamp) AS from_time
    INTO anchor FROM depth_snapshots AS s
    WHERE s.symbol = coin AND s.epoch = latest.epoch AND s.last_update_id <= latest.last_update_id
      AND coalesce(s.anchor_update_id, s.last_update_id) <> ALL (seen)
    ORDER BY s.last_update_id DESC, s.kind DESC, s.level_limit DESC, s.ingestion_timestamp LIMIT 1;
    EXIT WHEN NOT FOUND;

    bid_horizon := anchor.bid_horizon * 100000000;
    ask_horizon := anchor.ask_horizon * 100000000;
    quantities := '{0}';
    prices := '{0}';
    best_bid := 0;
    best_ask := 2147483647;
    place := 0;
    reached := anchor.last_update_id;
    before_id := NULL;
    after_id := NULL;
    FOR unit IN
      WITH changes AS MATERIALIZED (
        SELECT 1 AS place, NULL::bigint AS first_update_id, anchor.last_update_id, NULL::timestamptz AS event_time, anchor.bids, anchor.asks
        UNION ALL
        SELECT 1 + row_number() OVER (ORDER BY d.last_update_id, d.first_update_id, d.event_time), d.first_update_id, d.last_update_id,
               d.event_time, d.bids, d.asks
        FROM depth_updates AS d
        WHERE d.symbol = coin AND d.epoch = latest.epoch
          AND d.last_update_id >= anchor.last_update_id AND d.last_update_id <= latest.last_update_id
          AND d.event_time >= anchor.ingestion_timestamp - interval '1 day' AND d.event_time <= latest.event_time + interval '1 day'
      ), units AS (
        -- Each change is announced by a row whose price is below all bids.
        SELECT c.place, c.first_update_id, c.last_update_id, c.event_time, true AS is_bid, -1::bigint AS price, 0::bigint AS quantity
        FROM changes AS c
        UNION ALL
        SELECT c.place, NULL, NULL, NULL, true, u.price * (10 ^ (8 - (get_byte(c.bids, 0) >> 4)))::bigint,
               CASE WHEN u.quantity > 0 THEN u.quantity * 16 + (get_byte(c.bids, 0) & 15) ELSE 0 END
        FROM changes AS c, unpack_units(c.bids) AS u
        UNION ALL
        SELECT c.place, NULL, NULL, NULL, false, u.price * (10 ^ (8 - (get_byte(c.asks, 0) >> 4)))::bigint,
               CASE WHEN u.quantity > 0 THEN u.quantity * 16 + (get_byte(c.asks, 0) & 15) ELSE 0 END
        FROM changes AS c, unpack_units(c.asks) AS u
      )
      SELECT u.*, dense_rank() OVER (ORDER BY u.is_bid, u.price)::integer AS rank FROM units AS u
      -- The last row ends the last change.
      UNION ALL SELECT 2147483647, NULL, NULL, NULL, NULL, NULL, NULL, NULL
      ORDER BY 1, 3
    LOOP
      IF unit.place = place THEN
        CONTINUE WHEN NOT takes;
        quantities[unit.rank] := unit.quantity;
        prices[unit.rank] := unit.price;
        IF unit.quantity > 0 THEN
          IF unit.is_bid THEN
            IF unit.rank > best_bid THEN best_bid := unit.rank; END IF;
          ELSIF unit.rank < best_ask THEN
            best_ask := unit.rank;
          END IF;
        END IF;
        CONTINUE;
      END IF;

      IF place > 0 AND takes THEN
        best_bid := greatest(best_bid, border);
        best_ask := least(best_ask, border);
        WHILE best_bid > border AND coalesce(quantities[best_bid], 0) = 0 LOOP best_bid := best_bid - 1; END LOOP;
        WHILE best_ask < border AND coalesce(quantities[best_ask], 0) = 0 LOOP best_ask := best_ask + 1; END LOOP;
        has_bid := best_bid > border AND (bid_horizon IS NULL OR prices[best_bid] >= bid_horizon);
        has_ask := best_ask < border AND (ask_horizon IS NULL OR prices[best_ask] <= ask_horizon);
        -- While the best bid stands no ask can be at or below its price, and changes show every later one: so
        -- the asks are exact up to there from now on, and likewise the bids. A crossed book is no evidence.
        IF best_bid = border OR best_ask = border OR prices[best_bid] < prices[best_ask] THEN
          IF has_bid AND prices[best_bid] > ask_horizon THEN ask_horizon := prices[best_bid]; END IF;
          IF has_ask AND prices[best_ask] < bid_horizon THEN bid_horizon := prices[best_ask]; END IF;
        END IF;
      END IF;

      -- A change has to begin at or below the next id. A longer one, of another connection, may still close a hole.
      place := unit.place;
      takes := place = 1 OR (unit.last_update_id > reached AND unit.first_update_id <= reached + 1);
      border := coalesce(unit.rank, border);
      IF place > 1 AND (takes OR unit.last_update_id <= reached) THEN
        reached := greatest(reached, unit.last_update_id);
        before_id := unit.last_update_id;
        before_time := unit.event_time;
        after_id := NULL;
      ELSIF place > 1 AND after_id IS NULL THEN
        after_id := unit.first_update_id;
        after_time := unit.event_time;
      END IF;
    END LOOP;

    -- Its receipt may be of a clock that was days ahead: no change was found.
    IF after_id IS NULL AND reached < latest.last_update_id THEN
      before_id := reached;
      before_time := anchor.from_time;
      after_id := latest.last_update_id + 1;
      after_time := latest.event_time;
    END IF;
    IF after_id IS NOT NULL THEN
      EXIT WHEN refusal IS NOT NULL;
      again_id := after_id - 1;
      IF before_id IS NULL THEN
        SELECT d.last_update_id, d.event_time INTO before_id, before_time FROM depth_updates AS d
        WHERE d.symbol = coin AND d.epoch = latest.epoch AND d.last_update_id < after_id
        ORDER BY d.last_update_id DESC, d.first_update_id DESC LIMIT 1;
      END IF;
      refusal := CASE WHEN before_id IS NULL
        THEN format('The snapshot with update id %s of %s is older than the first stored change', anchor.last_update_id, coin)
        ELSE format('The update ids %s to %s of %s are missing, between %s and %s', before_id + 1, after_id - 1, coin, before_time, after_time) END;
      EXIT;
    END IF;
    has_bid := has_bid OR bid_horizon IS NULL;
    has_ask := has_ask OR ask_horizon IS NULL;
    IF has_bid AND has_ask THEN
      RETURN QUERY
      SELECT b.side, b.level::integer, trim_scale(prices[b.rank] * 0.00000001),
             trim_scale((quantities[b.rank] >> 4) * 10::numeric ^ -(quantities[b.rank] & 15)), trim_scale(b.horizon * 0.00000001),
             round(10000 * abs(b.horizon / (coalesce(prices[nullif(best_bid, border)] + prices[nullif(best_ask, border)],
               2 * prices[nullif(best_bid, border)], 2 * prices[nullif(best_ask, border)]) / 2::numeric) - 1), 2),
             latest.event_time, latest.last_update_id, anchor.from_id, latest.ingestion_timestamp - anchor.from_time
      FROM (
        SELECT 'bid' AS side, row_number() OVER (ORDER BY r DESC) AS level, r AS rank, bid_horizon AS horizon
        FROM generate_series(border + 1, best_bid) AS r
        WHERE quantities[r] > 0 AND (bid_horizon IS NULL OR prices[r] >= bid_horizon)
        UNION ALL
        SELECT 'ask', row_number() OVER (ORDER BY r), r, ask_horizon
        FROM generate_series(best_ask, border - 1) AS r
        WHERE quantities[r] > 0 AND (ask_horizon IS NULL OR prices[r] <= ask_horizon)) AS b
      WHERE b.level <= wanted
      ORDER BY b.side DESC, b.level;
      RETURN;
    END IF;
    refusal := coalesce(refusal, format('The best %s of %s is outside the horizon %s of the snapshot with update id %s (received %s)',
      CASE WHEN has_bid THEN 'ask' ELSE 'bid' END, coin, trim_scale(0.00000001 * CASE WHEN has_bid THEN ask_horizon ELSE bid_horizon END),
      anchor.from_id, anchor.from_time));
    seen := seen || anchor.from_id;
  END LOOP;
  RAISE EXCEPTION '%', coalesce(refusal, format('No snapshot of the order book of %s is stored at or before %s', coin, at))
    USING ERRCODE = 'P0002', HINT = book_known_again(coin, latest.epoch, again_id);
END $$;

-- Names the first snapshot at or after an update id.
CREATE FUNCTION book_known_again(coin text, within integer, from_id bigint) RETURNS text
LANGUAGE sql STABLE
BEGIN ATOMIC
  SELECT coalesce((
    SELECT format('The book is known again from update id %s, received %s', s.last_update_id, s.ingestion_timestamp)
    FROM depth_snapshots AS s
    WHERE s.symbol = coin AND s.epoch = within AND s.last_update_id >= from_id AND s.kind = 'rest'
    ORDER BY s.last_update_id LIMIT 1), 'No later snapshot is stored yet');
END;

DO $$
DECLARE
  own regprocedure;
BEGIN
  FOREACH own IN ARRAY '{unpack_units(bytea),unpack_levels(bytea),"book_known_again(text,integer,bigint)",
    "book_at(text,timestamptz,integer)"}'::regprocedure[]
  LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', own);
  END LOOP;
  EXECUTE format('ALTER FUNCTION book_at SET search_path = %I, %I, pg_temp', current_schema(),
    (SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'timescaledb'));
END $$;
INSERT INTO schema_migrations (version, name) VALUES (4, 'depth');

-- Migration 5: roles
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
        'meta', 'trades', 'book_ticker', 'depth_updates', 'depth_snapshots', 'raw_trades', 'agg_trades', 'block_trades', 'spreads',
        'depth_levels', 'depth_snapshot_levels', 'gaps', 'dead_letters', 'consumer_offsets', 'dropped_days')
      UNION ALL
      SELECT 'FUNCTION', oid::regprocedure::text FROM pg_proc
      WHERE pronamespace = here::regnamespace AND proowner <> 'tapeline_migrator'::regrole
        AND proname IN ('tapeline_hypertables', 'drop_old_chunks', 'compress_next_chunk', 'drop_archived_chunk', 'candles',
        'unpack_units', 'unpack_levels', 'book_at', 'book_known_again', 'tapeline_roles')
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
  EXECUTE 'GRANT SELECT ON schema_migrations, meta, trades, book_ticker, depth_updates, depth_snapshots, raw_trades, agg_trades,
    block_trades, spreads, depth_levels, depth_snapshot_levels, gaps, dead_letters, consumer_offsets, dropped_days TO tapeline_reader';
  EXECUTE 'GRANT EXECUTE ON FUNCTION candles, unpack_units, unpack_levels, book_at, book_known_again TO tapeline_reader';
  EXECUTE 'GRANT SELECT ON schema_migrations, dropped_days TO tapeline_writer';
  EXECUTE 'GRANT SELECT, INSERT ON meta, trades, book_ticker, depth_updates, depth_snapshots, dead_letters TO tapeline_writer';
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
INSERT INTO schema_migrations (version, name) VALUES (5, 'roles');

-- The roles and their rights.
SELECT tapeline_roles();

COMMIT;
