import { once } from 'node:events'
import type { TestContext } from 'node:test'
import { WebSocket } from 'ws'
import type { Exchange } from '../../src/sandbox/simulator/exchange-server.ts'
import {
  type SimulatedExchangeOptions,
  startSimulatedExchange,
} from '../../src/sandbox/simulator/simulated-exchange.ts'
import { until } from './wait-for.ts'

export const TRADES = 'btcusdt@trade'

/** A received JSON text. The answer to a request has no stream. */
export interface Frame {
  readonly text: string
  readonly stream: string | undefined
  readonly data: Readonly<Record<string, unknown>>
  readonly message: Readonly<Record<string, unknown>>
}

/** Starts a simulated exchange that ends with the test. */
export async function startExchange(context: TestContext, options: SimulatedExchangeOptions = {}) {
  const exchange = await startSimulatedExchange(options)
  context.after(() => exchange.close())
  return exchange
}

/** Polls more often than `until`. */
export function soon<Result>(what: string, condition: () => Result) {
  return until(what, condition, 15_000, 5)
}

/** A client of some streams, with everything it has received; it ends with the test. */
export async function connect(context: TestContext, { wsUrl }: Exchange, streams = '') {
  const webSocket = new WebSocket(`${wsUrl}/stream?streams=${streams}`, { maxPayload: 1_048_576 })
  context.after(() => webSocket.terminate())
  const received: Frame[] = []
  const strange: Array<{ text: string; isBinary: boolean }> = []
  let pings = 0
  webSocket.on('ping', () => pings++)
  // A test that cares about an error listens too. 'close' follows.
  webSocket.on('error', () => undefined)
  webSocket.on('message', (bytes, isBinary) => {
    const text = bytes.toString()
    const message = isBinary || !text.endsWith('}') ? undefined : JSON.parse(text)
    if (message === undefined) strange.push({ text, isBinary })
    else received.push({ text, stream: message.stream, data: message.data, message })
  })
  const closed = new Promise<number>((resolve) => webSocket.once('close', resolve))
  const [[response]] = await Promise.all([once(webSocket, 'upgrade'), once(webSocket, 'open')])
  const frames = (stream: string | undefined) => received.filter((frame) => frame.stream === stream)
  return {
    webSocket,
    received,
    strange,
    closed,
    source: response.headers['x-tapeline-source'],
    frames,
    ids: () => frames(TRADES).map(({ data }) => Number(data['t'])),
    pings: () => pings,
    /** Sends a request and returns its answer. All frames sent before have then arrived. */
    async request(request: object | string) {
      const before = frames(undefined).length
      webSocket.send(typeof request === 'string' ? request : JSON.stringify(request))
      const { message } = await soon('an answer', () => frames(undefined)[before])
      return message
    },
    /** Waits for this many more frames. */
    async more(count: number, stream = TRADES) {
      const before = frames(stream).length
      await soon(`${count} more of ${stream}`, () => frames(stream).length >= before + count)
    },
  }
}

/** Requests a URL and parses an answer in JSON. */
export async function get(url: string) {
  const response = await fetch(url)
  const body = await response.text()
  const isJson = response.headers.get('content-type')?.startsWith('application/json')
  return { status: response.status, headers: response.headers, body: isJson ? JSON.parse(body) : body }
}

/** Gets rows of the exchange's REST API. */
export async function rowsOf({ restUrl }: Exchange, query: string): Promise<Array<Record<string, unknown>>> {
  return (await get(`${restUrl}/api/v3/${query}`)).body
}

export function idsOf(rows: ReadonlyArray<{ readonly id?: unknown }>): unknown[] {
  return rows.map(({ id }) => id)
}
