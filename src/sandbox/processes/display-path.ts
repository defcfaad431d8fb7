import { relative } from 'node:path'

/** A path relative to this directory if it is inside, otherwise unchanged. */
export function displayPath(path: string): string {
  const fromHere = relative(process.cwd(), path)
  if (fromHere === '') return '.'
  return fromHere.startsWith('..') ? path : fromHere
}
