import { isIP } from 'node:net'
import type { Base, BaseOptions, GenericError, MultipleErrors } from '@platformatic/kafka'
import { sleep } from '../runtime/backoff.ts'
import type { KafkaConnection } from './connection.ts'

const CONNECT_TIMEOUT_MS = 5000
const REQUEST_TIMEOUT_MS = 30_000
const CLOSE_TIMEOUT_MS = 1000

/**
 * Returns the options of every client: validation on, no automatic creation of topics.
 *
 * @param clientId shown in the broker's logs and metrics
 */
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
      : { tls: { ...connection.tls }, tlsServerName: !connection.brokers.every(isAddress) }),
    ...(connection.sasl === null ? {} : { sasl: { ...connection.sasl } }),
  }
}

/**
 * Keeps the process alive when a connection is reset during login: the client (2.12) then emits
 * `error` twice, the second time without a listener. The request is rejected in any case.
 *
 * @returns the client
 */
export function guardConnections<Client extends Base>(client: Client): Client {
  client.connections.on('connecting', ({ connection }) => {
    connection.on('error', () => {})
  })
  return client
}

/**
 * Closes a client. If a broker does not answer, even when a member leaves its group, the
 * connections are cut after a second; the membership then ends with its session.
 *
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

/**
 * Whether Kafka's error name (`TOPIC_ALREADY_EXISTS`, …) is anywhere in an error of the client.
 * Never throws.
 */
export function hasKafkaError(error: unknown, name: string): boolean {
  if (!(error instanceof Error)) return false
  if (Reflect.get(error, 'apiId') === name) return true
  const inner = (error as GenericError | MultipleErrors)['errors']
  if (Array.isArray(inner) && inner.some((one) => hasKafkaError(one, name))) return true
  return hasKafkaError(error.cause, name)
}

/**
 * Returns the broker's answer within an error: the client throws one in which a topic or partition
 * has an error. Any other error is thrown again.
 */
export function partialAnswer<Answer>(error: unknown, isAnswer: (value: unknown) => value is Answer): Answer {
  const answer = answersWithin(error).findLast(isAnswer)
  if (answer === undefined) throw error
  return answer
}

/** Oldest first. */
function answersWithin(error: unknown): unknown[] {
  if (!(error instanceof Error)) return []
  const inner = (error as GenericError | MultipleErrors)['errors']
  const answer: unknown = Reflect.get(error, 'response')
  return [
    ...(Array.isArray(inner) ? inner.flatMap((one) => answersWithin(one)) : []),
    ...answersWithin(error.cause),
    ...(answer === undefined ? [] : [answer]),
  ]
}

function isAddress(broker: string): boolean {
  return isIP(broker.slice(0, broker.lastIndexOf(':')).replace(/^\[|\]$/g, '')) !== 0
}

/** Returns the connection with the bootstrap brokers rotated by `number`, since one may hang. */
export function startingAt(connection: KafkaConnection, number: number): KafkaConnection {
  const { brokers } = connection
  const first = number % Math.max(1, brokers.length)
  return { ...connection, brokers: [...brokers.slice(first), ...brokers.slice(0, first)] }
}
