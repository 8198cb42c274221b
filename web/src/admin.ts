// What an administrator looks after: who may come in, what scores are judged
// by, and who did what.
import { asProblem, call, type AuditEntry, type Key, type Problem, ProblemError, type Session, type SettingsVersion, type SiteSettings } from './api'
import { calibration, priors } from './calibration'
import { type Child, dialog, h, onEscape, show, tell } from './dom'
import { when } from './format'
import type { Page } from './main'
import { problemBox } from './problem'
import { field } from './upload'

type Scores = SiteSettings['settings']

export function adminPage(into: HTMLElement, session: Session): Page {
  let left = false
  let keys: Key[] = []
  const part = (title: string, id: string): HTMLElement => h('section', { id, 'aria-busy': 'true' }, h('h2', {}, title), h('div', {}, h('p', { class: 'dim' }, 'Loading')))
  const [people, settings, calibrated, trail] = [part('Keys and people', 'keys'), part('Site settings', 'settings'), part('Calibration', 'calibration'), part('Audit trail', 'audit')]
  const fill = (where: HTMLElement, ...children: Child[]): void => {
    if (left) return
    show(where.lastElementChild!, ...children)
    where.setAttribute('aria-busy', 'false')
  }
  show(into, h('div', { class: 'bar' }, h('h1', {}, 'Administration'), h('span', { class: 'dim' }, `site ${session.site}`)), h('div', { class: 'below admin' }, people, settings, calibrated, trail))
  const attempt = async (where: HTMLElement, what: () => Promise<void>): Promise<void> => {
    try {
      await what()
    } catch (e) {
      fill(where, problemBox(asProblem(e), () => void attempt(where, what)))
    }
  }
  // The trail names keys by their ids.
  void attempt(people, loadKeys).then(() => attempt(settings, loadSettings)).then(() => attempt(trail, () => loadTrail()))

  const nameOf = (actor: string): string => keys.find((k) => k.id === actor)?.name ?? actor

  async function loadKeys(): Promise<void> {
    keys = (await call<{ keys: Key[] }>('GET', '/v1/keys')).keys
    const row = (k: Key): HTMLElement =>
      h(
        'tr',
        { class: k.revoked_at ? 'dim' : '' },
        h('th', { scope: 'row' }, k.name),
        h('td', {}, k.role),
        h('td', {}, k.prefix ? h('code', {}, k.prefix) : 'identity provider'),
        h('td', {}, when(k.created_at)),
        h('td', {}, k.last_used_at ? when(k.last_used_at) : 'never'),
        h('td', {}, k.revoked_at ? `revoked ${when(k.revoked_at)}` : h('button', { type: 'button', class: 'quiet', 'aria-label': `Revoke ${k.name}`, onclick: () => revoke(k) }, 'Revoke')),
      )
    const name = h('input', { id: 'key-name', required: true, maxlength: 100, autocomplete: 'off' })
    const role = h('select', { id: 'key-role' }, ['clinician', 'uploader', 'researcher', 'admin'].map((r) => h('option', {}, r)))
    fill(
      people,
      table(['Name', 'Role', 'Begins with', 'Made', 'Last used', ''], keys.map(row)),
      h('form', { class: 'inline', onsubmit: (e: Event) => (e.preventDefault(), void make(name.value.trim(), role.value)) }, field('key-name', 'Who or what uses it', name), field('key-role', 'Role', role), h('button', { class: 'main' }, 'Make a key')),
    )
  }

  async function make(name: string, role: string): Promise<void> {
    try {
      const { secret } = await call<{ secret: string }>('POST', '/v1/keys', { body: { name, role } })
      const d = dialog('The new key', 'narrow', h('p', {}, `For ${name}. It is shown this once and kept nowhere: hand it over now.`), h('pre', { tabindex: '0' }, h('code', { id: 'secret' }, secret)), h('p', { class: 'ends' }, h('button', { type: 'button', class: 'main', onclick: () => d.close() }, 'Done')))
      onEscape(d, () => tell('It cannot be shown again: press Done when it is handed over.'))
      await attempt(people, loadKeys)
    } catch (e) {
      tell(says(asProblem(e)))
    }
  }

  function revoke(k: Key): void {
    const d = dialog(
      'Revoke the key',
      'narrow',
      h('p', {}, `${k.name} (${k.role}) is refused from now on, and signed out. This cannot be undone.`),
      h('p', { class: 'ends' }, h('button', { type: 'button', class: 'main stop', onclick: () => void go() }, 'Revoke'), h('button', { type: 'button', onclick: () => d.close() }, 'Cancel')),
    )
    const go = async (): Promise<void> => {
      try {
        await call('DELETE', `/v1/keys/${k.id}`)
      } catch (e) {
        tell(says(asProblem(e)))
      }
      d.close()
      await attempt(people, loadKeys)
    }
  }

  async function loadSettings(): Promise<void> {
    const at = `/v1/sites/${encodeURIComponent(session.site)}/settings`
    const [now, { versions }] = await Promise.all([call<SiteSettings>('GET', at), call<{ versions: SettingsVersion[] }>('GET', `${at}/versions`)])
    const numbers: [keyof Scores & string, string][] = [
      ['alzheimers_review_lr', 'Alzheimer’s disease: second look from a likelihood ratio of'],
      ['alzheimers_flagged_lr', 'Alzheimer’s disease: flagged from a likelihood ratio of'],
      ['parkinsons_review_lr', 'Parkinson’s disease: second look from a likelihood ratio of'],
      ['sclerosis_review_sd', 'Mesial temporal sclerosis: second look from an asymmetry of so many SD'],
      ['sclerosis_flagged_sd', 'Mesial temporal sclerosis: flagged from an asymmetry of so many SD'],
      ['sclerosis_flagged_z', 'and a z of the smaller side below'],
      ['conformal_error_rate', 'Error rate of “with or without the condition” (0.05, 0.1, 0.2 or 0.3)'],
    ]
    const inputs = numbers.map(([name, label]) => ({ name, label, input: h('input', { id: name, type: 'number', step: 'any', value: now.settings[name] as number | undefined, placeholder: String(now.effective[name]), autocomplete: 'off' }) }))
    const note = h('input', { id: 'settings-note', required: true, maxlength: 500, autocomplete: 'off' })
    const wrong = h('div')
    const asked = [
      { name: 'alzheimers_priors' as const, ask: priors('alzheimers-priors', 'Alzheimer’s disease: priors', now.settings.alzheimers_priors, now.effective.alzheimers_priors) },
      { name: 'parkinsons_priors' as const, ask: priors('parkinsons-priors', 'Parkinson’s disease: priors', now.settings.parkinsons_priors, now.effective.parkinsons_priors) },
    ]
    const save = async (e: Event): Promise<void> => {
      e.preventDefault()
      // What is not shown stays; an empty field takes the default.
      const next: Record<string, unknown> = { ...now.settings }
      for (const { name, input } of inputs) {
        if (input.value === '') delete next[name]
        else next[name] = Number(input.value)
      }
      for (const { name, ask } of asked) next[name] = ask.value() ?? null
      try {
        await call<SiteSettings>('PUT', at, { body: { replaces: now.version, note: note.value.trim(), settings: next } })
        tell('Stored. New results are made with it.')
        await attempt(settings, loadSettings)
      } catch (err) {
        show(wrong, problemBox(asProblem(err), err instanceof ProblemError && err.type === 'settings-changed' ? () => void attempt(settings, loadSettings) : undefined))
      }
    }
    fill(
      settings,
      h('p', { class: 'dim' }, now.version ? `Version ${now.version}. ` : 'The defaults hold. ', 'An empty field takes the default that it shows. Stored results keep what they were made with.'),
      h('form', { onsubmit: (e: Event) => void save(e) }, h('div', { class: 'rows' }, inputs.map(({ name, label, input }) => [h('label', { for: name }, label), input])), asked.map(({ ask }) => ask.element), h('div', { class: 'inline' }, field('settings-note', 'Why it is changed, for the trail; no patient data', note), h('button', { class: 'main' }, 'Store a new version')), wrong),
      versions.length > 0 && table(['Version', 'Made', 'By', 'Why'], versions.map((v) => h('tr', {}, h('th', { scope: 'row' }, v.version), h('td', {}, when(v.at)), h('td', {}, nameOf(v.by)), h('td', {}, v.note)))),
    )
    fill(calibrated, calibration(`/v1/sites/${encodeURIComponent(session.site)}/calibration`, now, () => void attempt(settings, loadSettings)))
  }

  async function loadTrail(actor = '', cursor = '', before: AuditEntry[] = []): Promise<void> {
    const q = new URLSearchParams({ limit: '50', ...(actor && { actor }), ...(cursor && { cursor }) })
    const page = await call<{ entries: AuditEntry[]; next_cursor?: string }>('GET', `/v1/audit?${q}`)
    const entries = [...before, ...page.entries]
    const object = (o: string): Child => (/^scan:[0-9a-f-]{36}$/.test(o) ? h('a', { href: `#/case/${o.slice(5)}` }, 'case ', h('code', {}, o.slice(-12))) : o.startsWith('key:') ? nameOf(o.slice(4)) : o)
    const whose = h('select', { id: 'audit-actor', onchange: () => void attempt(trail, () => loadTrail(whose.value)) }, h('option', { value: '' }, 'everybody'), keys.map((k) => h('option', { value: k.id, selected: k.id === actor }, k.name)))
    const checked = h('span', { role: 'status' })
    const wrong = h('div')
    const verify = async (): Promise<void> => {
      show(checked)
      show(wrong)
      try {
        checked.textContent = `All ${(await call<{ entries: number }>('GET', '/v1/audit/verification')).entries} entries are as they were written.`
      } catch (e) {
        show(wrong, problemBox(asProblem(e)))
      }
    }
    fill(
      trail,
      h('div', { class: 'inline' }, field('audit-actor', 'Who', whose), h('button', { type: 'button', id: 'verify', onclick: () => void verify() }, 'Check the whole trail'), checked, wrong),
      table(['No.', 'When', 'Who', 'What', 'Of', 'Details'], entries.map((e) => h('tr', {}, h('td', { class: 'r' }, e.seq), h('td', {}, h('time', { datetime: e.at, title: new Date(e.at).toLocaleString('en-GB') }, when(e.at))), h('td', {}, nameOf(e.actor)), h('td', {}, e.action), h('td', {}, object(e.object), e.scan_ids && ` (${e.scan_ids.length} case${e.scan_ids.length === 1 ? '' : 's'})`), h('td', {}, e.details)))),
      page.next_cursor && h('p', { class: 'ends' }, h('button', { type: 'button', onclick: () => void attempt(trail, () => loadTrail(actor, page.next_cursor, entries)) }, 'Older')),
    )
  }

  return {
    leave() {
      left = true
    },
    key(e) {
      if (e.key === 'Escape') location.hash = '#/'
    },
  }
}

const says = (p: Problem): string => p.detail ?? p.title

function table(heads: string[], rows: HTMLElement[]): HTMLElement {
  return h('div', { class: 'scroll' }, h('table', { class: 'plain' }, h('thead', {}, h('tr', {}, heads.map((t) => (t ? h('th', { scope: 'col' }, t) : h('td', {}))))), h('tbody', {}, rows)))
}
