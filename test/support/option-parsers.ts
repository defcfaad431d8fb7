import { InvalidArgumentError } from 'commander'

/** Parsers of command-line options; commander reports their errors. */

export function wholeNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN
    if (value >= min && value <= max) return value
    throw new InvalidArgumentError(`Expected a whole number from ${min} to ${max}.`)
  }
}

/** Names, separated by commas. */
export function list<Name extends string>(names: readonly Name[]): (text: string) => Name[] {
  return (text) =>
    text.split(',').map((part) => {
      const name = names.find((each) => each === part.trim())
      if (name === undefined) throw new InvalidArgumentError(`Expected some of ${names.join(', ')}.`)
      return name
    })
}

/** `NAME=VALUE`, for a repeatable option. */
export function setting(text: string, before: unknown): Record<string, string> {
  const [, name, value] = /^([A-Z_]+)=(.*)$/.exec(text) ?? []
  if (name === undefined || value === undefined)
    throw new InvalidArgumentError('Expected NAME=VALUE, as in .env.example.')
  return { ...Object(before), [name]: value }
}
