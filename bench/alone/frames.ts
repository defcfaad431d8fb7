import { FrameStore } from '../feeder/frame-store.ts'

/**
 * Returns the first `count` frames as a WebSocket client gets them: without the two or four bytes
 * of the header.
 */
export function payloads(symbols: readonly string[], count: number): Buffer[] {
  const store = new FrameStore(symbols, 5000, 'microsecond')
  const frames: Buffer[] = []
  for (let index = 0; frames.length < count; index++) {
    const { bytes, ends } = store.chunk(index)
    let start = 0
    for (const end of ends) {
      const isLong = bytes[start + 1] === 126
      frames.push(bytes.subarray(start + (isLong ? 4 : 2), end))
      start = end
    }
  }
  return frames.slice(0, count)
}
