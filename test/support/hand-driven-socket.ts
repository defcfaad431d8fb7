import type { OpenSocket, SocketEvents } from '../../src/foundation/binance/stream-socket.ts'
import type { Clock } from '../../src/foundation/runtime/clock.ts'

/** A frame of a connection, in the exchange's format. */
export interface SentRequest {
  readonly atMs: number
  readonly method: string
  readonly params: readonly string[]
  readonly id: number
}

/** One socket controlled by a test, which plays the exchange. */
export interface HandDrivenSocket {
  readonly events: SocketEvents
  readonly sent: SentRequest[]
  paused: boolean
  closed: boolean
  /** Sends an event of a stream; without an id it uses the next one. */
  deliver(stream: string, id?: number): void
  answer(id: number): void
}

/** Sockets that open when the test calls `events.onOpen`, and otherwise only close on request. */
export function handDrivenSockets(clock: Clock): { open: OpenSocket; sockets: HandDrivenSocket[] } {
  const sockets: HandDrivenSocket[] = []
  let ids = 0
  const open: OpenSocket = (_url, events) => {
    const socket: HandDrivenSocket = {
      events,
      sent: [],
      paused: true,
      closed: false,
      deliver: (stream, id = ++ids) => events.onFrame(Buffer.from(JSON.stringify({ stream, id }))),
      answer: (id) => events.onFrame(Buffer.from(JSON.stringify({ result: null, id }))),
    }
    let isOpen = false
    const close = () => {
      if (socket.closed) return
      socket.closed = true
      if (isOpen) events.onClose('1000')
      else events.onFailed(new Error('closed before it was open'))
    }
    sockets.push(socket)
    return {
      pause: () => {
        socket.paused = true
      },
      resume: () => {
        isOpen = true
        socket.paused = false
      },
      send: (text) => socket.sent.push({ atMs: clock.monotonicMs(), ...JSON.parse(text) }),
      close: () => clock.schedule(20, close),
      terminate: close,
    }
  }
  return { open, sockets }
}
