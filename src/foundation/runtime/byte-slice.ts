/** Bytes within a larger buffer: a Buffer of their own for each of a million messages costs more than the bytes. */
export interface ByteSlice {
  readonly bytes: Buffer
  readonly start: number
  /** Behind the last. */
  readonly end: number
}

/** In a buffer of its own, for what outlives the rest of the larger one. */
export function ownCopy({ bytes, start, end }: ByteSlice): ByteSlice {
  return { bytes: Buffer.from(bytes.subarray(start, end)), start: 0, end: end - start }
}
