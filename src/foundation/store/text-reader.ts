import { Client, types } from 'pg'
import { to } from 'pg-copy-streams'
import { sleep } from '../runtime/backoff.ts'
import { cancelOnAbort, type StopCancelling } from './cancellation.ts'
import { connectionOptions, databaseConnectionError } from './connection.ts'
import type { Queryable } from './database.ts'
import { CLIENT_GRACE_MS, limitedStatement, OPENING_LIMIT_MS, openingText } from './postgres.ts'
import { SET_ROLE_PRIVILEGE } from './roles.ts'
import { UnansweredError } from './unanswered.ts'

declare module 'pg' {
  /** Missing in its types. */
  interface QueryArrayConfig {
    queryMode?: 'extended'
  }
}

export interface TextReaderOptions {
  readonly url: string
  /** Limit of each statement. */
  readonly timeoutMs: number
  readonly applicationName: string
  /** Cancels the running statement, which then rejects with the signal's reason. */
  readonly signal?: AbortSignal
}

export interface TextColumn {
  readonly name: string
  /** PostgreSQL's number of the type. */
  readonly typeId: number
}

/** Values as PostgreSQL prints them, with every digit; times in UTC. */
export type TextRow = readonly (string | null)[]

export interface TextRows {
  readonly columns: readonly TextColumn[]
  readonly rows: readonly TextRow[]
}

/** Returns a row as in RFC 4180. Null is empty; an empty text is `""`. */
export function csvLine(row: TextRow): string {
  return row
    .map((value) => {
      if (value === null) return ''
      return value === '' || /[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value
    })
    .join()
}

const CONNECT_TIMEOUT_MS = 5000
const CLOSE_TIMEOUT_MS = 1000
/** Limits even a superuser to the tables that are to be read. */
const IS_READER = `SELECT FROM pg_roles WHERE rolname = 'tapeline_reader' AND pg_has_role(current_user, oid, ${SET_ROLE_PRIVILEGE})
  AND has_table_privilege(oid, to_regclass('trades'), 'SELECT')`
const CURSOR = 'tapeline_rows'

/** One connection that only reads: all statements see one snapshot, in a READ ONLY transaction. */
export class TextReader {
  readonly #client: Client
  readonly #options: TextReaderOptions
  readonly #stopCancelling: StopCancelling

  private constructor(client: Client, options: TextReaderOptions, stopCancelling: StopCancelling) {
    this.#client = client
    this.#options = options
    this.#stopCancelling = stopCancelling
  }

  /** @throws TapelineError `ACCESS` if the server refuses this client */
  static async open(options: TextReaderOptions): Promise<TextReader> {
    const client = new Client({
      ...connectionOptions(options.url),
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      query_timeout: options.timeoutMs + CLIENT_GRACE_MS,
      application_name: options.applicationName,
      types: { getTypeParser: () => (value: string) => value },
    })
    // A statement on a broken connection rejects with its error.
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
      const { signal } = options
      const stop = signal === undefined ? async () => {} : await cancelOnAbort(client, options.url, signal)
      return new TextReader(client, options, stop)
    } catch (error) {
      await end(client)
      throw databaseConnectionError(error, new URL(options.url).host) ?? error
    }
  }

  /** Runs one statement: PostgreSQL refuses several (42601). */
  async query(text: string, values: readonly string[] = []): Promise<TextRows> {
    const answer = await this.#run(() =>
      this.#client.query({
        text,
        values: [...values],
        rowMode: 'array',
        // A prepared statement can only be a single one.
        queryMode: 'extended',
      }),
    )
    return {
      columns: answer.fields.map(({ name, dataTypeID }) => ({ name, typeId: dataTypeID })),
      rows: answer.rows,
    }
  }

  /** The same transaction, and so the same snapshot, with values as a `Database` returns them. */
  readonly typed: Queryable = {
    query: async <Row>(text: string, values?: readonly unknown[]) => {
      const statement = { text, types, ...(values === undefined ? {} : { values: [...values] }) }
      const answer = await this.#run(() => this.#client.query(statement))
      // Several statements have several answers, none of which is used.
      const rows: Row[] = answer.rows ?? []
      return { rows, rowCount: answer.rowCount ?? 0 }
    },
  }

  /**
   * Runs `COPY (SELECT …) TO STDOUT`, and yields its bytes as they come. The snapshot is that of the
   * other statements.
   */
  async *copyOut(statement: string): AsyncGenerator<Buffer> {
    const { signal, timeoutMs } = this.#options
    signal?.throwIfAborted()
    const startedMs = performance.now()
    const limitMs = timeoutMs + CLIENT_GRACE_MS
    const copy = this.#client.query(Object.assign(to(statement), { callback: () => {} }))
    try {
      yield* copy
    } catch (error) {
      if (signal?.aborted === true) throw signal.reason
      throw performance.now() - startedMs < timeoutMs ? error : new UnansweredError(limitMs, '', error)
    } finally {
      // `pg` has put the timer of the limit here, and does not see that the stream has ended.
      copy.callback()
    }
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

  /** Returns the rows of a SELECT in portions; at least one portion, for the columns. */
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

/** Closes within a limit, since a server that hangs would not end the connection. */
async function end(client: Client): Promise<void> {
  await Promise.race([client.end(), sleep(CLOSE_TIMEOUT_MS)])
}
