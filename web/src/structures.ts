// Structures by the names that the reading gives them, left and right together.
import type { Reading, Structure } from './api'
import { upperFirst } from './format'

const known = (reading: Reading | undefined, structure: string): Structure | undefined => reading?.structures?.find((s) => s.structure === structure)

export const sideOf = (reading: Reading | undefined, structure: string): string => known(reading, structure)?.side ?? ''

export function nameOf(reading: Reading | undefined, structure: string): string {
  const s = known(reading, structure)
  return s ? (s.side ? `${upperFirst(s.side)} ${s.name.charAt(0).toLowerCase()}${s.name.slice(1)}` : s.name) : structure
}

export interface Paired<T> {
  name: string // without the side
  sides: (T | undefined)[] // left and right, or one of the midline
}

/** Rows of left and right, or of one on the midline, in the order of the first of each. */
export function paired<T extends { structure: string }>(all: readonly T[], reading?: Reading): Paired<T>[] {
  const rows = new Map<string, Paired<T>>()
  for (const one of all) {
    const bare = one.structure.replace(/^(Left|Right)-/, '')
    let row = rows.get(bare)
    if (!row) rows.set(bare, (row = { name: known(reading, one.structure)?.name ?? bare, sides: bare === one.structure ? [undefined] : [undefined, undefined] }))
    row.sides[one.structure.startsWith('Right-') ? 1 : 0] = one
  }
  return [...rows.values()]
}
