// What waits for a decision, worst first.
import { asProblem, call, type Case, type CaseList, type Counts, type Session } from './api'
import { h, show } from './dom'
import { age, conditions, decided, ratio, typeset, upperFirst, when } from './format'
import type { Page } from './main'
import { marked, markOf, type Mark, sign } from './marks'
import { problemBox } from './problem'
import { firstScan, uploadDialog } from './upload'

interface Filter {
  review: '' | 'open' | 'decided'
  group: string
  condition: string
  scanner: string
  from: string
  to: string
  sort: string
}

const standard: Filter = { review: 'open', group: '', condition: '', scanner: '', from: '', to: '', sort: 'worst' }
// Kept while the page is open, so that the way back from a case leads to the
// same list and line; not in the browser's storage or address.
let filter: Filter = { ...standard }
let lastCase = ''

const seconds = (s: number): number => s * 1000

export function worklist(into: HTMLElement, session: Session): Page {
  let cases: Case[] = []
  let cursor: string | undefined
  let found: { text: string; cases: Case[] } | undefined // by a search, in place of the list
  let counts: Counts | undefined
  let loading: AbortController | undefined
  let left = false
  let start: ReturnType<typeof firstScan> | undefined
  let stream: EventSource | undefined
  let again: ReturnType<typeof setTimeout> | undefined

  const mayUpload = session.role === 'admin'
  const live = h('span', { class: 'live', role: 'status' }, 'connecting')
  const tallies = h('nav', { class: 'tallies', 'aria-label': 'Open cases by what they ask for' })
  const body = h('div', { class: 'list', 'aria-busy': 'true' })
  const search = h('input', { type: 'search', id: 'search', placeholder: 'Subject or accession number', autocomplete: 'off', maxlength: 200, 'aria-label': 'Subject or accession number, or a part of it' })
  const scanners = h('datalist', { id: 'scanners' })
  const selects = h('div', { class: 'filters' })

  show(
    into,
    h(
      'div',
      { class: 'bar' },
      h('h1', {}, 'Worklist'),
      live,
      h('span', { class: 'spring' }),
      session.role !== 'researcher' && h('form', { role: 'search', onsubmit: (e: Event) => void lookUp(e) }, search),
      mayUpload && h('button', { type: 'button', onclick: () => uploadDialog() }, 'Hand over a scan'),
    ),
    tallies,
    selects,
    scanners,
    body,
  )
  if (mayUpload) {
    into.addEventListener('drop', (e) => {
      const file = e.dataTransfer?.files[0]
      if (file && !start) uploadDialog(file)
    })
  }

  function drawTallies(): void {
    const c = counts
    const n = (v: number | undefined): string => (v === undefined ? '' : v >= 1000 ? '999+' : String(v))
    const tally = (kind: Mark['kind'] | undefined, words: string, number: number | undefined, to: Partial<Filter>): HTMLElement => {
      const on = !found && (Object.keys({ ...standard }) as (keyof Filter)[]).every((k) => filter[k] === { ...standard, ...to }[k])
      return h('button', { type: 'button', 'aria-pressed': on ? 'true' : 'false', onclick: () => choose({ ...standard, ...to }) }, kind && sign(kind), number !== undefined && h('b', {}, n(number)), words)
    }
    const open = c && c.flagged + c.review + c.ended + c.running + c.nothing_found + c.abstained
    show(
      tallies,
      tally(undefined, 'open', open, {}),
      tally('flagged', 'flagged', c?.flagged, { group: 'flagged' }),
      tally('review', 'second look', c?.review, { group: 'review' }),
      tally('ended', 'refused or failed', c?.ended, { group: 'ended' }),
      tally('running', 'being analysed', c?.running, { group: 'running' }),
      tally('none', 'not flagged or no score', c && c.nothing_found + c.abstained, { group: 'clear' }),
      tally(undefined, 'decided', undefined, { review: 'decided', sort: 'newest' }),
    )
  }

  function drawFilters(): void {
    const choice = (name: keyof Filter, label: string, options: [string, string][]): HTMLElement =>
      h(
        'label',
        {},
        label,
        h(
          'select',
          { onchange: (e: Event) => choose({ ...filter, [name]: (e.target as HTMLSelectElement).value }) },
          options.map(([v, t]) => h('option', { value: v, selected: filter[name] === v }, t)),
        ),
      )
    const text = (name: keyof Filter, label: string, type: string): HTMLElement =>
      h('label', {}, label, h('input', { type, value: filter[name], maxlength: 100, list: name === 'scanner' ? 'scanners' : undefined, autocomplete: 'off', onchange: (e: Event) => choose({ ...filter, [name]: (e.target as HTMLInputElement).value }) }))
    show(
      selects,
      choice('review', 'Cases', [['open', 'open'], ['decided', 'decided'], ['', 'all']]),
      choice('condition', 'Pattern', [['', 'any'], ...Object.entries(conditions)]),
      text('scanner', 'Scanner', 'text'),
      text('from', 'From', 'date'),
      text('to', 'To', 'date'),
      choice('sort', 'Order', [['worst', 'worst first'], ['newest', 'newest first'], ['oldest', 'oldest first']]),
      isFiltered() && h('button', { type: 'button', class: 'quiet', onclick: () => choose({ ...standard }) }, 'Clear'),
    )
  }

  const isFiltered = (): boolean => JSON.stringify(filter) !== JSON.stringify(standard)

  function choose(f: Filter): void {
    filter = f
    found = undefined
    search.value = ''
    drawTallies()
    drawFilters()
    void load()
  }

  async function load(o: { more?: boolean; unattended?: boolean } = {}): Promise<void> {
    if (o.unattended && (found || start?.busy())) return // a list that is searched, or an upload, is not pulled away
    loading?.abort()
    const mine = new AbortController()
    loading = mine
    const q = new URLSearchParams()
    const put = (k: string, v: string): void => {
      if (v) q.set(k, v)
    }
    put('review', filter.review)
    put('group', filter.group)
    put('condition', filter.condition)
    put('scanner', filter.scanner)
    put('received_from', filter.from)
    put('received_to', filter.to)
    put('sort', filter.sort)
    if (o.more && cursor) q.set('cursor', cursor)
    // A refresh shows as many lines as there were.
    else q.set('limit', String(Math.min(200, Math.max(50, o.unattended ? cases.length : 0))))
    body.setAttribute('aria-busy', 'true')
    try {
      const list = await call<CaseList>('GET', `/v1/cases?${q}`, { unattended: o.unattended ?? false, signal: mine.signal })
      cases = o.more ? [...cases, ...list.cases] : list.cases
      cursor = list.next_cursor
      await draw()
    } catch (e) {
      if (mine.signal.aborted || left) return
      if (o.unattended && cases.length) live.textContent = 'not up to date'
      else show(body, problemBox(asProblem(e), () => void load()))
    } finally {
      if (loading === mine) body.setAttribute('aria-busy', 'false')
    }
  }

  async function lookUp(e: Event): Promise<void> {
    e.preventDefault()
    const text = search.value.trim()
    if (!text) return choose({ ...standard })
    loading?.abort()
    try {
      const asked = [{ subject_id: text }, { accession_number: text }, ...(text.length < 3 ? [] : [{ part: text }])]
      const answers = await Promise.all(asked.map((body) => call<CaseList>('POST', '/v1/cases/search', { body })))
      // What was asked for whole comes first.
      found = { text, cases: [...new Map(answers.flatMap((a) => a.cases.map((c) => [c.id, c]))).values()] }
      drawTallies()
      await draw()
      links()[0]?.focus()
    } catch (err) {
      if (!left) show(body, problemBox(asProblem(err)))
    }
  }

  async function draw(): Promise<void> {
    if (left) return
    start?.leave()
    start = undefined
    into.classList.remove('nothing')
    const shown = found?.cases ?? cases
    if (shown.length === 0) {
      await drawEmpty()
      return
    }
    show(scanners, [...new Set(shown.flatMap((c) => c.scanner ?? []))].sort().map((value) => h('option', { value })))
    const focused = document.activeElement?.closest('tr')?.dataset.id
    const condition = found ? '' : filter.condition
    show(
      body,
      found && h('p', { class: 'note' }, `${shown.length === 1 ? 'One case' : `${shown.length} cases`} of “${found.text}”, decided ones too. `, h('button', { type: 'button', class: 'quiet', onclick: () => choose({ ...standard }) }, 'Back to the worklist')),
      h(
        'table',
        { class: 'cases' },
        h('caption', { class: 'unseen' }, 'Cases'),
        h('thead', {}, h('tr', {}, ['', 'Subject', 'Age, sex', 'Why', 'LR', 'Quality', 'Scanner', 'Received', 'With'].map((t) => h('th', { scope: 'col', class: t === 'LR' || t === 'Age, sex' ? 'r' : '' }, t === 'LR' ? h('abbr', { title: 'Likelihood ratio: how many times as frequent measurements like these are in people with the condition' }, 'LR') : t || h('span', { class: 'unseen' }, 'Asks for'))))),
        h('tbody', {}, shown.map((c) => line(c, condition))),
      ),
      !found && cursor && h('p', { class: 'ends' }, h('button', { type: 'button', id: 'more', onclick: () => void load({ more: true }) }, 'More')),
    )
    const back = focused ?? lastCase
    if (back) {
      const row = body.querySelector<HTMLElement>(`tr[data-id="${back}"] a`)
      if (row && (focused || document.activeElement === document.body)) row.focus()
    }
    lastCase = ''
  }

  async function drawEmpty(): Promise<void> {
    if (found) {
      show(body, h('div', { class: 'empty' }, h('h2', {}, `No case of “${found.text}”`), h('p', {}, 'A part of a subject or accession number is enough, from three characters on, among the newest 20,000 scans; an older scan is found by the whole of it, as it was posted.'), h('p', {}, h('button', { type: 'button', onclick: () => choose({ ...standard }) }, 'Back to the worklist'))))
      return
    }
    if (isFiltered()) {
      show(body, h('div', { class: 'empty' }, h('h2', {}, 'No case matches'), h('p', {}, h('button', { type: 'button', onclick: () => choose({ ...standard }) }, 'Clear the filters'))))
      return
    }
    // Nothing open: is there anything at all?
    try {
      const any = await call<CaseList>('GET', '/v1/cases?limit=1', { unattended: true })
      if (left) return
      if (any.cases.length) {
        show(body, h('div', { class: 'empty' }, h('h2', {}, 'Nothing waits for a decision'), h('p', {}, 'New cases appear here by themselves.'), h('p', {}, h('button', { type: 'button', onclick: () => choose({ ...standard, review: 'decided', sort: 'newest' }) }, 'Show what was decided'))))
        return
      }
    } catch (e) {
      show(body, problemBox(asProblem(e), () => void load()))
      return
    }
    start = firstScan(mayUpload)
    show(body, start.el)
    into.classList.add('nothing')
  }

  function line(c: Case, condition: string): HTMLElement {
    const m = markOf(c)
    const name = c.condition && (c.flag !== 'none' || condition) ? conditions[c.condition] : undefined
    const quality = c.quality === 'review' ? 'Look twice' : c.quality === 'pass' ? 'Passed' : c.quality === 'refuse' ? 'Poor' : '–'
    return h(
      'tr',
      { 'data-id': c.id, class: m.kind, onclick: (e: MouseEvent) => (e.target as Element).closest('a') || open(c.id) },
      h('td', {}, marked(m)),
      h('th', { scope: 'row', title: c.subject_id }, h('a', { href: `#/case/${c.id}` }, c.subject_id), c.accession_number && h('small', {}, c.accession_number)),
      h('td', { class: 'r' }, age(c.age_years, c.sex)),
      h('td', { class: 'why', title: typeset(c.why) }, name && h('b', {}, name), h('span', {}, upperFirst(typeset(c.why)) || (m.kind === 'running' ? 'Seconds, as a rule' : 'Nothing beyond the limits'))),
      h('td', { class: 'r n' }, c.likelihood_ratio === undefined ? '–' : ratio(c.likelihood_ratio)),
      h('td', { class: c.quality === 'pass' ? 'dim' : '' }, quality),
      h('td', { class: 'dim clip', title: c.scanner }, c.scanner ?? '–'),
      h('td', { class: 'dim' }, h('time', { datetime: c.received_at, title: new Date(c.received_at).toLocaleString('en-GB') }, when(c.received_at))),
      h('td', {}, c.decision ? h('span', { class: `decision ${c.decision.decision}` }, `${decided[c.decision.decision]} `, h('small', {}, c.decision.by)) : c.held ? h('span', { class: 'held' }, c.held.mine ? 'You' : c.held.by) : ''),
    )
  }

  const links = (): HTMLElement[] => [...body.querySelectorAll<HTMLElement>('tbody th a')]
  const open = (id: string, act = ''): void => {
    location.hash = `#/case/${id}${act && `/${act}`}`
  }
  function step(by: number): void {
    const all = links()
    const at = all.indexOf(document.activeElement as HTMLElement)
    const to = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : at + by]
    if (to) {
      to.focus()
      to.closest('tr')?.scrollIntoView({ block: 'nearest' })
    } else if (by > 0 && cursor && !found) void load({ more: true })
  }

  function follow(): void {
    stream = new EventSource('/v1/cases/events')
    let changed: string | undefined
    stream.addEventListener('cases', (e) => {
      const c = JSON.parse((e as MessageEvent<string>).data) as Counts
      live.textContent = 'live'
      live.classList.add('on')
      const first = counts === undefined
      const news = JSON.stringify(c) !== changed
      changed = JSON.stringify(c)
      counts = c
      drawTallies()
      if (!first && news) void load({ unattended: true })
    })
    stream.addEventListener('error', () => {
      live.textContent = 'connecting'
      live.classList.remove('on')
      if (stream?.readyState !== EventSource.CLOSED || left) return
      // Refused: the session may have ended, which this call would find out.
      again = setTimeout(() => {
        void call('GET', '/session', { unattended: true }).then(follow, () => left || follow())
      }, seconds(5))
    })
  }

  drawTallies()
  drawFilters()
  show(body, h('p', { class: 'dim' }, 'Loading'))
  void load()
  follow()

  return {
    leave() {
      left = true
      stream?.close()
      clearTimeout(again)
      loading?.abort()
      start?.leave()
    },
    key(e) {
      const id = document.activeElement?.closest('tr')?.dataset.id
      const acts: Record<string, string> = { a: 'accept', e: 'amend', r: 'reject' }
      if (e.key === 'j') step(1)
      else if (e.key === 'k') step(-1)
      else if (e.key === '/') search.focus()
      else if (id && acts[e.key]) open(id, acts[e.key])
      else return
      e.preventDefault()
    },
  }
}

/** The line to come back to. */
export function cameFrom(id: string): void {
  lastCase = id
}
