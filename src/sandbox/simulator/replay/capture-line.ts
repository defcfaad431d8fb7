/**
 * One line of a capture: `<receive time, ns since 1970> <frame>`, the frame as it came from the socket. A
 * capture is such lines in the order of receipt, as they are (`.ndjson`) or gzipped (`.ndjson.gz`).
 */
export interface CaptureLine {
  readonly receivedNs: bigint
  readonly frame: string
}

const LINE = /^(\d{16,19}) (.+)$/

/** Undefined when the line has no receive time in nanoseconds (of 1971 or later) or no frame. */
export function parseCaptureLine(line: string): CaptureLine | undefined {
  const match = LINE.exec(line)
  if (match?.[1] === undefined || match[2] === undefined) return undefined
  return { receivedNs: BigInt(match[1]), frame: match[2] }
}

/** The line with its end. Line breaks in a frame can only be blank space between JSON's parts, and become it. */
export function formatCaptureLine({ receivedNs, frame }: CaptureLine): string {
  return `${receivedNs} ${frame.replace(/[\r\n]/g, ' ')}\n`
}
