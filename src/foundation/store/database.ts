/** `rowCount` is the number of rows inserted, updated, deleted or returned. */
export interface QueryAnswer<Row> {
  readonly rows: Row[]
  readonly rowCount: number
}

/**
 * Runs SQL. Values are parameters, never part of the text. `bigint` and `numeric` columns return strings,
 * `timestamptz` a Date. Rejects with PostgreSQL's SQLSTATE as `code` if the server answered, without one if
 * it was unreachable, and with an `UnansweredError` after the limit.
 */
export interface Queryable {
  query<Row = Record<string, unknown>>(text: string, values?: readonly unknown[]): Promise<QueryAnswer<Row>>
}

/** One connection, in a transaction. */
export interface Connection extends Queryable {
  /**
   * Copies rows into a table, all or none: an existing row is an error, 23505. Costs half of an INSERT.
   * @param statement `COPY table (columns) FROM STDIN (FORMAT binary)`
   */
  copyIn(statement: string, rows: Buffer): Promise<number>
}

export interface TransactionOptions {
  /** Reads a snapshot and cannot write. */
  readonly isSnapshot?: boolean
  /** Limit of each statement, in the server and the client; the pool's by default. */
  readonly limitMs?: number
  /** Cancels the running statement; the transaction then rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined
}

/** A pool of sessions. A statement alone is a transaction; use {@link transaction} for writes. */
export interface Database extends Queryable {
  /** Runs `work` in a transaction on one connection, which is rolled back or closed after a failure. */
  transaction<Result>(
    work: (connection: Connection) => Promise<Result>,
    options?: TransactionOptions,
  ): Promise<Result>
  /** Whether the server has COPY FROM STDIN. It announces it if not: see `openPostgres`. */
  canCopy(): Promise<boolean>
  close(): Promise<void>
}
