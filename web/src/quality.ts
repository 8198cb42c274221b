// The verdict on how good an image or a run is.
import type { Result } from './api'
import { type Child, h } from './dom'
import { prose } from './format'
import { sign } from './marks'

type QC = Result['qc']

const words: Record<string, string> = { pass: 'Passed', review: 'Look twice', refuse: 'Too poor for any score' }
const signs = { pass: 'none', review: 'review', refuse: 'ended' } as const

/** rest is said before the metrics, and notSeen with them. */
export function quality(title: string, qc: QC, reasons: { text: string }[], rest: Child, summary: string, notSeen: string): HTMLElement {
  const metrics = Object.entries(qc.metrics ?? {}).sort(([a], [b]) => a.localeCompare(b))
  return h(
    'article',
    { class: `verdict quality ${qc.verdict}` },
    h('h2', {}, sign(signs[qc.verdict]), h('span', {}, title), h('span', { class: 'headline' }, words[qc.verdict])),
    reasons.length > 0 && h('ul', {}, reasons.map((x) => h('li', {}, prose(x.text)))),
    rest,
    h(
      'details',
      {},
      h('summary', {}, summary),
      h('p', {}, notSeen),
      h('dl', { class: 'metrics' }, metrics.map(([k, v]) => h('div', {}, h('dt', {}, k.replaceAll('_', ' ')), h('dd', {}, String(Number(v.toPrecision(4))))))),
    ),
  )
}
