import { parseJson } from '../../../foundation/runtime/outside-text.ts'

/** The exchange's maximum number of streams per connection. */
export const MAX_STREAMS = 1_024

type RequestId = number | string | null

/** The connection that a request changes or asks about. */
interface Client {
  readonly streams: ReadonlySet<string>
  /** Whether frames have the envelope with the name of their stream. */
  isCombined: boolean
  /** Adds all streams, or none if there would be too many. */
  subscribe(streams: readonly string[]): boolean
  unsubscribe(streams: readonly string[]): void
}

const METHODS = ['SUBSCRIBE', 'UNSUBSCRIBE', 'LIST_SUBSCRIPTIONS', 'SET_PROPERTY', 'GET_PROPERTY']

/** Unknown property, wrong type of value, invalid request, invalid JSON. */
type ErrorCode = 0 | 1 | 2 | 3

function refusal(code: ErrorCode, msg: string, id?: RequestId): string {
  return JSON.stringify({ code, msg, id })
}

/**
 * Carries out a client's message and returns the answer. Never throws. The texts are from the
 * exchange's documentation (WebSocket streams, "Error messages"), or in the same style.
 */
export function answerTo(text: string, client: Client): string {
  const message = parseJson(text)
  if (message === undefined) return refusal(3, 'Invalid JSON: expected value at line 1 column 1')
  if (message === null || typeof message !== 'object' || Array.isArray(message)) {
    return refusal(2, 'Invalid request: expected an object')
  }
  const method: unknown = Reflect.get(message, 'method')
  const params: unknown = Reflect.get(message, 'params') ?? []
  const id: unknown = Reflect.get(message, 'id') ?? null
  if (!isRequestId(id)) return refusal(2, 'Invalid request: request ID must be an unsigned integer')
  const refuse = (code: ErrorCode, msg: string) => refusal(code, msg, id)
  const answer = (result: readonly string[] | boolean | null) => JSON.stringify({ result, id })
  if (method === undefined)
    return refuse(2, `Invalid request: missing field \`method\` at line 1 column ${text.length}`)
  if (typeof method !== 'string' || !METHODS.includes(method)) {
    const expected = METHODS.map((name) => `\`${name}\``).join(', ')
    const column = text.indexOf(String(method)) + String(method).length + 1
    return refuse(
      2,
      `Invalid request: unknown variant \`${method}\`, expected one of ${expected} at line 1 column ${column}`,
    )
  }
  if (method === 'LIST_SUBSCRIPTIONS') return answer([...client.streams])
  if (!Array.isArray(params)) return refuse(2, 'Invalid request: params must be an array')
  if (method === 'SUBSCRIBE' || method === 'UNSUBSCRIBE') {
    const streams = params.filter((name) => typeof name === 'string')
    if (streams.length < params.length) return refuse(2, 'Invalid request: stream name must be a string')
    if (method === 'UNSUBSCRIBE') client.unsubscribe(streams)
    else if (!client.subscribe(streams)) return refuse(2, 'Invalid request: too many parameters')
    return answer(null)
  }
  const [name, value]: readonly unknown[] = params
  if (typeof name !== 'string') return refuse(2, 'Invalid request: property name must be a string')
  if (name !== 'combined') return refuse(0, 'Unknown property')
  if (method === 'GET_PROPERTY') return answer(client.isCombined)
  if (typeof value !== 'boolean') return refuse(1, 'Invalid value type: expected Boolean')
  client.isCombined = value
  return answer(null)
}

function isRequestId(id: unknown): id is RequestId {
  if (typeof id === 'string') return id.length <= 36
  return id === null || (typeof id === 'number' && Number.isSafeInteger(id) && id >= 0)
}
