import type { Connection, PoolClient } from 'pg'

declare module 'pg' {
  /** Missing in its types. */
  interface Connection {
    sendCopyFromChunk(chunk: Buffer): void
    endCopyFrom(): void
  }
}

type Callback = (error: Error | null) => void

/**
 * One `COPY … FROM STDIN` as a custom query of `pg`, which calls these methods with the server's
 * messages. If the server refuses a row in the middle, it skips the rest.
 */
class CopyIn {
  readonly #statement: string
  readonly #rows: Buffer
  /** `pg` wraps it to apply the statement's time limit. */
  callback: Callback
  #count = 0

  constructor(statement: string, rows: Buffer, done: (error: Error | null, count: number) => void) {
    this.#statement = statement
    this.#rows = rows
    this.callback = (error) => done(error, this.#count)
  }

  submit(connection: Connection): void {
    connection.query(this.#statement)
  }

  handleCopyInResponse(connection: Connection): void {
    connection.sendCopyFromChunk(this.#rows)
    connection.endCopyFrom()
  }

  /** `COPY 123`. */
  handleCommandComplete({ text }: { readonly text: string }): void {
    this.#count = Number(text.slice(text.lastIndexOf(' ') + 1))
  }

  handleReadyForQuery(): void {
    this.callback(null)
  }

  handleError(error: Error): void {
    this.callback(error)
  }
}

/**
 * Copies rows into a table. All or none: any error of the server undoes it, also for a row that
 * exists already.
 *
 * @param statement `COPY table (columns) FROM STDIN (FORMAT binary)`
 * @param rows in the format that the statement names
 * @returns how many rows there were
 */
export function copyIn(client: PoolClient, statement: string, rows: Buffer): Promise<number> {
  return new Promise((resolve, reject) => {
    const onDone = (error: Error | null, count: number) => (error === null ? resolve(count) : reject(error))
    client.query(new CopyIn(statement, rows, onDone))
  })
}
