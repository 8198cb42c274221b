// What a case is, as a sign that does not need colour.
import { h, svg } from './dom'
import type { Case, Scan } from './api'

/** States in which nothing more happens by itself. */
export const final: ReadonlySet<Scan['state']> = new Set(['scored', 'refused', 'failed', 'cancelled'])

export interface Mark {
  kind: 'flagged' | 'review' | 'ended' | 'running' | 'none' | 'abstained'
  words: string
}

export function markOf(c: Pick<Case, 'state' | 'flag' | 'condition'>): Mark {
  if (c.state === 'refused') return { kind: 'ended', words: 'Refused' }
  if (c.state === 'failed') return { kind: 'ended', words: 'Failed' }
  if (c.state === 'cancelled') return { kind: 'abstained', words: 'Cancelled' }
  if (c.state !== 'scored') return { kind: 'running', words: 'Analysing' }
  if (c.flag === 'flagged') return { kind: 'flagged', words: 'Flagged' }
  if (c.flag === 'review') return { kind: 'review', words: 'Second look' }
  if (!c.condition) return { kind: 'abstained', words: 'No score' }
  return { kind: 'none', words: 'Not flagged' }
}

const shapes: Record<Mark['kind'], string> = {
  flagged: 'M8 1.5 15 14H1Z',
  review: 'M8 1 15 8 8 15 1 8Z',
  ended: 'M2 2 14 14M14 2 2 14',
  running: 'M8 2a6 6 0 1 1-6 6',
  none: 'M2 8H14',
  abstained: 'M8 2a6 6 0 1 1 0 12 6 6 0 0 1 0-12Z',
}

const filled = new Set<Mark['kind']>(['flagged', 'review'])

export function sign(kind: Mark['kind']): SVGElement {
  return svg(
    'svg',
    { class: `sign ${kind}`, viewBox: '0 0 16 16', 'aria-hidden': 'true' },
    svg('path', { d: shapes[kind], class: filled.has(kind) ? 'solid' : 'line' }),
  )
}

export const marked = (m: Mark): HTMLElement => h('span', { class: `mark ${m.kind}` }, sign(m.kind), m.words)
