-- What a retry of a dead letter needs beside the bytes of its key and value.
ALTER TABLE dead_letters
  ADD COLUMN headers         jsonb,
  ADD COLUMN first_failed_at timestamptz;
COMMENT ON COLUMN dead_letters.headers IS 'The message''s own headers, as [[name, value], ...]; null where they were not kept.';
COMMENT ON COLUMN dead_letters.failed_at IS 'When it failed last.';
COMMENT ON COLUMN dead_letters.first_failed_at IS 'When it failed first, where a retry has failed since; else null.';
COMMENT ON COLUMN dead_letters.attempts IS 'How often it has failed.';
CREATE INDEX dead_letters_unresolved ON dead_letters (topic, topic_id, partition, kafka_offset) WHERE resolved_at IS NULL;
