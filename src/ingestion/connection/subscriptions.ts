import { isFields } from '../../foundation/market/payload.ts'
import type { Clock } from '../../foundation/runtime/clock.ts'
import { outsideText } from '../../foundation/runtime/outside-text.ts'
import { plural } from '../../foundation/telemetry/plural.ts'

export interface SubscriptionsPorts {
  readonly clock: Clock
  send(text: string): void
  /** Called when the exchange has confirmed streams that did not fit in the URL. */
  onSubscribed(streams: readonly string[]): void
  /** Called when a request was refused or unanswered twice. */
  onRefused(reason: string): void
}

interface Request {
  readonly method: 'SUBSCRIBE' | 'UNSUBSCRIBE'
  readonly streams: readonly string[]
  /** Whether it renews or ends an existing subscription. */
  readonly renewal: boolean
  /** One id per time it was sent. */
  readonly ids: number[]
}

/** The exchange accepts 5 messages a second, pings and pongs included; this allows 4 requests. */
const SEND_INTERVAL_MS = 350

const ANSWER_LIMIT_MS = 10_000

const MAX_TRIES = 2

const CHUNK = 200

/** Sends subscription requests, each after the answer to the one before. Specification: U1 to U3. */
export class Subscriptions {
  readonly #ports: SubscriptionsPorts
  readonly #requests: Request[] = []
  #nextId = 1
  #lastSentMs = Number.NEGATIVE_INFINITY
  /** When the pending request was sent; null when none is pending. */
  #askedAtMs: number | null = null
  #cancelSend: (() => void) | null = null
  #stopped = false

  /** @param chunks streams that did not fit in the URL, requested at once */
  constructor(chunks: ReadonlyArray<readonly string[]>, ports: SubscriptionsPorts) {
    this.#ports = ports
    for (const streams of chunks) this.join(streams)
  }

  /** Whether all streams of the connection are confirmed; renewals do not count. */
  get areComplete(): boolean {
    return this.#requests.every(({ renewal }) => renewal)
  }

  renew(streams: readonly string[]): void {
    this.#request(['UNSUBSCRIBE', 'SUBSCRIBE'], streams, true)
  }

  /** Subscribes to further streams, which then belong to the connection. */
  join(streams: readonly string[]): void {
    this.#request(['SUBSCRIBE'], streams, false)
  }

  leave(streams: readonly string[]): void {
    this.#request(['UNSUBSCRIBE'], streams, true)
  }

  #request(methods: ReadonlyArray<Request['method']>, streams: readonly string[], renewal: boolean): void {
    for (let first = 0; first < streams.length; first += CHUNK) {
      const chunk = streams.slice(first, first + CHUNK)
      for (const method of methods) this.#requests.push({ method, streams: chunk, renewal, ids: [] })
    }
    this.#sendLater()
  }

  /** Notes a pong, which counts as a message. */
  onPong(): void {
    this.#lastSentMs = this.#ports.clock.monotonicMs()
  }

  /** @param text an answer like `{"result":null,"id":1}`, or an error with or without the id */
  onAnswer(text: string): void {
    const request = this.#requests[0]
    if (this.#stopped || request === undefined || this.#askedAtMs === null) return
    const answer: unknown = JSON.parse(text)
    if (!isFields(answer)) return
    const id = answer['id']
    const refused = 'error' in answer || 'code' in answer
    // An error without an id can only be about the pending request.
    if (typeof id === 'number' ? !request.ids.includes(id) : !refused) return
    if (refused) {
      this.#again(request, outsideText(text))
      return
    }
    this.#askedAtMs = null
    this.#requests.shift()
    if (!request.renewal) this.#ports.onSubscribed(request.streams)
    this.#sendLater()
  }

  /** Checks for an overdue answer, every second. None can arrive while not `reading`. */
  check(nowMs: number, reading: boolean): void {
    const request = this.#requests[0]
    if (request === undefined || this.#askedAtMs === null) return
    if (!reading) this.#askedAtMs = nowMs
    else if (nowMs - this.#askedAtMs >= ANSWER_LIMIT_MS) {
      this.#again(request, `no answer in ${ANSWER_LIMIT_MS / 1000} s`)
    }
  }

  stop(): void {
    this.#stopped = true
    this.#cancelSend?.()
  }

  #again({ method, streams, ids }: Request, why: string): void {
    this.#askedAtMs = null
    if (ids.length < MAX_TRIES) {
      this.#sendLater()
      return
    }
    this.stop()
    this.#ports.onRefused(
      `${method} of ${plural(streams.length, 'stream')}, ${streams[0]} first, failed: ${why}`,
    )
  }

  #sendLater(): void {
    if (this.#stopped || this.#cancelSend !== null || this.#askedAtMs !== null || this.#requests.length === 0)
      return
    const { clock } = this.#ports
    const waitMs = Math.max(0, this.#lastSentMs + SEND_INTERVAL_MS - clock.monotonicMs())
    this.#cancelSend = clock.schedule(waitMs, () => {
      this.#cancelSend = null
      // A pong may have been sent meanwhile.
      if (clock.monotonicMs() < this.#lastSentMs + SEND_INTERVAL_MS) this.#sendLater()
      else this.#send()
    })
  }

  #send(): void {
    const request = this.#requests[0]
    if (request === undefined) return
    const id = this.#nextId++
    request.ids.push(id)
    this.#lastSentMs = this.#ports.clock.monotonicMs()
    this.#askedAtMs = this.#lastSentMs
    this.#ports.send(JSON.stringify({ method: request.method, params: request.streams, id }))
  }
}
