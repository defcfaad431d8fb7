import {
  bytesText,
  countText,
  durationText,
  momentText,
  msText,
  NONE,
  priceText,
  rateText,
  spreadText,
  timeText,
} from './format.ts'
import type { DeadLetterView, GapView, Incident, Snapshot, StoredView } from './snapshot.ts'

export function showSnapshot(snapshot: Snapshot): void {
  const { problems, incidents } = snapshot
  showHeader(snapshot)
  if (problems.length === 0) showState('good', 'All is well')
  else showState('bad', problems.length === 1 ? '1 problem' : `${problems.length} problems`, problems)
  showTotals(snapshot)
  showArchive(snapshot)
  showStreams(snapshot)
  showPartitions(snapshot)
  showConnections(snapshot)
  if (incidents.length > 0) addIncidents(incidents)
}

function showHeader({ atMs, source, parts, version }: Snapshot): void {
  const simulated = source !== null && /^(simulated|replay:)/.test(source)
  const known = source === 'binance' ? 'Binance' : (source ?? 'source not known')
  text('source', simulated ? `${source}, not Binance` : known)
  text('clock', `${timeText(atMs)} UTC`)
  text('version', `Tapeline ${version}.`)
  const items = parts.map(({ name, health, reason }) => {
    const item = make('li', reason === '' ? name : `${name}: ${reason}`)
    item.dataset['health'] = health
    return item
  })
  element('parts').replaceChildren(...items)
}

/** Shows the overall state. Changes the text only when it differs: screen readers announce it. */
export function showState(state: 'good' | 'bad', title: string, problems: readonly string[] = []): void {
  const place = element('state')
  const key = [state, title, ...problems].join('\n')
  if (place.dataset['key'] === key) return
  place.dataset['key'] = key
  place.dataset['state'] = state
  const list = make('ul', ...problems.map((problem) => make('li', problem)))
  place.replaceChildren(make('strong', title), ...(problems.length > 0 ? [list] : []))
}

export function showSymbols({ symbols }: StoredView, chosen: string, choose: (symbol: string) => void): void {
  const body = bodyOf('symbols')
  const names = symbols.map(({ symbol }) => symbol).join()
  if (body.dataset['names'] !== names) {
    body.dataset['names'] = names
    body.replaceChildren(...symbols.map(({ symbol }) => symbolRow(symbol, choose)))
  }
  for (const { symbol, price, bid, ask } of symbols) {
    const row = [...body.rows].find((one) => one.dataset['symbol'] === symbol)
    row?.querySelector('button')?.setAttribute('aria-pressed', String(symbol === chosen))
    const values = [priceText(price), priceText(bid), priceText(ask), spreadText(bid, ask)]
    values.forEach((value, i) => {
      const cell = row?.cells[i + 1]
      if (cell !== undefined && cell.textContent !== value) cell.textContent = value
    })
  }
  text('price-title', `${chosen}: price, bid and ask`)
}

function showTotals(snapshot: Snapshot): void {
  const { received, inserted, rowsPerSecond, moment, hasDatabase, stored, eventToReceiptMs, receiptToRowMs } =
    snapshot
  const measured = (latency: { count: number; p99: number }) => (latency.count === 0 ? null : latency.p99)
  tiles('totals', [
    ['Received since start', countText(received)],
    ...(hasDatabase
      ? ([
          ['Rows since start', countText(inserted)],
          ['Rows per second', rateText(rowsPerSecond)],
        ] as const)
      : []),
    ['Lag', countText(moment.lag)],
    ['To receipt, p99', msText(measured(eventToReceiptMs))],
    ...(hasDatabase
      ? ([
          ['To row, p99', msText(measured(receiptToRowMs))],
          ['Open gaps', countText(stored?.gapsByStatus['open'] ?? (stored === null ? null : 0))],
          ['Dead letters', countText(stored?.unresolvedDeadLetters ?? null)],
        ] as const)
      : []),
  ])
}

