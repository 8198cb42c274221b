// One case: what the scores say and how far to believe them, the picture, and
// every number behind them.
import { asProblem, call, type Case, type Decision, type Hold, ProblemError, raw, type Reading, type Result, type Review, type Scan, type ScanEvent, type Score, type ScoreInWords, type Session, type Structure, type Timeline, type Volume } from './api'
import { drawCurve, strip } from './curve'
import { correct, decide, history } from './decide'
import { type Child, h, show, svg, tell } from './dom'
import { showCard } from './cards'
import { age, bound, conditions, decided, fixed, grouped, percent, percentile, prose, ratio, signed, typeset, upperFirst, when } from './format'
import type { Page } from './main'
import { markOf, type Mark, sign } from './marks'
import { problemBox } from './problem'
import { recording, runLayers, runSections, runVerdicts } from './run'
import { NoWebGL, openViewer, type Viewer } from './viewer'
import { cameFrom } from './worklist'

interface Loaded {
  c: Case
  scan: Scan
  result: Result | undefined
  reading: Reading | undefined
  reviews: Review[]
  timeline: Timeline | undefined // with one visit or more
}

const final = new Set(['scored', 'refused', 'failed', 'cancelled'])
const outlying = (v: Volume): 'low' | 'high' | '' => (v.z === null ? '' : v.z < -1.6449 ? 'low' : v.z > 1.6449 ? 'high' : '')

