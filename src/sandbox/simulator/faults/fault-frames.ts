import { BINARY, TextFrameEncoder } from '../server/text-frame.ts'
import type { SpecOf } from './fault-kinds.ts'
import type { Fault, FaultOf, FaultRegistry } from './fault-registry.ts'

/** A frame to be sent to one connection. */
export interface FrameOnItsWay {
  readonly connectionId: number
  readonly stream: string
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
}

/**
 * Applies the active faults to a frame. A stalled or dropped frame is not affected by other faults.
 */
export function fateOf(frame: FrameOnItsWay, book: FaultRegistry, stalls: Stalls): FrameFate {
  const lost = (lostTo: Fault) => ({ copies: 0, delayMs: 0, garbage: [], lostTo })
  for (const fault of book.active('stall')) {
    if (stalls.holds(fault, frame) && book.strikes(fault)) return lost(fault)
  }
  const struckBy = <Matching extends Fault & { spec: FrameMatcher }>(faults: readonly Matching[]) =>
    faults.filter((fault) => matches(fault.spec, frame) && book.strikes(fault))
  const [drop] = struckBy(book.active('drop'))
  if (drop !== undefined) return lost(drop)
  const sum = (numbers: readonly number[]) => numbers.reduce((total, number) => total + number, 0)
  return {
    copies: 1 + sum(struckBy(book.active('duplicate')).map(({ spec }) => spec.copies)),
    delayMs: sum(struckBy(book.active('delay')).map(({ spec }) => spec.delayMs)),
    garbage: struckBy(book.active('garbage')).map(({ spec }) => spec),
    lostTo: null,
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
export function matchesPattern(pattern: string, name: string): boolean {
  const [head = '', ...rest] = pattern.split('*')
  const tail = rest.pop()
  if (tail === undefined) return pattern === name
  let at = head.length
  if (!name.startsWith(head)) return false
  for (const part of rest) {
    const found = name.indexOf(part, at)
    if (found === -1) return false
    at = found + part.length
  }
  return name.length - tail.length >= at && name.endsWith(tail)
}

/**
 * Tracks which streams of which connections a stall no longer affects. A stall healed by
 * reconnecting affects the connections that were open when it began. One healed by resubscribing
 * affects each of those until it unsubscribes from the stream and subscribes again. Later
 * connections are not affected.
 */
export class Stalls {
  /** By fault: the newest connection when it began. */
  readonly #newest = new Map<number, number>()
  /** By fault: `connection stream`. */
  readonly #healed = new Map<number, Set<string>>()

  began(faultId: number, newestConnectionId: number): void {
    this.#newest.set(faultId, newestConnectionId)
    this.#healed.set(faultId, new Set())
  }

  ended(faultId: number): void {
    this.#newest.delete(faultId)
    this.#healed.delete(faultId)
  }

  /** An open connection has subscribed to a stream. */
  subscribed(connectionId: number, stream: string): void {
    for (const healed of this.#healed.values()) healed.add(`${connectionId} ${stream}`)
  }

  /** A ping belongs to no stream: it is stalled if any stream of its connection is. */
  allowPing(
    faults: ReadonlyArray<FaultOf<'stall'>>,
    connection: { readonly id: number; readonly streams: Iterable<string> },
  ): boolean {
    const holds = (fault: FaultOf<'stall'>, stream: string) =>
      this.holds(fault, { connectionId: connection.id, stream })
    return !faults.some(
      (fault) => !fault.spec.pings && [...connection.streams].some((stream) => holds(fault, stream)),
    )
  }

  holds(fault: FaultOf<'stall'>, frame: FrameOnItsWay): boolean {
    const { spec, id } = fault
    if (!matches(spec, frame)) return false
    if (spec.healedBy === 'time') return true
    if (frame.connectionId > (this.#newest.get(id) ?? 0)) return false
    return (
      spec.healedBy === 'reconnect' || !this.#healed.get(id)?.has(`${frame.connectionId} ${frame.stream}`)
    )
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
