import type { TopicNames } from '../../foundation/kafka/config.ts'
import { Decoder } from '../../foundation/kafka/message-decoder.ts'
import { SECOND_UNDER_ID } from '../../foundation/market/event.ts'
import { isTapelineError } from '../../foundation/runtime/errors.ts'
import { outsideText } from '../../foundation/runtime/outside-text.ts'
import type { Database, Queryable } from '../../foundation/store/database.ts'
import { TABLE_OF } from '../../foundation/store/depth-tables.ts'
import { failureKind } from '../../foundation/store/failures.ts'
import { upsertGaps } from '../../foundation/store/ledger-rows.ts'
import { MarketRows } from '../../foundation/store/market-rows.ts'
import { describeRefusal } from '../../foundation/store/sql-state.ts'
import { type Original, originalOf } from './original-record.ts'
import {
  isStoredNearby,
  type LockedDeadLetter,
  lockUnresolved,
  markFailedAgain,
  markResolved,
} from './retry-statements.ts'
import { type DeadLetterFilter, type DeadLetterKey, unresolvedAfter } from './stored-dead-letters.ts'

/**
 * Outcome of a retry.
 *
 * - `stored`: its row is now in the database; the dead letter is resolved.
 * - `already there`: its row was in the database already, backfilled or stored by another consumer;
 *   resolved.
 * - `failed`: `reason` and one more attempt are recorded in the dead letter.
 * - `hopeless`: this program cannot retry it with these settings, for `reason`; the dead letter is
 *   unchanged.
 * - `taken`: another retry has locked or resolved it; nothing was done.
 */
export type RetryOutcome =
  | { readonly kind: 'stored' | 'already there' | 'taken' }
  | { readonly kind: 'failed' | 'hopeless'; readonly reason: string }

export interface RetryOptions {
  readonly topics: TopicNames
  /** Tries everything, including the checks of the database, and rolls it back. */
  readonly dryRun: boolean
}

const PAGE = 500

/** Retries each matching dead letter once, in a transaction. @throws if the database fails; results stay */
export async function retryDeadLetters(
  database: Database,
  filter: DeadLetterFilter,
  options: RetryOptions,
  onOutcome: (key: DeadLetterKey, outcome: RetryOutcome) => void,
): Promise<void> {
  for (let after: DeadLetterKey | null = null; ; ) {
    const page: DeadLetterKey[] = await unresolvedAfter(database, filter, after, PAGE)
    for (const key of page) {
      onOutcome(key, await database.transaction((connection) => retryOne(connection, key, options)))
      after = key
    }
    if (page.length < PAGE) return
  }
}

/** In a transaction: the row and the state of the dead letter are committed together or not at all. */
async function retryOne(
  connection: Queryable,
  key: DeadLetterKey,
  options: RetryOptions,
): Promise<RetryOutcome> {
  const letter = await lockUnresolved(connection, key)
  if (letter === null) return { kind: 'taken' }
  const outcome = await attempt(connection, key, letter, options)
  if (options.dryRun) return outcome
  if (outcome.kind === 'stored' || outcome.kind === 'already there') await markResolved(connection, key)
  if (outcome.kind === 'failed') await markFailedAgain(connection, key, outcome.reason)
  return outcome
}

async function attempt(
  connection: Queryable,
  key: DeadLetterKey,
  letter: LockedDeadLetter,
  { topics, dryRun }: RetryOptions,
): Promise<RetryOutcome> {
  const original = await originalOf(connection, key.topic, letter, topics)
  if (!('message' in original)) return original
  const decoder = new Decoder()
  const fault = decode(decoder, original)
  if (fault !== null) return fault
  await connection.query('SAVEPOINT attempt')
  try {
    const stored = await store(connection, original.kind, decoder)
    // Check deferred constraints now, so that a failure is attributed to this message.
    const isStored = stored === 'stored' || stored === 'already there'
    if (isStored) await connection.query('SET CONSTRAINTS ALL IMMEDIATE')
    if (dryRun || !isStored) await connection.query('ROLLBACK TO SAVEPOINT attempt')
    return isStored ? { kind: stored } : { kind: 'failed', reason: stored }
  } catch (error) {
    // Only an error of the row means that the message is bad.
    if (failureKind(error) !== 'row') throw error
    await connection.query('ROLLBACK TO SAVEPOINT attempt')
    // Worded as by the consumer, so that both count as the same reason.
    return { kind: 'failed', reason: outsideText(`refused by the database: ${describeRefusal(error)}`) }
  }
}

/** Null when the message was decoded. */
function decode(decoder: Decoder, { kind, message }: Original): RetryOutcome | null {
  try {
    const reason = decoder.decode(kind, message)
    return reason === null ? null : { kind: 'failed', reason }
  } catch (error) {
    if (isTapelineError(error, 'SCHEMA')) return { kind: 'hopeless', reason: error.message }
    throw error
  }
}

/** @returns otherwise why it cannot be stored */
async function store(
  connection: Queryable,
  kind: Original['kind'],
  { event, gap }: Decoder,
): Promise<'stored' | 'already there' | typeof SECOND_UNDER_ID> {
  const outcome = (isNew: boolean) => (isNew ? 'stored' : 'already there')
  if (kind === 'gaps') return outcome(gap !== null && (await upsertGaps(connection, [gap])) > 0)
  const rows = new MarketRows(TABLE_OF[event.type])
  rows.add(event)
  if (kind === 'trades') {
    if ((await rows.secondUnderId(connection)).length > 0) return SECOND_UNDER_ID
    if (await isStoredNearby(connection, event)) return SECOND_UNDER_ID
  }
  return outcome((await rows.insert(connection)).length > 0)
}
