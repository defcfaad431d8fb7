import type { ServerResponse } from 'node:http'
import fastify, { type FastifyInstance } from 'fastify'
import { systemClock } from '../../foundation/runtime/clock.ts'
import { TapelineError } from '../../foundation/runtime/errors.ts'
import { openPostgres } from '../../foundation/store/postgres.ts'
import { FOREIGN_HOST, hasForeignHost } from '../../foundation/telemetry/health-server.ts'
import type { Logger } from '../../foundation/telemetry/log.ts'
import { explainPort } from '../../foundation/telemetry/port-problem.ts'
import type { RunningService } from '../../foundation/telemetry/service.ts'
import { ASSETS } from './assets.ts'
import { Books } from './books.ts'
import { type DashboardConfig, Observer } from './observer.ts'
import type { BookView, Past, SeriesPoint, Snapshot } from './page/snapshot.ts'
import { readSeries } from './stored.ts'

export interface DashboardSources {
  readonly observer: Pick<Observer, 'past' | 'look' | 'hasLooked' | 'listen'>
  series(symbol: string): Promise<SeriesPoint[]>
  book(symbol: string): Promise<BookView>
}

/** A page with more unread data is too slow. It is disconnected, and reconnects automatically. */
const BUFFERED_MAX_BYTES = 4 << 20
const RETRY_MS = 1000
/** A page is shown without the data of slower queries. */
const QUERY_TIMEOUT_MS = 5000
const PAGES_MAX = 100
const NO_SYMBOL = { error: 'symbol is not a symbol' }
const SYMBOL = /^[\p{L}\p{N}_]{1,40}$/u

const NO_BOOK: BookView = { kind: 'none' }

const HEADERS = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-cache',
}

/**
 * Serves the page at `/` and its data:
 *
 * - `/events`: server-sent events, `past` once, then `snapshot` every second
 * - `/snapshot`: only the newest snapshot
 * - `/series?symbol=`: the last ten minutes of a symbol
 * - `/book?symbol=`: the newest order book of a symbol, near its best prices
 * - `/livez` and `/readyz`: for a supervisor
 */
export function dashboardServer({ observer, series, book }: DashboardSources): FastifyInstance {
  const server = fastify({ forceCloseConnections: true })
  const pages = new Set<ServerResponse>()
  const texts = new WeakMap<Snapshot, string>()
  // Serialised once for all pages.
  const once = (snapshot: Snapshot) => {
    const text = texts.get(snapshot) ?? told('snapshot', snapshot)
    texts.set(snapshot, text)
    return text
  }
  server.addHook('onSend', async (_request, reply) => {
    reply.headers(HEADERS)
  })
  server.addHook('onRequest', async (request, reply) => {
    if (hasForeignHost(request.raw)) await reply.code(403).send(FOREIGN_HOST)
  })
  server.addHook('preClose', async () => {
    for (const page of pages) page.destroy()
  })
  for (const [path, asset] of ASSETS) {
    server.get(path, async (_request, reply) => {
      const { type, body } = asset()
      return reply.type(type).send(body)
    })
  }
  server.get('/livez', async () => 'ok')
  server.get('/readyz', async (_request, reply) =>
    !observer.hasLooked ? reply.code(503).send('the services have not been polled yet') : 'ready',
  )
  server.get('/snapshot', async (_request, reply) => {
    return observer.look() ?? reply.code(503).send({ error: 'not yet' })
  })
  server.get<{ Querystring: { symbol?: string } }>('/series', async ({ query }, reply) => {
    const { symbol = '' } = query
    return SYMBOL.test(symbol) ? series(symbol) : reply.code(400).send(NO_SYMBOL)
  })
  server.get<{ Querystring: { symbol?: string } }>('/book', async ({ query }, reply) => {
    const { symbol = '' } = query
    return SYMBOL.test(symbol) ? book(symbol) : reply.code(400).send(NO_SYMBOL)
  })
  server.get('/events', { exposeHeadRoute: false }, (_request, reply) => {
    if (pages.size >= PAGES_MAX) {
      void reply.code(503).send({ error: `${PAGES_MAX} pages are open` })
      return
    }
    reply.hijack()
    const page = reply.raw
    pages.add(page)
    page.writeHead(200, { ...HEADERS, 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
    page.write(`retry: ${RETRY_MS}\n\n`)
    page.write(told('past', observer.past))
    const newest = observer.look()
    if (newest !== null) page.write(told('snapshot', newest))
    const end = observer.listen((snapshot) => {
      if (page.writableLength > BUFFERED_MAX_BYTES) page.destroy()
      else page.write(once(snapshot))
    })
    page.on('close', () => {
      end()
      pages.delete(page)
    })
  })
  return server
}

/** @throws TapelineError `ENVIRONMENT` when the port cannot be opened */
export async function startDashboard(config: DashboardConfig, log: Logger): Promise<RunningService> {
  const { host, port } = config
  // A book may take longer than the rest, which does not wait for it.
  const pool = { poolMin: 0, poolMax: 2, queryTimeoutMs: QUERY_TIMEOUT_MS }
  const { databaseUrl: given } = config
  const database =
    given === null ? null : openPostgres({ url: given, ...pool, applicationName: 'tapeline-dashboard' })
  const observer = new Observer(config, database, systemClock(), (error) =>
    log.error({ err: error }, "This version of the dashboard cannot show a service's answer"),
  )
  const series = async (symbol: string) => (database === null ? [] : readSeries(database, symbol))
  const books = database === null ? null : new Books(database)
  const book = async (symbol: string) => (books === null ? NO_BOOK : books.read(symbol))
  const server = dashboardServer({ observer, series, book })
  const url = await server.listen({ host, port }).catch((error: unknown) => {
    const code = String(Reflect.get(Object(error), 'code'))
    const { text, fix } = explainPort(code, port, host, 'DASHBOARD_PORT')
    throw new TapelineError('ENVIRONMENT', `Port ${text}`, { fix, cause: error })
  })
  observer.start()
  log.info({ url }, `The dashboard is at ${url}`)
  return {
    url,
    ended: new Promise(() => {}),
    async stop() {
      await observer.stop()
      await server.close()
      await database?.close()
    },
  }
}

function told(event: 'past' | 'snapshot', data: Past | Snapshot): string {
  return `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`
}
