// What a reader leaves between pages: kept while this page is open and he is
// signed in, in neither the browser's storage nor the address.
import type { Decision } from './api'

export interface Filter {
  review: '' | 'open' | 'decided'
  group: string
  condition: string
  scanner: string
  from: string
  to: string
  sort: string
}

export const standard: Readonly<Filter> = { review: 'open', group: '', condition: '', scanner: '', from: '', to: '', sort: 'worst' }

const nothing = () => ({
  filter: { ...standard },
  list: [] as string[], // cases in the order in which they were last shown
  last: '', // the case that was open
  drafts: new Map<string, Partial<Record<Decision, string>>>(), // comments of decisions not sent, by case
})

export const kept = nothing()

/** The next reader in this browser sees nothing of it. */
export function forget(): void {
  Object.assign(kept, nothing())
}

/** The case after another on the list, or with -1 before it. */
export function neighbour(id: string, by: number): string | undefined {
  const at = kept.list.indexOf(id)
  return at < 0 ? undefined : kept.list[at + by]
}
