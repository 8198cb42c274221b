// What a site says of its own people: how frequent conditions are among them,
// and what its controls and labelled cases showed.
import { type AgePrior, asProblem, call, type Problem, ProblemError, type SiteSettings } from './api'
import { type Child, h, show, tell } from './dom'
import { fixed, grouped, sentence } from './format'
import { problemBox } from './problem'
import { field } from './upload'

const inWords = (list: AgePrior[]): string => list.map((p) => (p.prior === 0 ? `none from ${p.from_age} on` : `from ${p.from_age}: ${Number((100 * p.prior).toFixed(2))} %`)).join('; ')

/** Asks for the priors of a condition. value() is undefined for the program's own, an empty list for none. */
export function priors(id: string, title: string, own: AgePrior[] | null | undefined, effective: AgePrior[] | null | undefined): { element: HTMLElement; value(): AgePrior[] | undefined } {
  const rows: { age: HTMLInputElement; percent: HTMLInputElement; row: HTMLElement }[] = []
  const list = h('div', { class: 'ages' })
  const add = (p?: AgePrior): void => {
    const age = h('input', { type: 'number', min: 0, max: 130, step: 'any', required: true, value: p?.from_age, autocomplete: 'off', 'aria-label': `${title}: from the age of` })
    const percent = h('input', { type: 'number', min: 0, max: 99.9, step: 'any', required: true, value: p && Number((100 * p.prior).toFixed(4)), autocomplete: 'off', 'aria-label': `${title}: prior in per cent` })
    const row = h('div', {}, 'From ', age, ' years: ', percent, ' % ', h('button', { type: 'button', class: 'quiet', 'aria-label': 'Remove this age', onclick: () => (rows.splice(rows.indexOf(one), 1), row.remove()) }, 'Remove'))
    const one = { age, percent, row }
    rows.push(one)
    list.append(row)
  }
  const kind = h('select', { id, onchange: () => draw() }, h('option', { value: 'default', selected: !own }, 'the defaults'), h('option', { value: 'none', selected: own?.length === 0 }, 'none: no probabilities'), h('option', { value: 'own', selected: !!own?.length }, 'the site’s own'))
  const more = h('div', {})
  const draw = (): void => {
    if (kind.value === 'own' && rows.length === 0) for (const p of effective?.length ? effective : [undefined]) add(p)
    show(more, kind.value === 'own' ? [list, h('button', { type: 'button', class: 'quiet', onclick: () => add() }, 'Add an age'), h('p', { class: 'dim' }, 'Share of the people scanned here who have the condition; each age up to the next, 0 % ends the range.')] : kind.value === 'default' && !own && h('p', { class: 'dim' }, `${sentence(inWords(effective ?? []))}`))
  }
  draw()
  return {
    element: h('div', { class: 'priors' }, h('label', { for: id }, title), kind, more),
    value: () => (kind.value === 'default' ? undefined : kind.value === 'none' ? [] : rows.map((r) => ({ from_age: Number(r.age.value), prior: Number(r.percent.value) / 100 }))),
  }
}

interface Proposal {
  schema: string
  site_shift?: SiteSettings['site_shift']
  recalibrations?: SiteSettings['recalibrations']
  evidence?: { people?: number; manifest?: string } | null
}

const range = (v: number[]): string => (Math.min(...v) === Math.max(...v) ? String(v[0]) : `${Math.min(...v)} to ${Math.max(...v)}`)

/** A calibration in words. */
function described(c: Pick<Proposal, 'site_shift' | 'recalibrations'>): Child {
  const s = c.site_shift
  const list = Object.entries(s?.structures ?? {})
  return [
    s
      ? [
          h('p', {}, h('b', {}, 'Control shift '), `${s.name}, version ${s.version}, for volumes of ${s.segmenter}. ${sentence(s.source)} ${list.length} structures, from ${list.length ? range(list.map(([, m]) => m.n)) : 0} healthy people each.`),
          h('details', {}, h('summary', {}, 'Structures'), h('ul', { class: 'columns' }, list.map(([name, m]) => h('li', {}, `${name}: mean z ${fixed(m.mean_z, 2)}, spread ${fixed(m.sd_z, 2)}, ${m.n} people`)))),
        ]
      : h('p', {}, h('b', {}, 'No control shift: '), 'the spread between sites widens every interval.'),
    c.recalibrations?.length
      ? h('ul', {}, c.recalibrations.map((r) => h('li', {}, h('b', {}, `Recalibration of ${r.model}: `), `ln(LR) becomes ${fixed(r.intercept, 2)} + ${fixed(r.slope, 2)} × ln(LR), for volumes of ${r.segmenter}; from ${grouped(r.cases)} cases and ${grouped(r.controls)} controls. `, sentence(r.source))))
      : h('p', {}, h('b', {}, 'No recalibration.')),
  ]
}

