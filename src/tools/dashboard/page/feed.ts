import type { Past, SeriesPoint, Snapshot } from './snapshot.ts'

export interface FeedEvents {
  onPast(past: Past): void
  onSnapshot(snapshot: Snapshot): void
  /** No data has arrived for a while. */
  onSilence(): void
}

const SILENCE_MS = 4000

/**
 * Subscribes to the server's events. The browser reconnects automatically; then `past` is sent
 * again.
 */
export function openFeed(events: FeedEvents): void {
  const source = new EventSource('/events')
  let timer = 0
  const heard = () => {
    clearTimeout(timer)
    timer = window.setTimeout(events.onSilence, SILENCE_MS)
  }
  source.addEventListener('past', ({ data }) => {
    heard()
    events.onPast(JSON.parse(data))
  })
  source.addEventListener('snapshot', ({ data }) => {
    heard()
    events.onSnapshot(JSON.parse(data))
  })
  heard()
}

/** The last ten minutes of a symbol; empty when the server cannot answer. */
export async function fetchSeries(symbol: string): Promise<SeriesPoint[]> {
  const response = await fetch(`/series?symbol=${encodeURIComponent(symbol)}`).catch(() => null)
  return response?.ok === true ? response.json() : []
}
