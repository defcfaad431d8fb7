import { BINARY, TextFrameEncoder } from '../server/text-frame.ts'
import type { SpecOf } from './fault-kinds.ts'

/** The bytes of a frame that no client can make sense of, as they shall stand on the wire. */
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
      // All reserved bits set and an opcode that is none (RFC 6455, 5.2): the client must fail the connection.
      return Buffer.from([0xff, 0x00])
  }
}
