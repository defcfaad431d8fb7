import { recordedDepthValues } from '../../test/support/recorded-depth.ts'

/** Cents by which the price moves up and down between passes: more than the snapshot shows. */
const MOVE = 30_000
const CENTS = 100
const SIDES = ['b', 'a'] as const

type Pair = readonly [price: string, quantity: string]

interface Diff {
  readonly E: number
  readonly U: number
  readonly u: number
  readonly b: readonly Pair[]
  readonly a: readonly Pair[]
  readonly ingestion_timestamp: number
  readonly ingestion_timestamp_us: number
}

interface Snapshot {
  readonly lastUpdateId: number
  readonly bids: readonly Pair[]
  readonly asks: readonly Pair[]
}

/** The messages of some minutes, in order. */
export interface Pass {
  readonly values: readonly Buffer[]
  /** Event time of the last diff, in milliseconds. */
  readonly endMs: number
}

/**
 * Yields the recorded frames with depth again and again, as one market. Before each repetition some diffs
 * replace the book by that of the recorded snapshot, at a price that wanders and comes back. Only the first
 * pass has the snapshot itself.
 *
 * @param diffCount how many diffs at least
 */
export function* recordedMarket(diffCount: number): Generator<Pass> {
  const recorded = recordedDepthValues()
  const all = recorded.map((value): Diff | Snapshot => JSON.parse(value.toString()))
  const [snapshot] = all.flatMap((one) => ('bids' in one ? [one] : []))
  if (snapshot === undefined) throw new Error('The recorded frames have no snapshot')
  const { lastUpdateId } = snapshot
  const diffs = all.flatMap((one) =>
    'bids' in one || one.u <= lastUpdateId ? [] : [{ ...one, U: Math.max(one.U, lastUpdateId + 1) }],
  )
  const [first, last] = [diffs[0], diffs.at(-1)]
  if (first === undefined || last === undefined) throw new Error('The recorded frames have no diffs')
  const begin = { b: new Map(snapshot.bids), a: new Map(snapshot.asks) }
  const end = { b: new Map(begin.b), a: new Map(begin.a) }
  for (const diff of diffs)
    for (const side of SIDES) for (const [price, of] of diff[side]) end[side].set(price, of)
  const removed = SIDES.map((side) => {
    const left = [...end[side]].filter(([, quantity]) => Number(quantity) > 0)
    return { b: [], a: [], [side]: left.map(([price]): Pair => [price, '0']) }
  })
  // Each is a message that is not too long.
  const replacing = [...removed, { b: [...begin.b], a: [...begin.a] }]
  const ids = last.u - lastUpdateId + replacing.length
  const ms = last.E - first.E + 100 * (replacing.length + 1)
  const passes = Math.ceil(diffCount / diffs.length)
  for (let pass = 0; pass < passes; pass++) {
    const at = (diff: Diff, levels: Pick<Diff, 'b' | 'a'>, move: number) =>
      Buffer.from(
        JSON.stringify({
          ...diff,
          b: moved(levels.b, move),
          a: moved(levels.a, move),
          E: diff.E + pass * ms,
          U: diff.U + pass * ids,
          u: diff.u + pass * ids,
          ingestion_timestamp: diff.ingestion_timestamp + pass * ms,
          ingestion_timestamp_us: diff.ingestion_timestamp_us + pass * ms * 1000,
        }),
      )
    const [before, move] = [moveOf((pass - 1) / passes), moveOf(pass / passes)]
    const replaced = replacing.map((levels, i) => {
      const [id, E] = [lastUpdateId + 1 + i - replacing.length, first.E + 100 * (i - replacing.length)]
      return at({ ...first, E, U: id, u: id }, levels, i < removed.length ? before : move)
    })
    const values = pass === 0 ? recorded : [...replaced, ...diffs.map((diff) => at(diff, diff, move))]
    yield { values, endMs: last.E + pass * ms }
  }
}

/** @param part of all passes @returns cents: up, down below the first price, and back */
function moveOf(part: number): number {
  return Math.round(MOVE * (part < 0.25 ? 4 * part : part < 0.75 ? 2 - 4 * part : 4 * part - 4))
}

function moved(levels: readonly Pair[], cents: number): Pair[] {
  return levels.map(([price, quantity]) => [
    ((Math.round(Number(price) * CENTS) + cents) / CENTS).toFixed(8),
    quantity,
  ])
}
