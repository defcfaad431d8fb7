import { InvalidArgumentError } from 'commander'

/** Parses an option: a whole number, at least 1. */
export function positive(text: string): number {
  const count = Number(text)
  if (!/^\d{1,6}$/.test(text) || count < 1)
    throw new InvalidArgumentError('Expected a number from 1 to 999999.')
  return count
}
