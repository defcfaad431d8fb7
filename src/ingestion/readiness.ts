import { plural } from '../foundation/telemetry/plural.ts'
import type { ConnectionSlot } from './connection-slot.ts'
import type { KafkaProducer } from './kafka-producer.ts'
import type { Pipeline } from './pipeline.ts'

/** Without an acknowledgement for so long, Kafka counts as not producing. */
const PRODUCING_LIMIT_MS = 10_000

/**
 * Returns why ingestion is not ready; empty when it is.
 *
 * @param pipeline null before recovery
 * @param waitingFor why ingestion does not run yet
 * @param refused why the exchange refuses requests; empty when it does not
 */
export function whyNotReady(
  producer: Pick<KafkaProducer, 'batches' | 'oldestUnacknowledgedMs'>,
  pipeline: Pipeline | null,
  waitingFor: string,
  slots: readonly ConnectionSlot[],
  refused: string,
  nowMs: number,
): string {
  // Kafka first: without it a start waits, or a full queue pauses the connections, which the
  // exchange then closes.
  const { batches } = producer
  const held = batches.heldPartitions(nowMs)
  const [first] = held
  if (first !== undefined) {
    const { topic, partition, heldMs, reason } = first
    const others = held.length === 1 ? '' : ` and ${plural(held.length - 1, 'other partition')}`
    return `Kafka has not taken ${topic}/${partition}${others} for ${Math.round(heldMs / 1000)} s: ${reason}`
  }
  const waitedMs = producer.oldestUnacknowledgedMs(nowMs)
  if (waitedMs > PRODUCING_LIMIT_MS) {
    const { problem } = batches
    return `Kafka has not acknowledged for ${Math.round(waitedMs / 1000)} s${problem === null ? '' : `: ${problem}`}`
  }
  const because = refused === '' ? '' : `; ${refused}`
  // The cause first: a terminal may cut the line.
  const waiting = waitingFor === '' || refused === '' ? waitingFor : `${refused}; ${waitingFor}`
  const problem = pipeline?.topics.problem || waiting || pipeline?.handler.rejections.problem(nowMs) || ''
  if (problem !== '') return problem
  const down = slots.filter((slot) => !slot.isOpen).length
  if (down > 0) return `${down} of ${slots.length} connections to the exchange are down${because}`
  const silentMs = Math.max(0, ...slots.map((slot) => slot.silentMs(nowMs) ?? 0))
  return silentMs > 0
    ? `a connection to the exchange has delivered nothing for ${Math.round(silentMs / 1000)} s`
    : ''
}
