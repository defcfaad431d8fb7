import { once } from 'node:events'
import type { Server } from 'node:http'
import { sleep } from '../../../foundation/runtime/backoff.ts'
import { codeOf, describeError, TapelineError } from '../../../foundation/runtime/errors.ts'

export const HOST = '127.0.0.1'
const PORT_RETRY_MS = 100

/** The port of a server on loopback. It can be shut temporarily; open connections stay open. */
export class PortGate {
  readonly #server: Server
  readonly #waitMs: number
  #port: number

  /** @param waitMs how long to wait for a port that another program uses */
  constructor(server: Server, port: number, waitMs: number) {
    this.#server = server
    this.#port = port
    this.#waitMs = waitMs
  }

  get port(): number {
    return this.#port
  }

  /** @throws {TapelineError} `ENVIRONMENT` when the port stays taken or may not be opened */
  async open(): Promise<void> {
    const deadline = performance.now() + this.#waitMs
    for (;;) {
      try {
        // Rejects with the error of the server.
        await once(this.#server.listen(this.#port, HOST), 'listening')
        const address = this.#server.address()
        if (address !== null && typeof address === 'object') this.#port = address.port
        return
      } catch (error) {
        const code = codeOf(error)
        if (code === 'EADDRINUSE' && performance.now() < deadline) {
          await sleep(PORT_RETRY_MS)
          continue
        }
        const why =
          code === 'EADDRINUSE' ? 'is in use by another program' : `cannot be opened: ${describeError(error)}`
        throw new TapelineError('ENVIRONMENT', `Port ${this.#port} on ${HOST} ${why}.`, {
          fix: 'Stop the program that uses it, or choose another port with --port (0 means any free port).',
          cause: error,
        })
      }
    }
  }

  /** Stops listening: the system refuses new connections. */
  shut(): void {
    if (this.#server.listening) this.#server.close()
  }

  /** Closes for good; resolves when every connection has ended. */
  close(): Promise<void> {
    return new Promise((resolve) => this.#server.close(() => resolve()))
  }
}
