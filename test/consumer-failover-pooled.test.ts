import { POOLER_VARIABLE } from './support/database.ts'

/* The failover once more, through PgBouncer in transaction mode. */
process.env[POOLER_VARIABLE] = 'pgbouncer'
await import('./consumer-failover.test.ts')
