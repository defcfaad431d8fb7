/** Calls a method of the value at the end of its block: `await using server = ended(make(), 'stop')`. */
export function ended<Method extends string, Value extends Readonly<Record<Method, () => unknown>>>(
  value: Value,
  method: Method,
): Value & AsyncDisposable {
  const dispose = async () => void (await value[method]())
  return Object.assign(value, { [Symbol.asyncDispose]: dispose })
}
