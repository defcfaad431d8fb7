import { createHash, timingSafeEqual } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { describeError } from '../../foundation/runtime/errors.ts'
import type { BackendSession, SharedBackend } from './embedded-backend.ts'
import {
  authenticated,
  authenticationCleartextPassword,
  type FrontendMessage,
  fatalError,
  MessageReader,
  parseStartup,
  startupSettings,
} from './postgres-wire.ts'

/** Parameters that drivers need before their first query; the same for every client. */
const SERVER_PARAMETERS = {
  server_version: '17.5',
  server_encoding: 'UTF8',
  client_encoding: 'UTF8',
  DateStyle: 'ISO, MDY',
  IntervalStyle: 'postgres',
  TimeZone: 'GMT',
  integer_datetimes: 'on',
  standard_conforming_strings: 'on',
}

const PASSWORD_MESSAGE = 0x70
const TERMINATE = 0x58
const INVALID_PASSWORD = '28P01'
const IDLE_IN_TRANSACTION = '25P03'
const ADMIN_SHUTDOWN = '57P01'
const PROTOCOL_VIOLATION = '08P01'

/** Time for a client to read why its connection ends. */
const LAST_WORDS_MS = 1000

export interface EmbeddedServerOptions {
  readonly backend: SharedBackend
  /** Compared in constant time. Any user and database name is accepted. */
  readonly password: string
  /** 0 means any free port. */
  readonly port: number
  /** A client that is silent for this long in a transaction blocks all others: it is disconnected. */
  readonly idleInTransactionMs: number
}

export interface EmbeddedServer {
  readonly port: number
  /** Closes all connections. Their open transactions are rolled back. */
  close(): Promise<void>
}

/** Serves the PostgreSQL protocol on 127.0.0.1, without cancel requests. Rejects when the port is taken. */
export async function startEmbeddedServer(options: EmbeddedServerOptions): Promise<EmbeddedServer> {
  const sockets = new Set<Socket>()
  const serving = new Set<Promise<void>>()
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    const served = serve(socket, options).finally(() => serving.delete(served))
    serving.add(served)
  })
  server.listen({ port: options.port, host: '127.0.0.1' })
  await once(server, 'listening')
  const address = server.address()
  return {
    port: address !== null && typeof address === 'object' ? address.port : options.port,
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      for (const socket of sockets)
        end(socket, fatalError(ADMIN_SHUTDOWN, 'the embedded database is stopping'))
      await Promise.all(serving)
      await closed
    },
  }
}

/** Serves one connection. An error is reported to the client and ends the connection. */
async function serve(socket: Socket, options: EmbeddedServerOptions): Promise<void> {
  socket.on('error', () => socket.destroy())
  socket.on('timeout', () =>
    end(socket, fatalError(IDLE_IN_TRANSACTION, 'terminating connection due to idle-in-transaction timeout')),
  )
  try {
    const reader = new MessageReader()
    const messages = messagesOf(socket, reader)
    const parameters = await admit(socket, reader, messages, options.password)
    if (parameters !== null) {
      const session = options.backend.openSession(startupSettings(parameters))
      socket.once('close', () => session.abandon())
      await converse(socket, messages, session, options).finally(() => session.close())
    }
  } catch (error) {
    end(socket, fatalError(PROTOCOL_VIOLATION, describeError(error)))
  } finally {
    end(socket)
  }
}

async function converse(
  socket: Socket,
  messages: AsyncGenerator<FrontendMessage>,
  session: BackendSession,
  options: EmbeddedServerOptions,
): Promise<void> {
  for await (const message of messages) {
    if (message[0] === TERMINATE) return
    socket.setTimeout(0)
    const output = await session.execute(message)
    // The client must now read the answer and send its next message.
    if (session.holdsBackend) socket.setTimeout(options.idleInTransactionMs)
    if (output.length > 0 && !socket.write(output)) await drained(socket)
  }
}

/** Returns the startup parameters of a client that knows the password; else null. Declines encryption. */
async function admit(
  socket: Socket,
  reader: MessageReader,
  messages: AsyncGenerator<FrontendMessage>,
  password: string,
): Promise<ReadonlyMap<string, string> | null> {
  let startup: ReturnType<typeof parseStartup>
  do {
    const first = await messages.next()
    startup = first.done === true ? 'cancel' : parseStartup(first.value)
    if (startup === 'encrypt') socket.write('N')
  } while (startup === 'encrypt')
  if (startup === 'cancel') return null
  reader.startupDone()
  socket.write(authenticationCleartextPassword())
  const answer = await messages.next()
  if (answer.done === true) return null
  const body = answer.value.toString('utf8', 5, answer.value.length - 1)
  const given = answer.value[0] === PASSWORD_MESSAGE ? body : ''
  if (!timingSafeEqual(digest(given), digest(password))) {
    end(socket, fatalError(INVALID_PASSWORD, 'password authentication failed'))
    return null
  }
  socket.write(authenticated(SERVER_PARAMETERS))
  return startup
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}

async function* messagesOf(socket: Socket, reader: MessageReader): AsyncGenerator<FrontendMessage> {
  for await (const chunk of socket) {
    reader.push(chunk)
    for (let message = reader.next(); message !== null; message = reader.next()) yield message
  }
}

/** Waits until the client has read the answer or disconnected. */
function drained(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      socket.off('drain', done)
      socket.off('close', done)
      resolve()
    }
    socket.on('drain', done)
    socket.on('close', done)
    if (socket.destroyed) done()
  })
}

/** Sends a last message, if any, and closes both directions. */
function end(socket: Socket, lastWords?: Buffer): void {
  if (socket.destroyed || socket.writableEnded) return
  socket.setTimeout(0)
  if (lastWords !== undefined) socket.write(lastWords)
  // Without this limit, a client that does not read would keep the connection open.
  const giveUp = setTimeout(() => socket.destroy(), LAST_WORDS_MS)
  socket.once('close', () => clearTimeout(giveUp))
  socket.destroySoon()
}
