import { isFields } from '../../foundation/market/payload.ts'
import type { Clock } from '../../foundation/runtime/clock.ts'
import { outsideText } from '../../foundation/runtime/outside-text.ts'
import { plural } from '../../foundation/telemetry/plural.ts'

export interface SubscriptionsPorts {
  readonly clock: Clock
  send(text: string): void
  /** The exchange has confirmed streams that had no place in the URL. */
  onSubscribed(streams: readonly string[]): void
  /** A request was refused, or not answered, twice. */
  onRefused(reason: string): void
}

interface Request {
  readonly method: 'SUBSCRIBE' | 'UNSUBSCRIBE'
  readonly streams: readonly string[]
  /** Renews or ends what is subscribed already. */
  readonly renewal: boolean
  /** Of each time it was sent. */
  readonly ids: number[]
}

/** The exchange takes 5 messages a second, pings and pongs included: this far apart, they are 4 at most. */
const SEND_INTERVAL_MS = 350

const ANSWER_LIMIT_MS = 10_000

/** A request is sent so often. */
const MAX_TRIES = 2

/** Streams in one message. */
const CHUNK = 200

/**
 * What one connection asks of the exchange: one request after the other, each once the one before it is answered, none
 * sooner than the exchange's limit on messages allows. Specification: U1 to U3.
 */
export class Subscriptions {
  readonly #ports: SubscriptionsPorts
  readonly #requests: Request[]
  #nextId = 1
  #lastSentMs = Number.NEGATIVE_INFINITY
  /** When the request that is out was sent; null while none is. */
  #askedAtMs: number | null = null
  #cancelSend: (() => void) | null = null
  #stopped = false

  /** @param chunks what had no place in the URL, asked for at once */
  constructor(chunks: ReadonlyArray<readonly string[]>, ports: SubscriptionsPorts) {
    this.#ports = ports
    this.#requests = chunks.map((streams) => ({ method: 'SUBSCRIBE', streams, renewal: false, ids: [] }))
    this.#sendLater()
  }

  /** The connection's own streams are all confirmed, whatever is being renewed. */
  get areComplete(): boolean {
    return this.#requests.every(({ renewal }) => renewal)
  }

  /** Unsubscribes and subscribes anew. */
  renew(streams: readonly string[]): void {
    for (let first = 0; first < streams.length; first += CHUNK) {
      const chunk = streams.slice(first, first + CHUNK)
      for (const method of ['UNSUBSCRIBE', 'SUBSCRIBE'] as const) {
        this.#requests.push({ method, streams: chunk, renewal: true, ids: [] })
      }
    }
    this.#sendLater()
  }

  /** Subscribes to further streams, which count as the connection's from then on. */
  join(streams: readonly string[]): void {
    this.#request('SUBSCRIBE', streams, false)
  }

  leave(streams: readonly string[]): void {
    this.#request('UNSUBSCRIBE', streams, true)
  }

  #request(method: Request['method'], streams: readonly string[], renewal: boolean): void {
    for (let first = 0; first < streams.length; first += CHUNK)
      this.#requests.push({ method, streams: streams.slice(first, first + CHUNK), renewal, ids: [] })
    this.#sendLater()
  }

  /** A ping was answered: that counts as a message. */
  onPong(): void {
    this.#lastSentMs = this.#ports.clock.monotonicMs()
  }

  /** @param text what the exchange answered to a request: `{"result":null,"id":1}`, or an error with or without the id */
  onAnswer(text: string): void {
    const request = this.#requests[0]
    if (this.#stopped || request === undefined || this.#askedAtMs === null) return
    const answer: unknown = JSON.parse(text)
    if (!isFields(answer)) return
    const id = answer['id']
    const refused = 'error' in answer || 'code' in answer
    // An error that names no request can only mean the one that is out.
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

  /**
   * To be called every second: looks whether an answer is overdue.
   *
   * @param reading false while the socket is paused, which no answer can pass
   */
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
      // A pong may have gone out meanwhile.
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
