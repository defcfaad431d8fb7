import { InvalidArgumentError } from 'commander'

/** Of an option: a whole number from 1 on. */
export function positive(text: string): number {
  const count = Number(text)
  if (!/^\d{1,6}$/.test(text) || count < 1)
    throw new InvalidArgumentError('Expected a number from 1 to 999999.')
  return count
}
