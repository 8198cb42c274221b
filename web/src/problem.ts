import type { Problem } from './api'
import { h } from './dom'

/** An error with what to do about it. */
export function problemBox(p: Problem, again?: () => void): HTMLElement {
  return h(
    'div',
    { class: 'problem', role: 'alert' },
    h('strong', {}, p.title),
    p.detail && p.detail !== p.title && h('p', {}, p.detail),
    p.reasons?.map((r) => h('p', {}, r.text)),
    h(
      'p',
      { class: 'ends' },
      again && h('button', { type: 'button', onclick: again }, 'Try again'),
      p.type.startsWith('/problems/') && h('a', { href: p.type, target: '_blank', rel: 'noopener' }, 'What this means'),
      p.request_id && h('small', {}, `Request ${p.request_id}`),
    ),
  )
}
