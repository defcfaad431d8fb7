export const STATES = [
  'connecting',
  'single',
  'overlap-opening',
  'overlap-delivering',
  'retry-wait',
  'stopped',
] as const
export type State = (typeof STATES)[number]

export type LifeEvent =
  | 'current opened'
  /** The exchange has refused its streams. */
  | 'current refused'
  | 'current closed'
  | 'successor opened'
  | 'successor delivering'
  /** It has closed, its streams were refused, or it was silent for too long. */
  | 'successor failed'
  | 'successor shutdown'
  /** The current connection is due by age or shuts down, a stream has stalled, or a retry is due. */
  | 'replace'
  | 'overlap over'
  | 'stop'

export type Action =
  | 'reconnect'
  | 'open successor'
  | 'abandon successor'
  /** Makes the successor the current connection, and closes the old one. */
  | 'promote successor'
  | 'count rollover'

/** The next state and the actions on the way; null if the event changes nothing. */
export type Transition = readonly [State, ...Action[]] | null

/**
 * The life cycle of a connection slot. Entering a state starts its timer and cancels the previous
 * one. After a promotion, `connecting` becomes `single` at once if the promoted connection is open.
 * Specification: R1 to R7.
 */
export const LIFE_CYCLE: Readonly<Record<State, Readonly<Record<LifeEvent, Transition>>>> = {
  connecting: {
    'current opened': ['single'],
    'current refused': null,
    'current closed': ['connecting', 'reconnect'],
    'successor opened': null,
    'successor delivering': null,
    'successor failed': null,
    'successor shutdown': null,
    replace: null,
    'overlap over': null,
    stop: ['stopped'],
  },
  single: {
    'current opened': null,
    'current refused': ['retry-wait'],
    'current closed': ['connecting', 'reconnect'],
    'successor opened': null,
    'successor delivering': null,
    'successor failed': null,
    'successor shutdown': null,
    replace: ['overlap-opening', 'open successor'],
    'overlap over': null,
    stop: ['stopped'],
  },
  'overlap-opening': {
    'current opened': null,
    // The successor replaces it; without one, `retry-wait` opens another.
    'current refused': null,
    'current closed': ['connecting', 'promote successor'],
    // The limit of its silence begins again.
    'successor opened': ['overlap-opening'],
    'successor delivering': ['overlap-delivering'],
    'successor failed': ['retry-wait', 'abandon successor'],
    'successor shutdown': ['overlap-opening', 'abandon successor', 'open successor'],
    replace: null,
    'overlap over': null,
    stop: ['stopped'],
  },
  'overlap-delivering': {
    'current opened': null,
    'current refused': null,
    'current closed': ['single', 'promote successor'],
    'successor opened': null,
    'successor delivering': null,
    'successor failed': ['retry-wait', 'abandon successor'],
    'successor shutdown': ['overlap-opening', 'abandon successor', 'open successor'],
    replace: null,
    'overlap over': ['single', 'promote successor', 'count rollover'],
    stop: ['stopped'],
  },
  'retry-wait': {
    'current opened': null,
    'current refused': null,
    'current closed': ['connecting', 'reconnect'],
    'successor opened': null,
    'successor delivering': null,
    'successor failed': null,
    'successor shutdown': null,
    replace: ['overlap-opening', 'open successor'],
    'overlap over': null,
    stop: ['stopped'],
  },
  stopped: {
    'current opened': null,
    'current refused': null,
    'current closed': null,
    'successor opened': null,
    'successor delivering': null,
    'successor failed': null,
    'successor shutdown': null,
    replace: null,
    'overlap over': null,
    stop: null,
  },
}
