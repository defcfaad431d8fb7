const SLOTS = 1024

/** Longer byte strings rarely repeat. */
const SHARED_MAX_BYTES = 128

/**
 * Returns the same object for equal short byte strings, so that a million messages of a symbol
 * share one key. The table has a fixed size: a later string replaces an earlier one. It keeps no
 * references into the buffers that were read. Its results are shared and must not be changed.
 */
export class SharedBytes<T> {
  readonly #make: (bytes: Buffer) => T
  readonly #slots: Array<{ readonly bytes: Buffer; readonly made: T } | undefined>

  /** @param make creates the object for the bytes; called with a copy if they are kept */
  constructor(make: (bytes: Buffer) => T) {
    this.#make = make
    this.#slots = new Array(SLOTS).fill(undefined)
  }

  /** Returns the object for the bytes from `start` to before `end`, new or known. */
  of(source: Buffer, start: number, end: number): T {
    if (end - start > SHARED_MAX_BYTES) return this.#make(source.subarray(start, end))
    // FNV-1a.
    let hash = 0x811c9dc5
    for (let at = start; at < end; at++) hash = Math.imul(hash ^ (source[at] ?? 0), 0x01000193)
    const slot = (hash ^ (hash >>> 15)) & (SLOTS - 1)
    const kept = this.#slots[slot]
    if (kept !== undefined && isSame(kept.bytes, source, start, end)) return kept.made
    const bytes = Buffer.from(source.subarray(start, end))
    const made = this.#make(bytes)
    this.#slots[slot] = { bytes, made }
    return made
  }
}

function isSame(bytes: Buffer, source: Buffer, start: number, end: number): boolean {
  if (bytes.length !== end - start) return false
  for (let at = 0; at < bytes.length; at++) if (bytes[at] !== source[start + at]) return false
  return true
}

/** Bytes within a larger buffer: a Buffer for each of a million messages would cost more. */
export interface ByteSlice {
  readonly bytes: Buffer
  readonly start: number
  /** The index after the last byte. */
  readonly end: number
}

/** Copies the slice into a new buffer, to let the larger one be freed. */
export function ownCopy({ bytes, start, end }: ByteSlice): ByteSlice {
  return { bytes: Buffer.from(bytes.subarray(start, end)), start: 0, end: end - start }
}

const DOT = 0x2e
const ZERO = 0x30
const NINE = 0x39

/** Returns the end of the decimal that starts at `start`; −1 if there is none, or one with more digits. */
export function decimalEnd(
  bytes: Uint8Array,
  start: number,
  end: number,
  most: { readonly whole: number; readonly fraction: number },
): number {
  const whole = digitsEnd(bytes, start, end)
  if (whole === start || whole - start > most.whole) return -1
  if (whole === end || bytes[whole] !== DOT) return whole
  const fraction = whole + 1
  const at = digitsEnd(bytes, fraction, end)
  return at === fraction || at - fraction > most.fraction ? -1 : at
}

function digitsEnd(bytes: Uint8Array, start: number, end: number): number {
  let at = start
  for (; at < end; at++) {
    const byte = bytes[at] ?? 0
    if (byte < ZERO || byte > NINE) break
  }
  return at
}
