/** The values of these fields in each row, in this order. */
export function columns<Row>(rows: Iterable<Row>, ...fields: ReadonlyArray<keyof Row>): unknown[][] {
  return Array.from(rows, (row) => fields.map((field) => row[field]))
}

/** The value of this field in each row. */
export function column<Row, Field extends keyof Row>(rows: Iterable<Row>, field: Field): Array<Row[Field]> {
  return Array.from(rows, (row) => row[field])
}
