import { test } from 'node:test'
import { databaseKinds, POOLER_VARIABLE } from './support/database.ts'

/* The consumer's service tests once more, through PgBouncer in transaction mode. */
const [native] = databaseKinds()
if (native?.skip === undefined) {
  process.env[POOLER_VARIABLE] = 'pgbouncer'
  await import('./consumer-service.test.ts')
} else {
  test('the consumer works through PgBouncer', { skip: native.skip }, () => {})
}
