import { Client } from 'pg'
import { databaseConnectionError } from './connection-errors.ts'
import { connectionOptions } from './connection-options.ts'

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
/** Even a superuser can then reach nothing but what is to be read. */
const IS_READER = `SELECT FROM pg_roles WHERE rolname = 'tapeline_reader' AND pg_has_role(current_user, oid, 'MEMBER')
  AND has_table_privilege(oid, to_regclass('trades'), 'SELECT')`
const CURSOR = 'tapeline_rows'

/**
 * One connection that reads and cannot write: all its statements are of one transaction, READ ONLY and REPEATABLE READ, and so
 * of one moment.
 */
export class TextReader {
  readonly #client: Client

  private constructor(client: Client) {
    this.#client = client
  }

  /** @throws TapelineError `ACCESS` when the server refuses this client */
  static async open(options: TextReaderOptions): Promise<TextReader> {
    const client = new Client({
      ...connectionOptions(options.url),
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      application_name: options.applicationName,
      options: '-c timezone=UTC -c datestyle=ISO',
      types: { getTypeParser: () => (value: string) => value },
    })
    // What runs on a connection that breaks fails with an error of its own.
    client.on('error', () => {})
    try {
      await client.connect()
      await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY')
      await client.query(`SET LOCAL statement_timeout = ${options.timeoutMs}`)
      const { rowCount } = await client.query(IS_READER)
      if (rowCount === 1) await client.query('SET LOCAL ROLE tapeline_reader')
    } catch (error) {
      await client.end()
      throw databaseConnectionError(error, new URL(options.url).host) ?? error
    }
    return new TextReader(client)
  }

  /** One statement: PostgreSQL refuses several (42601). */
  async query(text: string, values: readonly string[] = []): Promise<TextRows> {
    const answer = await this.#client.query({
      text,
      values: [...values],
      rowMode: 'array',
      // Prepared: then it can be one only.
      queryMode: 'extended',
    })
    return {
      columns: answer.fields.map(({ name, dataTypeID }) => ({ name, typeId: dataTypeID })),
      rows: answer.rows,
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
    await this.#client.end()
  }
}
