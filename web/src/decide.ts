// Accept, amend or reject: what is asked, and what can go wrong on the way.
import { asProblem, call, type Decision, ProblemError, type Result, type Review, type Scan } from './api'
import type { Loaded } from './case'
import { dialog, h, show, tell } from './dom'
import { age, decided, upperFirst } from './format'
import { kept } from './kept'
import { final } from './marks'
import { problemBox } from './problem'
import { nameOf, paired } from './structures'
import { field } from './upload'

interface What {
  scan: Scan
  result: Result | undefined
  seen: number // decisions on this run that the reader has before him
  names: (structure: string) => string
  next?: string // how to get to the next case
  done(): void
}

const asks: Record<Decision, { title: string; help: string; word: string }> = {
  accept: { title: 'Accept the result', help: 'You looked at the images and agree that the result may stand in the record.', word: 'Accept' },
  amend: { title: 'Amend the result', help: 'The result may stand with your comment. What you leave out is shown and used for nothing; the scores are made anew without it, as a version that is to be decided on. This one stays as it is.', word: 'Amend' },
  reject: { title: 'Reject the result', help: 'The result must not be used. The report says so from now on, with your reason.', word: 'Reject' },
}

export const isDecision = (s: string | undefined): s is Decision => s !== undefined && Object.hasOwn(asks, s)

export function decide(decision: Decision, w: What): void {
  const ask = { ...asks[decision] }
  if (!w.result && decision === 'accept') {
    ask.title = 'Note and close'
    ask.help = 'There is no result. The case leaves the worklist; who noted it and when stays in the history.'
    ask.word = 'Close the case'
  }
  const comment = h('textarea', { id: 'comment', rows: decision === 'amend' ? 2 : 3, maxlength: 2000, required: decision !== 'accept', oninput: () => kept.drafts.set(w.scan.id, { ...kept.drafts.get(w.scan.id), [decision]: comment.value }) })
  comment.value = kept.drafts.get(w.scan.id)?.[decision] ?? ''
  const before = new Set((w.result?.amendment?.left_out ?? []).map((l) => l.structure))
  // By name, left and right beside each other; the midline comes last.
  const rows = paired(w.result?.volumes ?? []).sort((a, b) => b.sides.length - a.sides.length || a.name.localeCompare(b.name))
  const boxes = decision === 'amend' ? rows.flatMap((row) => row.sides.flatMap((v) => (v ? [{ structure: v.structure, box: h('input', { type: 'checkbox', value: v.structure, checked: before.has(v.structure), onchange: () => name() }) }] : []))) : []
  const says = h('div')
  const go = h('button', { class: decision === 'reject' ? 'main stop' : 'main' }, ask.word)
  const scoresAnew = (): boolean => boxes.some((b) => b.box.checked !== before.has(b.structure))
  const name = (): void => show(go, scoresAnew() ? 'Amend and score anew' : ask.word)
  const submit = async (e: Event): Promise<void> => {
    e.preventDefault()
    go.disabled = true
    show(says)
    const excluded = scoresAnew() ? boxes.filter((b) => b.box.checked).map((b) => b.structure) : undefined
    const text = comment.value.trim().replace(/\s*\n\s*/g, ' ')
    const body = { decision, run: w.scan.run, seen: w.seen, ...(text && { comment: text }), ...(excluded && { excluded }) }
    try {
      const made = (await call<Review>('POST', `/v1/cases/${w.scan.id}/review`, { body })).made_version
      kept.drafts.delete(w.scan.id)
      d.close()
      tell(made ? `Scored anew: version ${made}. Look at it, then decide.` : [w.result ? `${decided[decision]}.` : 'Noted.', w.next].filter(Boolean).join(' '))
      w.done()
    } catch (err) {
      go.disabled = false
      const stale = err instanceof ProblemError && ['result-changed', 'reviewed-meanwhile', 'case-held', 'scan-running'].includes(err.type)
      show(says, problemBox(asProblem(err)), stale && h('p', {}, h('button', { type: 'button', onclick: () => (d.close(), w.done()) }, 'Show what changed')))
    }
  }
  const d = dialog(
    ask.title,
    decision === 'amend' ? 'amending' : 'narrow',
    h(
      'form',
      { onsubmit: (e: Event) => void submit(e) },
      h('p', { class: 'help' }, ask.help),
      field('comment', decision === 'accept' ? 'Comment (optional)' : decision === 'reject' ? 'Why is it rejected?' : 'What is amended, and why?', comment),
      boxes.length > 0 && h('fieldset', { class: 'boxes' }, h('legend', {}, 'Leave out'), boxes.map((b) => h('label', {}, b.box, w.names(b.structure)))),
      decision === 'amend' && h('p', { class: 'help' }, 'Is the age or sex wrong? ', h('button', { type: 'button', class: 'quiet', onclick: () => (d.close(), correct(w)) }, 'Correct it instead'), ': the scan is then compared and scored anew.'),
      says,
      h('p', { class: 'ends' }, go, h('button', { type: 'button', onclick: () => d.close() }, 'Cancel')),
    ),
  )
  comment.focus()
}