/** Hides what only a database has, and the archive where there is none. */
function showArchive({ archive, hasDatabase }: Snapshot): void {
  for (const one of document.querySelectorAll<HTMLElement>('.stored')) one.hidden = !hasDatabase
  element('no-database').hidden = hasDatabase
  element('archive').hidden = archive === null
  if (archive === null) return
  const { rows, bytes, perSecond, lag, oldestUncommittedMs, newestDay } = archive
  tiles('archive-totals', [
    ['Rows in files since start', countText(rows)],
    ['Rows per second', rateText(perSecond)],
    ['Bytes in files', bytesText(bytes)],
    ['Bytes a row', rows === 0 ? NONE : (bytes / rows).toFixed(1)],
    ['Not in files yet', countText(lag)],
    ['Longest wait since read', durationText(oldestUncommittedMs)],
    ['Newest published day', newestDay ?? 'none yet'],
  ])
}

function tiles(id: string, shown: ReadonlyArray<readonly [name: string, value: string]>): void {
  element(id).replaceChildren(
    ...shown.map(([name, value]) => make('div', make('dt', name), make('dd', value))),
  )
}

function showStreams({ streams, streamsLeftOut }: Snapshot): void {
  text('stream-count', streamsLeftOut === 0 ? '' : `and ${countText(streamsLeftOut)} more without problems`)
  const quietFirst = streams.toSorted(
    (a, b) => Number(b.quiet) - Number(a.quiet) || a.stream.localeCompare(b.stream),
  )
  rows(
    'streams',
    quietFirst,
    ({ stream, perSecond, events, silentMs, quiet }) => [
      quiet ? `${stream} (quiet)` : stream,
      rateText(perSecond),
      countText(events),
      `${durationText(silentMs)} ago`,
    ],
    ({ quiet }) => quiet,
  )
}

function showPartitions({ partitions }: Snapshot): void {
  rows('partitions', partitions, ({ topic, partition, nextOffset, endOffset, lag }) => {
    return [`${topic} ${partition}`, countText(nextOffset), countText(endOffset), countText(lag)]
  })
}

function showConnections({ connections }: Snapshot): void {
  rows(
    'connections',
    connections,
    ({ id, part, state, streams, ageMs, rolloverInMs }) => [
      part === 'ingestion' ? String(id) : `${id} of ${part}`,
      state,
      String(streams),
      durationText(ageMs),
      rolloverInMs === null ? NONE : `in ${durationText(rolloverInMs)}`,
    ],
    ({ state }) => state !== 'streaming' && state !== 'open',
  )
}

/** @param incidents oldest first */
export function addIncidents(incidents: readonly Incident[], replaces = false): void {
  const list = element('incidents')
  if (replaces || list.querySelector('.empty') !== null) list.replaceChildren()
  for (const { atMs, kind, text: what } of incidents) list.prepend(entry(kind, atMs, what))
  while (list.children.length > 200) list.lastElementChild?.remove()
  if (list.children.length === 0) list.append(empty('Nothing since this dashboard started.'))
}

/** @param choose draws the chart of another symbol than the `chosen` one */
export function showStored(stored: StoredView, chosen: string, choose: (symbol: string) => void): void {
  showSymbols(stored, chosen, choose)
  showGaps(stored)
  showLetters(stored)
}

function showGaps({ gaps, gapsByStatus }: StoredView): void {
  const counts = Object.entries(gapsByStatus).map(([status, count]) => `${countText(count)} ${status}`)
  text('gap-counts', counts.join(', '))
  keyed(
    'gaps',
    gaps,
    ({ gapId, revision }) => `${gapId} ${revision}`,
    (gap) => {
      const what = `${gap.symbol} ${gap.eventType} ${rangeOf(gap)}`
      const item = entry(gap.status === 'filled' ? 'good' : 'bad', gap.detectedMs, what, storyOf(gap))
      item.dataset['status'] = gap.status
      return item
    },
    'No gaps.',
  )
}

function showLetters({ deadLetters, unresolvedDeadLetters }: StoredView): void {
  text('letter-count', unresolvedDeadLetters === 0 ? '' : `${countText(unresolvedDeadLetters)} unresolved`)
  keyed(
    'letters',
    deadLetters,
    ({ place, attempts, resolvedMs }) => `${place} ${attempts} ${resolvedMs}`,
    (letter) => {
      const kind = letter.resolvedMs === null ? 'bad' : 'good'
      return entry(kind, letter.failedMs, letter.reason, letterText(letter))
    },
    'No dead letters.',
  )
}

