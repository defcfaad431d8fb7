/** One statement's answer. `rowCount` is the number of rows inserted, updated, deleted or returned. */
export interface QueryAnswer<Row> {
  readonly rows: Row[]
  readonly rowCount: number
}

/**
 * What can run SQL. Values go as parameters, never into the text. `bigint` and `numeric` columns come back as
 * strings, `timestamptz` as Date. Rejects with an error that carries `code`, PostgreSQL's SQLSTATE, when the
 * server answered, and without one when it could not be reached. A statement that is not answered within its limit rejects with an
 * `UnansweredError`.
 */
export interface Queryable {
  query<Row = Record<string, unknown>>(text: string, values?: readonly unknown[]): Promise<QueryAnswer<Row>>
}

/** One connection, in a transaction. */
export interface Connection extends Queryable {
  /**
   * Copies rows into a table, all of them: one that is there already is an error, 23505. It costs the server half of what an
   * INSERT costs.
   *
   * @param statement `COPY table (columns) FROM STDIN (FORMAT binary)`
   * @param rows in the format that the statement names
   */
  copyIn(statement: string, rows: Buffer): Promise<number>
}

export interface TransactionOptions {
  /** Sees the rows of one moment, and cannot write. */
  readonly isSnapshot?: boolean
  /** For each statement, at the server and at the client. The pool's own when not given. */
  readonly limitMs?: number
  /** Cancels the statement that runs, at the server; the transaction then rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined
}

/**
 * A pool of sessions at PostgreSQL with TimescaleDB. Each statement runs in a transaction that sets what it needs (`opening.ts`), a
 * single one in its own. What writes belongs into {@link transaction}.
 */
export interface Database extends Queryable {
  /**
   * Runs `work` between BEGIN and COMMIT on one connection. When `work` or the commit fails the connection is
   * rolled back before it goes back to the pool; one that cannot be rolled back, or must not be used again, is closed instead.
   */
  transaction<Result>(
    work: (connection: Connection) => Promise<Result>,
    options?: TransactionOptions,
  ): Promise<Result>
  close(): Promise<void>
}
