import { describeError } from '../runtime/errors.ts'
import { outsideText } from '../runtime/outside-text.ts'
import { fetchByProxy } from './proxy.ts'
import { type Refusal, refusalOfResponse } from './refusal.ts'
import { EXCHANGE_IDENTITY_HEADER } from './stream-socket.ts'

/** Why a request has no answer: an HTTP error, or nothing valid. */
export type NoAnswer = (
  | { readonly kind: 'refused'; readonly refusal: Refusal }
  | { readonly kind: 'failed'; readonly reason: string }
) & {
  /** Weight used by the whole IP this minute, if the exchange reports it. */
  readonly usedWeight?: number | null
}

const TIMEOUT_MS = 10_000

export interface RestContext {
  readonly restUrl: string
  /** Milliseconds since the Unix epoch, for a Retry-After with a date. */
  readonly wallMs: () => number
  /** Name of the exchange; checked here, because REST may have been down at the start. */
  readonly source?: string | undefined
}

/** Sends a request and reads its answer, which `read` may throw on. Never rejects. @param path below `/api/v3/` */
export async function askRest<Success>(
  { restUrl, wallMs, source }: RestContext,
  path: string,
  how: RequestInit,
  read: (body: unknown, usedWeight: number | null) => Success,
  signal: AbortSignal,
): Promise<Success | NoAnswer> {
  try {
    const response = await fetchByProxy(`${restUrl}/api/v3/${path}`, {
      ...how,
      signal: AbortSignal.any([AbortSignal.timeout(TIMEOUT_MS), signal]),
    })
    const named = response.headers.get(EXCHANGE_IDENTITY_HEADER)
    if (named !== null && source !== undefined && named !== source)
      throw new Error(`REST belongs to "${named}", not to "${source}": correct BINANCE_REST_URL`)
    const usedWeight = usedWeightOf(response)
    if (response.ok) return read(await response.json(), usedWeight)
    return { kind: 'refused', refusal: await refusalOfResponse(response, wallMs()), usedWeight }
  } catch (error) {
    return {
      kind: 'failed',
      reason: outsideText(describeError(error instanceof Error ? (error.cause ?? error) : error)),
    }
  }
}

function usedWeightOf(response: Response): number | null {
  const header = response.headers.get('x-mbx-used-weight-1m') ?? ''
  return /^\d+$/.test(header) ? Number(header) : null
}
