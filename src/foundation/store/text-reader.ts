import { Client, types } from 'pg'
import { sleep } from '../runtime/backoff.ts'
import { databaseConnectionError } from './connection-errors.ts'
import { connectionOptions } from './connection-options.ts'
import type { Queryable } from './database.ts'
import { OPENING_LIMIT_MS, openingText } from './opening.ts'
import { SET_ROLE_PRIVILEGE } from './roles.ts'
import { CLIENT_GRACE_MS, cancelOnAbort, limitedStatement, type StopCancelling } from './statement-limits.ts'

declare module 'pg' {
  /** What its types leave out. */
  interface QueryArrayConfig {
    queryMode?: 'extended'
  }
}

export interface TextReaderOptions {
  readonly url: string
  /** Of each statement. */
  readonly timeoutMs: number
  readonly applicationName: string
  /** Cancels the statement that runs, which then rejects with the signal's reason. */
  readonly signal?: AbortSignal
}

export interface TextColumn {
  readonly name: string
  /** PostgreSQL's number of the type. */
  readonly typeId: number
}

/** Values as PostgreSQL writes them, digit by digit; times in UTC. */
export type TextRow = readonly (string | null)[]

export interface TextRows {
  readonly columns: readonly TextColumn[]
  readonly rows: readonly TextRow[]
}

const CONNECT_TIMEOUT_MS = 5000
const CLOSE_TIMEOUT_MS = 1000
/** Even a superuser can then reach nothing but what is to be read. */
const IS_READER = `SELECT FROM pg_roles WHERE rolname = 'tapeline_reader' AND pg_has_role(current_user, oid, ${SET_ROLE_PRIVILEGE})
  AND has_table_privilege(oid, to_regclass('trades'), 'SELECT')`
const CURSOR = 'tapeline_rows'

/**
 * One connection that reads and cannot write: all its statements are of one transaction, READ ONLY and REPEATABLE READ, and so
 * of one moment.
 */
export class TextReader {
  readonly #client: Client
  readonly #options: TextReaderOptions
  readonly #stopCancelling: StopCancelling

  private constructor(client: Client, options: TextReaderOptions, stopCancelling: StopCancelling) {
    this.#client = client
    this.#options = options
    this.#stopCancelling = stopCancelling
  }

  /** @throws TapelineError `ACCESS` when the server refuses this client */
  static async open(options: TextReaderOptions): Promise<TextReader> {
    const client = new Client({
      ...connectionOptions(options.url),
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      query_timeout: options.timeoutMs + CLIENT_GRACE_MS,
      application_name: options.applicationName,
      types: { getTypeParser: () => (value: string) => value },
    })
    // What runs on a connection that breaks fails with an error of its own.
    client.on('error', () => {})
    try {
      await client.connect()
      const opening = {
        text: openingText('snapshot', options.timeoutMs),
        query_timeout: OPENING_LIMIT_MS,
      }
      await limitedStatement(OPENING_LIMIT_MS, () => client.query(opening))
      const { rowCount } = await client.query(IS_READER)
      if (rowCount === 1) await client.query('SET LOCAL ROLE tapeline_reader')
      return new TextReader(client, options, await cancelOnAbort(client, options.url, options.signal))
    } catch (error) {
      await end(client)
      throw databaseConnectionError(error, new URL(options.url).host) ?? error
    }
  }

  /** One statement: PostgreSQL refuses several (42601). */
  async query(text: string, values: readonly string[] = []): Promise<TextRows> {
    const answer = await this.#run(() =>
      this.#client.query({
        text,
        values: [...values],
        rowMode: 'array',
        // Prepared: then it can be one only.
        queryMode: 'extended',
      }),
    )
    return {
      columns: answer.fields.map(({ name, dataTypeID }) => ({ name, typeId: dataTypeID })),
      rows: answer.rows,
    }
  }

  /** The same transaction, and so the same moment, with values as a `Database` gives them. */
  readonly typed: Queryable = {
    query: async <Row>(text: string, values?: readonly unknown[]) => {
      const statement = { text, types, ...(values === undefined ? {} : { values: [...values] }) }
      const answer = await this.#run(() => this.#client.query(statement))
      // Several statements have several answers, of which none is read.
      const rows: Row[] = answer.rows ?? []
      return { rows, rowCount: answer.rowCount ?? 0 }
    },
  }

  async #run<Answer>(statement: () => Promise<Answer>): Promise<Answer> {
    const { signal, timeoutMs } = this.#options
    signal?.throwIfAborted()
    try {
      return await limitedStatement(timeoutMs + CLIENT_GRACE_MS, statement)
    } catch (error) {
      throw signal?.aborted === true ? signal.reason : error
    }
  }

  /** The rows of a SELECT, so many at a time; at least once, for the columns. */
  async *select(text: string, values: readonly string[], rowsAtOnce: number): AsyncGenerator<TextRows> {
    await this.query(`DECLARE ${CURSOR} NO SCROLL CURSOR FOR ${text}`, values)
    for (;;) {
      const some = await this.query(`FETCH ${rowsAtOnce} FROM ${CURSOR}`)
      yield some
      if (some.rows.length < rowsAtOnce) break
    }
    await this.query(`CLOSE ${CURSOR}`)
  }

  async close(): Promise<void> {
    await this.#stopCancelling()
    await end(this.#client)
  }
}

/** A server that hangs would not see to it that the connection ends. */
async function end(client: Client): Promise<void> {
  await Promise.race([client.end(), sleep(CLOSE_TIMEOUT_MS)])
}
