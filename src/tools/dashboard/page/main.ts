import { Charts } from './charts.ts'
import { fetchSeries, openFeed } from './feed.ts'
import type { Snapshot, StoredView } from './snapshot.ts'
import { addIncidents, showSnapshot, showState, showStored, showSymbols } from './view.ts'

const charts = new Charts()
let chosen = ''
let newest: StoredView | null = null

openFeed({
  onPast({ moments, incidents }) {
    charts.past(moments)
    addIncidents(incidents, true)
    // Reload the data that arrived while the connection was down.
    if (chosen !== '') choose(chosen)
  },
  onSnapshot: show,
  onSilence() {
    showState('bad', 'The dashboard does not answer, retrying. These values are outdated.')
  },
})

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

/** Draws the chart of another symbol. */
function choose(symbol: string): void {
  chosen = symbol
  if (newest !== null) showSymbols(newest, chosen, choose)
  void fetchSeries(symbol).then((points) => {
    if (chosen === symbol) charts.series(points)
  })
}

/** For drawing only, since a number may be inexact. */
function numberOf(price: string | null): number | null {
  return price === null ? null : Number(price)
}
