// One case: what the scores say and how far to believe them, the picture, and
// every number behind them.
import { asProblem, call, type Case, type Decision, ProblemError, type Reading, type Result, type Review, type Scan, type Session, type Timeline } from './api'
import { correct, decide, history, isDecision } from './decide'
import { type Child, h, show, tell } from './dom'
import { age, decided, grouped, prose, when } from './format'
import { holder } from './hold'
import { kept, neighbour } from './kept'
import { type Following, followScan } from './listen'
import type { Page } from './main'
import { final, markOf, sign } from './marks'
import { picture } from './picture'
import { problemBox } from './problem'
import { recording, runSections, runVerdicts } from './run'
import { nameOf } from './structures'
import { amended, verdicts } from './verdicts'
import type { Viewer } from './viewer'
import { visits } from './visits'
import { chosenFirst, indices, volumes } from './volumes'

export interface Loaded {
  c: Case
  scan: Scan
  result: Result | undefined
  reading: Reading | undefined
  reviews: Review[]
  timeline: Timeline | undefined // with one visit or more
}

/** Decisions on the run that is shown. */
const current = (l: Loaded): Review[] => l.reviews.filter((r) => r.run === l.c.run)

export function casePage(into: HTMLElement, id: string, session: Session, act: string | undefined): Page {
  kept.last = id
  const stop = new AbortController()
  const left = (): boolean => stop.signal.aborted
  const mayDecide = session.role === 'clinician' || session.role === 'admin'
  const chosen = chosenFirst()
  const hold = holder(id, (heldBy) => {
    tell(`${heldBy}: it was taken over from you.`)
    if (loaded) drawHead(loaded)
  })
  let loaded: Loaded | undefined
  let following: Following | undefined
  let viewer: Viewer | undefined

  show(into, h('p', { class: 'dim pad' }, 'Loading the case'))
  void load()

  async function load(unattended = false): Promise<void> {
    const get = <T>(path: string): Promise<T> => call<T>('GET', path, { unattended })
    try {
      const [c, scan, reviews] = await Promise.all([get<Case>(`/v1/cases/${id}`), get<Scan>(`/v1/scans/${id}`), get<{ reviews: Review[] }>(`/v1/cases/${id}/review`)])
      let result: Result | undefined
      let reading: Reading | undefined
      let timeline: Timeline | undefined
      if (scan.state === 'scored') {
        ;[result, reading, timeline] = await Promise.all([get<Result>(`/v1/scans/${id}/result`), get<Reading>(`/v1/scans/${id}/reading.json`).catch(noReading), get<Timeline>(`/v1/cases/${id}/timeline`)])
      }
      if (left()) return
      loaded = { c, scan, result, reading, reviews: reviews.reviews, timeline }
      if (mayDecide && final.has(scan.state)) await hold.take()
      if (left()) return
      follow(scan)
      draw(loaded)
      if (isDecision(act)) ask(act)
      act = undefined
    } catch (e) {
      if (left()) return
      show(into, h('div', { class: 'pad' }, h('p', {}, h('a', { href: '#/' }, 'Back to the worklist')), problemBox(asProblem(e), () => void load())))
    }
  }

  /** A result from before readings were kept has none; the page then shows no curves. */
  function noReading(e: unknown): undefined {
    if (e instanceof ProblemError && e.problem.status === 404) return undefined
    throw e
  }

  function follow(scan: Scan): void {
    if (final.has(scan.state)) {
      following?.stop()
      following = undefined
    } else if (following) following.update(scan)
    else {
      following = followScan(scan, {
        heard(e) {
          // What was given back waits for another attempt.
          const givenBack = e.state === 'received' && Date.parse(e.at) > Date.parse(loaded!.scan.updated_at)
          if (final.has(e.state)) following = undefined
          if (final.has(e.state) || givenBack) void load(true)
          else stage(e.state)
        },
        reopening: () => load(true),
      })
    }
  }

  const head = h('div', { class: 'case-head' })
  const running = h('ol', { class: 'stages' })
  function stage(state: string): void {
    const all: [string, string][] = [['received', 'Stored'], ['checked', 'Checked'], ['segmented', 'Outlined'], ['measured', 'Measured'], ['scored', 'Scored']]
    const at = all.findIndex(([s]) => s === state)
    show(running, all.map(([, words], n) => h('li', { class: n <= at ? 'done' : '', 'aria-current': n === at ? 'step' : undefined }, words)))
  }

  function ask(d: Decision): void {
    if (!loaded || !mayDecide || !final.has(loaded.scan.state)) return
    if (hold.heldBy()) {
      tell(`${hold.heldBy()}. Take it over first.`)
      return
    }
    if (d !== 'accept' && !loaded.result) {
      tell('There is no result to amend or reject.')
      return
    }
    const { scan, result, reading } = loaded
    const next = neighbour(id, 1) && !document.body.classList.contains('keyless') ? 'j: next case.' : ''
    decide(d, { scan, result, seen: current(loaded).length, names: (s) => nameOf(reading, s), next, done: () => void load() })
  }

  function drawHead(l: Loaded): void {
    const { c, scan } = l
    const m = scan.metadata
    const heldBy = hold.heldBy()
    const last = current(l).at(-1)
    const next = neighbour(id, 1)
    const fact = (name: string, value: Child): Child => value && h('div', {}, h('dt', {}, name), h('dd', {}, value))
    const button = (d: Decision, key: string, words: string): HTMLElement => h('button', { type: 'button', class: `decide ${d}`, onclick: () => ask(d) }, words, ' ', h('kbd', {}, key))
    show(
      head,
      h('a', { href: '#/', class: 'back', 'aria-label': 'Back to the worklist' }, '←'),
      next && h('a', { href: `#/case/${next}`, class: 'button', id: 'next' }, 'Next ', h('kbd', {}, 'j')),
      h('h1', { title: c.subject_id }, c.subject_id),
      h(
        'dl',
        {},
        fact('Age, sex', age(m.age_years, m.sex)),
        fact('Head', l.result?.intracranial_volume_mm3 && `${grouped(l.result.intracranial_volume_mm3 / 1000)} ml`),
        fact('Run', l.result?.fmri && recording(l.result.fmri)),
        fact('Scanned', m.scan_date),
        fact('Accession', c.accession_number),
        fact('Scanner', [m.manufacturer, m.scanner, m.field_strength_t && `${m.field_strength_t} T`].filter(Boolean).join(' ')),
        fact('Received', when(c.received_at)),
        fact('Version', c.result_version > 1 && String(c.result_version)),
      ),
      h(
        'div',
        { class: 'act' },
        last && h('span', { class: `decision ${last.decision}` }, decided[last.decision], h('small', {}, `${last.mine ? 'you' : last.by}, ${when(last.at)}`)),
        heldBy && h('span', { class: 'held other', role: 'status' }, heldBy, ' ', h('button', { type: 'button', onclick: () => void hold.take(true).then(() => load(), (e) => tell(asProblem(e).title)) }, 'Take over')),
        mayDecide && !heldBy && final.has(scan.state) && h('span', { class: 'decisions' }, l.result ? [button('accept', 'a', 'Accept'), button('amend', 'e', 'Amend'), button('reject', 'r', 'Reject')] : button('accept', 'a', 'Note and close')),
      ),
    )
  }

  // The picture of one run stays as it is while what is said of it changes.
  const viewBox = h('section', { class: 'viewer', 'aria-label': 'Picture' })
  let pictured = ''
  let picturedVersion = 0

  function draw(l: Loaded): void {
    drawHead(l)
    if (l.result) drawResult(l, l.result)
    else if (final.has(l.scan.state)) show(into, head, h('div', { class: 'first-screen' }, ended(l), viewBox), h('div', { class: 'below' }, history(l)))
    else {
      stage(l.scan.state)
      show(into, head, h('div', { class: 'first-screen' }, h('section', { class: 'verdicts' }, h('h2', {}, 'Being analysed'), running, h('p', { class: 'dim' }, 'Seconds, as a rule. This page shows the result by itself.'), following?.el), viewBox))
    }
    const run = `${l.scan.run} ${l.scan.state}`
    if (pictured === run) return
    // A result that was scored anew has the label map of the version before.
    const same = l.result?.amendment?.from_version === picturedVersion && viewer !== undefined
    pictured = run
    picturedVersion = l.c.result_version
    if (same) return
    viewer?.leave()
    viewer = undefined
    void picture(l, viewBox, { session, hidden: chosen.hidden, signal: stop.signal, opened: (v) => (viewer = v) })
  }

  /** Refused, failed, cancelled: why, and what to do. */
  function ended(l: Loaded): HTMLElement {
    const { scan, c } = l
    const words: Record<string, [string, string]> = {
      refused: ['Refused: nothing was measured', 'What the scan shows cannot be measured reliably, so there are no volumes and no scores. This says nothing about the patient.'],
      failed: ['The analysis failed', 'The service could not finish; the scan itself may be fine. Run it again. If it fails again, give your administrator the time and the text below.'],
      cancelled: ['Cancelled', 'The analysis was stopped before it ended. The scan is kept.'],
    }
    const [title, text] = words[scan.state]!
    const again = h('button', { type: 'button', onclick: () => void retry() }, 'Analyse it again')
    return h(
      'section',
      { class: 'verdicts' },
      h('h2', { class: 'mark ended' }, sign(markOf(c).kind), title),
      h('p', {}, text),
      h('ul', { class: 'reasons' }, scan.reasons.map((r, n) => h('li', {}, prose(r.text), scan.reasons.findLastIndex((x) => x.code === r.code) === n && [' ', h('a', { href: `/problems/${r.code}`, target: '_blank', rel: 'noopener' }, 'What to do')]))),
      session.role !== 'researcher' && h('p', { class: 'ends' }, again, h('button', { type: 'button', onclick: () => correct({ scan, done: () => void load() }) }, 'Correct age or sex')),
      scan.state === 'refused' && h('p', { class: 'help' }, 'A better acquisition or another series of the same patient is handed over as a new scan.'),
    )
  }

  async function retry(): Promise<void> {
    try {
      await call('POST', `/v1/scans/${id}/retry`)
      await load()
    } catch (e) {
      tell(asProblem(e).title)
    }
  }

  function drawResult(l: Loaded, r: Result): void {
    const last = current(l).at(-1)
    // A decision of an earlier release is only noted: its scores still rest on what it left out.
    const excluded = new Set([...(last?.excluded ?? []), ...(r.amendment?.left_out ?? []).map((x) => x.structure)])
    const reports = (paper: string): Child => ['pdf', 'html'].map((kind) => h('a', { href: `/v1/scans/${id}/report.${kind}${paper}`, target: '_blank', rel: 'noopener' }, kind === 'pdf' ? 'PDF' : 'page'))
    show(
      into,
      head,
      last ? last.decision === 'reject' && h('p', { class: 'banner', role: 'alert' }, h('strong', {}, 'Rejected. '), last.comment) : decidedBefore(l),
      h(
        'div',
        { class: 'first-screen' },
        h(
          'section',
          { class: 'verdicts', 'aria-label': 'Findings' },
          amended(l, r),
          r.fmri ? runVerdicts(r, r.fmri, l.reading) : verdicts(l, r, excluded),
          h('p', { class: 'reports' }, h('span', {}, 'Report on A4: ', reports('')), h('span', {}, 'on Letter: ', reports('?paper=letter'))),
        ),
        viewBox,
      ),
      h('div', { class: 'below' }, r.fmri ? runSections(id, r.fmri, l.reading, goTo) : [volumes(l, r, excluded, chosen, { goTo, repaint: () => viewer?.hidden(chosen.hidden) }), indices(r), visits(l)], history(l), origins(r, l)),
    )
  }

  function go(by: number): void {
    const to = neighbour(id, by)
    if (to) location.hash = `#/case/${to}`
    else tell(by > 0 ? 'No case comes after this one on the list.' : 'No case comes before this one on the list.')
  }

  function goTo(label: number): void {
    if (viewer && !viewer.goTo(label)) tell('The label map does not hold this structure.')
  }

  function setOpacity(to: (now: number) => number): void {
    const slider = into.querySelector<HTMLInputElement>('#opacity')
    if (!slider || !viewer) return
    slider.value = String(Math.max(0, Math.min(1, to(Number(slider.value)))))
    viewer.opacity(Number(slider.value))
  }
  let before = 0.4
  // As on the screen, where the patient's right is on the left.
  const moves: Record<string, [number, number, number]> = { ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0], ArrowUp: [0, 0, 1], ArrowDown: [0, 0, -1], PageUp: [0, 1, 0], PageDown: [0, -1, 0] }

  return {
    leave() {
      stop.abort()
      following?.stop()
      viewer?.leave()
      hold.leave()
    },
    key(e) {
      const acts: Record<string, Decision> = { a: 'accept', e: 'amend', r: 'reject' }
      if (acts[e.key]) ask(acts[e.key]!)
      else if (e.key === 'j') go(1)
      else if (e.key === 'k') go(-1)
      else if (e.key === 'Escape') location.hash = '#/'
      else if (e.key === 'o') setOpacity((now) => (now > 0 ? ((before = now), 0) : before))
      else if (e.key === '[') setOpacity((now) => now - 0.1)
      else if (e.key === ']') setOpacity((now) => now + 0.1)
      else if (e.key === '1') viewer?.goTo(17)
      else if (e.key === '2') viewer?.goTo(53)
      else if (e.key === '3') viewer?.goToStart()
      else if (moves[e.key] && document.activeElement?.id === 'viewer') viewer?.move(moves[e.key]!)
      else return
      e.preventDefault()
    },
  }
}

