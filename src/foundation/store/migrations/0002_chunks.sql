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
