/**
 * The answer to a statement. `rowCount` is the number of rows inserted, updated, deleted or
 * returned.
 */
export interface QueryAnswer<Row> {
  readonly rows: Row[]
  readonly rowCount: number
}

/**
 * Runs SQL. Values are parameters, never part of the text. `bigint` and `numeric` columns return
 * strings, `timestamptz` a Date. Rejects with an error that has PostgreSQL's SQLSTATE as `code` if
 * the server answered, and without one if it was unreachable. A statement without an answer within
 * its limit rejects with an `UnansweredError`.
 */
export interface Queryable {
  query<Row = Record<string, unknown>>(text: string, values?: readonly unknown[]): Promise<QueryAnswer<Row>>
}

/** One connection, in a transaction. */
export interface Connection extends Queryable {
  /**
   * Copies rows into a table, all or none: an existing row is an error, 23505. It costs the server
   * half of an INSERT.
   *
   * @param statement `COPY table (columns) FROM STDIN (FORMAT binary)`
   * @param rows in the format that the statement names
   */
  copyIn(statement: string, rows: Buffer): Promise<number>
}

export interface TransactionOptions {
  /** Reads a snapshot and cannot write. */
  readonly isSnapshot?: boolean
  /** Limit of each statement, in the server and the client; the pool's by default. */
  readonly limitMs?: number
  /**
   * Cancels the running statement in the server; the transaction then rejects with the signal's
   * reason.
   */
  readonly signal?: AbortSignal | undefined
}

/**
 * A pool of sessions in PostgreSQL with TimescaleDB. Each statement runs in a transaction that sets
 * what it needs (`postgres.ts`); a single statement runs in a separate one. Use {@link transaction}
 * for writes.
 */
export interface Database extends Queryable {
  /**
   * Runs `work` between BEGIN and COMMIT on one connection. If `work` or the commit fails, the
   * connection is rolled back and returned to the pool, or closed if it cannot be rolled back or
   * reused.
   */
  transaction<Result>(
    work: (connection: Connection) => Promise<Result>,
    options?: TransactionOptions,
  ): Promise<Result>
  /** Whether the server has COPY FROM STDIN. It announces it if not: see `openPostgres`. */
  canCopy(): Promise<boolean>
  close(): Promise<void>
}
