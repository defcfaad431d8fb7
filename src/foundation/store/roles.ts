import type { Queryable } from './database.ts'

/**
 * Makes the roles and gives them their rights: see migration 5. Harmless when all is as it should be.
 *
 * @returns the statements that this user was not allowed, to be run by one who is
 */
export async function applyRoles(connection: Queryable): Promise<string[]> {
  const { rows } = await connection.query<{ statement: string }>(
    'SELECT statement FROM tapeline_roles() AS statement',
  )
  return rows.map(({ statement }) => statement)
}

/**
 * From here to the end of the transaction, or to {@link actAsOneself}, what is made belongs to tapeline_migrator: where
 * that role owns the tables, and this user has it. Otherwise nothing changes.
 */
export async function actAsMigrator(connection: Queryable): Promise<void> {
  const { rows } = await connection.query<{ member: boolean }>(
    `SELECT pg_has_role(current_user, relowner, 'MEMBER') AS member FROM pg_class
     WHERE oid = to_regclass('trades') AND pg_get_userbyid(relowner) = 'tapeline_migrator'`,
  )
  if (rows[0]?.member === true) await connection.query('SET LOCAL ROLE tapeline_migrator')
}

export async function actAsOneself(connection: Queryable): Promise<void> {
  await connection.query('SET LOCAL ROLE NONE')
}
