/**
 * Bytes within a larger buffer. One Buffer for each of a million messages would cost more than the
 * bytes.
 */
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
