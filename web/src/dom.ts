// Elements without a framework: h('button', { class: 'quiet', onclick }, 'Text').

export type Child = Node | string | number | null | undefined | false | Child[]
type Value = string | number | boolean | undefined | null | ((e: any) => void)

function fill(el: Element, props: Record<string, Value>, children: Child[]): void {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue
    if (typeof value === 'function') el.addEventListener(name.slice(2), value as EventListener)
    else el.setAttribute(name, value === true ? '' : String(value))
  }
  add(el, children)
}

function add(el: Element, children: Child[]): void {
  for (const c of children) {
    if (Array.isArray(c)) add(el, c)
    else if (c instanceof Node) el.append(c)
    else if (c !== null && c !== undefined && c !== false) el.append(String(c))
  }
}

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props: Record<string, Value> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const el = document.createElement(tag)
  fill(el, props, children)
  return el
}

export function svg(tag: string, props: Record<string, Value> = {}, ...children: Child[]): SVGElement {
  const el = document.createElementNS('http://www.w3.org/2000/svg', tag)
  fill(el, props, children)
  return el
}

export function show(into: Element, ...children: Child[]): void {
  into.replaceChildren()
  add(into, children)
}

/** A modal dialog that is removed when it is closed and gives focus back. */
export function dialog(title: string, cls: string, ...children: Child[]): HTMLDialogElement {
  const heading = h('h2', { id: 'dialog-title' }, title)
  const el = h('dialog', { class: cls, 'aria-labelledby': 'dialog-title' }, heading, ...children)
  const before = document.activeElement
  el.addEventListener('close', () => {
    const told = el.querySelector('#told')
    if (told) document.body.append(told)
    el.remove()
    if (before instanceof HTMLElement && before.isConnected) before.focus()
  })
  document.body.append(el)
  el.showModal()
  return el
}

/** What Escape does in a dialog, in place of closing it. */
export function onEscape(d: HTMLDialogElement, act: () => void): void {
  const instead = (e: Event): void => {
    e.preventDefault()
    act()
  }
  // Chromium closes at a second "cancel" whatever became of the first.
  d.addEventListener('keydown', (e) => e.key === 'Escape' && instead(e))
  // Without the key, as by a phone's gesture; a file that was not chosen says "cancel" too.
  d.addEventListener('cancel', (e) => e.target === d && instead(e))
}

/** Says something to who hears the page instead of seeing it, and shows it for a while. */
export function tell(text: string): void {
  let box = document.getElementById('told')
  box ??= h('div', { id: 'told', role: 'status' })
  // An open dialog makes all beside it inert.
  const where = [...document.querySelectorAll('dialog[open]')].at(-1) ?? document.body
  if (box.parentElement !== where) where.append(box)
  box.textContent = text
  box.classList.add('shown')
  const said = text
  setTimeout(() => {
    if (box.textContent === said) box.classList.remove('shown')
  }, 6000)
}

/** Whether keys belong to what is being typed. */
export function typing(e: KeyboardEvent): boolean {
  if (e.ctrlKey || e.metaKey || e.altKey || document.querySelector('dialog[open]')) return true
  const t = e.target
  if (t instanceof HTMLInputElement && ['checkbox', 'radio'].includes(t.type)) return false
  if (t instanceof HTMLInputElement && t.type === 'range') return e.key.startsWith('Arrow')
  return t instanceof HTMLElement && (t.isContentEditable || ['INPUT', 'SELECT', 'TEXTAREA'].includes(t.tagName))
}
