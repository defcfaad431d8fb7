import { RowBuffer } from '../foundation/archive/row-buffer.ts'
import { BlockPool } from '../foundation/archive/row-chunk.ts'
import { ARCHIVE_TABLES, type ArchiveTable, TEXT_TABLES } from '../foundation/archive/tables.ts'
import { type DeadLetterRow, deadLetter, mirroredLetter } from '../foundation/dead-letters/dead-letter.ts'
import type { FetchedMessage } from '../foundation/kafka/codec/record-batch.ts'
import { Decoder, type TopicKind } from '../foundation/kafka/message-decoder.ts'
import type { PartitionOrigin } from '../foundation/kafka/partition.ts'

/** The rows of a segment, by table. */
export interface SegmentBuffers extends PartitionOrigin {
  readonly buffers: Map<ArchiveTable, RowBuffer>
}

/** Decodes messages into the rows of their segments, whose memory it reuses. */
export class SegmentRows {
  readonly #decoder = new Decoder()
  readonly #pool = new BlockPool()
  /** Messages that could not be archived as events. */
  deadLetters = 0

  /**
   * @param wallMs of the wall clock, for the time of dead letters
   * @throws TapelineError `SCHEMA` see {@link Decoder.decode}
   */
  add(kind: TopicKind, segment: SegmentBuffers, message: FetchedMessage, wallMs: number): void {
    const { offset } = message
    if (kind === 'deadLetters') {
      const row = mirroredLetter(segment, message, wallMs)
      if (row !== null) this.#addLetter(segment, row, offset)
      return
    }
    const decoder = this.#decoder
    const reason = decoder.decode(kind, message)
    if (reason !== null) {
      this.deadLetters++
      this.#addLetter(segment, deadLetter(segment, message, reason, wallMs), offset)
      return
    }
    if (kind !== 'gaps') {
      const { event } = decoder
      this.#bufferOf(segment, ARCHIVE_TABLES[event.type]).add(event, offset)
      return
    }
    const { gap, recording } = decoder
    if (gap !== null)
      this.#bufferOf(segment, TEXT_TABLES.gaps).addText(gap.updated_at * 1000, JSON.stringify(gap), offset)
    if (recording !== null)
      this.#bufferOf(segment, TEXT_TABLES.recordings).addText(
        recording.at * 1000,
        JSON.stringify(recording),
        offset,
      )
  }

  /**
   * Takes back the memory of a segment that its writer has finished. Until then the writer may read
   * its rows, even if the partition is lost.
   */
  release({ buffers }: SegmentBuffers): void {
    for (const rows of buffers.values()) this.#pool.release(rows.chunks)
  }

  #addLetter(segment: SegmentBuffers, row: DeadLetterRow, offset: number): void {
    const { key, payload, failedAtMs } = row
    const json = JSON.stringify({
      ...row,
      key: key?.toString('base64') ?? null,
      payload: payload?.toString('base64') ?? null,
    })
    this.#bufferOf(segment, TEXT_TABLES.deadLetters).addText(failedAtMs * 1000, json, offset)
  }

  #bufferOf({ buffers }: SegmentBuffers, table: ArchiveTable): RowBuffer {
    let buffer = buffers.get(table)
    if (buffer === undefined) {
      buffer = new RowBuffer(table, this.#pool)
      buffers.set(table, buffer)
    }
    return buffer
  }
}