/** What became of an earlier result, as long as nobody has decided on the one that is shown. What an amendment made says so itself. */
function decidedBefore(l: Loaded): Child {
  const r = l.reviews.at(-1)
  if (!r?.result_version || r.made_version) return undefined
  const attributes = r.decision === 'reject' ? { class: 'banner', role: 'alert' } : { class: 'banner past' }
  return h('p', attributes, h('strong', {}, `An earlier result (version ${r.result_version}) was ${decided[r.decision]!.toLowerCase()} by ${r.mine ? 'you' : r.by}`), r.comment && `: ${r.comment}`)
}

function origins(r: Result, l: Loaded): HTMLElement {
  const assets = [r.software.network, ...(r.fmri ? [] : [...(r.software.norms ?? []), ...(r.software.models ?? [])])]
  return h(
    'section',
    { class: 'origins' },
    h('h2', {}, 'Where it comes from'),
    [...(l.reading?.norms ?? []), ...(l.reading?.run?.method ?? [])].map((t) => h('p', {}, t)),
    h('details', {}, h('summary', {}, 'Versions and hashes'), h('p', {}, `NeuroScreen ${r.software.version}, kernel ${r.software.kernel}, ${r.schema}, version ${l.c.result_version}`), h('table', { class: 'hashes' }, h('tbody', {}, h('tr', {}, h('th', { scope: 'row' }, 'received file'), h('td', {}, h('code', {}, r.input.sha256))), assets.map((a) => h('tr', {}, h('th', { scope: 'row' }, a.name), h('td', {}, h('code', {}, a.sha256))))))),
    h('p', { class: 'dim' }, r.fmri ? 'Research use. For review by a qualified physician together with the source images.' : (r.scores?.[0]?.intended_use ?? '')),
  )
}
