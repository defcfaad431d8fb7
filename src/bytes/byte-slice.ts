/** Bytes within a larger buffer: a Buffer of their own for each of a million messages costs more than the bytes. */
export interface ByteSlice {
  readonly bytes: Buffer
  readonly start: number
  /** Behind the last. */
  readonly end: number
}
