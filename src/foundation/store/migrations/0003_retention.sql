-- RETENTION_DAYS. The function runs with its owner's rights: only the owner of a hypertable may
-- drop chunks, and a consumer should not need to be the owner.

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

-- The caller cannot inject tables or functions through search_path; readers and writers do not wait
-- long for its locks.
DO $$
BEGIN
  EXECUTE format('ALTER FUNCTION drop_old_chunks SET search_path = %I, %I, pg_temp', current_schema(),
    (SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'timescaledb'));
END $$;
ALTER FUNCTION drop_old_chunks SET lock_timeout = '5s';
REVOKE ALL ON FUNCTION drop_old_chunks FROM PUBLIC;