/** Age or sex: a new result version, to be decided on when it is there. */
export function correct(w: Pick<What, 'scan' | 'done'>): void {
  const m = w.scan.metadata
  const years = h('input', { id: 'new-age', type: 'number', min: 0, max: 130, step: 'any', value: m.age_years, autocomplete: 'off' })
  const sex = h('select', { id: 'new-sex' }, !m.sex && h('option', { value: '' }, 'not known'), h('option', { value: 'F', selected: m.sex === 'F' }, 'female'), h('option', { value: 'M', selected: m.sex === 'M' }, 'male'))
  const says = h('div')
  const go = h('button', { class: 'main' }, 'Correct and analyse again')
  const submit = async (e: Event): Promise<void> => {
    e.preventDefault()
    const body: Record<string, unknown> = {}
    if (years.value !== '' && Number(years.value) !== m.age_years) body.age_years = Number(years.value)
    if (sex.value !== '' && sex.value !== m.sex) body.sex = sex.value
    if (Object.keys(body).length === 0) {
      show(says, h('p', { class: 'note', role: 'alert' }, m.sex && m.age_years != null ? 'That is what it was compared with already.' : 'Give what is missing: the scan is analysed when age and sex are known.'))
      return
    }
    go.disabled = true
    try {
      await call<Scan>('PATCH', `/v1/scans/${w.scan.id}`, { body })
      d.close()
      tell('Corrected. It is being analysed again.')
      w.done()
    } catch (err) {
      go.disabled = false
      show(says, problemBox(asProblem(err)))
    }
  }
  const d = dialog(
    'Correct age or sex',
    'narrow',
    h(
      'form',
      { onsubmit: (e: Event) => void submit(e) },
      h('p', { class: 'help' }, m.sex && m.age_years != null ? `The scan was compared with ${age(m.age_years, m.sex)}. A correction makes a new result version; the old one stays in the history.` : 'The scan is analysed when age and sex are known.'),
      h('div', { class: 'fields' }, field('new-age', 'Age at the scan, years', years), field('new-sex', 'Sex', sex)),
      says,
      h('p', { class: 'ends' }, go, h('button', { type: 'button', onclick: () => d.close() }, 'Cancel')),
    ),
  )
}

/** Decisions on a case, newest first. */
export function history({ reviews, scan, c, reading }: Loaded): HTMLElement {
  const time = (iso: string): string => new Date(iso).toLocaleString('en-GB', { dateStyle: 'medium', timeStyle: 'short' })
  return h(
    'section',
    { class: 'history' },
    h('h2', {}, 'History'),
    h(
      'ol',
      {},
      [...reviews].reverse().map((r) =>
        h(
          'li',
          {},
          h('b', { class: `decision ${r.decision}` }, decided[r.decision]),
          ` by ${r.mine ? 'you' : r.by}, `,
          h('time', { datetime: r.at }, time(r.at)),
          r.run !== c.run ? [' (an earlier result, ', r.result_version ? h('a', { href: `/v1/scans/${scan.id}/report.html?version=${r.result_version}`, target: '_blank', rel: 'noopener' }, `version ${r.result_version}`) : 'none', ')'] : r.result_version ? ` (version ${r.result_version})` : '',
          (r.excluded.length > 0 || r.made_version !== undefined) && h('p', {}, r.excluded.length > 0 ? `Left out: ${r.excluded.map((s) => nameOf(reading, s)).join(', ')}` : 'Everything taken back in', r.made_version !== undefined && `; scored anew as version ${r.made_version}`),
          r.comment && h('p', { class: 'comment' }, r.comment),
        ),
      ),
      scan.stages.filter((s) => final.has(s.state)).map((s) => h('li', {}, `${s.state === 'scored' ? `Result version ${c.result_version}` : upperFirst(s.state)}, `, h('time', { datetime: s.at }, time(s.at)))),
      h('li', {}, 'Received, ', h('time', { datetime: scan.received_at }, time(scan.received_at))),
    ),
  )
}
