const SLOTS = 1024

/** What is longer is hardly ever the same twice. */
const SHARED_MAX_BYTES = 128

/**
 * Gives equal short byte strings the same object, so that a million messages of a symbol hold one key. A table of
 * fixed size, in which a later string takes the place of an earlier one; nothing it keeps points into the buffer that
 * was read. What it gives belongs to many: never to be changed.
 */
export class SharedBytes<T> {
  readonly #make: (bytes: Buffer) => T
  readonly #slots: Array<{ readonly bytes: Buffer; readonly made: T } | undefined> = Array.from({
    length: SLOTS,
  })

  /** @param make what stands for the bytes; called with a copy when they are to be kept */
  constructor(make: (bytes: Buffer) => T) {
    this.#make = make
  }

  /** What was made of the bytes from `start` up to `end`, now or before. */
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
