// Every volume beside those of healthy people: a table, curves over age, indices.
import type { Result, Volume } from './api'
import type { Loaded } from './case'
import { drawCurve, outlying, strip } from './curve'
import { type Child, h, show, svg } from './dom'
import { fixed, grouped, percentile, prose, signed, upperFirst } from './format'
import { nameOf as nameIn, paired, type Paired, sideOf } from './structures'
import { ofTheNorm } from './verdicts'

/** What is chosen outlives a drawing of the page. */
export interface Chosen {
  row: string // whose curves are shown
  hidden: Set<number> // labels that are not shown over the picture
}

// White matter, cortex and CSF would only veil the anatomy; a click brings them.
export const chosenFirst = (): Chosen => ({ row: 'Hippocampus', hidden: new Set([2, 41, 3, 42, 7, 46, 8, 47, 24]) })

interface Picture {
  goTo(label: number): void
  /** Shows the labels that are not hidden now. */
  repaint(): void
}

type Row = Paired<Volume>

export function volumes(l: Loaded, r: Result, excluded: ReadonlySet<string>, chosen: Chosen, picture: Picture): HTMLElement {
  const nameOf = (structure: string): string => nameIn(l.reading, structure)
  const all = r.volumes ?? []
  const rows = paired(all, l.reading)
  const far = (row: Row): number => Math.max(-1, ...row.sides.flatMap((v) => (v && v.z !== null ? [Math.abs(v.z)] : [])))
  rows.sort((a, b) => far(b) - far(a))
  if (!rows.some((x) => x.name === chosen.row)) chosen.row = rows[0]?.name ?? ''
  const tested = all.filter((v) => v.z !== null)
  const outside = tested.filter((v) => outlying(v)).length
  const unknown = (r.qc.reasons ?? []).some((x) => x.code === 'segmenter-not-calibrated')
  const byChance = unknown ? 'how many would in a healthy person is not known for this segmenter' : `about ${Math.round(tested.length * 0.1)} would in a healthy person`

  const curves = h('aside', { class: 'curves', 'aria-label': 'Over age', 'aria-live': 'polite' })
  const drawCurves = (): void => {
    const row = rows.find((x) => x.name === chosen.row)
    const drawn = (row?.sides ?? []).map((v) => {
      const c = v && v.z !== null && l.reading?.curves.find((x) => x.structure === v.structure)
      const side = v && sideOf(l.reading, v.structure)
      return v && c && h('figure', {}, h('figcaption', {}, side && `${upperFirst(side)}, `, v.percentile !== null && h('span', {}, `percentile ${percentile(v.percentile)}`)), drawCurve(c, v, l.scan.metadata.age_years, nameOf(v.structure), others(l, v.structure)))
    })
    show(
      curves,
      h('h3', {}, chosen.row),
      row?.sides.some((v) => v?.left_out) && h('p', { class: 'note' }, `${row.sides.flatMap((v) => (v?.left_out ? [nameOf(v.structure)] : [])).join(', ')}: left out by a reviewer and not compared.`),
      drawn.some(Boolean) ? drawn : row?.sides.some((v) => v?.left_out) ? false : h('p', { class: 'dim' }, l.reading ? 'Not compared with healthy people: the norm has no reference for this structure, age or head size, or what was measured may not be compared.' : 'This result was made before curves were kept with it. Analyse the scan again to get them.'),
      drawn.some(Boolean) && h('p', { class: 'dim' }, 'Grey: 5th to 95th percentile and median of healthy people with a head of this size. Point: this scan, with the 95 % interval of its measurement.'),
    )
    for (const tr of table.querySelectorAll('tr[data-name]')) tr.classList.toggle('chosen', (tr as HTMLElement).dataset.name === chosen.row)
  }

  const choose = (row: Row, v: Volume | undefined): void => {
    chosen.row = row.name
    drawCurves()
    const to = v ?? row.sides.find(Boolean)
    if (to) picture.goTo(to.label)
  }
  const cells = (row: Row, v: Volume | undefined): Child => {
    if (!v) return h('td', { class: 'side', colspan: 5 }, '–')
    const out = outlying(v)
    const gone = v.left_out || excluded.has(v.structure)
    return [
      h(
        'td',
        { class: `r side${gone ? ' gone' : ''}` },
        h('button', { type: 'button', class: 'go', title: `Go to ${nameOf(v.structure)}`, 'aria-label': `${nameOf(v.structure)}, ${grouped(v.mm3)} mm³: go there`, onclick: (e: Event) => (e.stopPropagation(), choose(row, v)) }, grouped(v.mm3)),
        h('small', {}, gone ? 'left out' : `± ${grouped(v.standard_error_mm3)}`),
      ),
      h('td', { class: 'r' }, v.expected_mm3 === null ? h('small', {}, 'no reference') : [grouped(v.expected_mm3), h('small', {}, `${grouped(v.p5_mm3!)}–${grouped(v.p95_mm3!)}`)]),
      h('td', { class: 'r dim' }, v.percent_icv === null ? '–' : fixed(v.percent_icv, 2)),
      h('td', { class: `r z ${out}` }, v.z === null ? '–' : [signed(v.z, 1), v.z_ci95 && h('small', {}, `${signed(v.z_ci95[0]!, 1)} to ${signed(v.z_ci95[1]!, 1)}`)]),
      h('td', { class: `pct ${out}` }, h('span', {}, v.percentile === null ? '–' : percentile(v.percentile), out && h('span', { class: 'tag' }, out)), strip(v)),
    ]
  }
  const eye = (row: Row): HTMLElement => {
    const labels = row.sides.flatMap((v) => (v ? [v.label] : []))
    const colour = l.reading?.structures?.find((s) => s.label === labels[0])?.colour
    const box = h('button', { type: 'button', class: 'eye', 'aria-pressed': labels.some((n) => chosen.hidden.has(n)) ? 'false' : 'true', 'aria-label': `Show ${row.name.toLowerCase()} over the picture`, title: 'Show over the picture' }, svg('svg', { viewBox: '0 0 12 12', 'aria-hidden': 'true' }, svg('rect', { x: 1, y: 1, width: 10, height: 10, rx: 2, fill: colour ?? '#888', stroke: colour ?? '#888' })))
    box.addEventListener('click', (e) => {
      e.stopPropagation()
      const on = box.getAttribute('aria-pressed') === 'false'
      box.setAttribute('aria-pressed', String(on))
      for (const n of labels) on ? chosen.hidden.delete(n) : chosen.hidden.add(n)
      picture.repaint()
    })
    return box
  }
  const column = (): Child => [h('th', { scope: 'col', class: 'r side' }, 'mm³'), h('th', { scope: 'col', class: 'r' }, 'expected'), h('th', { scope: 'col', class: 'r' }, h('abbr', { title: 'Per cent of the intracranial volume' }, '% ICV')), h('th', { scope: 'col', class: 'r' }, 'z'), h('th', { scope: 'col' }, 'percentile')]
  const table = h(
    'table',
    { class: 'volumes' },
    h('caption', { class: 'unseen' }, 'Volumes, the farthest from the reference first'),
    h('thead', {}, h('tr', { class: 'sides' }, h('td', { colspan: 2 }), h('th', { scope: 'colgroup', colspan: 5, class: 'side' }, 'Left or midline'), h('th', { scope: 'colgroup', colspan: 5, class: 'side' }, 'Right')), h('tr', {}, h('td', {}), h('th', { scope: 'col' }, 'Structure'), column(), column())),
    h('tbody', {}, rows.map((row) => h('tr', { 'data-name': row.name, onclick: () => choose(row, undefined) }, h('td', {}, eye(row)), h('th', { scope: 'row' }, row.name), cells(row, row.sides[0]), row.sides.length > 1 ? cells(row, row.sides[1]) : h('td', { class: 'side', colspan: 5 })))),
  )
  const toggleAll = (on: boolean): void => {
    chosen.hidden.clear()
    if (!on) for (const v of all) chosen.hidden.add(v.label)
    for (const b of table.querySelectorAll('.eye')) b.setAttribute('aria-pressed', String(on))
    picture.repaint()
  }
  const toggle = (on: boolean, words: string): HTMLElement => h('button', { type: 'button', class: 'quiet', onclick: () => toggleAll(on) }, words)
  drawCurves() // before the region is on the page, where it would be read out
  return h(
    'section',
    { class: 'volumes-and-curves' },
    h('div', { class: 'table' }, h('h2', {}, 'Volumes'), h('p', { class: 'dim' }, `Of ${tested.length} volumes with a reference, ${outside} lie outside of the 5th to 95th percentile; ${byChance}. Labels over the picture: `, toggle(true, 'show all'), ' ', toggle(false, 'hide all')), (r.qc.reasons ?? []).filter((x) => ofTheNorm.has(x.code)).map((x) => h('p', { class: 'dim' }, prose(x.text))), h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Volumes' }, table)),
    curves,
  )
}

/** What the other visits measured; what other weights of the network did is not comparable. */
function others(l: Loaded, structure: string): { age: number; mm3: number }[] {
  const visits = l.timeline?.visits ?? []
  const network = visits.find((v) => v.scan_id === l.scan.id)?.network_sha256
  return visits.flatMap((v) => {
    const found = v.volumes.find((x) => x.structure === structure)
    return v.scan_id !== l.scan.id && v.network_sha256 === network && !v.rejected && found && !found.left_out && v.age_years !== undefined ? [{ age: v.age_years, mm3: found.mm3 }] : []
  })
}

export function indices(r: Result): HTMLElement | false {
  if (!r.indices?.length) return false
  const names: Record<string, [string, number]> = {
    hippocampal_asymmetry_percent: ['Hippocampal asymmetry 100 (R − L) / (R + L), %', 1],
    hoc_left: ['Hippocampal occupancy, left', 3],
    hoc_right: ['Hippocampal occupancy, right', 3],
    brain_parenchymal_fraction: ['Brain parenchymal fraction', 3],
  }
  return h(
    'section',
    {},
    h('h2', {}, 'Asymmetry and indices'),
    h(
      'table',
      { class: 'indices' },
      h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Index'), h('th', { scope: 'col', class: 'r' }, 'Value'), h('th', { scope: 'col', class: 'r' }, '95 % interval'), h('th', { scope: 'col', class: 'r' }, 'Healthy people, 5–95 %'), h('th', { scope: 'col' }, h('span', { class: 'unseen' }, 'Outside')))),
      h(
        'tbody',
        {},
        r.indices.map((i) => {
          const [name, digits] = names[i.name] ?? [upperFirst(i.name.replaceAll('_', ' ')), 3]
          const [lo, hi] = i.reference ?? []
          const out = lo === undefined || hi === undefined ? '' : i.value < lo ? 'low' : i.value > hi ? 'high' : ''
          return h('tr', {}, h('th', { scope: 'row' }, name), h('td', { class: `r z ${out}` }, fixed(i.value, digits)), h('td', { class: 'r dim' }, i.ci95 ? `${fixed(i.ci95[0]!, digits)} to ${fixed(i.ci95[1]!, digits)}` : '–'), h('td', { class: 'r' }, lo === undefined || hi === undefined ? '–' : `${fixed(lo, digits)} to ${fixed(hi, digits)}`), h('td', {}, out && h('span', { class: 'tag' }, out)))
        }),
      ),
    ),
  )
}