export function casePage(into: HTMLElement, id: string, session: Session, act: string | undefined): Page {
  cameFrom(id)
  const stop = new AbortController()
  let loaded: Loaded | undefined
  let hold: Hold | undefined
  let heldBy = '' // why it is not ours
  let renew: ReturnType<typeof setInterval> | undefined
  let events: EventSource | undefined
  let viewer: Viewer | undefined
  let left = false
  const mayDecide = session.role === 'clinician' || session.role === 'admin'

  show(into, h('p', { class: 'dim pad' }, 'Loading the case'))
  void load()

  async function load(): Promise<void> {
    try {
      const [c, scan, reviews] = await Promise.all([call<Case>('GET', `/v1/cases/${id}`), call<Scan>('GET', `/v1/scans/${id}`), call<{ reviews: Review[] }>('GET', `/v1/cases/${id}/review`)])
      let result: Result | undefined
      let reading: Reading | undefined
      let timeline: Timeline | undefined
      if (scan.state === 'scored') {
        ;[result, reading, timeline] = await Promise.all([call<Result>('GET', `/v1/scans/${id}/result`), call<Reading>('GET', `/v1/scans/${id}/reading.json`).catch(noReading), call<Timeline>('GET', `/v1/cases/${id}/timeline`)])
      }
      if (left) return
      loaded = { c, scan, result, reading, reviews: reviews.reviews, timeline }
      if (mayDecide && final.has(scan.state)) await take()
      if (left) return
      draw(loaded)
      if (!final.has(scan.state)) follow()
      if (act && mayDecide && final.has(scan.state)) ask(act as Decision)
      act = undefined
    } catch (e) {
      if (left) return
      show(into, h('div', { class: 'pad' }, h('p', {}, h('a', { href: '#/' }, 'Back to the worklist')), problemBox(asProblem(e), () => void load())))
    }
  }

  /** A result from before readings were kept has none; the page then shows no curves. */
  function noReading(e: unknown): undefined {
    if (e instanceof ProblemError && e.problem.status === 404) return undefined
    throw e
  }

  async function take(over = false): Promise<void> {
    heldBy = ''
    try {
      hold = await call<Hold>('PUT', `/v1/cases/${id}/hold`, { body: over ? { take_over: true } : {}, unattended: true })
      clearInterval(renew)
      renew = setInterval(() => void call('PUT', `/v1/cases/${id}/hold`, { body: {}, unattended: true }).catch(lost), 120_000)
    } catch (e) {
      hold = undefined
      if (e instanceof ProblemError && e.type === 'case-held') heldBy = e.message
      else throw e
    }
  }

  function lost(e: unknown): void {
    if (!(e instanceof ProblemError) || e.type !== 'case-held' || left) return
    clearInterval(renew)
    hold = undefined
    heldBy = e.message
    tell(`${heldBy}: it was taken over from you.`)
    if (loaded) drawHead(loaded)
  }

  function follow(): void {
    events?.close()
    events = new EventSource(`/v1/scans/${id}/events`)
    events.addEventListener('state', (e) => {
      const ev = JSON.parse((e as MessageEvent<string>).data) as ScanEvent
      if (!loaded || left || ev.run < loaded.scan.run) return
      if (final.has(ev.state)) {
        events?.close()
        void load()
        return
      }
      stage(ev.state)
    })
  }

  const head = h('div', { class: 'case-head' })
  const running = h('ol', { class: 'stages' })
  function stage(state: string): void {
    const all: [string, string][] = [['received', 'Stored'], ['checked', 'Checked'], ['segmented', 'Outlined'], ['measured', 'Measured'], ['scored', 'Scored']]
    const at = all.findIndex(([s]) => s === state)
    show(running, all.map(([, words], n) => h('li', { class: n <= at ? 'done' : '', 'aria-current': n === at ? 'step' : undefined }, words)))
  }

  const nameOf = (structure: string): string => {
    const s = structures().find((x) => x.structure === structure)
    return s ? (s.side ? `${upperFirst(s.side)} ${s.name.charAt(0).toLowerCase()}${s.name.slice(1)}` : s.name) : structure
  }
  const sideOf = (structure: string): Child => {
    const s = structures().find((x) => x.structure === structure)
    return s?.side ? `${upperFirst(s.side)}, ` : ''
  }
  const structures = (): Structure[] => loaded?.reading?.structures ?? []
  const current = (l: Loaded): Review[] => l.reviews.filter((r) => r.run === l.c.run)

  function ask(d: Decision): void {
    if (!loaded || !mayDecide || !final.has(loaded.scan.state)) return
    if (heldBy) {
      tell(`${heldBy}. Take it over first.`)
      return
    }
    if (d !== 'accept' && !loaded.result) {
      tell('There is no result to amend or reject.')
      return
    }
    decide(d, { scan: loaded.scan, result: loaded.result, seen: current(loaded).length, names: nameOf, done: () => void load() })
  }

  function drawHead(l: Loaded): void {
    const { c, scan } = l
    const m = scan.metadata
    const last = current(l).at(-1)
    const fact = (name: string, value: Child): Child => value && h('div', {}, h('dt', {}, name), h('dd', {}, value))
    const button = (d: Decision, key: string, words: string): HTMLElement => h('button', { type: 'button', class: `decide ${d}`, onclick: () => ask(d) }, words, ' ', h('kbd', {}, key))
    show(
      head,
      h('a', { href: '#/', class: 'back', 'aria-label': 'Back to the worklist' }, '←'),
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
        heldBy && h('span', { class: 'held other', role: 'status' }, heldBy, ' ', h('button', { type: 'button', onclick: () => void take(true).then(() => load(), (e) => tell(asProblem(e).title)) }, 'Take over')),
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
    else if (final.has(l.scan.state)) show(into, head, h('div', { class: 'first-screen' }, ended(l), viewBox), h('div', { class: 'below' }, history(l.reviews, l.scan, l.c, nameOf)))
    else {
      stage(l.scan.state)
      show(into, head, h('div', { class: 'first-screen' }, h('section', { class: 'verdicts' }, h('h2', {}, 'Being analysed'), running, h('p', { class: 'dim' }, 'Seconds, as a rule. This page shows the result by itself.')), viewBox))
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
    void picture(l, viewBox)
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
    const excluded = new Set([...(last?.excluded ?? []), ...leftOut(r)])
    const scores = (r.scores ?? []).map((s, n) => ({ s, words: l.reading?.scores[n] }))
    const first = scores.filter(({ s }, n) => scores.findIndex((o) => o.s.condition === s.condition) === n)
    const asks = (s: Score): number => (s.abstained !== null ? 3 : { flagged: 0, review: 1, none: 2 }[s.flag])
    first.sort((a, b) => asks(a.s) - asks(b.s))
    const reports = (paper: string): Child => ['pdf', 'html'].map((kind) => h('a', { href: `/v1/scans/${id}/report.${kind}${paper}`, target: '_blank', rel: 'noopener' }, kind === 'pdf' ? 'PDF' : 'page'))
    show(
      into,
      head,
      last?.decision === 'reject' && h('p', { class: 'banner', role: 'alert' }, h('strong', {}, 'Rejected. '), last.comment),
      h(
        'div',
        { class: 'first-screen' },
        h(
          'section',
          { class: 'verdicts', 'aria-label': 'Findings' },
          amended(l, r),
          r.fmri ? runVerdicts(r, r.fmri, l.reading) : [first.map(({ s, words }, n) => verdict(s, words, n > 0 && asks(first[0]!.s) < 2, scores.filter((o) => o.s.condition === s.condition && o.s !== s), excluded)), quality(r)],
          h('p', { class: 'reports' }, h('span', {}, 'Report on A4: ', reports('')), h('span', {}, 'on Letter: ', reports('?paper=letter'))),
        ),
        viewBox,
      ),
      h('div', { class: 'below' }, r.fmri ? runSections(id, r.fmri, l.reading, (label) => void goTo(label)) : [volumes(l, r, excluded), indices(r), visits(l)], history(l.reviews, l.scan, l.c, nameOf), origins(r, l)),
    )
  }

  const leftOut = (r: Result): string[] => (r.amendment?.left_out ?? []).map((x) => x.structure)

  /** What the result was scored without, who left it out and why. */
  function amended(l: Loaded, r: Result): Child {
    const all = r.amendment?.left_out ?? []
    const from = r.amendment?.from_version
    return [...new Set(all.map((x) => x.decision))].map((n) => {
      const d = l.reviews.find((x) => x.number === n)
      return h(
        'article',
        { class: 'note left-out' },
        h('p', {}, h('b', {}, `Left out${d ? ` by ${d.mine ? 'you' : d.by}, ${when(d.at)}` : ''}: `), all.filter((x) => x.decision === n).map((x) => nameOf(x.structure)).join(', ')),
        d?.comment && h('p', { class: 'comment' }, d.comment),
        h('p', { class: 'dim' }, `Shown and used for nothing${from ? `; scored anew from the volumes of version ${from}` : ''}. Amend to take it back in.`),
      )
    })
  }

  function goTo(label: number): void {
    if (viewer && !viewer.goTo(label)) tell('The label map does not hold this structure.')
  }

  const evidence: Record<string, string> = { 'external-cohort': 'fitted on a cohort', 'published-effects': 'from published effects', experimental: 'experimental' }

  /** The first of some facts, which are all in the details. */
  const foremost = (facts: string): string => prose(facts.split('; ')[0]!)

  // Below a raised score another says less, so that all and the image's quality fit
  // on the first screen.
  function verdict(s: Score, words: ScoreInWords | undefined, brief: boolean, beside: { s: Score; words: ScoreInWords | undefined }[], excluded: ReadonlySet<string>): HTMLElement {
    const kind: Mark['kind'] = s.abstained !== null ? 'abstained' : s.flag === 'flagged' ? 'flagged' : s.flag === 'review' ? 'review' : 'none'
    const restsOn = [...excluded].filter((e) => (s.contributions ?? []).some((c) => c.feature === e || (c.feature === 'hippocampal_asymmetry_percent' && e.endsWith('-Hippocampus'))))
    const why = s.explanation
    const list = (title: string, items: string[] | null): Child => items && items.length > 0 && [h('h4', {}, title), h('ul', {}, items.map((t) => h('li', {}, typeset(t))))]
    // The last of the reasons sum up.
    const strongest = (why.reasons ?? []).filter((t, n) => n < (s.contributions ?? []).length && !t.startsWith('Together')).slice(0, brief ? 1 : 2)
    const [says] = (words?.text ?? '').split(/(?<=\.) /)
    return h(
      'article',
      { class: `verdict ${kind}` },
      h('h2', {}, sign(kind), h('span', {}, conditions[s.condition] ?? s.condition, s.side && `, ${s.side}`), h('span', { class: 'headline' }, s.abstained !== null ? 'No score' : markOf({ state: 'scored', flag: s.flag, condition: s.condition }).words)),
      s.abstained !== null
        ? h('p', { class: 'says' }, prose(s.abstained))
        : s.likelihood_ratio !== null && [
            h(
              'p',
              { class: 'numbers' },
              h('span', {}, h('small', {}, kind === 'none' ? h('abbr', { title: 'Likelihood ratio' }, 'LR') : 'Likelihood ratio'), h('b', {}, ratio(s.likelihood_ratio)), s.ci95 && h('small', {}, `95 %: ${bound(s.ci95[0]!)} to ${bound(s.ci95[1]!)}`)),
              s.prior !== null && s.posterior !== null && words
                ? h('span', {}, h('small', {}, 'Prior → posterior'), h('b', {}, `${percent(s.prior)} → ${percent(s.posterior)}`), h('small', { class: 'of' }, `if ${percent(s.prior)} of those scanned have it`))
                : h('span', {}, h('small', {}, 'Probability'), h('b', { class: 'dim' }, '–'), h('small', {}, s.posterior === null ? 'no prior is known' : 'made before its cohort and limits were kept with it: analyse the scan again')),
            ),
            kind !== 'none' && !brief && says && h('p', { class: 'says' }, says),
            words && h('p', { class: 'dim basis' }, `${foremost(words.cohort)} ${foremost(words.limits)}`),
          ],
      restsOn.length > 0 && h('p', { class: 'note' }, `Rests on what was left out: ${restsOn.map(nameOf).join(', ')}.`),
      kind !== 'none' && s.abstained === null && h('ul', { class: 'rests' }, strongest.map((t) => h('li', {}, typeset(t)))),
      h('p', { class: 'class' }, h('span', { class: 'chip' }, evidence[s.evidence] ?? s.evidence), words && h('button', { type: 'button', class: 'quiet', onclick: () => showCard(words.model) }, 'Model card')),
      words &&
        h(
          'details',
          {},
          h('summary', {}, s.abstained !== null ? 'Why' : 'Reasons and doubts'),
          s.abstained === null && h('p', {}, words.text),
          list('What it rests on', why.reasons),
          list('What would change it', why.would_change),
          list('What is uncertain', why.uncertain),
          s.conformal && [
            h('h4', {}, 'With or without the condition', !s.conformal.validated && h('span', { class: 'tag' }, 'not validated')),
            h('p', {}, prose(s.conformal.text)),
            !s.conformal.validated && h('p', { class: 'dim' }, 'Not validated: on this program’s volumes nobody has counted yet how often such a set leaves out the truth. It may be more often than stated, until your site has tried it on people whose condition it knows.'),
          ],
          h('p', { class: 'dim' }, typeset(`${words.cohort} ${words.performance} ${words.limits}`)),
          h('p', { class: 'dim' }, s.intended_use),
          beside.map((b) => b.words && h('p', { class: 'dim' }, h('b', {}, `${b.words.title}: `), b.words.text, ' ', h('button', { type: 'button', class: 'quiet', onclick: () => showCard(b.words!.model) }, 'Model card'))),
        ),
    )
  }

  // What the comparison with the norm lacks says nothing of the image.
  const ofTheNorm = (x: { code: string }): boolean => x.code.endsWith('-not-calibrated')

  function quality(r: Result): HTMLElement {
    const words: Record<string, string> = { pass: 'Passed', review: 'Look twice', refuse: 'Too poor for any score' }
    const metrics = Object.entries(r.qc.metrics ?? {}).sort(([a], [b]) => a.localeCompare(b))
    const reasons = (r.qc.reasons ?? []).filter((x) => !ofTheNorm(x))
    return h(
      'article',
      { class: `verdict quality ${r.qc.verdict}` },
      h('h2', {}, sign(r.qc.verdict === 'pass' ? 'none' : r.qc.verdict === 'review' ? 'review' : 'ended'), h('span', {}, 'Image quality'), h('span', { class: 'headline' }, words[r.qc.verdict])),
      reasons.length > 0 && h('ul', {}, reasons.map((x) => h('li', {}, prose(x.text)))),
      h(
        'details',
        {},
        h('summary', {}, 'Metrics and limits'),
        h('p', {}, 'Tumours, strokes, haemorrhages, shunts and mixed-up patients are not detected.'),
        h('dl', { class: 'metrics' }, metrics.map(([k, v]) => h('div', {}, h('dt', {}, k.replaceAll('_', ' ')), h('dd', {}, String(Number(v.toPrecision(4))))))),
      ),
    )
  }

  // White matter, cortex and CSF would only veil the anatomy; a click brings them.
  const hidden = new Set([2, 41, 3, 42, 7, 46, 8, 47, 24])
  let chosen = 'Hippocampus'
  let drawCurves: () => void = () => {}

  function volumes(l: Loaded, r: Result, excluded: ReadonlySet<string>): HTMLElement {
    const all = structures()
    const byName = new Map((r.volumes ?? []).map((v) => [v.structure, v]))
    interface Row {
      name: string
      sides: (Volume | undefined)[] // left and right, or one of the midline
      far: number
    }
    const rows: Row[] = []
    for (const v of r.volumes ?? []) {
      const s = all.find((x) => x.structure === v.structure)
      const bare = v.structure.replace(/^(Left|Right)-/, '')
      const name = s?.name ?? bare
      let row = rows.find((x) => x.name === name)
      if (!row) {
        const paired = bare !== v.structure
        row = { name, sides: paired ? [byName.get(`Left-${bare}`), byName.get(`Right-${bare}`)] : [v], far: -1 }
        rows.push(row)
      }
      if (v.z !== null) row.far = Math.max(row.far, Math.abs(v.z))
    }
    rows.sort((a, b) => b.far - a.far)
    if (!rows.some((x) => x.name === chosen)) chosen = rows[0]?.name ?? ''
    const tested = (r.volumes ?? []).filter((v) => v.z !== null)
    const outside = tested.filter((v) => outlying(v)).length

    const curves = h('aside', { class: 'curves', 'aria-label': 'Over age', 'aria-live': 'polite' })
    drawCurves = () => {
      const row = rows.find((x) => x.name === chosen)
      const drawn = (row?.sides ?? []).map((v) => {
        const c = v && l.reading?.curves.find((x) => x.structure === v.structure)
        return v && c && h('figure', {}, h('figcaption', {}, sideOf(v.structure), v.percentile !== null && h('span', {}, `percentile ${percentile(v.percentile)}`)), drawCurve(c, v, l.scan.metadata.age_years, nameOf(v.structure), others(l, v.structure)))
      })
      show(
        curves,
        h('h3', {}, chosen),
        row?.sides.some((v) => v?.left_out) && h('p', { class: 'note' }, `${row.sides.flatMap((v) => (v?.left_out ? [nameOf(v.structure)] : [])).join(', ')}: left out by a reviewer and not compared.`),
        drawn.some(Boolean) ? drawn : row?.sides.some((v) => v?.left_out) ? false : h('p', { class: 'dim' }, l.reading ? 'The norm has no reference for this structure, age or head size.' : 'This result was made before curves were kept with it. Analyse the scan again to get them.'),
        drawn.some(Boolean) && h('p', { class: 'dim' }, 'Grey: 5th to 95th percentile and median of healthy people with a head of this size. Point: this scan, with the 95 % interval of its measurement.'),
      )
      for (const tr of table.querySelectorAll('tr[data-name]')) tr.classList.toggle('chosen', (tr as HTMLElement).dataset.name === chosen)
    }

    const choose = (row: Row, v: Volume | undefined): void => {
      chosen = row.name
      drawCurves()
      const to = v ?? row.sides.find(Boolean)
      if (to) goTo(to.label)
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
      const colour = all.find((s) => s.label === labels[0])?.colour
      const box = h('button', { type: 'button', class: 'eye', 'aria-pressed': labels.some((n) => hidden.has(n)) ? 'false' : 'true', 'aria-label': `Show ${row.name.toLowerCase()} over the picture`, title: 'Show over the picture' }, svg('svg', { viewBox: '0 0 12 12', 'aria-hidden': 'true' }, svg('rect', { x: 1, y: 1, width: 10, height: 10, rx: 2, fill: colour ?? '#888', stroke: colour ?? '#888' })))
      box.addEventListener('click', (e) => {
        e.stopPropagation()
        const on = box.getAttribute('aria-pressed') === 'false'
        box.setAttribute('aria-pressed', String(on))
        for (const n of labels) on ? hidden.delete(n) : hidden.add(n)
        viewer?.hidden(hidden)
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
    const all0 = h('button', { type: 'button', class: 'quiet', onclick: () => toggleAll(false) }, 'hide all')
    const all1 = h('button', { type: 'button', class: 'quiet', onclick: () => toggleAll(true) }, 'show all')
    const toggleAll = (on: boolean): void => {
      hidden.clear()
      if (!on) for (const v of r.volumes ?? []) hidden.add(v.label)
      for (const b of table.querySelectorAll('.eye')) b.setAttribute('aria-pressed', String(on))
      viewer?.hidden(hidden)
    }
    queueMicrotask(() => drawCurves())
    return h(
      'section',
      { class: 'volumes-and-curves' },
      h('div', { class: 'table' }, h('h2', {}, 'Volumes'), h('p', { class: 'dim' }, `Of ${tested.length} volumes with a reference, ${outside} lie outside of the 5th to 95th percentile; about ${Math.round(tested.length * 0.1)} would in a healthy person. Labels over the picture: `, all1, ' ', all0), (r.qc.reasons ?? []).filter(ofTheNorm).map((x) => h('p', { class: 'dim' }, prose(x.text))), h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Volumes' }, table)),
      curves,
    )
  }

  /** Other measurements of the same person, for the curves. */
  function others(l: Loaded, structure: string): { age: number; mm3: number }[] {
    return (l.timeline?.visits ?? []).flatMap((v) => {
      const found = v.volumes.find((x) => x.structure === structure)
      return v.scan_id !== id && !v.rejected && found && !found.left_out && v.age_years !== undefined ? [{ age: v.age_years, mm3: found.mm3 }] : []
    })
  }

  /** Earlier and later visits, each change beside the smallest that could be told from error. */
  function visits(l: Loaded): HTMLElement | false {
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
              h('th', { scope: 'row' }, nameOf(c.structure)),
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
      h('ol', {}, t.visits.map((v) => h('li', {}, v.scan_id === id ? h('b', { 'aria-current': 'page' }, `${label(v.scan_id)}, this scan`) : h('a', { href: `#/case/${v.scan_id}` }, label(v.scan_id)), h('small', {}, [v.age_years !== undefined && `${Number(v.age_years.toFixed(1))} years`, v.scanner, v.qc === 'review' && 'image quality: look twice', v.rejected && 'rejected'].filter(Boolean).join(', '))))),
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

  function indices(r: Result): HTMLElement | false {
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

  async function picture(l: Loaded, box: HTMLElement): Promise<void> {
    const run = l.reading?.run && l.result?.fmri // before readings held it, a run had no mean image
    if (session.role === 'researcher' && !run) {
      // The scan shows a face; the picture of the labels shows the brain, and so does the mean of a run.
      show(box, h('img', { src: `/v1/scans/${id}/preview.png`, alt: 'Outlines of the labelled structures over the scan' }))
      return
    }
    const canvas = h('canvas', { id: 'viewer', tabindex: '0', 'aria-label': 'The scan in three planes. The patient’s right is on the left.' })
    const where = h('span', { class: 'where' })
    const veil = h('p', { class: 'veil', role: 'status' }, 'Loading the scan')
    const opacity = h('input', { type: 'range', id: 'opacity', min: 0, max: 1, step: 0.05, value: 0.4 })
    const outline = h('input', { type: 'checkbox', id: 'outline' })
    const layers = run ? runLayers(id, run) : []
    const layer = h('select', { id: 'layer' }, layers.map((x) => h('option', { value: x.value }, x.words)))
    const scale = h('span', { class: 'scale' })
    const width = h('input', { type: 'number', id: 'window', step: 'any', min: 0 })
    const level = h('input', { type: 'number', id: 'level', step: 'any' })
    const tools = h(
      'div',
      { class: 'tools' },
      run && h('label', {}, 'Overlay ', layer),
      run && scale,
      l.result && h('label', { for: 'opacity' }, run ? 'Opacity ' : 'Labels ', opacity),
      l.result && h('label', {}, outline, ' outline'),
      h('label', {}, 'Window ', width),
      h('label', {}, 'Level ', level),
      h('button', { type: 'button', class: 'quiet', onclick: () => viewer && windowed(...viewer.autoWindow(), true) }, 'reset'),
      h('span', { class: 'spring' }),
      where,
    )
    show(box, h('div', { class: 'canvas' }, canvas, veil), tools, h('p', { class: 'dim hint' }, 'Click or arrow keys: crosshair. Right drag: window and level. Wheel: slices. The patient’s right is on the left.'))
    const round = (v: number): string => String(Number(v.toPrecision(3)))
    const windowed = (a: number, b: number, apply = false): void => {
      width.value = round(b - a)
      level.value = round((a + b) / 2)
      if (apply) viewer?.window(a, b)
    }
    const labelName = (n: number): string => {
      const s = structures().find((x) => x.label === n)
      return s ? nameOf(s.structure) : n ? `label ${n}` : 'outside of the labels'
    }
    const axis = (v: number, plus: string, minus: string): string => `${v < -0.05 ? minus : plus} ${Math.abs(v).toFixed(1)}`
    try {
      viewer = await openViewer({
        canvas,
        image: run ? `/v1/scans/${id}/run/mean.nii.gz` : `/v1/scans/${id}/image.nii.gz`,
        labels: l.result && `/v1/scans/${id}/segmentation.nii.gz`,
        structures: structures(),
        signal: stop.signal,
        progress: (t) => (veil.textContent = t),
        windowed: (a, b) => windowed(a, b),
        moved: (w) => show(where, h('span', { class: 'mm' }, `${axis(w.mm[0], 'R', 'L')}  ${axis(w.mm[1], 'A', 'P')}  ${axis(w.mm[2], 'S', 'I')} mm`), l.result && h('b', {}, labelName(w.label)), h('span', { class: 'dim' }, w.map === undefined ? `value ${round(w.value)}` : `${layer.selectedOptions[0]?.text ?? ''} ${w.map ? fixed(w.map, 2) : '–'}`)),
      })
    } catch (e) {
      if (stop.signal.aborted || left) return
      const p = e instanceof NoWebGL ? { type: '', title: 'The viewer cannot run here', status: 0, detail: e.message } : asProblem(e)
      show(box, problemBox(p, () => void picture(l, box)), l.result && h('img', { src: `/v1/scans/${id}/preview.png`, alt: 'Outlines of the labelled structures over the scan' }))
      return
    }
    if (left) {
      viewer.leave()
      return
    }
    veil.remove()
    canvas.dataset.ready = 'true'
    viewer.hidden(hidden)
    opacity.addEventListener('input', () => viewer?.opacity(Number(opacity.value)))
    layer.addEventListener('change', () => {
      // Labels let the anatomy be seen; of a map the colours count.
      opacity.value = layer.value ? '0.85' : '0.4'
      viewer?.opacity(Number(opacity.value))
      viewer?.lay(layers.find((x) => x.value === layer.value)?.path).then(
        (ends) => {
          show(scale, ends && [h('span', { class: 'heat' }), `${fixed(ends[0], 2)} to ${fixed(ends[1], 2)}`])
          layer.dataset.shown = layer.value
        },
        (e) => !left && tell(asProblem(e).title),
      )
    })
    outline.addEventListener('change', () => viewer?.outline(outline.checked))
    for (const one of [width, level]) one.addEventListener('change', () => viewer?.window(Number(level.value) - Number(width.value) / 2, Number(level.value) + Number(width.value) / 2))
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
      left = true
      stop.abort()
      clearInterval(renew)
      events?.close()
      viewer?.leave()
      // keepalive lets it go out while the page is being closed; a lost one runs out by itself.
      if (hold) void raw('DELETE', `/v1/cases/${id}/hold`, { unattended: true, keepalive: true }).catch(() => {})
    },
    key(e) {
      const acts: Record<string, Decision> = { a: 'accept', e: 'amend', r: 'reject' }
      if (acts[e.key]) ask(acts[e.key]!)
      else if (e.key === 'Escape') location.hash = '#/'
      else if (e.key === 'o') setOpacity((now) => (now > 0 ? ((before = now), 0) : before))
      else if (e.key === '[') setOpacity((now) => now - 0.1)
      else if (e.key === ']') setOpacity((now) => now + 0.1)
      else if (e.key === '1') viewer?.goTo(17)
      else if (e.key === '2') viewer?.goTo(53)
      else if (e.key === '3') viewer?.goToMM([0, 0, 0])
      else if (moves[e.key] && document.activeElement?.id === 'viewer') viewer?.move(moves[e.key]!)
      else return
      e.preventDefault()
    },
  }
}
