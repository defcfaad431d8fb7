export interface Finding {
  readonly what: string
  /** `bad`: Tapeline cannot work; `warning`: it can; `none`: not relevant here. */
  readonly verdict: 'good' | 'warning' | 'bad' | 'none'
  readonly text: string
  /** The fix; empty when nothing needs to be done. */
  readonly fix: string
}

export function good(what: string, text: string): Finding {
  return { what, verdict: 'good', text, fix: '' }
}

export function bad(what: string, text: string, fix: string): Finding {
  return { what, verdict: 'bad', text, fix }
}

export function warning(what: string, text: string, fix: string): Finding {
  return { what, verdict: 'warning', text, fix }
}

export function notNeeded(what: string, text: string): Finding {
  return { what, verdict: 'none', text, fix: '' }
}

/** A Tapeline service that answers at `url`. */
export function serviceFinding(
  what: string,
  url: string,
  { ready, reason }: { readonly ready: boolean; readonly reason: string },
): Finding {
  return ready ? good(what, `${url} is ready`) : bad(what, reason || 'is starting', `See ${url}/status`)
}
