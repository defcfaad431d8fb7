import { Charts } from './charts.ts'
import { Depth } from './depth.ts'
import type { Past, SeriesPoint, Snapshot, StoredView } from './snapshot.ts'
import { addIncidents, showSnapshot, showState, showStored, showSymbols } from './view.ts'

const SILENCE_MS = 4000

const charts = new Charts()
const depth = new Depth()
let chosen = ''
let newest: StoredView | null = null
let silence = 0

// The browser reconnects automatically; then the server sends `past` again.
const source = new EventSource('/events')
source.addEventListener('past', ({ data }) => {
  heard()
  const { moments, incidents }: Past = JSON.parse(data)
  charts.past(moments)
  addIncidents(incidents, true)
  // Reload the data that arrived while the connection was down.
  if (chosen !== '') choose(chosen)
})
source.addEventListener('snapshot', ({ data }) => {
  heard()
  show(JSON.parse(data))
})
heard()

function heard(): void {
  clearTimeout(silence)
  silence = window.setTimeout(() => {
    showState('bad', 'The dashboard does not answer, retrying. These values are outdated.')
  }, SILENCE_MS)
}

function show(snapshot: Snapshot): void {
  showSnapshot(snapshot)
  charts.moment(snapshot.moment)
  const { stored } = snapshot
  if (stored === null) return
  newest = stored
  if (chosen === '' && stored.symbols[0] !== undefined) choose(stored.symbols[0].symbol)
  showStored(stored, chosen, choose)
  const symbol = stored.symbols.find((one) => one.symbol === chosen)
  if (symbol === undefined) return
  const { price, bid, ask, tradeTimeMs, quoteTimeMs } = symbol
  const atMs = Math.max(tradeTimeMs ?? 0, quoteTimeMs ?? 0)
  if (atMs > 0) charts.point({ atMs, price: numberOf(price), bid: numberOf(bid), ask: numberOf(ask) })
}

function choose(symbol: string): void {
  chosen = symbol
  depth.choose(symbol)
  if (newest !== null) showSymbols(newest, chosen, choose)
  void fetchSeries(symbol).then((points) => {
    if (chosen === symbol) charts.series(points)
  })
}

/** For drawing only, since a number may be inexact. */
function numberOf(price: string | null): number | null {
  return price === null ? null : Number(price)
}

/** The last ten minutes of a symbol; empty when the server cannot answer. */
async function fetchSeries(symbol: string): Promise<SeriesPoint[]> {
  const response = await fetch(`/series?symbol=${encodeURIComponent(symbol)}`).catch(() => null)
  return response?.ok === true ? response.json() : []
}
