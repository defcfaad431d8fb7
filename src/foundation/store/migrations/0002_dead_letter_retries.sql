-- What a retry of a dead letter needs in addition to its key and value.
ALTER TABLE dead_letters
  ADD COLUMN headers         jsonb,
  ADD COLUMN first_failed_at timestamptz;
COMMENT ON COLUMN dead_letters.headers IS 'The message''s original headers, as [[name, value], ...]; null if they were not kept.';
COMMENT ON COLUMN dead_letters.failed_at IS 'Time of the last failure.';
COMMENT ON COLUMN dead_letters.first_failed_at IS 'Time of the first failure, if a retry has failed since; else null.';
COMMENT ON COLUMN dead_letters.attempts IS 'Number of failures.';
CREATE INDEX dead_letters_unresolved ON dead_letters (topic, topic_id, partition, kafka_offset) WHERE resolved_at IS NULL;
