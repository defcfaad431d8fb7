import { isIP } from 'node:net'
import { Admin, type Base, type BaseOptions } from '@platformatic/kafka'
import { sleep } from '../runtime/backoff.ts'
import { TapelineError } from '../runtime/errors.ts'
import type { KafkaConnection } from './config.ts'

const CONNECT_TIMEOUT_MS = 5000
const REQUEST_TIMEOUT_MS = 30_000
const CLOSE_TIMEOUT_MS = 1000

/** Returns the options of every client. @param clientId shown in the broker's logs and metrics */
export function clientOptions(connection: KafkaConnection, clientId: string): BaseOptions {
  return {
    clientId,
    bootstrapBrokers: [...connection.brokers],
    connectTimeout: CONNECT_TIMEOUT_MS,
    timeout: REQUEST_TIMEOUT_MS,
    autocreateTopics: false,
    strict: true,
    // A gateway distinguishes brokers by the TLS server name; IP addresses have none.
    ...(connection.tls === null
      ? {}
      : {
          tls: { ...connection.tls },
          tlsServerName: !connection.brokers.every((broker) => isIP(addressOf(broker).host) !== 0),
        }),
    ...(connection.sasl === null ? {} : { sasl: { ...connection.sasl } }),
  }
}

/** Returns the parts of `host:port`. An IPv6 address is in brackets. */
export function addressOf(broker: string): { host: string; port: number } {
  const { hostname, port } = new URL(`kafka://${broker}`)
  return { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port) }
}

/**
 * Keeps the process alive when a connection is reset during login: the client (2.12) then emits
 * `error` twice, the second time without a listener. The request is rejected in any case.
 */
export function guardConnections<Client extends Base>(client: Client): Client {
  client.connections.on('connecting', ({ connection }) => {
    connection.on('error', () => {})
  })
  return client
}

/**
 * Closes a client, and cuts the connections after a second if a broker does not answer. A member
 * that could not leave its group stays until its session ends.
 * @param close a method of the client, if it takes arguments
 */
export async function closeClient(
  client: Pick<Base, 'close' | 'connections'>,
  close: () => Promise<unknown> = () => client.close(),
): Promise<void> {
  const closing = close().then(() => true)
  const isClosed = await Promise.race([closing, sleep(CLOSE_TIMEOUT_MS).then(() => false)])
  if (isClosed) return
  // The requests that are cut off reject now, for a known reason.
  closing.catch(() => {})
  client.connections.close().catch(() => {})
}

/** Runs `work` with an admin client, by default without retries, and closes it. */
export async function withAdmin<Result>(
  connection: KafkaConnection,
  clientId: string,
  work: (admin: Admin) => Promise<Result>,
  options: Pick<BaseOptions, 'retries'> = { retries: 0 },
): Promise<Result> {
  const admin = guardConnections(new Admin({ ...clientOptions(connection, clientId), ...options }))
  try {
    return await work(admin)
  } finally {
    await closeClient(admin)
  }
}

/** Returns an error, the errors collected in it and their causes, each once. Never throws. */
export function errorsWithin(error: unknown, seen = new Set<unknown>()): Error[] {
  if (!(error instanceof Error) || seen.has(error)) return []
  seen.add(error)
  const collected: unknown = Reflect.get(error, 'errors')
  const inner = [...(Array.isArray(collected) ? collected : []), error.cause]
  return [error, ...inner.flatMap((one) => errorsWithin(one, seen))]
}

/** Whether Kafka's error name (`TOPIC_ALREADY_EXISTS`, …) is anywhere in an error of the client. */
export function hasKafkaError(error: unknown, name: string): boolean {
  return errorsWithin(error).some((one) => Reflect.get(one, 'apiId') === name)
}

/** Returns the answer in the client's error about one topic or partition. Other errors are thrown again. */
export function partialAnswer<Answer>(error: unknown, isAnswer: (value: unknown) => value is Answer): Answer {
  const answer = errorsWithin(error)
    .map((one): unknown => Reflect.get(one, 'response'))
    .find(isAnswer)
  if (answer === undefined) throw error
  return answer
}

/** The versions that the brokers support, by client, which lasts as long as its connections. */
const ranges = new WeakMap<Base, ReturnType<Base['listApis']>>()

/**
 * Returns the newest version of a request that the brokers support. @param ours newest first
 * @throws TapelineError `KAFKA` if there is none: the brokers are too old, or newer than our codec
 */
export async function usableApi<Api extends { readonly version: number }>(
  client: Base,
  request: string,
  ours: readonly Api[],
): Promise<Api> {
  const asked = ranges.get(client) ?? client.listApis()
  ranges.set(client, asked)
  const all = await asked.catch((error: unknown) => {
    ranges.delete(client)
    throw error
  })
  const range = all.find(({ name }) => name === request)
  const { minVersion = 0, maxVersion = -1 } = range ?? {}
  const api = ours.find(({ version }) => version >= minVersion && version <= maxVersion)
  if (api !== undefined) return api
  const newest = ours[0]?.version ?? 0
  const theirs =
    range === undefined ? `do not support ${request}` : `support ${request} ${minVersion} to ${maxVersion}`
  throw new TapelineError(
    'KAFKA',
    `The brokers ${theirs}; Tapeline supports ${request} ${ours.at(-1)?.version} to ${newest}`,
    {
      fix:
        minVersion > newest
          ? 'The brokers are newer than this version of Tapeline: upgrade Tapeline, or use a version of Kafka that docs/support.md names.'
          : 'Upgrade the brokers to a version of Kafka that docs/support.md names.',
    },
  )
}