const has = (o: unknown, kind: 'string' | 'number', ...names: string[]): boolean => typeof o === 'object' && o !== null && names.every((n) => typeof (o as Record<string, unknown>)[n] === kind)

/** Whether a file's calibration can be shown; all else of it the service judges. */
const presentable = ({ site_shift: s, recalibrations: r }: Proposal): boolean =>
  (!s || (has(s, 'string', 'name', 'version', 'segmenter', 'source') && Object.values(s.structures ?? {}).every((m) => has(m, 'number', 'n', 'mean_z', 'sd_z')))) &&
  (!r || (Array.isArray(r) && r.every((one) => has(one, 'string', 'model', 'segmenter', 'source') && has(one, 'number', 'intercept', 'slope', 'cases', 'controls'))))

const proposalSchema = 'neuroscreen.proposal/1'

/** The calibration that holds, and a proposal's in its place. It changes whole: recalibrations are fitted under the shift. */
export function calibration(at: string, now: SiteSettings, done: () => void): Child {
  const file = h('input', { id: 'proposal', type: 'file', accept: '.json,application/json', onclick: () => (file.value = ''), onchange: () => void choose() }) // the same file, corrected, is a change too
  const note = h('input', { id: 'calibration-note', required: true, maxlength: 500, autocomplete: 'off' })
  const shown = h('div', { 'aria-live': 'polite' })
  const wrong = h('div')
  const go = h('button', { class: 'main', disabled: true }, 'Take it over')
  let proposed: Proposal | undefined
  async function choose(): Promise<void> {
    proposed = undefined
    go.disabled = true
    show(wrong)
    show(shown)
    const chosen = file.files?.[0]
    if (!chosen) return
    try {
      const p = JSON.parse(await chosen.text()) as Proposal | null
      if (p?.schema !== proposalSchema) throw new Error(`the file's schema is ${String(p?.schema)}, not ${proposalSchema}`)
      if (!presentable(p)) throw new Error('its shift or its recalibrations are not as validate writes them')
      proposed = p
    } catch (e) {
      show(wrong, problemBox({ type: 'invalid-proposal', title: 'Not a proposal', status: 0, detail: `${sentence(e instanceof Error ? e.message : String(e))} A proposal is what neuroscreen validate writes with --propose.` } satisfies Problem))
      return
    }
    go.disabled = false
    if (!note.value && proposed.evidence?.people) note.value = `proposed by validate on ${proposed.evidence.people} people, manifest ${String(proposed.evidence.manifest ?? '').slice(0, 12)}`
    show(shown, h('h3', {}, 'Proposed in its place'), described(proposed))
  }
  const put = async (c: Pick<Proposal, 'site_shift' | 'recalibrations'>): Promise<void> => {
    try {
      await call<SiteSettings>('PUT', at, { body: { replaces: now.version, note: note.value.trim(), ...(c.site_shift && { site_shift: c.site_shift }), recalibrations: c.recalibrations ?? [] } })
      tell('Stored. New results are made with it.')
      done()
    } catch (err) {
      show(wrong, problemBox(asProblem(err), err instanceof ProblemError && err.type === 'settings-changed' ? done : undefined))
    }
  }
  const form = h(
    'form',
    { onsubmit: (e: Event) => (e.preventDefault(), proposed && void put(proposed)) },
    h('div', { class: 'inline' }, field('proposal', 'What neuroscreen validate proposed (--propose)', file)),
    shown,
    h('div', { class: 'inline' }, field('calibration-note', 'Why it is changed, for the trail; no patient data', note), go, (now.site_shift || now.recalibrations.length > 0) && h('button', { type: 'button', onclick: () => form.reportValidity() && void put({}) }, 'Remove what holds')),
    wrong,
  )
  return [described(now), form]
}
