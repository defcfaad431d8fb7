import type { Connection, PoolClient } from 'pg'

declare module 'pg' {
  /** What its types leave out. */
  interface Connection {
    sendCopyFromChunk(chunk: Buffer): void
    endCopyFrom(): void
  }
}

type Callback = (error: Error | null) => void

/**
 * One `COPY … FROM STDIN` as `pg` runs statements of other kinds than its own: it calls these methods with what the
 * server says. When the server refuses a row in the middle it reads past the rest by itself.
 */
class CopyIn {
  readonly #statement: string
  readonly #rows: Buffer
  /** `pg` wraps it, to keep the time limit of statements. */
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
 * Copies rows into a table. All or none: an error of the server, a row that is there already among them, undoes it.
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
