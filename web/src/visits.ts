// Earlier and later visits, each change beside the smallest that could be told
// from error.
import type { Timeline } from './api'
import type { Loaded } from './case'
import { h } from './dom'
import { fixed, grouped, prose, signed } from './format'
import { nameOf } from './structures'

export function visits(l: Loaded): HTMLElement | false {
  const t = l.timeline
  if (!t || t.visits.length < 2) return false
  const label = (scan: string): string => {
    const v = t.visits.find((x) => x.scan_id === scan)
    return v?.scan_date ?? (v?.age_years === undefined ? 'a visit' : `at ${Number(v.age_years.toFixed(1))} years`)
  }
  const number = (v: number | undefined, digits = 0): string => (v === undefined ? '–' : signed(v, digits))
  const verdicts: Record<string, string> = { smaller: 'smaller', larger: 'larger', 'no-measurable-change': 'no measurable change', 'not-comparable': 'not comparable' }
  const tells = (c: { verdict: string }): boolean => c.verdict === 'smaller' || c.verdict === 'larger'
  const always = /Hippocampus|Lateral-Ventricle/
  const table = (changes: Timeline['changes']): HTMLElement =>
    h(
      'table',
      { class: 'indices changes' },
      h('thead', {}, h('tr', {}, ['Structure', 'Change, mm³', '%', 'Detectable, mm³', 'mm³ a year', '% a year', 'Healthy, mm³ a year', ''].map((x, n) => h('th', { scope: 'col', class: n > 0 && n < 7 ? 'r' : '' }, x || h('span', { class: 'unseen' }, 'Verdict'))))),
      h(
        'tbody',
        {},
        changes.map((c) =>
          h(
            'tr',
            {},
            h('th', { scope: 'row' }, nameOf(l.reading, c.structure)),
            h('td', { class: `r z ${tells(c) ? 'low' : ''}` }, number(c.mm3)),
            h('td', { class: 'r' }, number(c.percent, 1)),
            h('td', { class: 'r' }, c.smallest_detectable_mm3 === undefined ? '–' : `± ${grouped(c.smallest_detectable_mm3)}`),
            h('td', { class: 'r' }, number(c.mm3_per_year)),
            h('td', { class: 'r' }, number(c.percent_per_year, 1)),
            h('td', { class: 'r' }, number(c.expected_mm3_per_year)),
            h('td', {}, tells(c) ? h('span', { class: 'tag' }, verdicts[c.verdict]) : h('span', { class: 'dim' }, verdicts[c.verdict] ?? c.verdict), c.verdict === 'not-comparable' && h('small', {}, ` ${prose(c.text)}`)),
          ),
        ),
      ),
    )
  // From each visit to the next, the newest first, and over the whole time.
  const spans = [...new Set(t.changes.map((c) => `${c.from_scan_id} ${c.to_scan_id}`))].reverse()
  return h(
    'section',
    { class: 'visits' },
    h('h2', {}, 'Over time'),
    h('ol', {}, t.visits.map((v) => h('li', {}, v.scan_id === l.scan.id ? h('b', { 'aria-current': 'page' }, `${label(v.scan_id)}, this scan`) : h('a', { href: `#/case/${v.scan_id}` }, label(v.scan_id)), h('small', {}, [v.age_years !== undefined && `${Number(v.age_years.toFixed(1))} years`, v.scanner, v.qc === 'review' && 'image quality: look twice', v.rejected && 'rejected'].filter(Boolean).join(', '))))),
    t.notes.map((n) => h('p', { class: 'dim' }, prose(n.text))),
    h('p', { class: 'dim' }, 'Detectable: the smallest change that can be told from the error of both measurements (95 %). Hippocampi and lateral ventricles are shown in any case, others when they changed by more than that.'),
    spans.map((span) => {
      const all = t.changes.filter((c) => `${c.from_scan_id} ${c.to_scan_id}` === span)
      const shown = all.filter((c) => tells(c) || always.test(c.structure)).sort((x, y) => Number(tells(y)) - Number(tells(x)))
      const [from, to] = span.split(' ')
      const years = all[0]?.years
      return h(
        'section',
        {},
        h('h3', {}, `${label(from!)} to ${label(to!)}`, years !== undefined && h('small', {}, `${fixed(years, 1)} years`), h('small', {}, `${all.filter(tells).length} of ${all.length} volumes changed measurably`)),
        table(shown),
      )
    }),
  )
}
