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
DO $$
BEGIN
  EXECUTE format('ALTER FUNCTION compress_next_chunk SET search_path = %I, %I, pg_temp', current_schema(),
    (SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'timescaledb'));
END $$;
ALTER FUNCTION compress_next_chunk SET lock_timeout = '5s';
REVOKE ALL ON FUNCTION compress_next_chunk FROM PUBLIC;
