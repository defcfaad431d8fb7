/**
 * The part of PostgreSQL's protocol 3.0 that a server with a single backend needs. Source: its
 * documentation, chapter "Frontend/Backend Protocol", "Message Formats".
 */

/** A whole message, unchanged: a type byte (absent in the first one), a length, a body. */
export type FrontendMessage = Buffer

/** PostgreSQL's limit on a message (1 GB). */
const MAX_MESSAGE_BYTES = 1024 * 1024 * 1024
/** The real server's limit on a startup packet. */
const MAX_STARTUP_BYTES = 10_000

const PROTOCOL_MAJOR = 3
const CANCEL_REQUEST = 80877102
const SSL_REQUEST = 80877103
const GSSENC_REQUEST = 80877104

/** Splits one client's byte stream into whole messages, copying each byte at most once. */
export class MessageReader {
  #chunks: Buffer[] = []
  #length = 0
  #started = false

  push(chunk: Buffer): void {
    this.#chunks.push(chunk)
    this.#length += chunk.length
  }

  /** After the startup packet every message begins with its type. */
  startupDone(): void {
    this.#started = true
  }

  /** The next whole message; null while it is incomplete. Throws on another protocol. */
  next(): FrontendMessage | null {
    const headerBytes = this.#started ? 5 : 4
    if (this.#length < headerBytes) return null
    const header = this.#peek(headerBytes)
    const announced = header.readUInt32BE(this.#started ? 1 : 0)
    const limit = this.#started ? MAX_MESSAGE_BYTES : MAX_STARTUP_BYTES
    if (announced < 4 || announced > limit) throw new Error(`not a PostgreSQL message: length ${announced}`)
    const total = this.#started ? announced + 1 : announced
    return this.#length < total ? null : this.#take(total)
  }

  #peek(bytes: number): Buffer {
    const [first] = this.#chunks
    if (first !== undefined && first.length >= bytes) return first.subarray(0, bytes)
    return this.#joined().subarray(0, bytes)
  }

  #take(bytes: number): Buffer {
    const [first] = this.#chunks
    const whole = first !== undefined && first.length >= bytes ? first : this.#joined()
    if (whole.length === bytes) this.#chunks.shift()
    else this.#chunks[0] = whole.subarray(bytes)
    this.#length -= bytes
    return whole.subarray(0, bytes)
  }

  #joined(): Buffer {
    const joined = Buffer.concat(this.#chunks)
    this.#chunks = [joined]
    return joined
  }
}

export function parseStartup(message: FrontendMessage): 'encrypt' | 'cancel' | ReadonlyMap<string, string> {
  if (message.length < 8) throw new Error('the startup packet is too short')
  const code = message.readUInt32BE(4)
  if (code === SSL_REQUEST || code === GSSENC_REQUEST) return 'encrypt'
  if (code === CANCEL_REQUEST) return 'cancel'
  if (code >>> 16 !== PROTOCOL_MAJOR) throw new Error(`protocol version ${code >>> 16} is not supported`)
  const parts = message.toString('utf8', 8).split('\0')
  const parameters = new Map<string, string>()
  for (let i = 0; i + 1 < parts.length && parts[i] !== ''; i += 2)
    parameters.set(parts[i] ?? '', parts[i + 1] ?? '')
  return parameters
}

function backendMessage(type: string, body: Buffer = Buffer.alloc(0)): Buffer {
  const message = Buffer.allocUnsafe(5 + body.length)
  message.write(type, 0, 'latin1')
  message.writeUInt32BE(4 + body.length, 1)
  body.copy(message, 5)
  return message
}

export function authenticationCleartextPassword(): Buffer {
  return backendMessage('R', Buffer.from([0, 0, 0, 3]))
}

/** The messages between the correct password and the client's first query. */
export function authenticated(parameters: Readonly<Record<string, string>>): Buffer {
  return Buffer.concat([
    backendMessage('R', Buffer.from([0, 0, 0, 0])),
    ...Object.entries(parameters).map(([name, value]) =>
      backendMessage('S', Buffer.from(`${name}\0${value}\0`)),
    ),
    backendMessage('K', Buffer.alloc(8)),
    backendMessage('Z', Buffer.from('I')),
  ])
}

/** An error that ends the connection. `sqlState` is PostgreSQL's five-character code. */
export function fatalError(sqlState: string, text: string): Buffer {
  return backendMessage('E', Buffer.from(`SFATAL\0VFATAL\0C${sqlState}\0M${text}\0\0`))
}