function rangeOf({ fromId, toId, fromMs, toMs }: GapView): string {
  if (fromId !== null && toId !== null)
    return fromId === toId ? String(fromId) : `${fromId}–${toId} (${countText(toId - fromId + 1)})`
  if (fromMs === null || toMs === null) return ''
  return `${momentText(fromMs, Date.now())}–${momentText(toMs, fromMs)} (${durationText(toMs - fromMs)})`
}

function storyOf({ detectedMs, closedMs, cause, status, reason }: GapView): string {
  if (status === 'open' || closedMs === null) return `opened: ${cause}; being filled`
  const filled = `filled after ${durationText(closedMs - detectedMs)}`
  return `opened: ${cause}; ${status === 'filled' ? filled : `lost: ${reason ?? cause}`}`
}

function letterText({ place, origin, attempts, resolvedMs }: DeadLetterView): string {
  const tried = attempts > 1 ? `, ${attempts} attempts` : ''
  return `${place}, found by ${origin}${tried}${resolvedMs === null ? '' : `; resolved ${momentText(resolvedMs, Date.now())}`}`
}

function symbolRow(symbol: string, choose: (symbol: string) => void): HTMLTableRowElement {
  const button = make('button', symbol)
  button.type = 'button'
  button.addEventListener('click', () => choose(symbol))
  const [bid, ask] = [make('td'), make('td')]
  bid.className = 'bid'
  ask.className = 'ask'
  const row = make('tr', make('td', button), make('td'), bid, ask, make('td'))
  row.dataset['symbol'] = symbol
  return row
}

/** Fills a table, one row of cells for each item. Leaves unchanged cells alone. */
function rows<Item>(
  id: string,
  items: readonly Item[],
  cellsOf: (item: Item) => readonly string[],
  isBad: (item: Item) => boolean = () => false,
): void {
  const body = bodyOf(id)
  while (body.rows.length > items.length) body.deleteRow(-1)
  items.forEach((item, i) => {
    const row = body.rows[i] ?? body.insertRow()
    row.toggleAttribute('data-bad', isBad(item))
    cellsOf(item).forEach((value, j) => {
      const place = row.cells[j] ?? row.insertCell()
      if (place.textContent !== value) place.textContent = value
    })
  })
}

/** Fills a list. Rebuilds it only when an entry has changed, so that a reader keeps the place. */
function keyed<Item>(
  id: string,
  items: readonly Item[],
  keyOf: (item: Item) => string,
  show: (item: Item) => HTMLElement,
  none: string,
): void {
  const list = element(id)
  const keys = items.map(keyOf).join('\n')
  if (list.dataset['keys'] === keys) return
  list.dataset['keys'] = keys
  list.replaceChildren(...(items.length === 0 ? [empty(none)] : items.map(show)))
}

function entry(kind: Incident['kind'], atMs: number, what: string, more = ''): HTMLLIElement {
  const time = make('time', momentText(atMs, Date.now()))
  time.dateTime = new Date(atMs).toISOString()
  const item = make('li', time, make('div', make('b', what), ...(more === '' ? [] : [make('small', more)])))
  item.dataset['kind'] = kind
  return item
}

function empty(what: string): HTMLLIElement {
  const item = make('li', what)
  item.className = 'empty'
  return item
}

function make<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  ...content: Array<string | Node>
): HTMLElementTagNameMap[Tag] {
  const made = document.createElement(tag)
  made.append(...content)
  return made
}

function text(id: string, what: string): void {
  const place = element(id)
  if (place.textContent !== what) place.textContent = what
}

function element(id: string): HTMLElement {
  const found = document.getElementById(id)
  if (found === null) throw new Error(`The page has no ${id}`)
  return found
}

function bodyOf(id: string): HTMLTableSectionElement {
  const body = element(id).querySelector('tbody')
  if (body === null) throw new Error(`The table ${id} has no body`)
  return body
}
