import { isUtf8 } from 'node:buffer'

/** Bytes in a readable form. */
export interface DisplayBytes {
  readonly encoding: 'utf8' | 'hex'
  readonly text: string
  /** Number of bytes that the text does not show. */
  readonly leftOut: number
}

/**
 * Converts the beginning of some bytes: to text if they are UTF-8, otherwise to hex.
 *
 * @param bytes the beginning, which may end within a character
 * @param total length of the whole in bytes
 */
export function displayBytes(bytes: Buffer, total: number): DisplayBytes {
  const characters = total > bytes.length ? bytes.subarray(0, lastCharacterEnd(bytes)) : bytes
  return isUtf8(characters)
    ? { encoding: 'utf8', text: characters.toString(), leftOut: total - characters.length }
    : { encoding: 'hex', text: bytes.toString('hex'), leftOut: total - bytes.length }
}

/** The end of the last complete character, if the bytes are UTF-8. */
function lastCharacterEnd(bytes: Buffer): number {
  for (let back = 1; back <= Math.min(4, bytes.length); back++) {
    const byte = bytes[bytes.length - back] ?? 0
    const isContinuation = (byte & 0b1100_0000) === 0b1000_0000
    if (isContinuation) continue
    const length = byte < 0x80 ? 1 : byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2
    return length > back ? bytes.length - back : bytes.length
  }
  return bytes.length
}
