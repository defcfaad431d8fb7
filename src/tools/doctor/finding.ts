/** What one look at this machine, or at something it is to use, has shown. */
export interface Finding {
  readonly what: string
  /** `bad` keeps it from working; `warning` does not; `none`: does not matter here. */
  readonly verdict: 'good' | 'warning' | 'bad' | 'none'
  readonly text: string
  /** What to do; empty when there is nothing to do. */
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

/** A service of ours that answers at `url`. */
export function serviceFinding(
  what: string,
  url: string,
  { ready, reason }: { readonly ready: boolean; readonly reason: string },
): Finding {
  return ready ? good(what, `${url} is ready`) : bad(what, reason || 'is starting', `See ${url}/status`)
}
