/**
 * Settles like `work`, or rejects after the limit; the work continues.
 *
 * @param what completes the sentence "… within 5 s"
 */
export async function withinLimit<Result>(
  work: Promise<Result>,
  limitMs: number,
  what: string,
): Promise<Result> {
  const late = Promise.withResolvers<never>()
  const timer = setTimeout(() => late.reject(new Error(`${what} within ${limitMs / 1000} s`)), limitMs)
  try {
    return await Promise.race([work, late.promise])
  } finally {
    clearTimeout(timer)
  }
}
