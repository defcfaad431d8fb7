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
