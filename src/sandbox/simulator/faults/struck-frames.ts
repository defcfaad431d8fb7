import { parseJson } from '../../../foundation/runtime/outside-text.ts'
import type { FrameOnItsWay } from './fault-frames.ts'
import type { LevelChange } from './fault-levels.ts'
import type { Fault } from './fault-registry.ts'

/** A frame of an order book or of quotes that a fault has affected. */
interface StruckFrame {
  readonly faultId: number
  readonly kind: Fault['spec']['kind']
  readonly connection: number
  readonly stream: string
  /** The update ids that it covers. */
  readonly firstId: number
  readonly lastId: number
  /** The level that was altered. */
  readonly change: LevelChange | null
}

/** The latest are kept. */
const KEPT_FRAMES = 100_000

/** Remembers which update ids were affected, so that a test can compare them with what was found. */
export class StruckFrames {
  #frames: StruckFrame[] = []
  #forgotten = 0

  /** @param text the frame before it was changed */
  add(
    faults: readonly Fault[],
    frame: FrameOnItsWay,
    text: string,
    changes: ReadonlyMap<number, LevelChange>,
  ): void {
    const isOfBook = frame.stream.includes('@depth') || frame.stream.endsWith('@bookTicker')
    if (faults.length === 0 || !isOfBook) return
    const message = Object(parseJson(text))
    const { u, U = u } = message.data ?? message
    for (const { id: faultId, spec } of faults) {
      const { connectionId: connection, stream } = frame
      const change = changes.get(faultId) ?? null
      this.#frames.push({ faultId, kind: spec.kind, connection, stream, firstId: U, lastId: u, change })
    }
    if (this.#frames.length < 2 * KEPT_FRAMES) return
    this.#forgotten += KEPT_FRAMES
    this.#frames = this.#frames.slice(KEPT_FRAMES)
  }

  /** In the order in which they were affected; `forgotten` older ones are not kept. */
  report(): { readonly frames: readonly StruckFrame[]; readonly forgotten: number } {
    return { frames: [...this.#frames], forgotten: this.#forgotten }
  }
}
