// What waits for a decision, worst first.
import { asProblem, call, type Case, type CaseList, type Counts, type Session } from './api'
import { type Child, h, show } from './dom'
import { age, conditions, decided, midnight, ratio, typeset, upperFirst, when } from './format'
import { type Filter, kept, standard } from './kept'
import { listen } from './listen'
import type { Page } from './main'
import { marked, markOf, type Mark, sign } from './marks'
import { problemBox } from './problem'
import { firstScan, uploadDialog } from './upload'

export function worklist(into: HTMLElement, session: Session): Page {
  let cases: Case[] = []
  let cursor: string | undefined
  let found: { text: string; cases: Case[] } | undefined // by a search, in place of the list
  let counts: Counts | undefined
  let told: string | undefined // the counts in words while the service tells of changes
  let listed: string | undefined // what was told when the list was asked for
  let loading: AbortController | undefined
  let left = false
  let start: ReturnType<typeof firstScan> | undefined
  let again: ReturnType<typeof setTimeout> | undefined

  const mayUpload = session.role === 'admin'
  const live = h('span', { class: 'live', role: 'status' }, 'connecting')
  const body = h('div', { class: 'list', 'aria-busy': 'true' })
  const search = h('input', { type: 'search', id: 'search', placeholder: 'Subject or accession number', autocomplete: 'off', maxlength: 200, 'aria-label': 'Subject or accession number, or a part of it' })
  const scanners = h('datalist', { id: 'scanners' })

  // Tallies and filters are changed in place: made anew they would lose the
  // focus, and a date what is typed of it.
  const tally = (kind: Mark['kind'] | undefined, words: string, number: (c: Counts) => number | undefined, change: Partial<Filter>) => {
    const to = { ...standard, ...change }
    const n = h('b', { hidden: true })
    return { to, number, n, el: h('button', { type: 'button', onclick: () => choose(to) }, kind && sign(kind), n, words) }
  }
  const tallies = [
    tally(undefined, 'open', (c) => c.flagged + c.review + c.ended + c.running + c.nothing_found + c.abstained, {}),
    tally('flagged', 'flagged', (c) => c.flagged, { group: 'flagged' }),
    tally('review', 'second look', (c) => c.review, { group: 'review' }),
    tally('ended', 'refused or failed', (c) => c.ended, { group: 'ended' }),
    tally('running', 'being analysed', (c) => c.running, { group: 'running' }),
    tally('none', 'not flagged or no score', (c) => c.nothing_found + c.abstained, { group: 'clear' }),
    tally(undefined, 'decided', () => undefined, { review: 'decided', sort: 'newest' }),
  ]
  const filters: { name: keyof Filter; el: HTMLSelectElement | HTMLInputElement }[] = []
  const filter = (name: keyof Filter, label: string, el: HTMLSelectElement | HTMLInputElement): HTMLElement => {
    el.addEventListener('change', () => choose({ ...kept.filter, [name]: el.value }))
    filters.push({ name, el })
    return h('label', {}, label, el)
  }
  const options = (...all: [string, string][]): HTMLSelectElement => h('select', {}, all.map(([value, words]) => h('option', { value }, words)))
  const unfiltered = h('button', { type: 'button', class: 'quiet', onclick: () => choose(standard) }, 'Clear')

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
    h('nav', { class: 'tallies', 'aria-label': 'Open cases by what they ask for' }, tallies.map(({ el }) => el)),
    h(
      'div',
      { class: 'filters' },
      filter('review', 'Cases', options(['open', 'open'], ['decided', 'decided'], ['', 'all'])),
      filter('condition', 'Pattern', options(['', 'any'], ...Object.entries(conditions))),
      filter('scanner', 'Scanner', h('input', { type: 'text', maxlength: 100, list: 'scanners', autocomplete: 'off' })),
      filter('from', 'From', h('input', { type: 'date' })),
      filter('to', 'To', h('input', { type: 'date' })),
      filter('sort', 'Order', options(['worst', 'worst first'], ['newest', 'newest first'], ['oldest', 'oldest first'])),
      unfiltered,
    ),
    scanners,
    body,
  )
  if (mayUpload) {
    into.addEventListener('drop', (e) => {
      const file = e.dataTransfer?.files[0]
      if (file && !start) uploadDialog(file)
    })
  }

  const isChosen = (f: Readonly<Filter>): boolean => (Object.keys(standard) as (keyof Filter)[]).every((k) => kept.filter[k] === f[k])

  function drawTallies(): void {
    for (const { el, n, number, to } of tallies) {
      const v = counts && number(counts)
      n.hidden = v === undefined
      n.textContent = v === undefined ? '' : v >= 1000 ? '999+' : String(v)
      el.setAttribute('aria-pressed', String(!found && isChosen(to)))
    }
  }

  function drawFilters(): void {
    for (const { name, el } of filters) if (el.value !== kept.filter[name]) el.value = kept.filter[name]
    unfiltered.hidden = isChosen(standard)
  }

  function choose(f: Readonly<Filter>): void {
    kept.filter = { ...f }
    found = undefined
    search.value = ''
    drawTallies()
    drawFilters()
    void load()
  }

  /** In place of what the list showed; a form for a first scan ends with it. */
  function put(...children: Child[]): void {
    start?.leave()
    start = undefined
    into.classList.remove('nothing')
    show(body, ...children)
  }

  function says(state: 'live' | 'connecting' | 'updating' | 'not up to date'): void {
    live.textContent = state
    live.classList.toggle('on', state === 'live')
  }

  /** Loads the list if the service has told of a change since it was asked for, and says whether it is up to date. */
  function keepUp(): void {
    if (left || loading || told === undefined) return
    if (listed === told) says('live')
    else if (found || start?.busy()) {
      // A search's answer, or a form that is being filled in, is not pulled away.
      says('not up to date')
      later()
    } else {
      says('updating')
      void load({ unattended: true })
    }
  }
  function later(): void {
    clearTimeout(again)
    again = setTimeout(keepUp, 5000)
  }

  async function load(o: { more?: boolean; unattended?: boolean } = {}): Promise<void> {
    loading?.abort()
    const mine = new AbortController()
    loading = mine
    const asked = told
    const { filter } = kept
    const q = new URLSearchParams()
    const set = (k: string, v: string): void => {
      if (v) q.set(k, v)
    }
    set('review', filter.review)
    set('group', filter.group)
    set('condition', filter.condition)
    set('scanner', filter.scanner)
    // Days are those of the reader's clock, by which the list shows its times.
    set('received_from', filter.from && midnight(filter.from))
    set('received_to', filter.to && midnight(filter.to, 1))
    set('sort', filter.sort)
    if (o.more && cursor) q.set('cursor', cursor)
    // A refresh shows as many lines as there were.
    else q.set('limit', String(Math.min(200, Math.max(50, o.unattended ? cases.length : 0))))
    body.setAttribute('aria-busy', 'true')
    try {
      const list = await call<CaseList>('GET', `/v1/cases?${q}`, { unattended: o.unattended ?? false, signal: mine.signal })
      const had = cases.length
      cases = o.more ? [...cases, ...list.cases] : list.cases
      cursor = list.next_cursor
      await draw(mine.signal)
      if (o.more) links()[had]?.focus()
      else listed = asked // of more, the lines before are as old as they were
    } catch (e) {
      if (mine.signal.aborted || left) return
      listed = undefined
      if (told !== undefined) says('not up to date')
      if (o.unattended && cases.length) later()
      else put(problemBox(asProblem(e), () => void load()))
      return
    } finally {
      if (loading === mine) {
        loading = undefined
        body.setAttribute('aria-busy', 'false')
      }
    }
    keepUp()
  }

  async function lookUp(e: Event): Promise<void> {
    e.preventDefault()
    const text = search.value.trim()
    if (!text) return choose(standard)
    loading?.abort()
    try {
      const asked = [{ subject_id: text }, { accession_number: text }, ...(text.length < 3 ? [] : [{ part: text }])]
      const answers = await Promise.all(asked.map((body) => call<CaseList>('POST', '/v1/cases/search', { body })))
      // What was asked for whole comes first.
      found = { text, cases: [...new Map(answers.flatMap((a) => a.cases.map((c) => [c.id, c]))).values()] }
      drawTallies()
      await draw()
      keepUp()
      links()[0]?.focus()
    } catch (err) {
      if (left) return
      put(problemBox(asProblem(err)))
      later()
    }
  }

  async function draw(signal?: AbortSignal): Promise<void> {
    if (left) return
    const shown = found?.cases ?? cases
    const before = kept.list
    kept.list = shown.map((c) => c.id)
    if (shown.length === 0) return drawEmpty(signal)
    show(scanners, [...new Set(shown.flatMap((c) => c.scanner ?? []))].sort().map((value) => h('option', { value })))
    const on = document.activeElement
    const condition = found ? '' : kept.filter.condition
    put(
      found && h('p', { class: 'note' }, `${shown.length === 1 ? 'One case' : `${shown.length} cases`} of “${found.text}”, decided ones too. `, h('button', { type: 'button', class: 'quiet', onclick: () => choose(standard) }, 'Back to the worklist')),
      h(
        'table',
        { class: 'cases' },
        h('caption', { class: 'unseen' }, 'Cases'),
        h('thead', {}, h('tr', {}, ['', 'Subject', 'Age, sex', 'Why', 'LR', 'Quality', 'Scanner', 'Received', 'With'].map((t) => h('th', { scope: 'col', class: t === 'LR' || t === 'Age, sex' ? 'r' : '' }, t === 'LR' ? h('abbr', { title: 'Likelihood ratio: how many times as frequent measurements like these are in people with the condition' }, 'LR') : t || h('span', { class: 'unseen' }, 'Asks for'))))),
        h('tbody', {}, shown.map((c) => line(c, condition))),
      ),
      !found && cursor && h('p', { class: 'ends' }, h('button', { type: 'button', id: 'more', onclick: () => void load({ more: true }) }, 'More')),
    )
    if (on?.id === 'more') body.querySelector<HTMLElement>('#more')?.focus()
    // The way from page to page leaves the focus on the whole of it.
    const back = on?.closest('tr')?.dataset.id ?? (on === into || on === document.body ? kept.last : undefined)
    if (back) linkOf(back, before)?.focus()
    kept.last = ''
  }

  /** To a case, or to what of the list before comes after it, or else before it, and is still there. */
  function linkOf(id: string, before: string[]): HTMLElement | undefined {
    const there = new Map(links().map((a) => [a.closest('tr')!.dataset.id, a]))
    const at = before.indexOf(id)
    const beside = at < 0 ? [] : [...before.slice(at + 1), ...before.slice(0, at).reverse()]
    return there.get([id, ...beside].find((x) => there.has(x)))
  }

  async function drawEmpty(signal?: AbortSignal): Promise<void> {
    const empty = (title: string, ...rest: Child[]): void => put(h('div', { class: 'empty' }, h('h2', {}, title), rest))
    const button = (words: string, to: Readonly<Filter>): HTMLElement => h('p', {}, h('button', { type: 'button', onclick: () => choose(to) }, words))
    if (found) {
      empty(`No case of “${found.text}”`, h('p', {}, 'A part of a subject or accession number is enough, from three characters on, among the newest 20,000 scans; an older scan is found by the whole of it, as it was posted.'), button('Back to the worklist', standard))
      return
    }
    if (!isChosen(standard)) {
      empty('No case matches', button('Clear the filters', standard))
      return
    }
    // Nothing open: is there anything at all?
    const any = await call<CaseList>('GET', '/v1/cases?limit=1', { unattended: true, ...(signal && { signal }) })
    if (left) return
    if (any.cases.length) {
      empty('Nothing waits for a decision', h('p', {}, 'New cases appear here by themselves.'), button('Show what was decided', { ...standard, review: 'decided', sort: 'newest' }))
      return
    }
    if (start) return // somebody may be at its form
    const first = firstScan(mayUpload)
    put(first.el)
    start = first
    into.classList.add('nothing')
  }

  /** In place of a reason. */
  function nothingSaid(c: Case, kind: Mark['kind']): string {
    if (kind === 'running') return 'Seconds, as a rule'
    if (c.state === 'cancelled') return 'Stopped before it ended'
    return c.modality === 'bold' ? 'Functional run, no score' : 'Nothing beyond the limits'
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
      h('td', { class: 'why', title: typeset(c.why) }, name && h('b', {}, name), h('span', {}, upperFirst(typeset(c.why)) || nothingSaid(c, m.kind))),
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

  drawTallies()
  drawFilters()
  show(body, h('p', { class: 'dim' }, 'Loading'))
  void load()
  const stop = listen<Counts>('/v1/cases/events', 'cases', {
    heard(c) {
      counts = c
      told = JSON.stringify(c)
      drawTallies()
      keepUp()
    },
    lost() {
      told = undefined
      says('connecting')
    },
  })

  return {
    leave() {
      left = true
      stop()
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
