import { BINARY, TextFrameEncoder } from '../server/text-frame.ts'
import type { SpecOf } from './fault-kinds.ts'
import { hasLevels } from './fault-levels.ts'
import type { Fault, FaultOf, FaultRegistry } from './fault-registry.ts'

/** A frame to be sent to one connection. */
export interface FrameOnItsWay {
  readonly connectionId: number
  readonly stream: string
  readonly text?: string
}

/** The effect of the faults on a frame. */
export interface FrameFate {
  /** Number of times it is sent; 0 means never. */
  readonly copies: number
  readonly delayMs: number
  /** Garbage sent immediately before the frame, one frame each. */
  readonly garbage: ReadonlyArray<SpecOf<'garbage'>>
  /** The fault because of which it is never sent. */
  readonly lostTo: Fault | null
  /** Those that alter a level. */
  readonly altering: ReadonlyArray<FaultOf<'alter'>>
  /** All that affect it. */
  readonly struckBy: readonly Fault[]
}

/** Applies the active faults. A stalled or dropped frame is not affected by other faults. */
export function fateOf(frame: FrameOnItsWay, book: FaultRegistry, stalls: Stalls): FrameFate {
  const lost = (lostTo: Fault) => ({
    copies: 0,
    delayMs: 0,
    garbage: [],
    lostTo,
    altering: [],
    struckBy: [lostTo],
  })
  for (const fault of book.active('stall')) {
    if (stalls.holds(fault, frame) && book.strikes(fault)) return lost(fault)
  }
  const struckBy = <Matching extends Fault & { spec: FrameMatcher }>(faults: readonly Matching[]) =>
    faults.filter((fault) => matches(fault.spec, frame) && book.strikes(fault))
  const [drop] = struckBy(book.active('drop'))
  if (drop !== undefined) return lost(drop)
  const sum = (numbers: readonly number[]) => numbers.reduce((total, number) => total + number, 0)
  const duplicating = struckBy(book.active('duplicate'))
  const delaying = struckBy(book.active('delay'))
  const spoiling = struckBy(book.active('garbage'))
  const alters = book.active('alter')
  const altering = alters.length > 0 && hasLevels(frame.text ?? '') ? struckBy(alters) : []
  return {
    copies: 1 + sum(duplicating.map(({ spec }) => spec.copies)),
    delayMs: sum(delaying.map(({ spec }) => spec.delayMs)),
    garbage: spoiling.map(({ spec }) => spec),
    lostTo: null,
    altering,
    struckBy: [...duplicating, ...delaying, ...spoiling, ...altering],
  }
}

/** The connections and streams of a fault; all if omitted. */
export interface FrameMatcher {
  readonly connection?: number | undefined
  readonly stream?: string | undefined
}

export function matches({ connection, stream }: FrameMatcher, frame: FrameOnItsWay): boolean {
  if (connection !== undefined && connection !== frame.connectionId) return false
  return stream === undefined || matchesPattern(stream, frame.stream)
}

/** `*` matches any characters, including none. */
function matchesPattern(pattern: string, name: string): boolean {
  return new RegExp(`^${pattern.split('*').map(RegExp.escape).join('.*')}$`, 's').test(name)
}

/**
 * Tracks what a stall no longer affects. One healed by reconnecting affects the connections that
 * were open when it began; one healed by resubscribing, each of those until it subscribes again.
 */
export class Stalls {
  /** By fault: the newest connection when it began, and what it no longer affects. */
  readonly #stalls = new Map<number, { readonly newest: number; readonly healed: Set<string> }>()

  began(faultId: number, newestConnectionId: number): void {
    this.#stalls.set(faultId, { newest: newestConnectionId, healed: new Set() })
  }

  ended(faultId: number): void {
    this.#stalls.delete(faultId)
  }

  /** An open connection has subscribed to a stream. */
  subscribed(connectionId: number, stream: string): void {
    for (const { healed } of this.#stalls.values()) healed.add(`${connectionId} ${stream}`)
  }

  /** A ping belongs to no stream: it is stalled if any stream of its connection is. */
  allowPing(
    faults: ReadonlyArray<FaultOf<'stall'>>,
    { id: connectionId, streams }: { readonly id: number; readonly streams: Iterable<string> },
  ): boolean {
    return ![...streams].some((stream) =>
      faults.some((fault) => !fault.spec.pings && this.holds(fault, { connectionId, stream })),
    )
  }

  holds({ spec, id }: FaultOf<'stall'>, frame: FrameOnItsWay): boolean {
    if (!matches(spec, frame)) return false
    if (spec.healedBy === 'time') return true
    const { newest = 0, healed } = this.#stalls.get(id) ?? {}
    if (frame.connectionId > newest) return false
    return spec.healedBy === 'reconnect' || !healed?.has(`${frame.connectionId} ${frame.stream}`)
  }
}

/** The bytes of an invalid frame, as sent on the wire. */
export function garbageFrame(spec: SpecOf<'garbage'>, frameText: string): Buffer {
  const encoder = new TextFrameEncoder()
  switch (spec.form) {
    case 'text':
      return encoder.encode(spec.text)
    case 'truncated':
      return encoder.encode(frameText.slice(0, Math.floor(frameText.length / 2)))
    case 'binary':
      return encoder.encode(frameText, BINARY)
    case 'oversized':
      return encoder.encode(JSON.stringify({ stream: 'oversized', data: 'x'.repeat(spec.bytes) }))
    case 'protocol':
      // All reserved bits set, and an undefined opcode (RFC 6455, 5.2): the client must fail the
      // connection.
      return Buffer.from([0xff, 0x00])
  }
}
