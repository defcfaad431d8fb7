import { relative } from 'node:path'

/** A path as a person in this directory would type it. */
export function displayPath(path: string): string {
  const fromHere = relative(process.cwd(), path)
  if (fromHere === '') return '.'
  return fromHere.startsWith('..') ? path : fromHere
}
