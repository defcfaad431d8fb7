import { once } from 'node:events'
import { crc32, createDeflateRaw } from 'node:zlib'

/** Format without Zip64: sizes are 32 bits. */
const SIZE_MAX = 2 ** 32 - 1
const PIECE_LENGTH = 64 << 10
const VERSION = 20
const DEFLATE = 8
/** 1980-01-01, the first day that the format knows. */
const FIRST_DATE = 0x21

/**
 * Returns a zip file with one compressed file.
 *
 * @param content in pieces of any size
 * @see APPNOTE.TXT of PKWARE, 4.3.7 (local header), 4.3.12 (central directory), 4.3.16 (its end)
 */
export async function zipOf(name: string, content: Iterable<string>): Promise<Buffer> {
  const deflate = createDeflateRaw()
  const packed: Buffer[] = []
  deflate.on('data', (piece: Buffer) => packed.push(piece))
  let crc = 0
  let bytes = 0
  const write = async (text: string) => {
    const piece = Buffer.from(text)
    crc = crc32(piece, crc)
    bytes += piece.length
    if (!deflate.write(piece)) await once(deflate, 'drain')
  }
  // Lines are short, and each write costs more than its compression.
  let waiting = ''
  for (const text of content) {
    waiting += text
    if (waiting.length < PIECE_LENGTH) continue
    await write(waiting)
    waiting = ''
  }
  await write(waiting)
  deflate.end()
  await once(deflate, 'end')
  const packedBytes = packed.reduce((sum, { length }) => sum + length, 0)
  if (Math.max(bytes, packedBytes) > SIZE_MAX) throw new RangeError(`${name} is too large for a zip file`)
  const path = Buffer.from(name)
  // Version, flags, method, time, date, CRC-32, sizes, length of the name, of the extra field.
  const common = Buffer.alloc(26)
  common.writeUInt16LE(VERSION, 0)
  common.writeUInt16LE(DEFLATE, 4)
  common.writeUInt16LE(FIRST_DATE, 8)
  common.writeUInt32LE(crc, 10)
  common.writeUInt32LE(packedBytes, 14)
  common.writeUInt32LE(bytes, 18)
  common.writeUInt16LE(path.length, 22)
  const local = Buffer.concat([Buffer.from('PK\x03\x04'), common, path])
  const central = Buffer.concat([Buffer.from('PK\x01\x02\x14\0'), common, Buffer.alloc(14), path])
  const end = Buffer.alloc(22)
  end.write('PK\x05\x06')
  end.writeUInt16LE(1, 8)
  end.writeUInt16LE(1, 10)
  end.writeUInt32LE(central.length, 12)
  end.writeUInt32LE(local.length + packedBytes, 16)
  return Buffer.concat([local, ...packed, central, end])
}
