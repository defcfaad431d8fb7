-- RETENTION_ARCHIVED_ONLY: days are dropped when the archive has the same rows.

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
DO $$
BEGIN
  EXECUTE format('ALTER FUNCTION drop_archived_chunk SET search_path = %I, %I, pg_temp', current_schema(),
    (SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'timescaledb'));
END $$;
ALTER FUNCTION drop_archived_chunk SET lock_timeout = '5s';
REVOKE ALL ON FUNCTION drop_archived_chunk FROM PUBLIC;

-- As in migration 7, including the table and the function.
CREATE OR REPLACE FUNCTION tapeline_roles() RETURNS SETOF text LANGUAGE plpgsql AS $$
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
