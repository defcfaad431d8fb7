/**
 * One line of a capture: `<receive time, ns since 1970> <frame>`, with the frame unchanged. A
 * capture has these lines in order of receipt, plain (`.ndjson`) or gzipped (`.ndjson.gz`).
 */
export interface CaptureLine {
  readonly receivedNs: bigint
  readonly frame: string
}

const LINE = /^(\d{16,19}) (.+)$/

/** Undefined when the line has no frame, or no receive time in nanoseconds (of 1971 or later). */
export function parseCaptureLine(line: string): CaptureLine | undefined {
  const match = LINE.exec(line)
  if (match?.[1] === undefined || match[2] === undefined) return undefined
  return { receivedNs: BigInt(match[1]), frame: match[2] }
}

/**
 * Formats a line including its end. Line breaks in a frame are white space between JSON tokens, and
 * become spaces.
 */
export function formatCaptureLine({ receivedNs, frame }: CaptureLine): string {
  return `${receivedNs} ${frame.replace(/[\r\n]/g, ' ')}\n`
}
