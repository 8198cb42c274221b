import { asProblem, call, ProblemError, type Session } from './api'
import { h, show } from './dom'
import { problemBox } from './problem'

export function signInPage(into: Element, why: string, done: (s: Session) => void): void {
  const key = h('input', { id: 'key', type: 'password', autocomplete: 'off', spellcheck: 'false', required: true, maxlength: 200, 'aria-describedby': 'key-help' })
  const button = h('button', { class: document.body.dataset.provider === undefined ? 'main' : '' }, 'Sign in with a key')
  const says = h('div', {}, why && h('p', { class: 'note', role: 'status' }, why))
  const submit = async (e: Event): Promise<void> => {
    e.preventDefault()
    button.disabled = true
    show(says)
    try {
      done(await call<Session>('POST', '/session', { body: { key: key.value.trim() } }))
    } catch (err) {
      button.disabled = false
      const p = asProblem(err)
      if (err instanceof ProblemError && p.status === 401) p.detail = 'This key is unknown here or was revoked. Check that it was copied whole: it begins with nsk_.'
      show(says, problemBox(p))
      key.select()
    }
  }
  show(
    into,
    h(
      'main',
      { class: 'alone' },
      h('h1', {}, 'NeuroScreen'),
      h('p', {}, 'Brain MRI measured, compared with healthy people of the same age and head size, and listed for your review.'),
      says,
      document.body.dataset.provider !== undefined && h('p', { class: 'ends' }, h('a', { href: '/session/provider', class: 'button main', id: 'provider' }, 'Sign in with your organisation')),
      h(
        'form',
        { onsubmit: (e: Event) => void submit(e) },
        h('label', { for: 'key' }, 'Key'),
        key,
        h('p', { id: 'key-help', class: 'help' }, 'From your site’s administrator. On the machine that runs the service, the first key is in ', h('code', {}, 'admin.key'), ' in its data folder.'),
        h('p', { class: 'ends' }, button),
      ),
      h('p', { class: 'help' }, 'Research use: every output is for review by a qualified physician together with the source images. You are signed out when nothing happens for a while; nothing is kept in this browser.'),
    ),
  )
  key.focus()
}
