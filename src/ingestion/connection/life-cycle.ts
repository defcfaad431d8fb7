/** The states of a connection slot. */
export const STATES = [
  'connecting',
  'single',
  'overlap-opening',
  'overlap-delivering',
  'retry-wait',
  'stopped',
] as const
export type State = (typeof STATES)[number]

type Role = 'current' | 'successor'
/** Reports of a connection; `closed` is its end, whether it had opened or not. */
export type Report = 'opened' | 'delivering' | 'refused' | 'shutdown' | 'closed'
export type LifeEvent =
  | `${Role} ${Report}`
  /** The successor has not opened, or has delivered nothing, for too long. */
  | 'successor silent'
  /** The current connection is due by age, or one of its streams has stalled. */
  | 'replace'
  | 'retry due'
  | 'overlap over'
  | 'stop'

export type Action =
  /** Connects again, with backoff. */
  | 'reconnect'
  | 'open successor'
  /** Closes the successor. */
  | 'abandon successor'
  /** Makes the successor the current connection, and closes the old one. */
  | 'promote successor'
  /** Counts a replacement without a break. */
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
    'current delivering': null,
    'current refused': null,
    'current shutdown': null,
    'current closed': ['connecting', 'reconnect'],
    'successor opened': null,
    'successor delivering': null,
    'successor refused': null,
    'successor shutdown': null,
    'successor closed': null,
    'successor silent': null,
    replace: null,
    'retry due': null,
    'overlap over': null,
    stop: ['stopped'],
  },
  single: {
    'current opened': null,
    'current delivering': null,
    'current refused': ['retry-wait'],
    'current shutdown': ['overlap-opening', 'open successor'],
    'current closed': ['connecting', 'reconnect'],
    'successor opened': null,
    'successor delivering': null,
    'successor refused': null,
    'successor shutdown': null,
    'successor closed': null,
    'successor silent': null,
    replace: ['overlap-opening', 'open successor'],
    'retry due': null,
    'overlap over': null,
    stop: ['stopped'],
  },
  'overlap-opening': {
    'current opened': null,
    'current delivering': null,
    // The successor replaces it; without one, `retry-wait` opens another.
    'current refused': null,
    'current shutdown': null,
    'current closed': ['connecting', 'promote successor'],
    'successor opened': null,
    'successor delivering': ['overlap-delivering'],
    'successor refused': ['retry-wait', 'abandon successor'],
    'successor shutdown': ['overlap-opening', 'abandon successor', 'open successor'],
    'successor closed': ['retry-wait', 'abandon successor'],
    'successor silent': ['retry-wait', 'abandon successor'],
    replace: null,
    'retry due': null,
    'overlap over': null,
    stop: ['stopped'],
  },
  'overlap-delivering': {
    'current opened': null,
    'current delivering': null,
    'current refused': null,
    'current shutdown': null,
    'current closed': ['single', 'promote successor'],
    'successor opened': null,
    'successor delivering': null,
    'successor refused': ['retry-wait', 'abandon successor'],
    'successor shutdown': ['overlap-opening', 'abandon successor', 'open successor'],
    'successor closed': ['retry-wait', 'abandon successor'],
    'successor silent': null,
    replace: null,
    'retry due': null,
    'overlap over': ['single', 'promote successor', 'count rollover'],
    stop: ['stopped'],
  },
  'retry-wait': {
    'current opened': null,
    'current delivering': null,
    'current refused': null,
    'current shutdown': ['overlap-opening', 'open successor'],
    'current closed': ['connecting', 'reconnect'],
    'successor opened': null,
    'successor delivering': null,
    'successor refused': null,
    'successor shutdown': null,
    'successor closed': null,
    'successor silent': null,
    replace: ['overlap-opening', 'open successor'],
    'retry due': ['overlap-opening', 'open successor'],
    'overlap over': null,
    stop: ['stopped'],
  },
  stopped: {
    'current opened': null,
    'current delivering': null,
    'current refused': null,
    'current shutdown': null,
    'current closed': null,
    'successor opened': null,
    'successor delivering': null,
    'successor refused': null,
    'successor shutdown': null,
    'successor closed': null,
    'successor silent': null,
    replace: null,
    'retry due': null,
    'overlap over': null,
    stop: null,
  },
}
