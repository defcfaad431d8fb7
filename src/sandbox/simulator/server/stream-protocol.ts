import { parseJson } from '../../../foundation/runtime/outside-text.ts'

/** The exchange's maximum number of streams per connection. */
export const MAX_STREAMS = 1_024

type RequestId = number | string | null

/** A parsed client message, or the exchange's answer to an invalid one. */
export type StreamRequest =
  | {
      readonly method: 'SUBSCRIBE' | 'UNSUBSCRIBE'
      readonly streams: readonly string[]
      readonly id: RequestId
    }
  | { readonly method: 'LIST_SUBSCRIPTIONS' | 'GET_COMBINED'; readonly id: RequestId }
  | { readonly method: 'SET_COMBINED'; readonly isCombined: boolean; readonly id: RequestId }
  | { readonly method: 'REFUSED'; readonly answer: string }

const METHODS = ['SUBSCRIBE', 'UNSUBSCRIBE', 'LIST_SUBSCRIPTIONS', 'SET_PROPERTY', 'GET_PROPERTY']

/**
 * The exchange's error codes: unknown property, wrong type of value, invalid request, invalid JSON.
 */
type ErrorCode = 0 | 1 | 2 | 3

/** The exchange's answer to a successful request, outside the envelope of the streams. */
export function resultAnswer(result: readonly string[] | boolean | null, id: RequestId): string {
  return JSON.stringify({ result, id })
}

export function errorAnswer(code: ErrorCode, msg: string, id?: RequestId): string {
  return JSON.stringify(id === undefined ? { code, msg } : { code, msg, id })
}

/**
 * Parses a client's message. Never throws. The texts are from the exchange's documentation
 * (WebSocket streams, "Error messages"). Texts that it does not show are written in the same style.
 */
export function parseRequest(text: string): StreamRequest {
  const message = parseJson(text)
  if (message === undefined) return refuse(3, 'Invalid JSON: expected value at line 1 column 1')
  if (message === null || typeof message !== 'object' || Array.isArray(message)) {
    return refuse(2, 'Invalid request: expected an object')
  }
  const method: unknown = Reflect.get(message, 'method')
  const params: unknown = Reflect.get(message, 'params') ?? []
  const id: unknown = Reflect.get(message, 'id') ?? null
  if (!isRequestId(id)) return refuse(2, 'Invalid request: request ID must be an unsigned integer')
  if (method === undefined)
    return refuse(2, `Invalid request: missing field \`method\` at line 1 column ${text.length}`, id)
  if (typeof method !== 'string' || !METHODS.includes(method)) {
    const expected = METHODS.map((name) => `\`${name}\``).join(', ')
    const column = text.indexOf(String(method)) + String(method).length + 1
    return refuse(
      2,
      `Invalid request: unknown variant \`${method}\`, expected one of ${expected} at line 1 column ${column}`,
      id,
    )
  }
  if (method === 'LIST_SUBSCRIPTIONS') return { method, id }
  if (!Array.isArray(params)) return refuse(2, 'Invalid request: params must be an array', id)
  if (method === 'SUBSCRIBE' || method === 'UNSUBSCRIBE') {
    const streams = params.filter((name) => typeof name === 'string')
    if (streams.length < params.length) return refuse(2, 'Invalid request: stream name must be a string', id)
    return { method, streams, id }
  }
  return propertyRequest(method, params, id)
}

/** The only property sets whether frames have the envelope. */
function propertyRequest(method: string, params: readonly unknown[], id: RequestId): StreamRequest {
  const [name, value] = params
  if (typeof name !== 'string') return refuse(2, 'Invalid request: property name must be a string', id)
  if (name !== 'combined') return refuse(0, 'Unknown property', id)
  if (method === 'GET_PROPERTY') return { method: 'GET_COMBINED', id }
  if (typeof value !== 'boolean') return refuse(1, 'Invalid value type: expected Boolean', id)
  return { method: 'SET_COMBINED', isCombined: value, id }
}

function isRequestId(id: unknown): id is RequestId {
  if (typeof id === 'string') return id.length <= 36
  return id === null || (typeof id === 'number' && Number.isSafeInteger(id) && id >= 0)
}

function refuse(code: ErrorCode, msg: string, id?: RequestId): StreamRequest {
  return { method: 'REFUSED', answer: errorAnswer(code, msg, id) }
}
