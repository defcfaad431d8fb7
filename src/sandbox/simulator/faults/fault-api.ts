import type { IncomingMessage, ServerResponse } from 'node:http'
import { TRADE_TYPES } from '../../../foundation/market/event.ts'
import { describeError, isTapelineError, TapelineError } from '../../../foundation/runtime/errors.ts'
import type { BookHistory } from '../market/book-history.ts'
import { rowOf } from '../market/market-event.ts'
import type { ExchangeTruth } from '../market/trade-history.ts'
import type { ConnectionReport } from '../server/stream-connection.ts'
import type { FaultInjector } from './fault-injector.ts'
import { parseFault } from './fault-kinds.ts'

const LONGEST_BODY = 65_536
/** Maximum number of truth rows per answer. */
const MOST_ROWS = 100_000

interface Answer {
  readonly status: number
  readonly body: unknown
}

interface Parts {
  readonly faults: FaultInjector
  readonly history: ExchangeTruth
  readonly books: BookHistory | null
  readonly connections: () => readonly ConnectionReport[]
}

/** Serves `/faults` on the exchange's port (docs/faults.md). False for other requests. */
export function faultApi(parts: Parts): (request: IncomingMessage, response: ServerResponse) => boolean {
  return (request, response) => {
    const url = URL.parse(request.url ?? '/', 'http://exchange')
    const [, root, ...path] = url?.pathname.split('/') ?? []
    if (url === null || root !== 'faults') return false
    const reply = ({ status, body }: Answer) =>
      response.writeHead(status, { 'content-type': 'application/json' }).end(`${JSON.stringify(body)}\n`)
    // A web page could add faults without being able to read the answer. Browsers name its origin
    // in such requests.
    if (request.headers.origin !== undefined) {
      const error = 'Requests from web pages are refused (this request has an Origin).'
      reply({ status: 403, body: { error } })
      return true
    }
    bodyOf(request)
      .then((body) => reply(answer(parts, request.method ?? 'GET', path, url.searchParams, body)))
      .catch((error: unknown) => reply(refusal(error)))
    return true
  }
}

function answer(
  { faults, history, books, connections }: Parts,
  method: string,
  [first, second]: readonly string[],
  query: URLSearchParams,
  body: string,
): Answer {
  if (first === undefined) {
    if (method === 'POST') return { status: 201, body: faults.add(parseFault(parseJson(body))).report() }
    if (method !== 'GET' && method !== 'DELETE')
      return { status: 405, body: { error: `${method} is not GET, POST or DELETE` } }
    if (method === 'DELETE') faults.clear()
    return { status: 200, body: { faults: faults.list() } }
  }
  if (first === 'connections' && method === 'GET')
    return { status: 200, body: { connections: connections() } }
  if (first === 'struck' && method === 'GET') return { status: 200, body: faults.struck() }
  if (first === 'truth' && second === 'book' && method === 'GET')
    return { status: 200, body: trueBook(history.symbols, books, query) }
  if (first === 'truth' && method === 'GET') return { status: 200, body: truth(history, second, query) }
  if (method === 'DELETE') faults.book.end(Number(first))
  const fault = faults.list().find(({ id }) => String(id) === first)
  if (fault === undefined)
    return { status: 404, body: { error: `There is no fault ${first}`, fix: 'GET /faults lists them.' } }
  return { status: 200, body: fault }
}

function truth(history: ExchangeTruth, what: string | undefined, query: URLSearchParams): unknown {
  const symbol = query.get('symbol') ?? ''
  const [fromId, toId, epoch] = ['fromId', 'toId', 'epoch'].map((name) => wholeNumber(query, name))
  if (!history.symbols.includes(symbol)) throw wrong(`symbol: "${symbol}" is not listed here.`)
  const type = TRADE_TYPES.find((one) => `${one}s` === what)
  if (type === undefined) throw wrong(`The truth covers ${TRADE_TYPES.map((one) => `${one}s`).join(' or ')}.`)
  if (fromId === undefined || toId === undefined || toId - fromId >= MOST_ROWS)
    throw wrong(`fromId and toId: expected at most ${MOST_ROWS} ids.`)
  const epochs = history.epochCount(symbol, type)
  if (epoch !== undefined && epoch >= epochs)
    throw wrong(`epoch: only ${epochs} exist so far, counted from 0.`)
  const events = history.events(type, symbol, fromId, toId, epoch)
  return { epochs, rows: events.map((event) => rowOf(type, event)) }
}

function trueBook(symbols: readonly string[], books: BookHistory | null, query: URLSearchParams): unknown {
  const symbol = query.get('symbol') ?? ''
  const [timeMs, updateId, epoch, levels = 100] = ['time', 'updateId', 'epoch', 'levels'].map((name) =>
    wholeNumber(query, name),
  )
  if (books === null) throw wrong('The capture has no order book.')
  if (!symbols.includes(symbol)) throw wrong(`symbol: "${symbol}" is not listed here.`)
  if ((timeMs === undefined) === (updateId === undefined)) throw wrong('Give either time or updateId.')
  try {
    return books.book(symbol, updateId === undefined ? { timeMs: timeMs ?? 0 } : { updateId, epoch }, levels)
  } catch (error) {
    if (error instanceof RangeError) throw wrong(`${error.message}.`)
    throw error
  }
}

function wrong(message: string): TapelineError {
  return new TapelineError('INPUT', message)
}

function wholeNumber(query: URLSearchParams, name: string): number | undefined {
  const text = query.get(name)
  if (text === null) return undefined
  if (!/^\d{1,15}$/.test(text)) throw wrong(`${name}: expected a whole number, got "${text}".`)
  return Number(text)
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new TapelineError('INPUT', `The body is not JSON: ${describeError(cause)}.`, {
      fix: 'A fault is {"kind":"drop","count":10}; docs/faults.md has all kinds.',
      cause,
    })
  }
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of request) {
    const bytes = Buffer.from(chunk)
    length += bytes.length
    if (length > LONGEST_BODY) throw wrong(`The body is longer than ${LONGEST_BODY} bytes.`)
    chunks.push(bytes)
  }
  return Buffer.concat(chunks).toString()
}

/** A user error is 400. Any other error is a defect and is returned in full. */
function refusal(error: unknown): Answer {
  if (isTapelineError(error)) {
    const fix = error.fix === '' ? {} : { fix: error.fix }
    return { status: 400, body: { error: error.message, ...fix } }
  }
  return { status: 500, body: { error: error instanceof Error ? error.stack : describeError(error) } }
}