/** A simple query, as a client sends it. */
export function query(sql: string): FrontendMessage {
  return backendMessage('Q', Buffer.from(`${sql}\0`))
}

/** Closes a prepared statement. Unlike DEALLOCATE, it does not fail when there is none. */
export function closeStatement(name: string): FrontendMessage {
  return backendMessage('C', Buffer.from(`S${name}\0`))
}

export function sync(): FrontendMessage {
  return backendMessage('S')
}

/** The bodies of the messages of one type in the server's output. */
export function* bodiesIn(output: Buffer, type: string): Generator<Buffer> {
  for (let start = 0; start + 5 <= output.length; ) {
    const end = start + 1 + output.readUInt32BE(start + 1)
    if (output[start] === type.charCodeAt(0)) yield output.subarray(start + 5, end)
    start = end
  }
}

/** The SQL of a simple query; null for any other message. */
export function queryText(message: FrontendMessage): string | null {
  return message[0] === 0x51 ? message.toString('utf8', 5, message.length - 1) : null
}

export function errorText(output: Buffer): string | null {
  const [error] = bodiesIn(output, 'E')
  const fields = error?.toString().split('\0')
  return fields === undefined ? null : (fields.find((field) => field.startsWith('M'))?.slice(1) ?? 'unknown')
}

/**
 * Renames the prepared statement of a message, so that two clients may use the same name. Portals
 * and the unnamed statement keep theirs: none outlives the time in which a client has the backend.
 */
export function renameStatement(
  message: FrontendMessage,
  prefix: string,
): { message: FrontendMessage; opened: string | null } {
  const type = String.fromCharCode(message[0] ?? 0)
  if (type === 'P') return renameAt(message, 5, prefix, true)
  if (type === 'B') return renameAt(message, message.indexOf(0, 5) + 1, prefix, false)
  if ((type === 'D' || type === 'C') && message[5] === 0x53) return renameAt(message, 6, prefix, false)
  return { message, opened: null }
}

function renameAt(
  message: FrontendMessage,
  at: number,
  prefix: string,
  opens: boolean,
): ReturnType<typeof renameStatement> {
  if (message[at] === 0 || at >= message.length) return { message, opened: null }
  const name = prefix + message.toString('utf8', at, message.indexOf(0, at))
  const renamed = Buffer.concat([message.subarray(0, at), Buffer.from(prefix), message.subarray(at)])
  renamed.writeUInt32BE(renamed.length - 1, 1)
  return { message: renamed, opened: opens ? name : null }
}

/** The first column of the first row in an answer, as text; null when there is no row. */
export function firstValue(output: Buffer): string | null {
  const [row] = bodiesIn(output, 'D')
  const length = row?.readInt32BE(2) ?? -1
  return length < 0 ? null : String(row?.toString('utf8', 6, 6 + length))
}

const COPY_IN = /\bcopy\b[^;]*\bfrom\s+stdin\b/i
const REFUSAL = `DO $$ BEGIN RAISE feature_not_supported USING MESSAGE = 'the embedded database has no COPY FROM STDIN' ; END $$`

/** Replaces COPY FROM STDIN by a statement that fails: the backend would wait for the data. */
export function withoutCopyIn(message: FrontendMessage): FrontendMessage {
  const type = String.fromCharCode(message[0] ?? 0)
  if ((type !== 'Q' && type !== 'P') || !COPY_IN.test(message.toString('utf8', 5, 10_000))) return message
  if (type === 'Q') return query(REFUSAL)
  const name = message.subarray(5, message.indexOf(0, 5) + 1)
  return backendMessage('P', Buffer.concat([name, Buffer.from(`${REFUSAL}\0`), Buffer.alloc(2)]))
}

/** Converts the settings in a client's `options` (`-c name=value`, or `--name=value`) to SQL. */
export function startupSettings(parameters: ReadonlyMap<string, string>): string[] {
  const options = parameters.get('options') ?? ''
  return Array.from(
    options.matchAll(/(?:-c\s*|--)([\w.-]+)=((?:\\.|\S)*)/g),
    ([, name = '', value = '']) =>
      `SELECT set_config(${literal(name.replaceAll('-', '_'))}, ${literal(value.replaceAll(/\\(.)/g, '$1'))}, false)`,
  )
}

function literal(text: string): string {
  return `'${text.replaceAll("'", "''")}'`
}
